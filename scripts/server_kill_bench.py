"""Kill the server, or the client, of a fit again and again with kill -9, or put a bad line between them.

    python scripts/server_kill_bench.py --kills 100

The end is held against a local fit. Every row is a fit with a seed of its own: the prompt, refiner, history and
predictions must be those of the local fit bit for bit, and the server's ledger must hold each query once. The processes
and the line are those of tests/faults.py; one thread each, POSIX only."""
import sys, tempfile, time
from pathlib import Path
import torch
from fastcore.script import call_parse

sys.path.insert(0, str(Path(__file__).parent.parent/'tests'))
from faults import FIT, NAMES, Line, Owner, equal, killing, ledger, shots, use_and_kill
from craft_nb.clip import CLIPBlackBox
from craft_nb.craft import CraFT
from craft_nb.service.client import RemoteBlackBox
from craft_nb.service.store import Store

def fit(box, budget): return CraFT(box, budget=budget, **FIT).fit(*shots())

def killed_server(owner, path, key, budget, n, seed, folder):
    with RemoteBlackBox(owner.url, key, NAMES) as box:
        with killing(owner, box, n, 2*budget//11, seed): return fit(box, budget), owner.kills

def killed_client(owner, path, key, budget, n, seed, folder):
    hits = use_and_kill(owner, path, key, folder, budget, n, seed)
    return CraFT.load(folder, CLIPBlackBox('craft-mini', NAMES)), hits

def bad_line(owner, path, key, budget, n, seed, folder):
    with Line(owner.url, seed) as line, RemoteBlackBox(line.url, key, NAMES, timeout=.3) as box:
        clf = fit(box, budget)
        line.settle()
        return clf, sum(f != 'pass' for f in line.seen)

@call_parse
def main(kills: int=100,    # of each side, 20 a fit
         budget: int=165,   # queries of a fit
         seed: int=0):      # the first
    "Kill, resume, compare"
    torch.set_num_threads(1)
    local = fit(CLIPBlackBox('craft-mini', NAMES), budget)
    bad = 0
    for what in (killed_server, killed_client, bad_line):
        for s in range(seed, seed + kills//20):
            with tempfile.TemporaryDirectory() as d:
                path = Path(d)/'store.db'
                start = time.perf_counter()
                store = Store(path)
                key = store.add('ann')
                with Owner(path) as owner: clf, faults = what(owner, path, key, budget, 20, s, Path(d))
                spent = ledger(path)
                store.close()
            clf.box = CLIPBlackBox('craft-mini', NAMES)
            same = equal(clf, local)
            bad += not same or spent != budget
            verdict = 'equal' if same else 'DIFFERS'
            seconds = time.perf_counter() - start
            print(f'{what.__name__:14} seed {s}: {faults:3} faults, {verdict}, ledger {spent} of {budget}, '
                  f'{seconds:.0f} s', flush=True)
    sys.exit(bad)
