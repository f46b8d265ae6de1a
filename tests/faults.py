"""What can go wrong between a client and a server, by a seeded plan.

Processes are killed; a line drops, repeats, delays and cuts."""
import itertools, multiprocessing as mp
import random, socket, sqlite3, threading, time
from contextlib import closing, contextmanager
from functools import partial
import httpx, torch
from conftest import HANG

procs = mp.get_context('forkserver')      # a process that has imported everything, and forks the others
procs.set_forkserver_preload(['craft_nb.service.app', 'craft_nb.service.client', 'craft_nb.craft'])
NAMES = ['a cat', 'a dog']
FIT = dict(popsize=10, dim=16, hidden=16, seed=3)
PLENTY = dict(rate=1e6, burst=10**6, open=1000, patience=HANG)

def shots():
    "Four pictures of two kinds"
    from craft_nb.data import fewshot
    pics, y = fewshot('digits', 2, 1).train
    keep = [i for i, l in enumerate(y) if l < 2]
    return pics[keep], y[keep]

def equal(a, b): # two fits
    "The same prompt, refiner, history and predictions, bit for bit"
    pictures, _ = shots()
    weights = zip(a.refiner_.parameters(), b.refiner_.parameters(), strict=True)
    return (torch.equal(a.prompt_, b.prompt_)
            and all(torch.equal(u, v) for u, v in weights)
            and a.history_ == b.history_
            and bool((a.predict_proba(pictures) == b.predict_proba(pictures)).all()))

def ledger(store, what='queries'):
    "What the only account has spent, read beside the server"
    with closing(sqlite3.connect(store, timeout=HANG)) as db:
        return db.execute(f'select {what} from accounts').fetchone()[0]

# --- processes

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def own(store, port, limits):
    "The owner's process"
    from craft_nb.clip import CLIPBlackBox
    from craft_nb.service.app import create_app, make_server
    from craft_nb.service.limits import Limits
    from craft_nb.service.store import Store
    torch.set_num_threads(1)
    app = create_app(CLIPBlackBox('craft-mini', NAMES), Store(store), Limits(**PLENTY | limits))
    make_server(app, port=port).run()

def use(url, key, folder, budget, hold=lambda: False):
    """The user's process: a fit that can be resumed; it ends with a classifier in the folder.

    Once `hold()` is true it sends nothing more, and waits to be killed."""
    from craft_nb.checkpoint import Checkpoint
    from craft_nb.craft import CraFT
    from craft_nb.service.client import RemoteBlackBox
    torch.set_num_threads(1)
    def stop(request):
        while hold(): time.sleep(1)
    with RemoteBlackBox(url, key, NAMES, patience=HANG) as box:
        box.connection.http.event_hooks = dict(request=[stop])
        clf = CraFT(box, budget=budget, **FIT)
        clf.fit(*shots(), checkpoint=Checkpoint(folder/'run')).save(folder)

def spent(store, count):
    "Whether the ledger has reached a count"
    return ledger(store) >= count

def start(f, *args):
    p = procs.Process(target=f, args=args, daemon=True)
    p.start()
    return p
def end(p):
    p.kill()
    p.join()          # kill -9

class Owner:
    "A server in a process of its own; after `kill` another takes its place at once"
    def __init__(self, store, **limits):
        port = free_port()
        self.args = str(store), port, limits
        self.url = f'http://127.0.0.1:{port}'
        self.lock = threading.Lock()
        self.kills = 0
    def kill(self):
        with self.lock:
            end(self.process)
            self.process = start(own, *self.args)
            self.kills += 1
    def __enter__(self):
        self.process = start(own, *self.args)
        while self.process.is_alive():
            try:
                httpx.get(self.url + '/healthz')
                return self
            except httpx.TransportError: time.sleep(.02)
        raise RuntimeError('the server did not start')
    def __exit__(self, *_):
        with self.lock: end(self.process)

