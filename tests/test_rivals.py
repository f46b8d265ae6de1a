"Rivals are what they are called: each as its authors run it, or with the difference named and tested."
import pickle
from copy import deepcopy
import numpy as np, pytest, timm, torch
from fastcore.basics import ifnone
from craft_nb.lab.grids import make_cell
from craft_nb.rivals.prompts import CoOp, ZeroShot
from craft_nb.blackbox import BudgetExceeded, ImageSet
from craft_nb.cli import main
from craft_nb.clip import CLIPBlackBox
from craft_nb.config import PRESETS
from craft_nb.craft import CraFT
from craft_nb.pictures import augment
from craft_nb.data import fewshot
from craft_nb.lab.experiments import OWN_SENTENCE, Trace, make_method
from craft_nb.rivals.adapters import TipAdapter, tip_logits
from craft_nb.rivals.ares import AReS, label_map
from craft_nb.local import LocalProbe, load_encoder
from craft_nb.rivals.baselines import Pixels, Regression, advise, pick_method
from craft_nb.refiner import Refiner
from craft_nb.rivals.blackvip import BlackVIP, SPSAOptimizer
from craft_nb.rivals.visual import CraFTvp, seeing

@pytest.fixture(scope='module')
def task():
    t = fewshot('typefaces', 4, 1)
    t.test = t.test[0][::20], t.test[1][::20]
    return t

@pytest.fixture
def box(task): return CLIPBlackBox('craft-mini', task.classnames)

# --- the release

RELEASE = dict(                                # sigma, std, bound, weight, n, batch_size of its files
    caltech101=    (1,   .2,   5, .1,   4, 256),
    oxford_flowers=(1,   .2,   5, .1,   4, 256),
    stanford_cars= (1,   .2,   5, .1,   4, 256),
    sun397=        (1,   .2,   5, .1,   4, 256),
    ucf101=        (1,   .2,   5, .1,   4, 256),
    fgvc_aircraft= (.02, .2,   0, .1,   4, 256),
    oxford_pets=   (.02, .2,   5, .1,   1, 64),
    dtd=           (.02, 1,    5, .001, 1, 256),
    eurosat=       (.02, 1,    5, .01,  1, 256),
    food101=       (1,   .2,   0, 1,    1, 256),
    imagenet=      (1,   None, 0, 0,    1, 256))

@pytest.mark.parametrize('name', RELEASE)
def test_presets(name):
    "The settings of the release's eleven files"
    s, (sigma, std, bound, weight, n, batch) = PRESETS[f'code:{name}'], RELEASE[name]
    assert (s.sigma, s.batch_size, s.lam_i, s.lam_o) == (sigma, batch, weight, weight)
    assert s.bounds == ((-bound, bound) if bound else None) and ifnone(s.drop_lam_o, 0) == (n if n > 1 else 0)
    assert std is None or s.std == std

def test_commonest_preset():
    "`code` is the setting that five of the eleven share"
    assert sum(PRESETS[f'code:{n}'] == PRESETS['code'] for n in RELEASE) == 5

def test_generations(box, task):
    "By shots the release runs 200 generations of 40 candidates, the refiner's queries on top; a given budget is kept"
    sixteen = torch.arange(5).repeat(16)
    assert CraFT(box, 'code').resolve(sixteen).budget == 200*41
    assert CraFT(box, 'code', learn_refiner=False).resolve(sixteen).budget == 200*40
    assert CraFT(box, 'code', budget=8000).resolve(sixteen).budget == 8000

def test_search_view(box, task):
    "The candidates are scored on one augmented copy; the refiner sees the pictures as they are"
    pictures, y = task.train
    sent, upload = [], box.upload
    def noting(pictures, **kw):
        sent.append([np.asarray(p) for p in pictures])
        return upload(pictures, **kw)
    box.upload = noting
    CraFT(box, budget=82, seed=3, search_view=True, view_px=64).fit(pictures, y)
    searched, refined = sent
    assert searched[0].shape == (64, 64, 3)
    views = augment(pictures, 2999, 64)
    assert all(np.array_equal(a, np.asarray(b)) for a, b in zip(searched, views, strict=True))
    assert all(np.array_equal(a, np.asarray(b)) for a, b in zip(refined, pictures, strict=True))

