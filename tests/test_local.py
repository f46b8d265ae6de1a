"""A network of the user's own: alone and beside a box. The shots choose, a file finds its encoder again.

Most tests take a function for the network, since a small one is enough to see that it is asked."""
import json
import numpy as np, pytest, timm, torch
from craft_nb.apis import CallableBlackBox
from craft_nb.clip import CLIPBlackBox
from craft_nb.data import fewshot
from craft_nb.heads import train_head
from craft_nb.local import FusedProbes, KeptFeatures, LocalProbe, choose_sources, encode_pieces, load_encoder
from craft_nb.pictures import open_picture
from craft_nb.probes import PIECES, Probes
from craft_nb.texts import TextOnly

@pytest.fixture(scope='module')
def task(): return fewshot('digits', 2, 1)

@pytest.fixture(scope='module')
def model(task): return CLIPBlackBox('craft-mini', task.classnames)

def colours(pictures): # (N, 192): every picture as 8 x 8 colours
    small = [np.asarray(open_picture(p).convert('RGB').resize((8, 8)), np.float32) for p in pictures]
    return np.stack(small).reshape(len(small), -1)/255

def other(pictures): return 1 - colours(pictures)

def fused(box, **kw): return FusedProbes(box, **dict(encoder=colours, M=20) | kw)

# --- which sources

def made_up(seed=0):
    "Labels, zero-shot logits that say nothing, answers and features that say all or nothing"
    gen = torch.Generator().manual_seed(seed)
    y = torch.arange(5).repeat_interleave(8)
    Y = torch.randn(40, 5, generator=gen)
    known = 6*torch.eye(5)[y] + .3*torch.randn(40, 5, generator=gen)
    noise = torch.randn(2, 40, 5, generator=gen)
    return y, Y, known, noise

@pytest.mark.parametrize('seed', [0, 1, 2])
def test_one_knows_nothing(seed):
    "Whichever of the two is noise: no held-out picture is lost by it"
    y, Y, known, noise = made_up(seed)
    for A, X, other in (noise[0], known, 'box'), (known, noise[1], 'own'):
        chosen = choose_sources(Y, A[:, None], X[:, None], y)
        assert chosen['accuracy'] == 1 and chosen['sources'] != other

def test_each_knows_a_part():
    "The box tells classes 0 and 1 from the others, the network the rest: only the sum is right"
    y, Y, known, noise = made_up()
    A, X = known.clone(), known.clone()
    A[:, 2:] = noise[0, :, 2:]
    X[:, :2] = noise[1, :, :2]
    chosen = choose_sources(Y, A[:, None], X[:, None], y)
    assert chosen['sources'] == 'both'

def test_one_shot_takes_both():
    y = torch.arange(5)
    chosen = choose_sources(5*torch.eye(5), torch.randn(5, 1, 9), torch.randn(5, 1, 4), y)
    assert chosen['sources'] == 'both' and chosen['s'] == pytest.approx(.5/6) and chosen['loss'] is None

# --- what is asked

@pytest.mark.parametrize('pieces', ['whole', 'seven'])
def test_parts_of_the_sum(task, model, pieces):
    "The answer is put together from `Probes` on the same box and `LocalProbe` on the same features"
    clf = fused(model, pieces=pieces).fit(*task.train)
    pictures = task.test[0][:20]
    found = clf.history_[0]
    A = clf.ask(model.upload(clf.to_upload(pictures)), clf.texts_)
    X = encode_pieces(colours, pictures, PIECES[pieces])
    Y = A[:, 0, :10]
    weights = dict(box=(1, 0), own=(0, 1), both=(1, 1))[found['sources']]
    H = weights[0]*clf.head_.box(Y, A) + weights[1]*clf.head_.own(torch.zeros(20, 10), X)
    expected = (1 - found['s'])*Y + found['s']*H
    torch.testing.assert_close(clf.decision_function(pictures), expected, atol=1e-4, rtol=1e-4)

def test_no_question_without_need(task, model, monkeypatch):
    "If the shots choose the network alone, predictions ask nothing and are those of `LocalProbe` with its penalty"
    chosen = dict(sources='own', s=1., box_penalty=.1, own_penalty=.1, accuracy=1., loss=0.)
    monkeypatch.setattr('craft_nb.local.choose_sources', lambda *args: chosen)
    box = model.with_classes(task.classnames)
    clf = fused(box).fit(*task.train)
    assert clf.price() == dict(queries=0, texts=0, pictures=0)
    asked = dict(vars(box.ledger))
    pictures = task.test[0][:20]
    Z = clf.decision_function(pictures)
    X = encode_pieces(colours, task.train[0], PIECES['whole'])
    head = train_head(torch.zeros(20, 10), X, task.train[1], 'logistic', .1)
    expected = head(torch.zeros(20, 10), encode_pieces(colours, pictures, PIECES['whole']))
    torch.testing.assert_close(Z, expected, atol=1e-4, rtol=1e-4)
    assert dict(vars(box.ledger)) == asked and asked['queries'] == 1