@contextmanager
def killing(owner, box, n, of, seed=0): # n of the first `of` requests
    "Within it, kill the server a little after requests that chance picks: before, while or after it answers"
    rng = random.Random(seed)
    plan = {i: rng.uniform(0, .02) for i in rng.sample(range(of), n)}
    timers, sent = [], itertools.count()
    def hook(request):
        i = next(sent)
        if i not in plan: return
        timers.append(threading.Timer(plan[i], owner.kill))
        timers[-1].start()
    box.connection.http.event_hooks = dict(request=[hook])
    try: yield
    finally:
        box.connection.http.event_hooks = {}
        for t in timers: t.join()

def use_and_kill(owner, store, key, folder, budget, n, seed=0):
    """Run `use`, kill it a little after the ledger reached a count that chance picks, n times; then run it to its end.

    Returns the kills that hit. A kill that comes late hits, too: before its last generation the client waits for it."""
    rng, hits = random.Random(seed), 0
    hold = partial(spent, store, budget - FIT['popsize'] - 1)
    for count in sorted(rng.sample(range(budget - 20), n)):
        p = start(use, owner.url, key, folder, budget, hold)
        while ledger(store) < count and p.is_alive(): time.sleep(.001)
        time.sleep(rng.uniform(0, .02))
        hits += p.is_alive()
        end(p)
    p = start(use, owner.url, key, folder, budget)
    p.join(HANG)
    if p.exitcode != 0: raise RuntimeError(f'the client ended with {p.exitcode}')
    return hits

# --- the line

FAULTS = 'pass', 'drop', 'twice', 'late', 'half', 'cut', 'refuse'

class Line:
    "A TCP proxy, one exchange a connection, each with a fault of `FAULTS`, as `seed` has it"
    def __init__(self, url, seed=0):
        self.to = httpx.URL(url)
        self.rng = random.Random(seed)
        self.seen = []
        self.threads = []
        self.socket = socket.create_server(('127.0.0.1', 0), backlog=100)
        self.url = f'http://127.0.0.1:{self.socket.getsockname()[1]}'
    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self
    def __exit__(self, *_):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def accept(self):
        while True:
            try: near, _ = self.socket.accept()
            except OSError: return
            self.seen.append(self.rng.choice(FAULTS))
            self.thread(self.exchange, near, self.seen[-1], self.rng.random())

    def thread(self, f, *args):
        t = threading.Thread(target=f, args=args, daemon=True)
        self.threads.append(t)
        t.start()

    def settle(self):
        "Wait until everything that was sent, however late, has come to its end"
        for t in self.threads: t.join(HANG)     # one that starts another has it in the list before it ends

    def exchange(self, near, fault, x): # x: 0 to 1, where or how long
        with near:
            if fault == 'refuse': return
            request = read_request(near)
            if fault == 'half': return self.send(request[:int(x*len(request))], socket.SHUT_WR)
            if fault == 'late': time.sleep(.6*x)                # the client waits for .3
            if fault == 'twice': self.thread(self.send, request)
            answer = self.send(request)
            if fault == 'drop': return
            if fault == 'cut': answer = answer[:int(x*len(answer))]
            try: near.sendall(answer)
            except OSError: pass                                # the client is gone

    def send(self, request, how=None):
        "The answer to a request, on a connection of its own, closed on our side after the request if `how` says so"
        with socket.create_connection((self.to.host, self.to.port)) as far:
            far.sendall(request)
            if how is not None: far.shutdown(how)
            return b''.join(iter(lambda: far.recv(2**16), b''))

def read_request(sock):
    "A whole request, changed so that the connection ends with its answer"
    data = bytearray()
    while b'\r\n\r\n' not in data: data += sock.recv(2**16) or b'\r\n\r\n'
    head, _, body = bytes(data).partition(b'\r\n\r\n')
    lines = [l for l in head.split(b'\r\n') if not l.lower().startswith(b'connection:')]
    lengths = [int(l.split(b':')[1]) for l in lines if l.lower().startswith(b'content-length:')]
    n = lengths[0] if lengths else 0
    while len(body) < n and (more := sock.recv(2**16)): body += more
    return b'\r\n'.join([*lines, b'Connection: close']) + b'\r\n\r\n' + body