def test_zero_start():
    Y = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Refiner(5)(Y), Y) and not torch.equal(Refiner(5, zero=False)(Y), Y)

# --- methods that see more

def test_tip_adapter_trains(box, task):
    "No picture votes on itself: with a weight that would let it, the first loss is far from 0, and falls"
    tip = TipAdapter(box, finetune=True, alpha=1000., beta=30., start=(1000., 30.)).fit(*task.train)
    X, y = box._encode(task.train[0])[0], task.train[1]
    own = torch.nn.functional.cross_entropy(tip_logits(X, X, y, tip.classifiers_, 1000., 30.), y)
    losses = [h['loss'] for h in tip.history_]
    assert own < .1 and losses[0] > 1 and losses[-1] < losses[0]/2

def test_coop_takes_all_its_steps(box, task):
    "The upper bound has no budget; one that is given still counts"
    assert CoOp(box, epochs=3, n_ctx=2).fit(*task.train).history_[-1]['queries'] == 3
    assert CoOp(box, epochs=30, n_ctx=2, budget=4).fit(*task.train).history_[-1]['queries'] == 4

def test_sentences(box, task):
    "A dataset's own sentence goes to every method whose authors take it"
    task = fewshot('typefaces', 4, 1)
    task.template = 'a centered satellite photo of {}, from above.'
    for kind in OWN_SENTENCE:
        cell = make_cell(dict(methods=dict(m={'is': kind.__name__})), 'm', seed=1, budget=100)
        clf = make_method(cell, box, task)
        assert clf.box._ending == ', from above.'
        assert (clf.templates[0] if kind is ZeroShot else clf.init) == 'a centered satellite photo of'
    clf = make_method(make_cell(dict(methods=dict(m={'is': 'CraFT'})), 'm', seed=1, budget=100), box, task)
    assert clf.box._ending == '.'

def test_directions(box, task):
    "Five directions a step, two queries each; the guess is their mean"
    vip = BlackVIP(box, budget=25, size=32).fit(*task.train)
    assert [h['queries'] for h in vip.history_] == [10, 20]
    one = SPSAOptimizer(torch.zeros(3), momentum=0.)
    five = SPSAOptimizer(torch.zeros(3), momentum=0.)
    def loss(w): return (w*torch.tensor([1., 2, 3])).sum()
    points = five.ask(5)
    five.tell([loss(w) for w in points])
    slopes = []
    for i in range(5):
        one.w = torch.zeros(3)
        one.k = 1
        one.width = five.width
        one.u = five.u[i:i+1]
        one.tell([loss(points[i]), loss(points[5 + i])])
        slopes.append(one.w)
    torch.testing.assert_close(five.w, torch.stack(slopes).mean(0))

def test_underscores(box):
    "Names of folders: underscores are spaces to the model, and stay in the name"
    a, b = box.with_classes(['ankle_boot', 't_shirt']), box.with_classes(['ankle boot', 't shirt'])
    assert torch.equal(a._tokens, b._tokens) and a.classnames == ['ankle_boot', 't_shirt']

# --- visual prompts

@pytest.fixture(scope='module')
def vit(): return CLIPBlackBox('craft-mini-vit', fewshot('typefaces', 4, 1).classnames)

def test_visual_copies(vit, task, tmp_path):
    "The visual prompt is learned state: pickled, copied and saved with the rest; it stands on no box"
    box = vit.with_classes(task.classnames)
    clf = CraFTvp(box, budget=26, popsize=12, seed=1).fit(*task.train)
    Y = clf.decision_function(task.test[0])
    assert clf.visual_.shape == (1, 8, 192) and not box._store and box.access == {'predictions', 'architecture'}
    pickled = pickle.loads(pickle.dumps(clf)).attach(box)
    for again in (pickled, deepcopy(clf)): assert torch.equal(again.decision_function(task.test[0]), Y)
    clf.save(tmp_path)
    assert torch.equal(CraFTvp.load(tmp_path, box).decision_function(task.test[0]), Y)

def test_visual_image_sets(vit, task):
    "An image set of a plain box holds features only, and is refused with what to do; one of a VisualPromptBox is taken"
    box = vit.with_classes(task.classnames)
    clf = CraFTvp(box, budget=13, popsize=12, seed=1).fit(*task.train)
    with pytest.raises(ValueError, match='holds features only'): clf.predict(box.upload(task.test[0]))
    seen = seeing(box)
    Y = clf.decision_function(task.test[0])
    assert torch.equal(clf.set_params(box=seen).decision_function(seen.upload(task.test[0])), Y)

