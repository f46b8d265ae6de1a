"""What the wire and the server cost, and how they bear several clients.

    python scripts/load_bench.py --n 60

40 candidates x 160 pictures x 10 classes on craft-mini. The server is a process of its own, so is not slowed by
Python's lock; it and the box in process have one thread each. The overhead of one client comes from medians of requests
in turn: one to the box in process, one over the wire, with new prompts each time."""
import json, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np, torch
from fastcore.script import call_parse

sys.path.insert(0, str(Path(__file__).parent.parent/'tests'))
from faults import Owner
from craft_nb.clip import CLIPBlackBox
from craft_nb.data import fewshot
from craft_nb.service.client import RemoteBlackBox
from craft_nb.service.store import Store

def timed(f, *args):
    t = time.perf_counter()
    f(*args)
    return 1e3*(time.perf_counter() - t)   # ms

WIDTHS = dict(what=22, requests=8, queries_per_s=13, p50=7, p99=7)    # of the table's columns

def row(what, P, ms, seconds):
    "A line of the table"
    r = dict(what=what,
             requests=len(ms),
             queries_per_s=round(P*len(ms)/seconds, 1),
             p50=round(float(np.median(ms)), 1),
             p99=round(float(np.percentile(ms, 99)), 1))
    print('  '.join(f'{r[k]:>{w}}' for k, w in WIDTHS.items()), flush=True)
    return r

def crowd(ask, clients, n): # ask(client, i)
    "Milliseconds of n requests, shared by so many clients at once, and seconds in all"
    def share(c): return [timed(ask, c, i) for i in range(c, n, clients)]
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as ex: ms = list(ex.map(share, range(clients)))
    return sum(ms, []), time.perf_counter() - start

@call_parse
def main(n: int=60,      # requests for the overhead, and in all for each crowd
         P: int=40,      # candidates a request
         out: str=None): # a JSON file for the rows
    "Measure"
    torch.set_num_threads(1)
    task = fewshot('digits', 16, 1)
    near = CLIPBlackBox('craft-mini', task.classnames)
    rows = []
    p0 = near.embed('a photo of a')
    gen = torch.Generator().manual_seed(0)
    prompts = [p0 + .02*torch.randn(P, *p0.shape, generator=gen) for _ in range(n)]
    with tempfile.TemporaryDirectory() as d:
        store = Store(Path(d)/'store.db')
        with Owner(Path(d)/'store.db') as owner:
            boxes = [RemoteBlackBox(owner.url, store.add(f'client {c}'), task.classnames) for c in range(16)]
            here = near.upload(task.train[0])
            there = [b.upload(task.train[0]) for b in boxes]
            for p in prompts[:3]: assert torch.equal(near.query(p, here), boxes[0].query(p, there[0]))
            pairs = np.array([[timed(near.query, p, here), timed(boxes[0].query, p, there[0])] for p in prompts])
            print(f'{"":22}  requests  queries per s  p50 ms  p99 ms')
            for what, ms in zip(('in process, in turn', 'remote, in turn'), pairs.T):
                rows.append(row(what, P, ms, ms.sum()/1e3))
            def ask_here(_, i): return near.query(prompts[i], here)
            def ask_there(k, i): return boxes[k].query(prompts[i], there[k])
            for c in (1, 4, 16): rows.append(row(f'in process, {c} threads', P, *crowd(ask_here, c, n)))
            for c in (1, 4, 16): rows.append(row(f'remote, {c} clients', P, *crowd(ask_there, c, n)))
        store.close()
    a, b = np.median(pairs, 0)
    print(f'The wire and the server cost {b - a:.1f} ms of {a:.1f} ms: {100*(b/a - 1):.1f}% for one client, '
          f'medians of {n} pairs')
    if out: Path(out).write_text(json.dumps(dict(rows=rows, overhead=b/a - 1), indent=1))
