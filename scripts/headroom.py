"""What plain classifiers make of sixteen pictures a class.

Which tasks leave something to learn, and what CraFT is held against. The rule, written before any black-box method was
run on these tasks: a task has *headroom* if a linear probe on the box's image features beats zero-shot by ten points or
more at 16 shots, mean of three draws. No task comes or goes for what the methods do on it.

For each task and draw: zero-shot; the nearest training picture, pixel by pixel, which asks no model; logistic
regression (scikit-learn; its strength by cross-validation on the shots) on the zero-shot logits, as the refiner reads
them; the same on the box's image features, which no user of a black box sees; and on the features of EfficientNet-Lite0
as it comes from ImageNet, which any user can run himself."""
import json
from pathlib import Path
import torch
from fastcore.script import call_parse
from craft_nb.clip import CLIPBlackBox
from craft_nb.craft import CraFT
from craft_nb.data import ELEVEN, fewshot
from craft_nb.local import load_encoder
from craft_nb.rivals.baselines import Pixels, regress

def once(pictures, encode, known):
    "Features of pictures, each encoded when it first comes: the draws of a task share their test pictures"
    keys = [str(o) if isinstance(o, tuple) else o.tobytes() for o in pictures.sources]
    new = [i for i, k in enumerate(keys) if k not in known]
    if new: known.update(zip([keys[i] for i in new], encode(pictures[new])))
    return torch.stack([known[k] for k in keys])

def probe(X, y, Z, z):
    "Accuracy in percent on (Z, z) of a logistic regression fitted on (X, y)"
    return 100*regress(X.numpy(), y).score(Z.numpy(), z)

def rows_of(name, model, own):
    "The rows of a task, three draws; `own` encodes pictures by a network of the user's"
    names = fewshot(name, 16, 1).classnames
    box = CLIPBlackBox(model, names)
    seen = {}    # features of the box, by picture
    mine = {}    # and of the user's network
    white = box._weights(CraFT(box).zero_shot().prompt_[None])[0]
    for seed in (1, 2, 3):
        task = fewshot(name, 16, seed)
        y, z = task.train[1].numpy(), task.test[1].numpy()
        features = [once(pics, lambda o: box._encode(o)[0], seen) for pics, _ in (task.train, task.test)]
        theirs = [once(pics, own, mine) for pics, _ in (task.train, task.test)]
        logits = [o @ white.T for o in features]
        figures = dict(pixels=100*Pixels(box).fit(*task.train).score(*task.test),
                       zero_shot=100*float((logits[1].argmax(1).numpy() == z).mean()),
                       logits=probe(logits[0], y, logits[1], z),
                       features=probe(features[0], y, features[1], z),
                       local=probe(theirs[0], y, theirs[1], z))
        yield dict(task=name, classes=len(names), seed=seed, **{k: round(v, 2) for k, v in figures.items()})

@call_parse
def main(tasks: str=','.join(ELEVEN), # names with commas between
         model: str='craft-mini', # the box
         out: str='nbs/results/headroom.json'):  # where the rows go
    "Zero-shot and the references on each task, three draws"
    network = load_encoder()
    rows = []
    for name in tasks.split(','):
        for row in rows_of(name, model, network):
            rows.append(row)
            print(row, flush=True)
    Path(out).write_text('[\n' + ',\n'.join(map(json.dumps, rows)) + '\n]\n')
