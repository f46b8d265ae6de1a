"""Probes and hard prompts: the word lists that are shipped, what their files hold.

And settings that are refused before anything is asked."""
import json
import numpy as np, pytest
from craft_nb.clip import CLIPBlackBox
from craft_nb.data import fewshot
from craft_nb.lab.experiments import method_class
from craft_nb.hybrids import CraFTJoint, CraFTProbes
from craft_nb.probes import IMAGENET_NAMES, PROBE_WORDS, Probes
from craft_nb.texts import HardPrompts, POOL, PROMPT_WORDS, check_templates

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

@pytest.mark.parametrize('name', [
    'craft_nb.probes.Probes',
    'craft_nb.probes.CraFTProbes',
    'craft_nb.probes.CraFTJoint',
    'craft_nb.texts.HardPrompts'])
def test_names_in_lines(name):
    "The places of old lines still lead to today's classes"
    assert method_class(name).__name__ == name.rpartition('.')[2]

# --- settings

@pytest.mark.parametrize('kind', [Probes, CraFTProbes, CraFTJoint])
@pytest.mark.parametrize('kw, says', [
    (dict(choose='best'), 'expected random, spread or helps'),
    (dict(probes='verbs'), 'expected imagenet, words, prompts'),
    (dict(M=0), 'M=0: expected 1 or more')])
def test_bad_settings(task, model, kind, kw, says):
    "Refused before a query is paid for"
    box = model.with_classes(task.classnames)
    with pytest.raises(ValueError, match=says): kind(box, **kw).fit(*task.train)
    assert box.ledger.queries == 0

# --- files

def described(folder): return json.loads((folder/'classifier.json').read_text(encoding='utf-8'))

def test_files_of_probes(task, model, tmp_path):
    "What the two files hold, by name"
    clf = Probes(model, M=3, probes=['red', 'round', 'tall']).fit(*task.train)
    clf.save(tmp_path)
    info = described(tmp_path)
    assert {*info} == {'version', 'classnames', 'box', 'fingerprint', 'texts', 'history', 'settings', 'shape'}
    assert info['texts'] == ['red', 'round', 'tall'] and info['settings']['M'] == 3 and 'box' not in info['settings']

def test_files_of_hard_prompts(task, model, tmp_path):
    clf = HardPrompts(model, budget=8, ridge=.1, learn_refiner=True, epochs=1).fit(*task.train)
    clf.save(tmp_path)
    info = described(tmp_path)
    assert {*info} == {
        'version', 'classnames', 'box', 'fingerprint', 'texts', 'history', 'settings', 'ridge', 'kind'}
    assert info['kind'] is None
    again = HardPrompts.load(tmp_path, model)
    pictures = task.test[0][:5]
    assert again.get_params() == clf.get_params()
    assert np.array_equal(again.predict_proba(pictures), clf.predict_proba(pictures))
