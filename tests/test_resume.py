"""A run stopped anywhere goes on as if nothing had been.

It has the same prompt, refiner, history and bill, and no answer is paid for twice."""
import os, pickle, re, sys, time
import pytest, torch
from PIL import Image
from conftest import HANG, py, root, run
from faults import procs
from craft_nb.blackbox import BlackBox, BudgetExceeded
from craft_nb.cli import main
from craft_nb.config import COUNTS
from craft_nb.checkpoint import Checkpoint
from craft_nb.craft import CraFT
from craft_nb.files import content, locked, read_tensors, write_tensors

KINDS = dict(
    craft={},
    best=dict(centre='best'),
    prompt_only=dict(learn_refiner=False, centre='sample'),
    refiner_only=dict(learn_prompt=False),
    raw=dict(learn_prompt=False, normalize=False),
    code=dict(preset='code', budget=36, views=2))

def noise(seed): return torch.randn(6, generator=torch.Generator().manual_seed(seed))
pictures = [noise(i) for i in range(12)]
y = torch.arange(12) % 3

class Lost(Exception): "The line is dead"

class Toy(BlackBox):
    "Random features; loses the line at its nth request, and keeps the keys that it was asked under"
    spec = dict(model='toy')
    def __init__(self, dies=-1, budget=None):
        super().__init__(['a', 'b', 'c'], budget)
        self.dies = dies
        self.keys = []
        self.names = torch.randn(3, 6, generator=torch.Generator().manual_seed(99))
    takes_names = True
    def note(self, name):
        self.keys.append(name)
        if len(self.keys) == self.dies: raise Lost
    def _encode(self, x, normalize=True, name=None):
        self.note(name)
        return torch.stack(list(x)) * (1. if normalize else 2.), 7
    def _embed(self, text): return torch.zeros(len(text.split()), 6)
    def _logits(self, p, x, name=None):
        self.note(name)
        return x @ (p.mean(1)[:, None] + self.names).mT

SETTINGS = dict(seed=3, dim=16, popsize=8, hidden=8, budget=36, batch_size=5)
def craft(box, **kw): return CraFT(box, **SETTINGS | kw)

def fit(box, folder=None, **kw):
    "A fit of the toy's pictures, with its checkpoint in a folder"
    return craft(box, **kw).fit(pictures, y, checkpoint=folder and Checkpoint(folder))

@pytest.fixture(autouse=True)
def plain(monkeypatch):
    "The toy's pictures are tensors, and a view of them is a little noise"
    def view(pictures, seed, px): return [p + .1*noise(seed) for p in pictures]
    monkeypatch.setattr('craft_nb.craft.augment', view)

def bill(clf): return {k: getattr(clf.box.ledger, k) for k in COUNTS if k != 'seconds'}

def same(a, b):
    "Two fits are one and the same run"
    assert torch.equal(a.prompt_, b.prompt_) and a.history_ == b.history_ and bill(a) == bill(b)
    if b.refiner_:
        weights = zip(a.refiner_.parameters(), b.refiner_.parameters(), strict=True)
        assert all(torch.equal(u, v) for u, v in weights)
    Y, Z = (clf.decision_function(clf.box.upload(pictures)) for clf in (a, b))
    assert torch.equal(Y, Z)

def contents(folder): return {p.name: p.read_bytes() for p in folder.glob('*.safetensors')}

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='forks')
def test_killed_at_random_moments():
    "20 times by SIGKILL, the real box, in every phase"
    rc, out = run([sys.executable, 'scripts/kill_bench.py', '--kills', '20', '--seed', '1'])
    assert rc == 0, out
    hits = re.findall(r'(?:query|answer|state|cleaning) (\d+)', out)   # how many fall between them, the clock decides
    assert len(hits) == 4 and all(map(int, hits)), out

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('again', [False, True], ids=['fresh box', 'same box'])
def test_line_lost_at_each_request(kind, again, tmp_path):
    "Whichever request is lost, and whether the box goes on or another one with an empty ledger takes its place"
    kw = KINDS[kind]
    total = len(fit(Toy(), **kw).box.keys)
    for n in range(1, total + 1):
        first, folder = Toy(n), tmp_path/str(n)
        with pytest.raises(Lost): fit(first, folder, **kw)
        second = first if again else Toy()
        clf = fit(second, folder, **kw)
        keys = first.keys if again else first.keys + second.keys
        queries = [k for k in keys if 'images' not in k]
        assert len(set(keys)) == total                      # each request has a key of its own
        assert len(queries) <= len(set(queries)) + 1        # the lost answer, at most, is asked for again
        same(clf, fit(Toy(), **kw))

