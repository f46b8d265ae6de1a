"""Choose how the robust CraFT searches and how its head is settled, on pictures that no table is tested on.

As in `choose_probes.py`, what a draw leaves of a pool tests the choice: python scripts/choose_robust.py writes
nbs/results/choose_robust.json, a row for each way, task and number of shots."""
import json
from pathlib import Path
import numpy as np, torch
from fastcore.script import call_parse
from choose_probes import SEEDS, SPARE, accuracy, draws, pool_of
from craft_nb.clip import CLIPBlackBox
from craft_nb.heads import fit_head
from craft_nb.robust import RobustCraFT

TASKS = 'digits', 'fashion', 'badges', 'writing', 'emoji', 'clipart', 'animal_kinds'
WAYS = {'as it is': {},
        'cross-entropy': dict(fitness='cross-entropy'),
        'σ(0) 0.3': dict(sigma=.3),
        'd0 64': dict(dim=64)}

class PoolBox(CLIPBlackBox):
    "A box whose pictures are places in a pool that it has encoded before"
    pool = None                                              # (N, e) features
    def _encode(self, pictures, normalize=True): return self.pool[torch.as_tensor(pictures)], 0

def pool_box(task): # name of a built-in task
    "A box that holds the task's pool, and the classes of the pictures"
    pictures, names, y = pool_of(task)
    box = PoolBox('craft-mini', names, compile=True)
    box.pool = CLIPBlackBox._encode(box, pictures)[0]
    return box, y

def measure(clf, train, left, y):
    "Fit on places of a pool; accuracy on those that are left, as it is and with a part left out"
    box = clf.box
    learned, images = box.upload(train), box.upload(left)
    clf.fit(learned, y[train])
    (Y_0, Y), (Z_0, Z) = box.query(clf.prompts_, learned), box.query(clf.prompts_, images)
    def with_head(*blocks):
        "A head on blocks of logits, whose settings are chosen on these same blocks"
        return fit_head(*blocks[:2], y[train])[0](*blocks[2:])
    answers = dict(accuracy=clf.decision_function(images),
                   settled_on_both=with_head(Y_0, Y, Z_0, Z),
                   without_p0=with_head(Y, Y, Z, Z),
                   without_search=with_head(Y_0, Y_0, Z_0, Z_0),
                   without_head=Z,
                   zero_shot=Z_0)
    return {k: accuracy(logits, y[left]) for k, logits in answers.items()}

def rows_of(task, shots, ways):
    "A row for each way, mean over draws"
    box, y = pool_box(task)
    if int(y.bincount().min()) - SPARE < shots: return
    for name in ways:
        found = [measure(RobustCraFT(box, seed=i, **WAYS[name]), train, left, y)
                 for i, (train, left) in enumerate(draws(y, shots))]
        mean = {k: round(float(np.mean([row[k] for row in found])), 2) for k in found[0]}
        yield dict(task=task, shots=shots, way=name) | mean

@call_parse
def main(out:str='nbs/results/choose_robust.json'): # file to write
    "Compare the ways at 16 shots, and both kinds of fitness at fewer"
    torch.set_num_threads(1)
    rows = []
    for shots in (16, 2, 4, 8):
        for task in TASKS:
            ways = WAYS if shots == 16 else ('as it is', 'cross-entropy')
            for row in rows_of(task, shots, ways):
                rows.append(row)
                print(row, flush=True)
    text = json.dumps(dict(seeds=SEEDS, rows=rows), indent=1, ensure_ascii=False)
    Path(out).write_text(text + '\n', encoding='utf-8')
