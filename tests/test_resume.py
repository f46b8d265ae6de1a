"A run stopped anywhere goes on as if nothing had been: the same prompt, refiner, history and bill, and no answer paid for twice."
import os, pickle, re, sys, time
import pytest, torch
from conftest import root, run
from faults import procs
from craft_nb.blackbox import BlackBox, BudgetExceeded
from craft_nb.cli import main
from craft_nb.config import COUNTS
from craft_nb.checkpoint import Checkpoint
from craft_nb.craft import CraFT
from craft_nb.files import locked, read_tensors, write_tensors

KINDS = dict(craft={}, best=dict(centre='best'), prompt_only=dict(learn_refiner=False, centre='sample'), refiner_only=dict(learn_prompt=False),
             raw=dict(learn_prompt=False, normalize=False), code=dict(preset='code', budget=36, views=2))
pictures, y = [torch.randn(6, generator=torch.Generator().manual_seed(i)) for i in range(12)], torch.arange(12) % 3

class Lost(Exception): "The line is dead"

class Toy(BlackBox):
    "Random features; loses the line at its nth request, and keeps the keys that it was asked under"
    spec = dict(model='toy')
    def __init__(self, dies=-1, budget=None):
        super().__init__(['a', 'b', 'c'], budget)
        self.dies, self.keys = dies, []
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

def craft(box, **kw): return CraFT(box, **{**dict(seed=3, dim=16, popsize=8, hidden=8, budget=36, batch_size=5), **kw})

@pytest.fixture(autouse=True)
def plain(monkeypatch):
    "One thread; the toy's pictures are tensors, and a view of them is a little noise"
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    noise = lambda ps, seed, px: [p + .1*torch.randn(6, generator=torch.Generator().manual_seed(seed)) for p in ps]
    monkeypatch.setattr('craft_nb.craft.augment', noise)
    yield
    torch.set_num_threads(n)

def bill(clf): return {k: getattr(clf.box.ledger, k) for k in COUNTS if k != 'seconds'}

def same(a, b):
    assert torch.equal(a.prompt_, b.prompt_) and a.history_ == b.history_ and bill(a) == bill(b)
    if b.refiner_: assert all(torch.equal(u, v) for u, v in zip(a.refiner_.parameters(), b.refiner_.parameters(), strict=True))
    images = a.box.upload(pictures), b.box.upload(pictures)
    assert torch.equal(a.decision_function(images[0]), b.decision_function(images[1]))

def contents(folder): return {p.name: p.read_bytes() for p in folder.glob('*.safetensors')}

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='forks')
def test_killed_at_random_moments():
    "20 times by SIGKILL, the real box, in every phase"
    rc, out = run([sys.executable, 'scripts/kill_bench.py', '--kills', '20', '--seed', '1'])
    assert rc == 0, out
    assert all(int(n) for n in re.findall(r'(?:between|query|answer|state|cleaning) (\d+)', out)), out

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('again', [False, True], ids=['fresh box', 'same box'])
def test_line_lost_at_each_request(kind, again, tmp_path):
    "Whichever request is lost, and whether the box goes on or another one with an empty ledger takes its place"
    kw = KINDS[kind]
    craft(box := Toy(), **kw).fit(pictures, y)
    for n in range(1, (total := len(box.keys)) + 1):
        box, folder = Toy(n), tmp_path/str(n)
        with pytest.raises(Lost): craft(box, **kw).fit(pictures, y, checkpoint=Checkpoint(folder))
        keys, box = box.keys, box if again else Toy()
        clf = craft(box, **kw).fit(pictures, y, checkpoint=Checkpoint(folder))
        if not again: keys = keys + box.keys
        assert len(set(keys)) == total                                              # each request has a key of its own
        assert sum('images' not in k for k in keys) <= 1 + sum('images' not in k for k in set(keys))    # the lost answer, at most, is asked for again
        same(clf, craft(Toy(), **kw).fit(pictures, y))

def test_keys(tmp_path):
    "A request has the same key when it is sent again, and no two requests have one key"
    first, second = Toy(8), Toy()
    with pytest.raises(Lost): craft(first).fit(pictures, y, checkpoint=Checkpoint(tmp_path))
    craft(second).fit(pictures, y, checkpoint=Checkpoint(tmp_path))
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
    seen, box, clf = set(), Toy(), None
    while clf is None:
        try: clf = craft(box, **KINDS[kind]).fit(pictures, y, interrupt, Checkpoint(tmp_path))
        except KeyboardInterrupt: pass
    assert seen == {1, 2, 3, 4}
    same(clf, craft(Toy(), **KINDS[kind]).fit(pictures, y))