def test_keys(tmp_path):
    "A request has the same key when it is sent again, and no two requests have one key"
    first, second = Toy(8), Toy()
    with pytest.raises(Lost): fit(first, tmp_path)
    fit(second, tmp_path)
    run = first.keys[0].split('-')[0]
    assert first.keys == [f'{run}-images-0'] + [f'{run}-{i}' for i in range(7)]
    assert second.keys == [f'{run}-images-0', f'{run}-6', f'{run}-7']

@pytest.mark.parametrize('kind', KINDS)
def test_stopped_in_every_generation(kind, tmp_path):
    "Ctrl-C in the callback, once in each generation, until the run is through"
    def interrupt(clf):
        if len(clf.history_) not in seen:
            seen.add(len(clf.history_))
            raise KeyboardInterrupt
    seen, box = set(), Toy()
    clf = None
    while clf is None:
        try: clf = craft(box, **KINDS[kind]).fit(pictures, y, interrupt, Checkpoint(tmp_path))
        except KeyboardInterrupt: pass
    assert seen == {1, 2, 3, 4}
    same(clf, fit(Toy(), **KINDS[kind]))

def test_answers_in_pieces(tmp_path):
    "An answer that comes in pieces is journalled in pieces"
    def box(dies=-1):
        b = Toy(dies)
        b.max_bytes = 3*4*(12 + 1024)*3     # three candidates a piece
        return b
    with pytest.raises(Lost): fit(box(7), tmp_path)
    assert [p.name[-18:-12] for p in sorted(tmp_path.glob('answer-*'))] == [f'{i:06d}' for i in range(5)]
    same(fit(box(), tmp_path), fit(box()))

@pytest.mark.parametrize('again', [False, True], ids=['fresh box', 'same box'])
def test_budget_of_the_box(again, tmp_path):
    "With less left than was asked for, the run plans less, and a later budget does not change the plan"
    box = Toy(6, budget=30)
    with pytest.raises(Lost): fit(box, tmp_path)
    clf = fit(box if again else Toy(), tmp_path)
    assert len(clf.history_) == 3 and clf.box.ledger.queries == 27
    same(clf, fit(Toy(budget=30)))

def test_budget_that_ends(tmp_path):
    "A run that was planned for more than is left ends in words, and goes on with a box that has enough"
    with pytest.raises(Lost): fit(Toy(4), tmp_path)
    with pytest.raises(BudgetExceeded, match='0 left'): fit(Toy(budget=18), tmp_path)
    same(fit(Toy(), tmp_path), fit(Toy()))

def test_plan_asks_the_box(tmp_path):
    "`left` of the box, not of the ledger, decides how long a run is"
    class Far(Toy):
        def left(self): return 20
    box = Far()
    fit(box)
    assert box.ledger.queries == 18
    fit(box, tmp_path)
    assert box.ledger.queries == 36

def test_finished_run(tmp_path):
    "It is read, not run again, and costs nothing more in the process that ran it"
    box, other = Toy(), Toy()
    whole = fit(Toy())
    first = fit(box, tmp_path)
    old, asked = contents(tmp_path), len(box.keys)
    again = fit(box, tmp_path)
    fresh = fit(other, tmp_path)
    assert len(box.keys) == asked and not other.keys
    assert bill(first) == bill(whole) and contents(tmp_path) == old
    same(fresh, whole)
    assert torch.equal(again.prompt_, first.prompt_) and again.history_ == first.history_

def cut_run(folder, at=8):
    "A run that lost its line in the fourth generation, after `at - 2` answers, and what is in its folder"
    with pytest.raises(Lost): fit(Toy(at), folder)
    return sorted(folder.glob('state-*'))[-1], contents(folder)

class Renamed(Toy): spec = dict(model='another')
OTHER = dict(
    seed=dict(seed=4),
    sigma=dict(sigma=.3),
    budget=dict(budget=45),
    preset=dict(preset='code'),
    box=dict(box=Renamed()),
    version={},
    labels=dict(y=y.flip(0)),
    pictures=dict(pictures=pictures[::-1]))

@pytest.mark.parametrize('what', OTHER)
def test_another_run_is_refused(what, tmp_path, monkeypatch):
    "By name, and the files stay as they are"
    _, old = cut_run(tmp_path)
    if what == 'version': monkeypatch.setattr('craft_nb.checkpoint.__version__', '0.0.0')
    kw = dict(pictures=pictures, y=y, box=Toy()) | OTHER[what]
    data = kw.pop('pictures'), kw.pop('y')
    box = kw.pop('box')
    with pytest.raises(ValueError, match=rf'other .*\b{what}\b.*: give another folder'):
        craft(box, **kw).fit(*data, checkpoint=Checkpoint(tmp_path))
    assert contents(tmp_path) == old and box.ledger.calls == 0

