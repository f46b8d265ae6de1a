"""Choose how a network of one's own and the box are put together, on pictures that no table is tested on.

As in `choose_probes.py`, what a draw leaves of a pool tests the choice: python scripts/choose_local.py writes
nbs/results/choose_local.json, a row for each task and number of shots."""
import json
from itertools import product
from pathlib import Path
import numpy as np, torch
from fastcore.script import call_parse
from choose_probes import SEEDS, SPARE, TASKS, accuracy, answers, draws
from craft_nb.classifier import fold_count
from craft_nb.data import find_rows
from craft_nb.heads import best_first, evaluate, fit_head, held_out_logits, mix, share_wrong
from craft_nb.local import encode_pieces, fit_fused, least_loss, load_encoder
from craft_nb.pictures import Pictures
from craft_nb.probes import PIECES

TENTHS = [i/10 for i in range(11)]

def features(task): # name of a built-in task
    "Features of all pieces of the pool: (N, 7, d)"
    rows, _ = find_rows(task)
    pool = Pictures(r.source for r in rows if r.split != 'test')
    return encode_pieces(load_encoder(), pool, PIECES['seven'])

def side_by_side(A, X):
    "Answers and features as blocks of one width, for one head on all of them"
    width = max(A.shape[-1], X.shape[-1])
    padded = [torch.nn.functional.pad(B - B.mean(-1, keepdim=True), (0, width - B.shape[-1])) for B in (A, X)]
    return torch.cat(padded, 1)

def weighted(head, Y, A, X, y, A_left, X_left, Y_left):
    "Logits where the shots choose a weighted mean of zero-shot and both heads, by tenths"
    H_box, H_own = head.box(Y_left, A_left), head.from_own(X_left)
    n = fold_count(y)
    if n < 2: return mix(Y_left, (H_box + H_own)/2, share_wrong(Y, y))
    held = [held_out_logits(*inputs, y, 'logistic', n) for inputs in ((Y, A), (torch.zeros_like(Y), X))]
    box, own = (found[least_loss(found, y)] for found in held)
    rows = []
    for a, b in product(TENTHS, TENTHS):
        if a + b > 1.001: continue
        s = 1 - a - b
        rows.append(dict(s=a + b, a=a, b=b) | evaluate(s*Y + a*box + b*own, y))
    best = best_first(rows)[0]
    return (1 - best['a'] - best['b'])*Y_left + best['a']*H_box + best['b']*H_own

def compare(A, X, y, K, shots):
    "Accuracy of each way, mean over draws"
    found = {}
    def note(name, Y, left): found.setdefault(name, []).append(accuracy(Y, y[left]))
    for train, left in draws(y, shots):
        Y, Y_left = A[train, 0, :K], A[left, 0, :K]
        note('zero_shot', Y_left, left)
        note('box', fit_head(Y, A[train], y[train])[0](Y_left, A[left]), left)
        nothing = torch.zeros(len(y), K)
        note('own, whole', fit_head(nothing[train], X[train, :1], y[train])[0](nothing[left], X[left, :1]), left)
        note('own', fit_head(nothing[train], X[train], y[train])[0](nothing[left], X[left]), left)
        both = side_by_side(A, X)
        note('one head on both', fit_head(Y, both[train], y[train])[0](Y_left, both[left]), left)
        head, _ = fit_fused(Y, A[train], X[train], y[train])
        note('box, own or sum', head(Y_left, A[left], X[left]), left)
        note('weighted mean', weighted(head, Y, A[train], X[train], y[train], A[left], X[left], Y_left), left)
    return {name: float(np.mean(v)) for name, v in found.items()}

@call_parse
def main(out:str='nbs/results/choose_local.json'): # file to write
    "Compare the ways on what is left of the pools"
    torch.set_num_threads(1)
    rows = []
    for task in TASKS:
        A, y, K = answers(task)
        X = features(task)
        most = int(y.bincount().min()) - SPARE
        for shots in (k for k in (1, 2, 4, 8, 16) if k <= most):
            rows.append(dict(task=task, shots=shots) | compare(A, X, y, K, shots))
            print(rows[-1], flush=True)
    Path(out).write_text(json.dumps(dict(seeds=SEEDS, rows=rows), indent=1) + '\n', encoding='utf-8')
