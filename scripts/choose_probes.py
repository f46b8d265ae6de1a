"""Choose how a picture is cut up, and how much of the head one shot gets, on pictures that no table is made of.

The pool of a task holds more pictures than the shots that are drawn from it. What is left of the pool tests the choice
here, so that no test picture takes part: python scripts/choose_probes.py writes nbs/results/choose_probes.json."""
import json
from pathlib import Path
import numpy as np, torch
from fastcore.script import call_parse
from craft_nb.clip import CLIPBlackBox
from craft_nb.data import find_rows, sample
from craft_nb.heads import ONE_SHOT, evaluate, fit_head, mix, share_wrong, train_head
from craft_nb.pictures import Pictures
from craft_nb.probes import PIECES, Pieces, vocabulary

TASKS = 'digits', 'fashion', 'typefaces', 'counts', 'badges', 'writing', 'emoji', 'clipart', 'animal_kinds'
SETS = dict(whole=[0], corners=[0, 1, 2, 3, 4], middle_and_far=[0, 5, 6], seven=list(range(7)))
SEEDS = 11, 12, 13              # those of the tables are 1, 2, 3
SPARE = 3                       # pictures a class that must be left

def pool_of(task): # name of a built-in task
    "Pictures of the pool, names of the classes, and the class of each picture"
    rows, names = find_rows(task)
    pool = [r for r in rows if r.split != 'test']
    names = names or list(dict.fromkeys(r.label for r in rows))
    return Pictures(r.source for r in pool), names, torch.tensor([names.index(r.label) for r in pool])

def answers(task): # name of a built-in task
    "Ask class names and words of all pieces of the pool: (N, 7, K + M) logits, classes, K"
    pictures, names, y = pool_of(task)
    box = CLIPBlackBox('craft-mini', names)
    images = box.upload(Pieces(pictures, PIECES['seven']))
    A = box.with_texts([*names, *vocabulary('words')]).score('a photo of a', images)
    return A.unflatten(0, (-1, 7)), y, len(names)

def draws(y, shots): # (N,) classes of a pool
    "Yield places to learn from and places to test on, a pair a seed"
    for seed in SEEDS:
        train = sample(y.tolist(), shots, seed)
        left = torch.ones(len(y), dtype=bool)
        left[train] = False
        yield torch.tensor(train), left.nonzero()[:, 0]

def accuracy(Y, y): return 100*evaluate(Y, y)['accuracy']

def by_pieces(A, y, K, shots):
    "Accuracy with each set of pieces, mean over draws"
    found = {name: [] for name in SETS}
    for train, left in draws(y, shots):
        for name, places in SETS.items():
            B = A[:, places]
            head, _ = fit_head(B[train, 0, :K], B[train], y[train])
            found[name].append(accuracy(head(B[left, 0, :K], B[left]), y[left]))
    return {name: float(np.mean(v)) for name, v in found.items()}

def by_share(A, y, K):
    "Accuracy at one shot with half of the head, with 0.85 of it, and by the rule, mean over draws; and zero-shot's"
    found = {name: [] for name in ('zero-shot', 's = 1/2', 's = 0.85', 'the rule')}
    for train, left in draws(y, 1):
        Y = A[:, 0, :K]
        head = train_head(Y[train], A[train], y[train], 'logistic', ONE_SHOT['logistic'])
        H = head(Y[left], A[left])
        shares = 0, .5, .85, share_wrong(Y[train], y[train])
        for name, s in zip(found, shares): found[name].append(accuracy(mix(Y[left], H, s), y[left]))
    return {name: float(np.mean(v)) for name, v in found.items()}

@call_parse
def main(out:str='nbs/results/choose_probes.json'): # file to write
    "Measure both choices on what is left of the pools"
    torch.set_num_threads(1)
    pieces, shares = [], []
    for task in TASKS:
        A, y, K = answers(task)
        most = int(y.bincount().min()) - SPARE
        for shots in (k for k in (1, 2, 4, 8, 16) if k <= most):
            pieces.append(dict(task=task, shots=shots) | by_pieces(A, y, K, shots))
        shares.append(dict(task=task) | by_share(A, y, K))
        print(task, pieces[-1], shares[-1], flush=True)
    Path(out).write_text(json.dumps(dict(seeds=SEEDS, pieces=pieces, shares=shares), indent=1) + '\n', encoding='utf-8')