def test_pictures_by_content(tmp_path):
    "Paths are told apart by what is in the files, images by their pixels"
    red = Image.new('RGB', (4, 4), 'red')
    blue = Image.new('RGB', (4, 4), 'blue')
    for name, p in dict(a=red, b=blue, c=red).items(): p.save(tmp_path/f'{name}.png')
    a, b, c = [content(tmp_path/f'{name}.png') for name in 'abc']
    assert a == c == content(str(tmp_path/'c.png')) != b
    assert content(red) == content(red.copy()) != content(blue)
    assert content(red.convert('P')) != content(blue.convert('P'))
    zeros, ones = torch.zeros(2, 3), torch.ones(2, 3)
    assert content(zeros) != content(zeros.T)
    assert content(zeros.numpy()) != content(ones.numpy())

def flip_bit(data):
    i = len(data)//2
    return data[:i] + bytes([data[i] ^ 1]) + data[i+1:]

DAMAGES = dict(
    empty=lambda data: b'',
    header=lambda data: data[:5],
    half=lambda data: data[:len(data)//2],
    last=lambda data: data[:-1],
    more=lambda data: data + b'x',
    bit=flip_bit,
    pickle=lambda data: pickle.dumps(dict(a=1)),
    huge=lambda data: b'\xff'*8 + data[8:])
damages = pytest.mark.parametrize('damage', DAMAGES.values(), ids=DAMAGES)

def spoil(path, damage): path.write_bytes(damage(path.read_bytes()))

@damages
@pytest.mark.filterwarnings('ignore:answer-')
def test_damaged_state(damage, tmp_path):
    "It is passed over for the one before"
    state, _ = cut_run(tmp_path)
    spoil(state, damage)
    with pytest.warns(UserWarning, match='state-000003.safetensors is damaged.*going back'): clf = fit(Toy(), tmp_path)
    same(clf, fit(Toy()))
    # asked for: two answers of the last generation; the third's were journalled
    assert len([k for k in clf.box.keys if k and 'images' not in k]) == 2

@damages
@pytest.mark.filterwarnings('ignore:answer-')
def test_damaged_answers(damage, tmp_path):
    "They are asked for again"
    state, _ = cut_run(tmp_path)
    state.unlink()                  # so that its answers are read
    for p in tmp_path.glob('answer-*'): spoil(p, damage)
    with pytest.warns(UserWarning, match='answer-000004.safetensors is damaged.*asking again'):
        clf = fit(Toy(), tmp_path)
    same(clf, fit(Toy()))

@damages
@pytest.mark.filterwarnings('ignore:answer-')
def test_no_good_state(damage, tmp_path):
    "An error, and nothing is touched"
    fit(Toy(), tmp_path)
    for p in tmp_path.glob('state-*'): spoil(p, damage)
    old = contents(tmp_path)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match='no good state'): fit(Toy(), tmp_path)
    assert contents(tmp_path) == old

def test_answers_alone(tmp_path):
    "Answers without a state are no run to go on from"
    cut_run(tmp_path)
    for p in tmp_path.glob('state-*'): p.unlink()
    with pytest.raises(ValueError, match='no good state'): fit(Toy(), tmp_path)

NO_FIT = 'does not fit this run'
TENSORS = dict(                     # what is wrong -> the tensor, what is done to it, what is said
    shape=('prompt', lambda t: t[:1], NO_FIT),
    type=('told', lambda t: t.float(), NO_FIT),
    rows=('told', lambda t: t[:-1], NO_FIT),
    nan=('told', lambda t: t*torch.nan, 'NaN'),
    rounded=('mean', lambda t: t + 1e-15, 'another mean'),
    fitness=('told', lambda t: -t, 'another mean'),
    moved=('prompt', lambda t: t + 1e-6, 'another prompt'),
    step=('opt.0.step', lambda t: torch.ones(9), NO_FIT),
    twister=('gen', lambda t: torch.zeros_like(t) + 7, 'mt19937'),
    wide=('refiner.R.0.weight', lambda t: torch.zeros(9, 9), NO_FIT))

@pytest.mark.parametrize('what', TENSORS)
def test_forged_tensors(what, tmp_path):
    "A state with a right check sum and wrong tensors is refused in words"
    state, _ = cut_run(tmp_path)
    tensors, info = read_tensors(state)
    name, forge, says = TENSORS[what]
    tensors[name] = forge(tensors[name])
    write_tensors(state, tensors, info)
    with pytest.raises((ValueError, RuntimeError), match=says): fit(Toy(), tmp_path)

def test_missing_tensor(tmp_path):
    "is refused in the same words"
    state, _ = cut_run(tmp_path)
    tensors, info = read_tensors(state)
    del tensors['mean']
    write_tensors(state, tensors, info)
    with pytest.raises((ValueError, RuntimeError), match=NO_FIT): fit(Toy(), tmp_path)

