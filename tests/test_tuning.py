"""`tune`: what it sends, what it spends, what it keeps; and the command that calls it."""
import csv
import numpy as np, pytest
from craft_nb.apis import CallableBlackBox
from craft_nb.blackbox import BudgetExceeded
from craft_nb.cli import main
from craft_nb.clip import CLIPBlackBox
from craft_nb.data import fewshot
from craft_nb.local import FusedProbes, LocalProbe
from craft_nb.pictures import open_picture
from craft_nb.probes import Probes
from craft_nb.texts import TextOnly
from craft_nb.tuning import Price, Tuning, choose_candidate, load_classifier, tune

@pytest.fixture(scope='module')
def task(): return fewshot('digits', 2, 1)

@pytest.fixture(scope='module')
def model(task): return CLIPBlackBox('craft-mini', task.classnames)

def colours(pictures): # (N, 192) features
    small = [np.asarray(open_picture(p).convert('RGB').resize((8, 8)), np.float32) for p in pictures]
    return np.stack(small).reshape(len(small), -1)/255

DEAR = Price(query=0, picture=.001, text=.0001)

# --- what it fits is what its parts fit

@pytest.mark.parametrize('method, kind, kw', [
    ('probes', Probes, {}), ('probes, in pieces', Probes, dict(pieces='seven')),
    ('local', LocalProbe, dict(pieces='seven', encoder=colours)),
    ('probes + local', FusedProbes, dict(pieces='seven', encoder=colours))])
def test_same_as_by_hand(task, model, method, kind, kw, monkeypatch):
    "Each candidate, made to win: the classifier that its own `fit` gives, for one query in all"
    names = ['probes', 'probes, in pieces', 'local', 'probes + local']
    monkeypatch.setattr('craft_nb.tuning.choose_candidate', lambda rows, N: names.index(method))
    box = model.with_classes(task.classnames)
    clf = tune(box, *task.train, encoder=colours)
    assert type(clf) is kind and clf.tuning_.chosen == method and box.ledger.queries == 1
    alone = kind(model.with_classes(task.classnames), **kw).fit(*task.train)
    pictures = task.test[0][:15]
    assert np.allclose(clf.predict_proba(pictures), alone.predict_proba(pictures), atol=1e-4)

def test_one_shot(model, task):
    "Nothing was held out: the last candidate, and no figures"
    one = fewshot('digits', 1, 1)
    box = model.with_classes(one.classnames)
    assert tune(box, *one.train, encoder=colours).tuning_.chosen == 'probes + local'
    clf = tune(box, *one.train, encoder=None)
    assert clf.tuning_.chosen == 'probes, in pieces'
    assert {r['accuracy'] for r in clf.tuning_.rows} == {None} and '-' in str(clf.tuning_)

# --- money

@pytest.mark.parametrize('budget', [.14, .3, 1, 3, 10])
def test_no_more_than_the_budget(task, model, budget):
    "The ledger's pictures and texts, at the price, stay below the budget"
    box = model.with_classes(task.classnames)
    clf = tune(box, *task.train, budget=budget, price=DEAR, encoder=None)
    spent = box.ledger.images*(DEAR.picture + box.ledger.texts*DEAR.text)
    assert spent <= clf.tuning_.bill + 1e-9 <= budget + 1e-9

def test_too_small_a_budget(task, model):
    box = model.with_classes(task.classnames)
    for kw in dict(budget=.05, price=DEAR), dict(budget=0):
        with pytest.raises(ValueError, match='the cheapest fit on 20 pictures of 10 classes costs'):
            tune(box, *task.train, encoder=None, **kw)
    spent = model.with_classes(task.classnames, budget=0)
    with pytest.raises(BudgetExceeded): tune(spent, *task.train, encoder=None)
    assert box.ledger.images == spent.ledger.images == 0

def test_dearer_must_be_worth_it():
    "A tie goes to the cheaper; without a price to the surer"
    rows = [dict(accuracy=.8, loss=.7, bill=1.), dict(accuracy=.8, loss=.6, bill=7.)]
    assert choose_candidate(rows, 100) == 0
    assert choose_candidate([r | dict(bill=0.) for r in rows], 100) == 1

# --- any box

def test_other_boxes(task, model):
    "Texts alone; a function that gives the best text of eight and nothing else"
    def best(texts, opened):
        Y = model.with_texts(texts, ending='').score('', model.upload(opened))
        return [texts[i] for i in Y.argmax(-1)]
    for box in TextOnly(model), CallableBlackBox(best, task.classnames, max_texts=8):
        clf = tune(box, *task.train, budget=.2, price=DEAR, encoder=colours)         # 25 words of whole pictures
        assert isinstance(clf.tuning_, Tuning) and clf.predict(task.test[0][:5]).shape == (5,)

# --- files and the command

@pytest.mark.parametrize('kind, kw', [(Probes, {}), (FusedProbes, {})])
def test_load(kind, kw, task, model, tmp_path):
    "The file says which class reads it"
    kind(model, M=10, **kw).fit(*task.train).save(tmp_path)
    assert type(load_classifier(tmp_path, model)) is kind

def test_load_of_another_class(task, model, tmp_path):
    class Mine(Probes): "A class that we do not know"
    Mine(model, M=10).fit(*task.train).save(tmp_path)
    with pytest.raises(ValueError, match='holds a Mine: expected one of CraFT, Probes'):
        load_classifier(tmp_path, model)

def test_command(task, tmp_path, monkeypatch, capsys):
    "A folder of pictures: `fit` tunes, says what it chose, keeps it; `predict` labels with it; again, nothing is asked"
    monkeypatch.chdir(tmp_path)
    pictures, y = fewshot('digits', 6, 1).train
    for i, (p, k) in enumerate(zip(pictures, y.tolist())):
        if k > 2: continue
        folder = tmp_path/'mine'/task.classnames[k]
        folder.mkdir(parents=True, exist_ok=True)
        open_picture(p).save(folder/f'{i}.png')
    main('fit mine --shots 3 --out out --quiet'.split())
    said = capsys.readouterr().out
    assert 'chosen: ' in said and 'craft-nb predict out FOLDER' in said
    main('fit mine --shots 3 --out out --quiet'.split())
    assert capsys.readouterr().out == said
    main('predict out mine --out labels.csv'.split())
    rows = list(csv.DictReader(open('labels.csv')))
    assert len(rows) == 18 and {r['label'] for r in rows} <= set(task.classnames)