def test_answers_in_pieces(tmp_path):
    "An answer that comes in pieces is journalled in pieces"
    def box(dies=-1):
        b = Toy(dies)
        b.max_bytes = 3*4*(12 + 1024)*3
        return b           # three candidates a piece
    with pytest.raises(Lost): craft(box(7)).fit(pictures, y, checkpoint=Checkpoint(tmp_path))
    assert [p.name[-18:-12] for p in sorted(tmp_path.glob('answer-*'))] == [f'{i:06d}' for i in range(5)]
    same(craft(box()).fit(pictures, y, checkpoint=Checkpoint(tmp_path)), craft(box()).fit(pictures, y))

def test_budget_of_the_box(tmp_path):
    "A box with just enough left is enough for a run in pieces; with less, the run plans less, and a later budget does not change the plan"
    for again in (True, False):
        box, folder = Toy(6, budget=30), tmp_path/str(again)
        with pytest.raises(Lost): craft(box).fit(pictures, y, checkpoint=Checkpoint(folder))
        clf = craft(box if again else Toy()).fit(pictures, y, checkpoint=Checkpoint(folder))
        assert len(clf.history_) == 3 and clf.box.ledger.queries == 27
        same(clf, craft(Toy(budget=30)).fit(pictures, y))
    with pytest.raises(BudgetExceeded, match='0 left'):
        with pytest.raises(Lost): craft(Toy(4)).fit(pictures, y, checkpoint=Checkpoint(tmp_path/'less'))
        craft(Toy(budget=18)).fit(pictures, y, checkpoint=Checkpoint(tmp_path/'less'))
    same(craft(Toy()).fit(pictures, y, checkpoint=Checkpoint(tmp_path/'less')), craft(Toy()).fit(pictures, y))

def test_plan_asks_the_box(tmp_path):
    "`left` of the box, not of the ledger, decides how long a run is"
    class Far(Toy):
        def left(self): return 20
    assert craft(box := Far()).fit(pictures, y).box.ledger.queries == 18
    assert craft(box).fit(pictures, y, checkpoint=Checkpoint(tmp_path)).box.ledger.queries == 36

def test_finished_run(tmp_path):
    "It is read, not run again, and costs nothing more in the process that ran it"
    whole, first = craft(Toy()).fit(pictures, y), craft(box := Toy()).fit(pictures, y, checkpoint=Checkpoint(tmp_path))
    old, n = contents(tmp_path), len(box.keys)
    again, fresh = craft(box).fit(pictures, y, checkpoint=Checkpoint(tmp_path)), craft(other := Toy()).fit(pictures, y, checkpoint=Checkpoint(tmp_path))
    assert len(box.keys) == n and not other.keys and bill(first) == bill(whole) and contents(tmp_path) == old
    same(fresh, whole)
    assert torch.equal(again.prompt_, first.prompt_) and again.history_ == first.history_

def cut_run(folder, at=8):
    "A run that lost its line in the fourth generation, after `at - 2` answers, and what is in its folder"
    with pytest.raises(Lost): craft(Toy(at)).fit(pictures, y, checkpoint=Checkpoint(folder))
    return sorted(folder.glob('state-*'))[-1], contents(folder)

class Renamed(Toy): spec = dict(model='another')
OTHER = dict(seed=dict(seed=4), sigma=dict(sigma=.3), budget=dict(budget=45), preset=dict(preset='code'), box=dict(box=Renamed()), version={},
             labels=dict(y=y.flip(0)), pictures=dict(pictures=pictures[::-1]))

@pytest.mark.parametrize('what', OTHER)
def test_another_run_is_refused(what, tmp_path, monkeypatch):
    "By name, and the files stay as they are"
    _, old = cut_run(tmp_path)
    if what == 'version': monkeypatch.setattr('craft_nb.checkpoint.__version__', '0.0.0')
    kw = dict(dict(pictures=pictures, y=y, box=Toy()), **OTHER[what])
    data, box = (kw.pop('pictures'), kw.pop('y')), kw.pop('box')
    with pytest.raises(ValueError, match=rf'other .*\b{what}\b.*: give another folder'): craft(box, **kw).fit(*data, checkpoint=Checkpoint(tmp_path))
    assert contents(tmp_path) == old and box.ledger.calls == 0