FORGED = dict(
    run='../../x', generation=-1, answers=-5, allowed=True, history=[1, 2, 3], spent={}, done='yes', task=[], extra=1)

@pytest.mark.parametrize('field', FORGED)
def test_forged_info(field, tmp_path):
    "What makes no sense is passed over"
    state, _ = cut_run(tmp_path)
    tensors, info = read_tensors(state)
    write_tensors(state, tensors, {**info, field: FORGED[field]})
    with pytest.warns(UserWarning, match='makes no sense'): clf = fit(Toy(), tmp_path)
    same(clf, fit(Toy()))

def test_forged_plan(tmp_path):
    "A plan beyond the budget is refused"
    state, _ = cut_run(tmp_path)
    tensors, info = read_tensors(state)
    write_tensors(state, tensors, {**info, 'allowed': 10**9})
    with pytest.raises(ValueError, match='plans 1000000000 queries, expected 9 to 36'): fit(Toy(), tmp_path)

def test_forged_answer(tmp_path):
    "An answer of another shape is asked for again; one to another question is refused"
    cut_run(tmp_path, 9)
    path = sorted(tmp_path.glob('answer-*'))[-1]        # the candidates of the fourth generation
    tensors, question = read_tensors(path)
    write_tensors(path, dict(logits=tensors['logits'][:, :3]), question)
    with pytest.warns(UserWarning, match='expected logits of shape'), pytest.raises(Lost): fit(Toy(3), tmp_path)
    write_tensors(path, tensors, question[::-1])
    with pytest.raises(ValueError, match='answers another question'): fit(Toy(), tmp_path)

def test_no_pickle():
    "Nothing in the module can run what it loads"
    code = (root/'craft_nb/checkpoint.py').read_text()
    assert not re.search(r'torch\.load|pickle|\beval\(|\bexec\(', code)

# --- two processes

class Slow(Toy):
    "Two processes meet in it"
    def _logits(self, p, x, name=None):
        time.sleep(.002)
        return super()._logits(p, x, name)

def go_on(folder, tries, start, told):
    "A process's life: a fit in each of some folders, and what became of it"
    for i in range(tries):
        start.wait()
        try:
            fit(Slow(), folder/str(i))
            end = 'through'
        except BlockingIOError as e: end = 'told' if 'another process is at work' in str(e) else str(e)
        except Exception as e: end = f'{type(e).__name__}: {e}'
        told.put((i, end))

def test_two_processes(tmp_path):
    "20 times two on one checkpoint: one goes through, the other is told so, or comes after it; the run is the run"
    start, told = procs.Barrier(2), procs.Queue()
    tries = 20
    ps = [procs.Process(target=go_on, args=(tmp_path, tries, start, told), daemon=True) for _ in range(2)]
    for p in ps: p.start()
    ends = [told.get(timeout=HANG) for _ in range(2*tries)]
    for p in ps: p.join()
    for i in range(tries):
        what = sorted(end for k, end in ends if k == i)
        assert what in (['through', 'told'], ['through', 'through']), what
        same(fit(Toy(), tmp_path/str(i)), fit(Toy()))
        assert not list((tmp_path/str(i)).glob('*.tmp'))

def test_two_commands(tmp_path, monkeypatch):
    "A folder of `craft-nb fit` belongs to one process at a time; the second touches nothing"
    monkeypatch.chdir(tmp_path)
    def refused(words):
        with locked('q'), pytest.raises(SystemExit, match='another process is at work in q'): main(words.split())
    refused('fit digits --shots 1 --budget 41 --out q')
    assert [p.name for p in (tmp_path/'q').iterdir()] == ['.lock']
    (tmp_path/'q/report.json').write_text('a report')
    refused('demo --out q --budget 41')         # it begins anew, but not on another's work
    assert (tmp_path/'q/report.json').read_text() == 'a report'

def test_unlocked_by_death(tmp_path):
    "A lock dies with its process, and what it left half written is cleared away"
    code = """
import os, sys
from pathlib import Path
from craft_nb.files import locked
folder = Path(sys.argv[1])
with locked(folder):
    (folder/'thesis.tmp').touch()
    (folder/f'state.{32*"a"}.tmp').touch()
    os.kill(os.getpid(), 9)
"""
    rc, _ = py(code, tmp_path)
    assert rc == -9 and len(list(tmp_path.glob('*.tmp'))) == 2
    with locked(tmp_path): left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ['.lock', 'thesis.tmp']      # the user's own stays

def test_no_file(tmp_path):
    "A pipe that is named like a state is no state, and nobody waits for it"
    fit(Toy(), tmp_path)
    os.mkfifo(tmp_path/'state-000099.safetensors')
    with pytest.warns(UserWarning, match='is no file'): clf = fit(Toy(), tmp_path)
    same(clf, fit(Toy()))
