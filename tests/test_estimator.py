"""The estimator: what it spends decides when λ_O ends, and it has no parameters but its own.

Fitted, it can be copied and stored, without the model in it."""
import io, json, pickle
from copy import deepcopy
import joblib, numpy as np, pytest, torch
from sklearn.base import clone
from conftest import name as notebook_name, notebooks
from craft_nb.clip import CLIPBlackBox
from craft_nb.checkpoint import Checkpoint
from craft_nb.craft import CraFT
from craft_nb.data import fewshot
from craft_nb.lab.experiments import CLASSES
from craft_nb.local import FusedProbes
from craft_nb.pictures import open_picture
from craft_nb.probes import Probes

SMALL = dict(popsize=10, dim=16, hidden=16)

@pytest.fixture(scope='module')
def task(): return fewshot('digits', 2, 1)

@pytest.fixture(scope='module')
def model(task): return CLIPBlackBox('craft-mini', task.classnames)

# --- λ_O

def active(box, task, budget):
    "In which generations λ_O was not 0"
    lams = []
    class Watched(CraFT):
        def refine(self, run, lam):
            lams.append(lam > 0)
            return super().refine(run, lam)
    Watched(box, budget=budget, seed=1, drop_lam_o=4, **SMALL).fit(*task.train)
    return lams

def test_lam_o_under_a_cap(task, model):
    "A box that allows a quarter of the budget: λ_O holds to the end; one that allows all: for a quarter of it"
    whole = active(model.with_classes(task.classnames), task, 440)
    capped = active(model.with_classes(task.classnames, budget=110), task, 440)
    assert whole == [True]*10 + [False]*30 and capped == [True]*10

def test_lam_o_of_a_resumed_run(task, model, tmp_path):
    "A run that was stopped and goes on in another process ends λ_O where the whole run does"
    class Stop(Exception): pass
    def stop(clf):
        if len(clf.history_) == 3: raise Stop
    def fit(**kw):
        box = model.with_classes(task.classnames)
        return CraFT(box, budget=220, seed=1, drop_lam_o=4, **SMALL).fit(*task.train, **kw)
    whole = fit()
    with pytest.raises(Stop): fit(callback=stop, checkpoint=Checkpoint(tmp_path))
    again = fit(checkpoint=Checkpoint(tmp_path))
    assert again.history_ == whole.history_ and again.temperature_ == whole.temperature_

# --- copies

def grey(pictures): # (N, 64) features
    small = [open_picture(p).convert('L').resize((8, 8)) for p in pictures]
    return np.stack([np.asarray(p, float).ravel()/255 for p in small])

def by_joblib(clf):
    f = io.BytesIO()
    joblib.dump(clf, f)
    f.seek(0)
    return joblib.load(f)

WAYS = dict(pickle=lambda clf: pickle.loads(pickle.dumps(clf)), joblib=by_joblib, deepcopy=deepcopy)
METHODS = {
    'CraFT': (CraFT, SMALL),
    'prompt alone': (CraFT, SMALL | dict(learn_refiner=False)),
    'guarded': (CraFT, SMALL | dict(fallback=True)),
    'Probes': (Probes, dict(M=20)),
    'in pieces': (Probes, dict(M=20, pieces='seven')),
    'beside a network': (FusedProbes, dict(M=20, encoder=grey)),
    'BBT': (CLASSES['BBT'], SMALL),
    'zero-shot': (CLASSES['ZeroShot'], {}),
    'linear probe': (CLASSES['LinearProbe'], {}),
    'LFA': (CLASSES['LFA'], {})}

@pytest.mark.parametrize('method', METHODS)
def test_copies(task, model, method):
    "Stored and read, or copied: the same predictions on the same box; the model is not in it"
    kind, kw = METHODS[method]
    box = model.with_classes(task.classnames)
    clf = kind(box, seed=1, **dict(budget=130) | kw).fit(*task.train)
    pictures = task.test[0][:20]
    Y = clf.decision_function(pictures)
    size = sum(p.nbytes for p in box._clip.parameters())
    for way, copied in WAYS.items():
        again = copied(clf)
        if way == 'deepcopy': assert again.box is box
        else:
            with pytest.raises(ValueError, match='without its box .*craft-mini'): again.predict(pictures)
            again.attach(box)
        assert torch.equal(again.decision_function(pictures), Y), way
        assert np.array_equal(again.predict_proba(pictures), clf.predict_proba(pictures))
    assert len(pickle.dumps(clf)) < size/4
    assert clone(clf).box is box

def test_attach_to_another_model(task, model):
    fitted = CraFT(model, budget=11, seed=1, **SMALL).fit(*task.train)
    clf = pickle.loads(pickle.dumps(fitted))
    other = CLIPBlackBox('craft-mini-vit', task.classnames)
    with pytest.raises(ValueError, match='fitted on another model'): clf.attach(other)
    with pytest.raises(ValueError, match='the classifier'): clf.attach(model.with_classes(['cat', 'dog']))

def test_load_on_another_model(task, model, tmp_path):
    CraFT(model, budget=11, seed=1, **SMALL).fit(*task.train).save(tmp_path)
    other = CLIPBlackBox('craft-mini-vit', task.classnames)
    rounded = CLIPBlackBox('craft-mini', task.classnames, precision='bf16')
    with pytest.raises(ValueError, match='fitted on another model'): CraFT.load(tmp_path, other)
    assert CraFT.load(tmp_path, rounded).prompt_ is not None

# --- parameters

def test_unknown_parameters(model):
    with pytest.raises(ValueError, match="no parameter 'sigmaa'.*sigma"): CraFT(model).set_params(sigmaa=2)
    assert CraFT(model).set_params(sigma=2, seed=3).get_params()['sigma'] == 2

# --- the release

def test_what_the_release_returns():
    "The release prints its test accuracies and returns the last prompt: no notebook says that it chooses by them"
    text = {}
    for p in notebooks:
        cells = json.loads(p.read_text(encoding='utf-8'))['cells']
        text[notebook_name(p)] = ' '.join(''.join(c['source']) for c in cells)
    for claim in ('keeps the best. That is not a setting but a leak', 'its look at the test set'):
        assert not [k for k, v in text.items() if claim in v]
    assert 'what it returns is the last prompt' in text['14_grids']
