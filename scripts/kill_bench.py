"""Kill a run again and again with a signal that no process can catch, go on with it, and compare its end.

    python scripts/kill_bench.py --kills 100

The end is held against that of a run that nobody disturbed. A process loads the model once and forks a child for each
life of a run. A fifth of the lives end at a random time; the others kill themselves at a random step of a query, of the
writing of an answer or a state (half of the file gone), or of the cleaning up after a state. One thread, POSIX only."""
import os
# before they are loaded: a fork takes no threads along
for k in ('OMP', 'OPENBLAS', 'MKL'): os.environ[f'{k}_NUM_THREADS'] = '1'
import mmap, random, shutil, signal, sys, tempfile, time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
import torch
from fastcore.script import call_parse
from craft_nb import files
from craft_nb.clip import CLIPBlackBox
from craft_nb.config import COUNTS
from craft_nb.checkpoint import Checkpoint
from craft_nb.craft import CraFT
from craft_nb.refiner import refiner_tensors
from craft_nb.files import read_tensors, write_tensors
from craft_nb.data import fewshot

KINDS = dict(craft=dict(budget=72),
             prompt_only=dict(budget=64, learn_refiner=False, centre='best'),
             refiner_only=dict(budget=72, learn_prompt=False),
             code=dict(budget=72, preset='code', views=3))
PHASES = ['between', 'query', 'answer', 'state', 'cleaning']
now = mmap.mmap(-1, 1)    # index of the phase that the living child is in
aim = None                # the child kills itself in this phase,
steps = 0                 # at so many steps from now

@contextmanager
def phase(name):
    old, now[0] = now[0], PHASES.index(name) if name in PHASES else 0
    yield
    now[0] = old

def step(before=lambda: None):
    "One step closer to the end"
    global steps
    if PHASES[now[0]] != aim: return
    steps -= 1
    if steps == 0:
        before()
        os.kill(os.getpid(), signal.SIGKILL)

class Watched(CLIPBlackBox):
    "The real box; notes what it is asked, and fails if that was in the journal already"
    folder = log = None
    takes_names = True
    def _encode(self, pictures, name=None, **kw): return super()._encode(pictures, **kw)
    def _logits(self, prompts, features, name=None):
        with phase('query'):
            if self.folder:
                n = int(name.split('-')[1])
                journalled = (self.folder/f'answer-{n:06d}.safetensors').exists()
                if journalled: sys.exit(f'answer {n} is in the journal and was asked for again')
                os.write(self.log, f'{n}\n'.encode())
            step()
            Y = super()._logits(prompts, features)
            step()
        return Y

def watch():
    "Steps in all that touches the disk (the child's own copy of these functions)"
    whole, fsync, replace, unlink = files.atomic_write, os.fsync, os.replace, Path.unlink
    def atomic_write(path, data):
        with phase(path.name.split('-')[0]): whole(path, data)
    def half(fd):
        step(lambda: os.ftruncate(fd, os.fstat(fd).st_size//2))
        fsync(fd)
    def moved(a, b):
        step()
        replace(a, b)
        step()
    def gone(self, **kw):
        with phase('cleaning'):
            step()
            unlink(self, **kw)
    files.atomic_write, os.fsync, os.replace, Path.unlink = atomic_write, half, moved, gone

def live(box, task, kind, folder, out, *end):
    "A child's life: fit, predict, write the result; never returns"
    global aim, steps
    if folder:
        watch()
        box.folder = folder
        box.log = os.open(folder.parent/'asked', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    if end: aim, steps = end
    clf = CraFT(box, seed=1, dim=64, popsize=8, hidden=32, **KINDS[kind])
    clf.fit(*task.train, checkpoint=folder and Checkpoint(folder))
    bill = {k: getattr(box.ledger, k) for k in COUNTS if k != 'seconds'}
    aim = None
    box.folder = None
    tensors = dict(prompt=clf.prompt_, logits=clf.decision_function(task.test[0][:20]),
                   **refiner_tensors(clf.refiner_))
    write_tensors(out, tensors, dict(history=clf.history_, bill=bill))

def fork(*args):
    "Start a life"
    now[0] = 0
    if pid := os.fork(): return pid
    try:
        live(*args)
        os._exit(0)
    except BaseException as e:
        print(f'{type(e).__name__}: {e}', file=sys.stderr, flush=True)
        os._exit(1)

def equal(a, b):
    (t, i), (u, j) = read_tensors(a), read_tensors(b)
    return t.keys() == u.keys() and all(torch.equal(t[k], u[k]) for k in t) and i == j

@call_parse
def main(kills: int=100, # lives that end by SIGKILL
         seed: int=0):   # of the moments
    "Kill, go on, compare"
    torch.set_num_threads(1)
    rng = random.Random(seed)
    task = fewshot('digits', 2, 1)
    tmp = Path(tempfile.mkdtemp())
    start = time.time()
    box = Watched('craft-mini', task.classnames)
    done = Counter()      # runs, by kind
    killed = Counter()    # lives, by the phase in which they ended
    again = 0             # answers that were asked for twice
    end = lambda pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    for k in KINDS:
        if end(fork(box, task, k, None, tmp/k)): sys.exit('the undisturbed run failed')
    while killed.total() < kills:
        kind = list(KINDS)[done.total() % len(KINDS)]
        place = tmp/str(done.total())
        place.mkdir()
        before = killed.total()
        while True:
            mortal = killed.total() < kills
            aim = rng.choice(PHASES) if mortal else None
            pid = fork(box, task, kind, place/'run', place/'end', aim, rng.randint(1, 15))
            if aim == 'between':
                time.sleep(rng.uniform(0, .6))
                os.kill(pid, signal.SIGKILL)
            if (code := end(pid)) == 0: break
            if code != -signal.SIGKILL:
                sys.exit(f'{kind}: a life failed after {killed.total()} kills, exit status {code}')
            killed[PHASES[now[0]]] += 1
        deaths = killed.total() - before
        if not equal(place/'end', tmp/kind):
            sys.exit(f'{kind}: another end than the undisturbed run, after {deaths} kills')
        asked = [*map(int, (place/'asked').read_text().split())]
        more = len(asked) - len(set(asked))
        again += more
        if more > deaths: sys.exit(f'{kind}: {more} answers asked for again after {deaths} kills')
        done[kind] += 1
        shutil.rmtree(place)
    shutil.rmtree(tmp)
    phases = ', '.join(f'{p} {killed[p]}' for p in PHASES)
    runs = ', '.join(f'{k} {done[k]}' for k in KINDS)
    print(f'{killed.total()} kills ({phases}) of {done.total()} runs ({runs}): every end equal bit for bit, every '
          f'ledger equal, {again} answers in flight asked for again, none that was journalled; '
          f'{time.time() - start:.0f} s')
