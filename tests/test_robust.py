"""The robust CraFT: the command goes on after a crash, other boxes, few pictures, labels that leave a class out."""
import warnings
import numpy as np, pytest, torch
from craft_nb.blackbox import BudgetExceeded
from craft_nb.clip import CLIPBlackBox
from craft_nb.cli import main
from craft_nb.data import fewshot
from craft_nb.lab.reports import compare
from craft_nb.robust import RobustCraFT
from craft_nb.tuning import load_classifier

class Broken(Exception): pass

@pytest.fixture(scope='module')
def task(): return fewshot('typefaces', 4, 1)

@pytest.fixture(scope='module')
def model(task): return CLIPBlackBox('craft-mini', task.classnames)

def test_command_goes_on(tmp_path, monkeypatch):
    "A comparison that broke off asks nothing twice, and ends as one that did not"
    how = dict(shots=4, methods=['robust'], progress=False, budget=210)
    whole = compare(['typefaces'], tmp_path/'whole', **how).runs[0]
    asked, answer = [], CLIPBlackBox._logits
    def weak(self, prompts, kept):
        if sum(asked) > 100 and 'up' not in asked: raise Broken
        asked.append(len(prompts))
        return answer(self, prompts, kept)
    monkeypatch.setattr(CLIPBlackBox, '_logits', weak)
    with pytest.raises(Broken): compare(['typefaces'], tmp_path/'broken', **how)
    before = sum(asked)
    asked.clear()
    monkeypatch.setattr(CLIPBlackBox, '_logits', lambda *a: (asked.append(len(a[1])), answer(*a))[1])
    with pytest.raises(ValueError, match='other settings'):
        compare(['typefaces'], tmp_path/'broken', **how | dict(budget=500))
    row = compare(['typefaces'], tmp_path/'broken', **how).runs[0]
    assert before + sum(asked) == 202 + 2                    # the fit, and the test pictures
    assert row['accuracy'] == whole['accuracy'] and row['history'] == whole['history']
    assert not (tmp_path/'broken/checkpoints/typefaces-robust-seed1').exists()

def test_predict(tmp_path, task, model, capsys):
    "What the command keeps is a classifier that `predict` reads"
    compare(['typefaces'], tmp_path/'fit', shots=4, methods=['robust'], progress=False, budget=100)
    kept = tmp_path/'fit/typefaces-robust-seed1'
    clf = load_classifier(kept, model.with_classes(task.classnames))
    assert type(clf) is RobustCraFT
    pictures = tmp_path/'new'
    pictures.mkdir()
    for i in range(3): task.test[0][i].save(pictures/f'{i}.png')
    capsys.readouterr()
    main(['predict', str(kept), str(pictures)])
    said = capsys.readouterr().out.splitlines()
    names = [task.classnames[k] for k in clf.predict(task.test[0][:3])]
    assert [line.split(',')[1] for line in said[-3:]] == names

def test_other_boxes(task, model):
    "A box with a cap, and a box that answers a few candidates at a time, in other precision"
    capped = CLIPBlackBox('craft-mini', task.classnames, budget=90)
    clf = RobustCraFT(capped).fit(*task.train)
    assert capped.ledger.queries == 82 and len(clf.history_) == 3       # two generations, and two
    with pytest.raises(BudgetExceeded): clf.fit(*task.train)
    assert capped.ledger.queries == 82
    slow = model.with_classes(task.classnames)
    slow.max_candidates = 7
    again = RobustCraFT(slow, budget=82).fit(*task.train)
    assert torch.allclose(again.prompts_, clf.prompts_, atol=1e-4)
    rough = CLIPBlackBox('craft-mini', task.classnames, precision='bf16')
    test = task.test[0][:100]
    same = RobustCraFT(rough, budget=82).fit(*task.train).predict(test) == clf.predict(test)
    assert same.mean() > .7

@pytest.mark.parametrize('counts', [(1, 1, 1, 1, 1), (3, 1, 2, 1, 4), (4, 4, 0, 4, 4)])
def test_few_and_uneven(task, model, counts):
    "One picture of a class, some of others, none of one: a fit without a warning"
    y = task.train[1]
    places = torch.cat([(y == k).nonzero()[:n, 0] for k, n in enumerate(counts)])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        clf = RobustCraFT(model, budget=82).fit(task.train[0][places], y[places])
    P = clf.predict_proba(task.test[0][:20])
    assert P.shape == (20, 5) and np.allclose(P.sum(1), 1, atol=1e-5)