def test_any_box(task, model):
    "Texts alone, and a function with eight texts a call"
    pictures = task.test[0][:20]
    soft = fused(model).fit(*task.train).predict_proba(pictures)
    def answer(texts, opened):
        return model.with_texts(texts, ending='').score('', model.upload(opened)).softmax(-1)
    for box, slack in (TextOnly(model), 1e-3), (CallableBlackBox(answer, task.classnames, max_texts=8), .05):
        clf = fused(box).fit(*task.train)
        assert np.abs(clf.predict_proba(pictures) - soft).max() < slack

def test_nothing_is_asked_in_vain(task, model, monkeypatch):
    "Without weights, with bad labels or settings: an error before the query"
    box = model.with_classes(task.classnames)
    pictures, y = task.train
    with pytest.raises(ValueError, match='timm has no model'): FusedProbes(box, encoder='resnet7').fit(pictures, y)
    with pytest.raises(ValueError, match='expected one of whole, seven'): fused(box, pieces='six').fit(pictures, y)
    with pytest.raises(ValueError): fused(box).fit(pictures, y[:-1])
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ImportError, match='craft_nb.local'): FusedProbes(box).fit(pictures, y)
    assert box.ledger.queries == box.ledger.images == 0

def test_features_of_a_wrong_shape(task, model):
    def flat(pictures): return np.zeros(len(pictures))
    with pytest.raises(ValueError, match=r'features of shape \(8,\): expected \(pictures, d\)'):
        LocalProbe(model, encoder=flat).fit(*task.train)

def test_kept_features(task):
    "Each picture goes to the network once"
    sent = []
    def encoder(pictures):
        sent.append(len(pictures))
        return torch.from_numpy(colours(pictures))
    kept = KeptFeatures(encoder)
    pictures = task.train[0][:6]
    first = kept(pictures)
    assert torch.equal(kept([*pictures[3:], task.train[0][7]])[:3], first[3:]) and sent == [6, 1]
    small = KeptFeatures(encoder, most=4)
    small(pictures)
    small(pictures[:1])
    assert len(small.known) == 1

# --- files

@pytest.fixture
def network(tmp_path):
    "A small network of timm, in a file of weights"
    def made(seed):
        torch.manual_seed(seed)
        net = timm.create_model('test_resnet', pretrained=False, num_classes=0)
        path = tmp_path/f'{seed}.pth'
        torch.save(net.state_dict(), path)
        return path
    return made

@pytest.mark.parametrize('kind', [LocalProbe, FusedProbes])
def test_files(kind, task, model, network, tmp_path):
    "Stored with the name of its network, and read back; with other weights it is refused"
    weights = network(0)
    clf = kind(model, encoder='test_resnet', weights=weights).fit(*task.train)
    clf.save(tmp_path/'clf')
    again = kind.load(tmp_path/'clf', model)
    pictures = task.test[0][:10]
    assert np.allclose(again.predict_proba(pictures), clf.predict_proba(pictures), atol=1e-5)
    assert again.history_ == clf.history_
    weights.write_bytes(network(1).read_bytes())
    with pytest.raises(ValueError, match='its features are not those'): kind.load(tmp_path/'clf', model)

@pytest.mark.parametrize('kind', [LocalProbe, FusedProbes])
def test_files_with_a_function(kind, task, model, tmp_path):
    "A function is not stored: it is given again"
    clf = kind(model, encoder=colours).fit(*task.train)
    clf.save(tmp_path)
    info = json.loads((tmp_path/'classifier.json').read_text(encoding='utf-8'))
    assert info['settings']['encoder'] is None
    with pytest.raises(ValueError, match='give it again'): kind.load(tmp_path, model)
    again = kind.load(tmp_path, model, encoder=colours)
    pictures = task.test[0][:10]
    assert np.allclose(again.predict_proba(pictures), clf.predict_proba(pictures), atol=1e-5)
    with pytest.raises(ValueError, match='no classifier of this|is of another'): Probes.load(tmp_path, model)

def test_a_function_is_checked_too(task, model, tmp_path):
    LocalProbe(model, encoder=colours).fit(*task.train).save(tmp_path)
    with pytest.raises(ValueError, match='its features are not those'):
        LocalProbe.load(tmp_path, model, encoder=other)

def test_load_encoder_takes_a_function(): assert load_encoder(colours) is colours