def test_pictures_by_content(tmp_path):
    "Paths are told apart by what is in the files, images by their pixels"
    from PIL import Image
    from craft_nb.files import content
    a, b = Image.new('RGB', (4, 4), 'red'), Image.new('RGB', (4, 4), 'blue')
    for name, p in (('a', a), ('b', b), ('c', a)): p.save(tmp_path/f'{name}.png')
    ha, hb, hc = [content(tmp_path/f'{n}.png') for n in 'abc']
    assert ha == hc == content(str(tmp_path/'c.png')) != hb and content(a) != content(b) and content(a) == content(a.copy())
    assert content(torch.zeros(2, 3)) != content(torch.zeros(3, 2)) and content(torch.zeros(2, 3).numpy()) != content(torch.ones(2, 3).numpy())
    assert content(a.convert('P')) != content(b.convert('P'))

def spoil(path, how):
    data = path.read_bytes()
    i = len(data)//2
    path.write_bytes(dict(empty=b'', header=data[:5], half=data[:i], last=data[:-1], more=data + b'x', bit=data[:i] + bytes([data[i] ^ 1]) + data[i+1:],
                          pickle=pickle.dumps(dict(a=1)), huge=b'\xff'*8 + data[8:])[how])

@pytest.mark.filterwarnings('ignore:answer-')
@pytest.mark.parametrize('how', ['empty', 'header', 'half', 'last', 'more', 'bit', 'pickle', 'huge'])
def test_damaged_files(how, tmp_path):
    "A damaged state is passed over for the one before, a damaged answer is asked for again; with no good state nothing is touched"
    whole = lambda: craft(Toy()).fit(pictures, y)
    state, old = cut_run(tmp_path)
    spoil(state, how)
    with pytest.warns(UserWarning, match='state-000003.safetensors is damaged.*going back'): clf = craft(box := Toy()).fit(pictures, y, checkpoint=Checkpoint(tmp_path))
    same(clf, whole())
    assert len([k for k in box.keys if k and 'images' not in k]) == 2             # two answers of the last generation; the third's were journalled
    for p in tmp_path.iterdir(): p.unlink()
    for n, d in old.items(): (tmp_path/n).write_bytes(d)
    state.unlink()                                                                # so that its answers are read
    for p in tmp_path.glob('answer-*'): spoil(p, how)
    with pytest.warns(UserWarning, match='answer-000004.safetensors is damaged.*asking again'): same(craft(Toy()).fit(pictures, y, checkpoint=Checkpoint(tmp_path)), whole())
    for p in tmp_path.glob('state-*'): spoil(p, how)
    old = contents(tmp_path)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match='no good state'): craft(Toy()).fit(pictures, y, checkpoint=Checkpoint(tmp_path))
    assert contents(tmp_path) == old

def test_answers_alone(tmp_path):
    "Answers without a state are no run to go on from"
    cut_run(tmp_path)
    for p in tmp_path.glob('state-*'): p.unlink()
    with pytest.raises(ValueError, match='no good state'): craft(Toy()).fit(pictures, y, checkpoint=Checkpoint(tmp_path))

TENSORS = dict(shape=('prompt', lambda t: t[:1]), type=('told', lambda t: t.float()), missing=('mean', None), rows=('told', lambda t: t[:-1]),
               nan=('told', lambda t: t*torch.nan), rounded=('mean', lambda t: t + 1e-15), fitness=('told', lambda t: -t), moved=('prompt', lambda t: t + 1e-6),
               step=('opt.0.step', lambda t: torch.ones(9)), twister=('gen', lambda t: torch.zeros_like(t) + 7), wide=('refiner.R.0.weight', lambda t: torch.zeros(9, 9)))

@pytest.mark.parametrize('what', TENSORS)
def test_forged_tensors(what, tmp_path):
    "A state with a right check sum and wrong tensors is refused in words"
    state, _ = cut_run(tmp_path)
    tensors, info = read_tensors(state)
    name, f = TENSORS[what]
    if f: tensors[name] = f(tensors[name])
    else: del tensors[name]
    write_tensors(state, tensors, info)
    says = dict(nan='NaN', rounded='another mean', fitness='another mean', moved='another prompt', twister='mt19937')
    with pytest.raises((ValueError, RuntimeError), match=says.get(what, 'does not fit this run')): craft(Toy()).fit(pictures, y, checkpoint=Checkpoint(tmp_path))

FORGED = dict(run='../../x', generation=-1, answers=-5, allowed=True, history=[1, 2, 3], spent={}, done='yes', task=[], extra=1)

