"""Choose how many prompts the probes are asked under, on pictures that no table is tested on.

As in `choose_probes.py`, what a draw leaves of a pool tests the choice: python scripts/choose_prompts.py writes
nbs/results/choose_prompts.json, a row for each task and number of shots. A prompt is one word before each text."""
import json
from pathlib import Path
import numpy as np, torch
from fastcore.script import call_parse
from choose_probes import SEEDS, SPARE, TASKS, accuracy, draws, pool_of
from craft_nb.clip import CLIPBlackBox
from craft_nb.heads import fit_head
from craft_nb.probes import PIECES, Pieces, vocabulary

MOST = 32       # prompts beside the first
WAYS = {'words': (1, 1), 'words, 2 prompts': (1, 2), 'words, 5 prompts': (1, 5), 'words, 9 prompts': (1, 9),
        'words, in pieces': (7, 1), 'words, in pieces, 2 prompts': (7, 2), 'words, in pieces, 5 prompts': (7, 5)}
NAMES = {'names': 1, 'names, 9 prompts': 9, 'names, 33 prompts': 33}

def answers(task): # name of a built-in task
    "Ask under each prompt: words of 7 pieces (N, 7, 9, K + M), names of the whole (N, 33, K), classes, K"
    pictures, names, y = pool_of(task)
    box = CLIPBlackBox('craft-mini', names)
    images = box.upload(Pieces(pictures, PIECES['seven']))
    prompts = ['a photo of a', *vocabulary('words', MOST)]
    wide = box.with_texts([*names, *vocabulary('words')])
    A = torch.stack([wide.score(p, images) for p in prompts[:9]], 1).unflatten(0, (-1, 7))
    B = torch.stack([box.score(p, images).unflatten(0, (-1, 7))[:, 0] for p in prompts], 1)
    return A, B, y, len(names)

def rows_of(task):
    "A row for each number of shots, mean over draws"
    A, B, y, K = answers(task)
    asked = {name: A[:, :V, :P].flatten(1, 2) for name, (V, P) in WAYS.items()}
    asked |= {name: B[:, :P] for name, P in NAMES.items()}
    most = int(y.bincount().min()) - SPARE
    for shots in (k for k in (1, 2, 4, 8, 16) if k <= most):
        row = dict(task=task, shots=shots)
        for name, X in asked.items():
            found = []
            for train, left in draws(y, shots):
                head, _ = fit_head(X[train, 0, :K], X[train], y[train])
                found.append(accuracy(head(X[left, 0, :K], X[left]), y[left]))
            row[name] = round(float(np.mean(found)), 2)
        yield row

@call_parse
def main(out:str='nbs/results/choose_prompts.json'): # file to write
    "Compare the ways on what is left of the pools"
    torch.set_num_threads(1)
    rows = []
    for task in TASKS:
        for row in rows_of(task):
            rows.append(row)
            print(row, flush=True)
    Path(out).write_text(json.dumps(dict(seeds=SEEDS, rows=rows), indent=1) + '\n', encoding='utf-8')
