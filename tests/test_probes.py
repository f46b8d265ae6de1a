"""Probes and hard prompts: the word lists that are shipped, what their files hold.

And settings that are refused before anything is asked."""
import json
import numpy as np, pytest
from craft_nb.clip import CLIPBlackBox
from craft_nb.data import fewshot
from craft_nb.lab.experiments import method_class
from craft_nb.probes import IMAGENET_NAMES, PROBE_WORDS, Probes
from craft_nb.apis import CallableBlackBox
from craft_nb.texts import HardPrompts, TextOnly, POOL, PROMPT_WORDS, check_templates

@pytest.fixture(scope='module')
def task(): return fewshot('digits', 2, 1)

@pytest.fixture(scope='module')
def model(task): return CLIPBlackBox('craft-mini', task.classnames)

# --- lists

def test_imagenet_names():
    "The names that are shipped are open_clip's"
    from open_clip import IMAGENET_CLASSNAMES
    assert IMAGENET_NAMES == list(IMAGENET_CLASSNAMES)

def test_word_lists():
    "As the committed runs had them"
    assert (len(PROBE_WORDS), len(PROMPT_WORDS), len(POOL)) == (231, 137, 64)
    assert len(set(PROBE_WORDS)) == 231 and len(set(PROMPT_WORDS)) == 137 and len(set(POOL)) == 64
    assert check_templates(POOL)[0] == 'a photo of a {}.'

# --- names in committed lines

def test_names_in_lines():
    "The place of old lines still leads to today's class"
    assert method_class('craft_nb.texts.HardPrompts') is HardPrompts

# --- settings

@pytest.mark.parametrize('kw, says', [
    (dict(pieces='nine'), 'expected one of whole, seven'),
    (dict(probes='verbs'), 'expected words, imagenet'),
    (dict(M=0), 'M=0: expected 1 or more')])
def test_bad_settings(task, model, kw, says):
    "Refused before a picture is sent"
    box = model.with_classes(task.classnames)
    with pytest.raises(ValueError, match=says): Probes(box, **kw).fit(*task.train)
    assert (box.ledger.queries, box.ledger.images) == (0, 0)

# --- any box

def service(model, form):
    "A function of texts and pictures that answers in a form, and encodes the same pictures once"
    sets = {}
    def answer(texts, opened):
        key = tuple(map(id, opened))
        if key not in sets: sets[key] = opened, model.upload(opened)    # kept, so that no other picture gets their ids
        return form(model.with_texts(texts, ending='').score('', sets[key][1]), texts)
    return answer

def shares(Y, texts): return Y.softmax(-1)
def best(Y, texts): return [texts[i] for i in Y.argmax(-1)]

@pytest.mark.parametrize('pieces', ['whole', 'seven'])
def test_one_answer_whatever_the_box(task, model, pieces):
    "Soft prompts, texts alone, and a function that gives the softmax over eight texts a call: the same classifier"
    pictures = task.test[0][:30]
    soft = Probes(model, M=30, pieces=pieces).fit(*task.train)
    function = CallableBlackBox(service(model, shares), task.classnames, max_texts=8)
    for box, slack in (TextOnly(model), 1e-3), (function, .05):
        clf = Probes(box, M=30, pieces=pieces).fit(*task.train)
        assert np.abs(clf.predict_proba(pictures) - soft.predict_proba(pictures)).max() < slack
        assert clf.history_[0]['queries'] == 1
    assert function.ledger.calls - 2 >= 2*6 and function.kind == 'probabilities'

def test_labels_alone(task, model):
    "A service that names the best of eight texts and nothing else still teaches something; the file keeps the kind"
    eight = fewshot('digits', 8, 1)
    clf = Probes(CallableBlackBox(service(model, best), task.classnames, max_texts=8)).fit(*eight.train)
    pictures, y = (part[:100] for part in eight.test)
    zero_shot = model.score('a photo of a', model.upload(pictures)).argmax(-1)
    assert clf.score(pictures, y) > (zero_shot == y).float().mean() + .2

def test_kind_is_kept(task, model, tmp_path):
    answer = service(model, shares)
    Probes(CallableBlackBox(answer, task.classnames), M=20).fit(*task.train).save(tmp_path)
    fresh = CallableBlackBox(answer, task.classnames)
    assert Probes.load(tmp_path, fresh).box.kind == 'probabilities'
    other = CallableBlackBox(answer, task.classnames, kind='logits')
    with pytest.raises(ValueError, match='fitted on probabilities'): Probes.load(tmp_path, other)

# --- files

def described(folder): return json.loads((folder/'classifier.json').read_text(encoding='utf-8'))

def test_files_of_probes(task, model, tmp_path):
    "What the two files hold, by name"
    clf = Probes(model, M=3, probes=['red', 'round', 'tall']).fit(*task.train)
    clf.save(tmp_path)
    info = described(tmp_path)
    assert {*info} == {'version', 'method', 'classnames', 'box', 'fingerprint', 'texts', 'edges', 'history', 'settings',
                       'shape', 'kind'}
    assert info['texts'] == ['red', 'round', 'tall'] and info['settings']['M'] == 3 and 'box' not in info['settings']

def test_files_of_hard_prompts(task, model, tmp_path):
    clf = HardPrompts(model, budget=8, ridge=.1, learn_refiner=True, epochs=1).fit(*task.train)
    clf.save(tmp_path)
    info = described(tmp_path)
    assert {*info} == {
        'version', 'method', 'classnames', 'box', 'fingerprint', 'texts', 'history', 'settings', 'ridge', 'kind'}
    assert info['kind'] is None
    again = HardPrompts.load(tmp_path, model)
    pictures = task.test[0][:5]
    assert again.get_params() == clf.get_params()
    assert np.array_equal(again.predict_proba(pictures), clf.predict_proba(pictures))
