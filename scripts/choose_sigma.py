"""Choose σ(0), on which the paper is silent: one value for all tasks, from training pictures alone.

Of four tasks' 16-shot training pictures (draws 0, 4 and 5; the tables of methods use 1 to 3) 12 a class are learned
from and 4 are held out; no test picture is opened. Writes nbs/results/sigma.json, which 12_craft shows."""
import json, time
from pathlib import Path
import torch
from fastcore.script import call_parse
from craft_nb.clip import CLIPBlackBox
from craft_nb.craft import CraFT
from craft_nb.data import fewshot
from craft_nb.losses import cross_entropy

def split(task, hold=4):
    "Training pictures -> (learn, held out), the last `hold` of each class held out"
    pics, y = task.train
    # the pictures come class by class
    place = torch.cat([torch.arange(int((y == k).sum())) for k in range(len(task.classnames))])
    keep = place < task.shots - hold
    part = lambda m: (pics[m.nonzero()[:, 0]], y[m])
    return part(keep), part(~keep)

@call_parse
def main(out: str='nbs/results/sigma.json', # where the rows go
         tasks: str='fashion,digits,emoji,clipart', # names with commas between
         budget: int=8000,                        # queries of a fit
         seeds: str='0 4 5',                      # draws
         sigmas: str='0.03 0.1 0.3 1 3 10'):      # values to try
    "Fit CraFT with each σ(0) on each task, and score it on held-out training pictures"
    rows = []
    for name, seed in ((t, int(s)) for t in tasks.split(',') for s in seeds.split()):
        task = fewshot(name, 16, seed)
        learn, held = split(task)
        box = CLIPBlackBox('craft-mini', task.classnames)
        images = box.upload(held[0])
        for sigma in map(float, sigmas.split()):
            start = time.time()
            clf = CraFT(box, sigma=sigma, budget=budget, seed=seed).fit(*learn)
            Y = clf.decision_function(images)
            loss = cross_entropy(Y, held[1]).item()
            accuracy = 100*(Y.argmax(-1) == held[1]).float().mean().item()
            fitness = clf.history_[-1]['fitness']
            rows.append(dict(task=name, seed=seed, sigma=sigma, loss=round(loss, 4),
                             accuracy=round(accuracy, 2), fitness=round(fitness, 4)))
            print(rows[-1], f'{time.time()-start:.0f} s', flush=True)
    Path(out).parent.mkdir(exist_ok=True)
    Path(out).write_text('[\n' + ',\n'.join(map(json.dumps, rows)) + '\n]\n')