@pytest.mark.parametrize('field', FORGED)
def test_forged_info(field, tmp_path):
    "What makes no sense is passed over"
    state, _ = cut_run(tmp_path)
    tensors, info = read_tensors(state)
    write_tensors(state, tensors, {**info, field: FORGED[field]})
    with pytest.warns(UserWarning, match='makes no sense'): same(craft(Toy()).fit(pictures, y, checkpoint=Checkpoint(tmp_path)), craft(Toy()).fit(pictures, y))

def test_forged_plan(tmp_path):
    "A plan beyond the budget is refused"
    state, _ = cut_run(tmp_path)
    tensors, info = read_tensors(state)
    write_tensors(state, tensors, {**info, 'allowed': 10**9})
    with pytest.raises(ValueError, match='plans 1000000000 queries, expected 9 to 36'): craft(Toy()).fit(pictures, y, checkpoint=Checkpoint(tmp_path))

def test_forged_answer(tmp_path):
    "An answer of another shape is asked for again; one to another question is refused"
    cut_run(tmp_path, 9)
    path = sorted(tmp_path.glob('answer-*'))[-1]                                   # the candidates of the fourth generation
    tensors, question = read_tensors(path)
    write_tensors(path, dict(logits=tensors['logits'][:, :3]), question)
    with pytest.warns(UserWarning, match='expected logits of shape'), pytest.raises(Lost): craft(Toy(3)).fit(pictures, y, checkpoint=Checkpoint(tmp_path))
    write_tensors(path, tensors, question[::-1])
    with pytest.raises(ValueError, match='answers another question'): craft(Toy()).fit(pictures, y, checkpoint=Checkpoint(tmp_path))

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
    torch.set_num_threads(1)
    for i in range(tries):
        start.wait()
        try:
            craft(Slow()).fit(pictures, y, checkpoint=Checkpoint(folder/str(i)))
            told.put((i, 'through'))
        except BlockingIOError as e: told.put((i, 'told' if 'another process is at work' in str(e) else str(e)))
        except Exception as e: told.put((i, f'{type(e).__name__}: {e}'))

def test_two_processes(tmp_path):
    "20 times two processes on one checkpoint: one goes through, the other is told so, or comes after it; the run is the run"
    start, told, tries = procs.Barrier(2), procs.Queue(), 20
    ps = [procs.Process(target=go_on, args=(tmp_path, tries, start, told), daemon=True) for _ in range(2)]
    for p in ps: p.start()
    ends = [told.get(timeout=300) for _ in range(2*tries)]
    for p in ps: p.join()
    for i in range(tries):
        what = sorted(end for k, end in ends if k == i)
        assert what in (['through', 'told'], ['through', 'through']), what
        same(craft(Toy()).fit(pictures, y, checkpoint=Checkpoint(tmp_path/str(i))), craft(Toy()).fit(pictures, y))
        assert not list((tmp_path/str(i)).glob('*.tmp'))

def test_two_commands(tmp_path, monkeypatch):
    "A folder of `craft-nb fit` belongs to one process at a time; the second touches nothing"
    monkeypatch.chdir(tmp_path)
    with locked('q'), pytest.raises(SystemExit, match='another process is at work in q'): main('fit digits --shots 1 --budget 41 --out q'.split())
    assert [p.name for p in (tmp_path/'q').iterdir()] == ['.lock']
    (tmp_path/'q/report.json').write_text('a report')
    with locked('q'), pytest.raises(SystemExit, match='another process is at work in q'): main('demo --out q --budget 41'.split())
    assert (tmp_path/'q/report.json').read_text() == 'a report'             # `demo` begins anew, but not on another's work

def test_unlocked_by_death(tmp_path):
    "A lock dies with its process, and what it left half written is cleared away"
    code = "import os, sys; from craft_nb.files import locked\nwith locked(sys.argv[1]): [open(f'{sys.argv[1]}/{o}', 'w') for o in ('thesis.tmp', 'state.' + 32*'a' + '.tmp')]; os.kill(os.getpid(), 9)"
    rc, _ = run([sys.executable, '-c', code, tmp_path])
    assert rc == -9 and len(list(tmp_path.glob('*.tmp'))) == 2
    with locked(tmp_path): assert sorted(p.name for p in tmp_path.iterdir()) == ['.lock', 'thesis.tmp']      # the user's own stays

def test_no_file(tmp_path):
    "A pipe that is named like a state is no state, and nobody waits for it"
    craft(Toy()).fit(pictures, y, checkpoint=Checkpoint(tmp_path))
    os.mkfifo(tmp_path/'state-000099.safetensors')
    with pytest.warns(UserWarning, match='is no file'): same(craft(Toy()).fit(pictures, y, checkpoint=Checkpoint(tmp_path)), craft(Toy()).fit(pictures, y))