def test_visual_refusals(vit):
    "What a box does not take costs nothing"
    box = seeing(vit.with_classes(['one', 'two']))
    p0 = box.embed('a photo of a')[None]
    with pytest.raises(KeyError, match='unknown image set'): box.query(p0, ImageSet('x', 1), torch.zeros(1, 8, 192))
    images = box.upload(fewshot('typefaces', 1, 1).train[0])
    with pytest.raises(ValueError, match='this box takes pixels of shape .* tokens of shape'):
        box.query(p0, images, torch.zeros(1, 8, 7))
    with pytest.raises(ValueError, match='for 1 candidates'): box.query(p0, images, torch.zeros(2, 8, 192))
    with pytest.raises(BudgetExceeded), box.ledger.limit(0): box.query(p0, images, torch.zeros(1, 8, 192))
    assert box.ledger.queries == box.ledger.encoded == 0

# --- methods that ask once, or not at all

@pytest.mark.parametrize('kind, queries', [(Pixels, 0), (LocalProbe, 0), (Regression, 1), (AReS, 1)])
def test_queries(kind, queries, box, task):
    few = dict(epochs=1, prime_epochs=2) if kind is AReS else {}
    clf = kind(box, **few).fit(*task.train)
    assert box.ledger.queries == queries
    p = clf.predict_proba(task.test[0])
    assert p.shape == (len(task.test[1]), 5) and np.allclose(p.sum(1), 1, atol=1e-4)
    pictures, y = task.train
    with pytest.raises(ValueError, match='expected one of each'): kind(box, **few).fit(pictures[:4], y[:4])

def test_other_encoder(tmp_path, task):
    "Any network of timm, its weights from a file: the same features as the network that wrote it"
    net = timm.create_model('test_resnet', pretrained=False, num_classes=0).eval()
    torch.save(net.state_dict(), tmp_path/'w.pth')
    mine = load_encoder('test_resnet', str(tmp_path/'w.pth'))
    pictures = task.train[0][:3]
    x = torch.stack([mine.prepare(p) for p in pictures])
    with torch.no_grad(): torch.testing.assert_close(mine(pictures), net(x), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match='no model'): load_encoder('resnet7')

def test_missing_package(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'craft_nb\[local\]'"): load_encoder()

def test_label_map():
    "By hand, with Laplace's 1: output 0 comes with class 0 twice and with class 1 once"
    Z = torch.tensor([[50., 0, 0], [50, 0, 0], [50, 0, 0], [0, 50, 0]])
    y = torch.tensor([0, 0, 1, 1])
    W = label_map(Z, y, 2, keep=1)
    torch.testing.assert_close(W, torch.tensor([[1., 1/3], [0, 2/3], [0, 0]]))

@pytest.mark.parametrize('classes, shots, gain, method', [
    (100, 2,  16., 'refiner_only'),
    (100, 16, -2., 'zero_shot'),
    (50,  1,  0.,  'zero_shot'),
    (10,  16, 20., 'craft'),
    (10,  8,  20., 'prompt_only'),
    (10,  16, 1.,  'prompt_only'),
    (10,  1,  0.,  'prompt_only'),
    (10,  4,  -9., 'zero_shot')])
def test_rule(classes, shots, gain, method): assert pick_method(classes, shots, gain) == method

def test_advise(box, task):
    advice = advise(box, *task.train)
    assert box.ledger.queries == 1 and (advice.classes, advice.shots) == (5, 4) and advice.method in str(advice)
    one = fewshot('typefaces', 1, 1)
    assert advise(box, *one.train).regression is None

def test_advise_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['fit', 'typefaces', '--shots', '4', '--advise']) in (0, None)
    assert 'craft-nb fit typefaces --methods prompt_only' in capsys.readouterr().out and not list(tmp_path.iterdir())

# --- the trace of a run

def test_trace(box, task):
    "The first point after 100 queries, the rest in equal steps of the logarithm; a run that asks all at once has one"
    trace = Trace(box, task, 8000, 16)
    assert len(trace.due) == 16 and trace.due[0] == 100
    assert np.allclose(np.diff(np.log(trace.due)), np.log(80)/16)
