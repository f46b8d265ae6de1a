"""Choose the scale of the visual tokens, and the gain of BlackVIP, on training pictures alone.

A quarter of the shots is held back; no test picture is looked at."""
import argparse, json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
import numpy as np, torch
from craft_nb.clip import CLIPBlackBox
from craft_nb.classifier import hold_out
from craft_nb.data import fewshot
from craft_nb.rivals.blackvip import BlackVIP
from craft_nb.rivals.visual import TextVisual

GRID = [(TextVisual, dict(visual_std=o, budget=410)) for o in (.1, .3, 1.)]
GRID += [(BlackVIP, dict(a=o, budget=160)) for o in (.0003, .003, .03)]

def run(job):
    name, seed, i = job
    torch.set_num_threads(1)
    kind, kw = GRID[i]
    task = fewshot(name, 16, seed)
    (pics, y), (held, z) = hold_out(task.train[0], torch.as_tensor(task.train[1]), seed)
    box = CLIPBlackBox('craft-mini-vit', task.classnames, precision='bf16')
    clf = kind(box, seed=seed, **kw).fit(pics, y)
    return dict(task=name, seed=seed, method=kind.__name__, **kw, held_out=100*clf.score(held, z), pictures=len(z))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--out', default='nbs/results/choose_visual.json')
    p.add_argument('--jobs', type=int, default=2)
    a = p.parse_args()
    jobs = [(t, 1, i) for t in ('digits', 'animal_kinds') for i in range(len(GRID))]
    with ProcessPoolExecutor(a.jobs, get_context('spawn')) as pool: rows = list(pool.map(run, jobs))
    for kind, kw in GRID:
        mine = [r for r in rows if r['method'] == kind.__name__ and all(r.get(k) == v for k, v in kw.items())]
        mean = np.mean([r['held_out'] for r in mine])
        each = '  '.join(f'{r["task"]} {r["seed"]}: {r["held_out"]:.1f}' for r in mine)
        print(f'{kind.__name__:10} {kw}: held out {mean:.1f} %  {each}')
    Path(a.out).write_text(json.dumps(rows, indent=1)+'\n')
