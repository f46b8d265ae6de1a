"""A user's own pictures: nothing goes wrong without a word.

Folders that look alike, splits, names that are taken, models without weights, probabilities,
and pictures and labels in any form."""
import csv, json
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from craft_nb.lab.statistics import ece
from craft_nb.clip import CLIPBlackBox
from craft_nb.cli import main
from craft_nb.craft import CraFT
from craft_nb.data import TASKS, fewshot
from craft_nb.losses import cross_entropy
from craft_nb.pictures import open_picture
from craft_nb.apis import CallableBlackBox

SMALL = '--shots 2 --methods zero_shot,craft --budget 82 --quiet'

def save(task, folder, names, n=8, start=0):
    "Pictures of a built-in task as a user would have them: a folder a class"
    pics, y = task.train
    for name in names:
        to = Path(folder, name)
        to.mkdir(parents=True, exist_ok=True)
        ids = (y == task.classnames.index(name)).nonzero()[start:start+n, 0].tolist()
        for i in ids: pics[i].save(to/f'{i}.png')
    return Path(folder)

@pytest.fixture(scope='module')
def emoji(): return fewshot('emoji', 16, 1)

@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path

@pytest.fixture
def said(capsys):
    "What a command prints, or ends with"
    def run(words):
        capsys.readouterr()
        try: main(words.split())
        except SystemExit as e: return str(e)
        return ''.join(capsys.readouterr())
    return run

def report(out): return json.loads(Path(out, 'report.json').read_text())
def table(path):
    with open(path, newline='', encoding='utf-8') as f: return list(csv.DictReader(f))
def labels(path): return {r['label'] for r in table(path)}

# --- folders that look alike

def test_two_folders_of_one_name(here, emoji, said):
    "Other classes under the same last name: a run of its own, a classifier of its own, and the first stays"
    save(emoji, 'pets', ['bird', 'fruit'])
    save(emoji, 'other/pets', ['tool', 'meal'])
    first = said(f'fit pets --out q {SMALL}')
    second = said(f'fit other/pets --out q {SMALL}')
    assert 'pets: 2 classes: bird, fruit' in first
    assert 'pets-2: 2 classes: meal, tool' in second and 'kept as pets-2' in second
    runs = report('q')['runs']
    assert [r['task'] for r in runs] == ['pets', 'pets', 'pets-2', 'pets-2']
    assert len({r['key'] for r in runs}) == 2
    assert 'holds 2 classifiers' in said('predict q pets')
    for name, classes in (('pets', {'bird', 'fruit'}), ('pets-2', {'meal', 'tool'})):
        said(f'predict q/{name}-seed1 pets --out {name}.csv')
        assert labels(f'{name}.csv') <= classes

def test_folder_that_changed(here, emoji, said):
    "The same folder with other pictures is run again; as it was, it is not"
    save(emoji, 'pets', ['bird', 'fruit'])
    said(f'fit pets --out q {SMALL}')
    again = said(f'fit {here}/pets --out q {SMALL}')
    assert len(report('q')['runs']) == 2 and 'kept as' not in again           # the same folder, by another way
    moved = sorted(Path('pets/bird').iterdir())[:4]
    for p in moved: p.rename(Path('pets/fruit', p.name))
    assert 'kept as pets-2' in said(f'fit pets --out q {SMALL}')
    assert len(report('q')['runs']) == 4

def test_two_of_one_name_at_once(here, emoji, said):
    "In one command too"
    save(emoji, 'pets', ['bird', 'fruit'])
    save(emoji, 'other/pets', ['tool', 'meal'])
    said(f'fit pets,other/pets --out q {SMALL}')
    told = report('q')
    assert [r['task'] for r in told['runs']] == ['pets', 'pets', 'pets-2', 'pets-2']
    assert set(told['tasks']) == {'pets', 'pets-2'}
    assert {p.parent.name for p in Path('q').glob('*/classifier.json')} == {'pets-seed1', 'pets-2-seed1'}

def test_option_left_out(here, emoji, said):
    "An option that is left out is another setting, and its default spelt out is not"
    save(emoji, 'pets', ['bird', 'fruit'])
    said(f'fit pets --out q {SMALL} --switches sigma=0.5')
    assert 'other settings (sigma)' in said(f'fit pets --out q {SMALL}')
    assert 'other settings (budget, sigma)' in said('fit pets --out q --shots 2 --methods craft --quiet')
    said(f'fit pets --out r {SMALL}')
    assert 'The report' in said(f'fit pets --out r {SMALL} --switches sigma=0.1')

def test_report_among_the_pictures(here, emoji, said, monkeypatch):
    "A report inside the folder of pictures would be a class of it"
    save(emoji, 'pets', ['bird', 'fruit'])
    assert 'lies inside the folder of pictures' in said(f'fit pets --out pets/q {SMALL}')
    assert not Path('pets/q').exists()
    monkeypatch.chdir('pets')
    assert 'lies inside the folder of pictures' in said(f'fit . {SMALL}')
    assert not Path('runs').exists()
    assert 'pets: 2 classes' in said(f'fit . --out ../q --methods zero_shot {SMALL}')

# --- splits

@pytest.mark.parametrize('train, test, aside', [
    ('train', 'val', None),
    ('Train', 'Test', None),
    ('training', 'testing', None),
    ('train', 'test', 'valid'),
    ('training_set', 'test_set', None)])
def test_splits(here, emoji, said, train, test, aside):
    "The usual names of parts are no classes; what is learned from and judged on is said before anything is asked"
    save(emoji, f'pets/{train}', ['bird', 'fruit'], 6)
    save(emoji, f'pets/{test}', ['bird', 'fruit'], 3, 6)
    if aside: save(emoji, f'pets/{aside}', ['bird', 'fruit'], 2, 9)
    says = said(f'fit pets --out q --methods zero_shot {SMALL}')
    assert 'pets: 2 classes: bird, fruit; 4 pictures to learn from, 6 to test' in says
    assert says.index('2 classes') < says.index('zero_shot')
    assert ('4 pictures for validation are set aside' in says) == bool(aside)

def test_split_in_csv(here, emoji):
    save(emoji, 'pets', ['bird', 'fruit'], 4)
    lines = ['path,label,split']
    for i, p in enumerate(sorted(Path('pets').rglob('*.png'))):
        part = 'Training' if i % 4 < 3 else 'valid'
        lines.append(f'{p},{p.parent.name},{part}')
    Path('pets.csv').write_text('\n'.join(lines))
    task = fewshot('pets.csv', 3)
    assert task.classnames == ['bird', 'fruit']
    assert (len(task.train[0]), len(task.test[0])) == (6, 2)

@pytest.mark.parametrize('folders, says', [
    ('train/bird train/fruit test/bird test/fruit fish', 'beside them fish/'),
    ('train/bird training/fruit test/bird', 'two folders for one part'),
    ('test/bird val/fruit', 'expected a folder to learn from'),
    ('train/bird train/fruit test', 'has no class folders'),
    ('train/bird train/fruit test/fish', "class 'fish' is in the pictures to judge on")])
def test_split_by_halves(here, folders, says):
    "What could be read in two ways is refused, in words"
    for f in folders.split():
        Path('pets', f).mkdir(parents=True, exist_ok=True)
        for i in range(4): Image.new('RGB', (8, 8), (i, 0, 0)).save(Path('pets', f, f'{i}.png'))
    with pytest.raises(ValueError, match=says): fewshot('pets', 1)

@pytest.mark.parametrize('train, test', [
    ('trainval', 'test'),
    ('1. train', '2. test'),
    ('train_images', 'test_images'),
    ('train', 'hold-out'),
    ('train', 'eval')])
def test_more_splits(here, emoji, train, test):
    save(emoji, f'pets/{train}', ['bird', 'fruit'], 6)
    save(emoji, f'pets/{test}', ['bird', 'fruit'], 3, 6)
    assert fewshot('pets', 2).classnames == ['bird', 'fruit']

def test_parts_inside_classes(here, emoji):
    "are refused"
    for c in ('bird', 'fruit'):
        for part in ('train', 'test'):
            save(emoji, 'parts', ['bird'], 3)
            Path('inside', c).mkdir(parents=True, exist_ok=True)
            Path('parts/bird').rename(Path('inside', c, part))
    with pytest.raises(ValueError, match='expected test/CLASS|expected train/CLASS'): fewshot('inside', 1)

def test_folders_like_parts(here, emoji):
    "are mentioned"
    for part in ('old', 'new'): save(emoji, f'like/{part}', ['bird', 'fruit'], 3)
    with pytest.warns(UserWarning, match='if they are parts of a dataset'): fewshot('like', 1)

def test_classes_without_test(here, emoji):
    "are mentioned"
    save(emoji, 'less/train', ['bird', 'fruit'], 3)
    save(emoji, 'less/test', ['bird'], 3)
    with pytest.warns(UserWarning, match='no pictures to judge on of fruit'): fewshot('less', 1)

def test_linked_folders(here, emoji):
    "A link to other pictures is followed; one that leads in a circle is not"
    save(emoji, 'far', ['bird'], 4)
    save(emoji, 'linked', ['bird', 'fruit'], 4)
    Path('linked/fruit/more').symlink_to(here/'far/bird')
    Path('linked/fruit/round').symlink_to(here/'linked/fruit')
    assert len(fewshot('linked', 1).test[0]) == 3 + 7

def test_csv_as_people_write_it(here, emoji):
    "Spaces around a label make no class; one file under two names is one file"
    save(emoji, 'pets', ['bird', 'fruit'], 3)
    files = sorted(Path('pets').rglob('*.png'))
    rows = [f'{p},{p.parent.name}{" "*(i % 2)}' for i, p in enumerate(files)]
    Path('a.csv').write_text('\n'.join(['path,label', *rows]))
    assert fewshot('a.csv', 1).classnames == ['bird', 'fruit']
    Path('b.csv').write_text(f'path,label\n{files[0]},bird\n./{files[0]},fruit')
    with pytest.raises(ValueError, match='is listed twice'): fewshot('b.csv', 1)

def test_deep_pictures(here):
    "16 bits, whole numbers and floats: scaled, not cut off"
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Path('a.pgm').write_bytes(b'P5 16 16 65535\n' + (grey*257).astype('>u2').tobytes())
    Image.fromarray((grey/255).astype(np.float32)).save('a.tiff')
    Image.fromarray(grey*257).save('a.png')
    for source in ('a.pgm', 'a.tiff', 'a.png', grey*257, torch.tensor(grey/255, dtype=torch.bfloat16)):
        red = np.asarray(open_picture(source))[..., 0].astype(int)
        assert abs(red - grey).max() <= 1, source

def test_vehicles(here):
    "A train among other classes is a class"
    for c in ('train', 'bus', 'car'):
        Path('v', c).mkdir(parents=True)
        for i in range(3): Image.new('RGB', (8, 8)).save(Path('v', c, f'{i}.png'))
    assert fewshot('v', 1).classnames == ['bus', 'car', 'train']

# --- names

def test_folder_behind_a_built_in_name(here, emoji, said):
    save(emoji, 'food_kinds', ['bird', 'fruit'])
    says = said(f'fit food_kinds --out a --methods zero_shot {SMALL}')
    assert "'food_kinds' is the built-in task of that name" in says and 'food_kinds: 7 classes' in says
    for name, out in (('./food_kinds', 'b'), (f'{here}/food_kinds', 'c')):
        says = said(f'fit {name} --out {out} --methods zero_shot {SMALL}')
        assert 'food_kinds: 2 classes: bird, fruit' in says
    assert fewshot(Path('food_kinds'), 2).classnames == ['bird', 'fruit'] and 'food_kinds' in TASKS

def test_random_weights(here, said):
    "An architecture is no model; random weights are had by that name"
    says = said(f'fit digits --model ViT-B-32 --out q --methods zero_shot {SMALL}')
    assert 'ViT-B-32 is an architecture without weights' in says
    with pytest.raises(ValueError, match='openai'): CLIPBlackBox('RN50', ['a', 'b'])
    with pytest.raises(ValueError, match='holds no weights'): CLIPBlackBox(here, ['a', 'b'])
    assert CLIPBlackBox(('RN50', 'random'), ['a', 'b']).spec == dict(model='RN50', pretrained='random')

# --- a command that fails

def files(folder): return {p: p.read_bytes() for p in Path(folder).rglob('*') if p.is_file()}

@pytest.mark.parametrize('words', [
    'fit nowhere --out q',
    'fit pets --out q --shots 99',
    'fit pets --out q --shots 2 --budget 5 --quiet',
    f'fit pets --out q {SMALL} --device mars',
    f'fit pets --out q {SMALL} --methods crafty',
    f'fit pets --out q {SMALL} --model http://127.0.0.1:9',
    f'fit pets --out q {SMALL} --switches sigmaa=2'])
def test_failed_command(here, emoji, said, words):
    "A command that fails before it asks anything leaves the folder as it was: --resume goes on with the one that ran"
    save(emoji, 'pets', ['bird', 'fruit'])
    said(f'fit pets --out q {SMALL} --methods craft')
    before = files('q')
    assert said(words).startswith('craft-nb fit:')
    assert files('q') == before
    assert 'The report' in said('fit --resume q --quiet')

@pytest.fixture
def stopped(here, emoji, said, monkeypatch):
    "A fit that was stopped in its third generation"
    save(emoji, 'pets', ['bird', 'fruit'])
    save(emoji, 'other/pets', ['tool', 'meal'])
    whole = CraFT.search
    def stop(clf, run):
        if len(run.history) == 2: raise KeyboardInterrupt
        return whole(clf, run)
    with monkeypatch.context() as m:
        m.setattr(CraFT, 'search', stop)
        says = said('fit pets --out q --shots 2 --budget 205 --methods craft --quiet')
    assert 'it goes on with: craft-nb fit --resume q' in says
    assert not report('q')['runs']

@pytest.mark.parametrize('words, says', [
    ('fit pets --shots 3 --budget 82 --methods craft', 'other settings (budget, shots)'),
    ('fit pets --shots 2 --methods craft', 'other settings (budget)'),
    ('fit other/pets,nowhere --shots 2 --budget 205', 'unknown task')])
def test_failure_after_a_stop(stopped, said, words, says):
    "A run that was stopped before its first row is as safe from a command that fails"
    before = files('q')
    assert says in said(f'{words} --out q --quiet') and files('q') == before
    assert 'The report' in said('fit --resume q --quiet') and report('q')['runs'][0]['queries'] == 205

def test_resume_elsewhere(stopped, said, monkeypatch):
    "From a directory with another folder of that name, and after the pictures changed: the run that was begun, or none"
    monkeypatch.chdir('other')
    assert 'pets: 2 classes: bird, fruit' in said('fit --resume ../q --quiet')
    some = next(Path('../pets/bird').iterdir())
    Path('../pets/bird/new.png').write_bytes(some.read_bytes())
    assert 'holds other pictures than when' in said('fit --resume ../q --quiet')
    assert len(report('../q')['runs']) == 1

def test_last_task_is_checked_first(here, emoji, said):
    "What is wrong with the last task shows before the first is paid for"
    save(emoji, 'pets', ['bird', 'fruit'])
    save(emoji, 'long', ['bird', 'fruit'])
    Path('long/bird').rename('long/' + 'very '*45 + 'long')
    for words in (
        'fit pets,long',                                              # by `tune`
        'fit pets --switches sigma=1',
        'fit pets,long --budget 82 --methods craft',
        'fit pets --budget 82 --methods craft --switches lr=abc',
        'fit pets --budget 82 --methods craft --switches sigma=-1',
        'fit pets --budget 82 --methods craft --switches popsize=1',
        'fit pets --budget 82 --methods craft --switches seed=3',
        'fit pets --budget 82 --seeds 0',
        'fit pets --budget 0'):
        says = said(f'{words} --out q --shots 2 --quiet')
        assert says.startswith('craft-nb fit:') and not Path('q/report.json').exists(), (words, says)

def test_weights_beside_weights(here, said):
    "A model that has its weights takes no others"
    for model in ('craft-mini', 'craft-mini-vit'):
        with pytest.raises(ValueError, match='has weights of its own'): CLIPBlackBox((model, 'openai'), ['a', 'b'])

def test_where_predictions_go(here, emoji, said):
    "That they cannot be written shows before anything is asked; what is no classifier of this command is told apart"
    save(emoji, 'pets', ['bird', 'fruit'])
    assert 'craft-nb predict q FOLDER' in said(f'fit pets --out q {SMALL}')
    assert 'predict' not in said(f'fit pets --out z {SMALL} --methods zero_shot')
    assert 'cannot be written' in said('predict q pets --out nowhere/a.csv')
    path = Path('q/pets-seed1/classifier.json')
    whole = path.read_text()
    for bad in (whole[:-9], '[]', whole.replace('"temperature"', '"other"'), whole.replace('"switches"', '"other"')):
        path.write_text(bad)
        assert said('predict q pets').startswith('craft-nb predict:')

def test_settings_of_a_failed_start(here, emoji, said):
    "A first command that never ran binds nobody to its settings"
    save(emoji, 'pets', ['bird', 'fruit'])
    assert 'a generation costs 41 queries' in said('fit pets --out q --shots 2 --methods craft --budget 5 --quiet')
    assert 'The report' in said(f'fit pets --out q {SMALL}')

# --- how sure

@pytest.fixture(scope='module')
def fitted():
    task = fewshot('counts', 16, 2)
    task.test = task.test[0][::5], task.test[1][::5]
    box = CLIPBlackBox('craft-mini', task.classnames)
    clf = CraFT(box, budget=4100, seed=2).fit(*task.train)
    return task, clf, clf.decision_function(task.test[0])

def test_calibrated(fitted):
    "Sure as it is right: over a temperature from held-out shots; the labels as they were, and no query more"
    task, clf, Y = fitted
    pictures, y = task.test
    right = Y.argmax(-1) == y
    raw = Y.softmax(-1)
    calibrated = torch.tensor(clf.predict_proba(pictures))
    def nll(p): return cross_entropy(p.log(), y).item()
    def error(p): return ece(p.max(-1).values, right)
    assert torch.equal(calibrated.argmax(-1), Y.argmax(-1))
    assert clf.temperature_ > 1 and clf.history_[-1]['queries'] == 4100
    assert nll(raw) > 1.2*nll(calibrated)
    assert error(raw) > error(calibrated) + .1

def test_calibration_is_kept(fitted, tmp_path):
    task, clf, _ = fitted
    clf.save(tmp_path)
    again = CraFT.load(tmp_path, clf.box)
    assert again.temperature_ == clf.temperature_
    assert np.array_equal(again.predict_proba(task.test[0][:9]), clf.predict_proba(task.test[0][:9]))

def test_calibration_of_few():
    "One shot, a guard, the release's preset: a temperature all the same"
    one, four = fewshot('counts', 1, 2), fewshot('counts', 4, 2)
    for task, kw in (
        (one, {}),
        (four, dict(fallback=True)),
        (one, dict(preset='code', views=2, normalize=False))):
        box = CLIPBlackBox('craft-mini', task.classnames)
        clf = CraFT(box, seed=2, budget=205, **kw).fit(*task.train)
        assert np.isfinite(clf.temperature_) and .05 < clf.temperature_ < 500

def test_marks_are_reported(here, emoji, said):
    save(emoji, 'pets', ['bird', 'fruit'])
    says = said(f'fit pets --out q {SMALL}')
    assert 'NLL / ECE' in says and all({'nll', 'ece'} <= r.keys() for r in report('q')['runs'])
    said('predict q pets --out p.csv')
    rows = table('p.csv')
    clf = CraFT.load('q/pets-seed1', CLIPBlackBox('craft-mini', ['bird', 'fruit']))
    sure = clf.predict_proba([r['path'] for r in rows]).max(1)
    assert [r['probability'] for r in rows] == [f'{p:.4f}' for p in sure]

# --- scores of other people's functions

def answers(scores, **kw):
    "A box around a function that answers so, asked once"
    box = CallableBlackBox(lambda texts, pictures: scores, ['cat', 'dog', 'cow'], **kw)
    return box.ask('{}', box.upload([np.zeros((8, 8, 3), np.uint8)]*len(scores)))[0]

LOGITS = torch.tensor([[-9., -4., -12.], [-2., -7., -3.]])

def test_sigmoid_scores():
    "SigLIP's scores are not logits: which they are must be said, and then nothing is lost"
    with pytest.raises(ValueError, match="kind='sigmoid'"): answers(LOGITS.sigmoid())
    assert torch.allclose(answers(LOGITS.sigmoid(), kind='sigmoid'), LOGITS, atol=1e-3)

def test_percentages():
    with pytest.raises(ValueError, match="kind='percent'"): answers(100*LOGITS.softmax(-1))
    assert torch.allclose(answers(100*LOGITS.softmax(-1), kind='percent'), LOGITS.log_softmax(-1), atol=1e-3)
    with pytest.raises(ValueError, match="kind 'probabilities'"): answers(100*LOGITS.softmax(-1), kind='probabilities')

def test_short_lists():
    "The sum of a short list is unknown, so what it holds must be said"
    top = [{'cat': .7, 'dog': .2}, {'dog': .9}]
    percent = [{k: 100*v for k, v in r.items()} for r in top]
    for scores in (top, percent, [{'cat': 12.}]*2):
        with pytest.raises(ValueError, match='short lists'): answers(scores)
    logits = answers(top, kind='probabilities')
    assert torch.allclose(logits.exp()[0], torch.tensor([.7, .2, .1]), atol=1e-3)
    assert torch.allclose(answers(percent, kind='percent'), logits, atol=1e-3)

@pytest.mark.parametrize('floor', [0., .9, -1., float('nan')])
def test_floor(floor):
    with pytest.raises(ValueError, match='floor='): answers(LOGITS.softmax(-1), floor=floor)

def test_plain_scores():
    assert torch.equal(answers(LOGITS), LOGITS)
    assert torch.allclose(answers(LOGITS.softmax(-1)), LOGITS.log_softmax(-1), atol=1e-3)
    assert torch.equal(answers(LOGITS.sigmoid(), kind='logits'), LOGITS.sigmoid())       # cosines, say

# --- pictures and labels in any form

@pytest.fixture(scope='module')
def digits():
    task = fewshot('digits', 1, 1)
    box = CLIPBlackBox('craft-mini', task.classnames)
    p0 = box.embed('a photo of a')
    def ask(pictures): return box.query(p0[None], box.upload(pictures))[0]
    return task, box, ask, ask(task.train[0])

def fit(box, X, y): return CraFT(box.with_classes(box.classnames), budget=41, seed=1).fit(X, y)

def test_arrays_and_tensors(digits):
    "NCHW or NHWC, bytes or floats, array or tensor: the same pictures"
    task, box, ask, Y = digits
    X = np.stack([np.asarray(p) for p in task.train[0]])
    first = torch.tensor(X).permute(0, 3, 1, 2)
    forms = X, X/255, list(X), first, first/255, first.numpy(), list(first/255)
    for form in forms: assert torch.allclose(ask(form), Y, atol=1e-4)
    pictures, y = task.train
    of_tensors = fit(box, first/255, y).predict(first)
    of_images = fit(box, pictures, y).predict(pictures)
    assert np.array_equal(of_tensors, of_images)
    with pytest.raises(ValueError, match='expected 0 to 1'): ask(first/128 - 1)

def test_pandas(digits, tmp_path):
    "A filtered column has labels that are no places"
    pd = pytest.importorskip('pandas')
    task, box, ask, Y = digits
    files = [str(tmp_path/f'{i}.png') for i in range(10)]
    for file, p in zip(files, task.train[0], strict=True): p.save(file)
    every = pd.DataFrame(dict(path=[files[3], files[4], *files], label=[3, 4, *task.train[1].tolist()]))
    some = every[2:]
    assert torch.allclose(ask(some['path']), Y, atol=1e-4)
    clf = fit(box, some['path'], some['label'])
    assert clf.score(some['path'], some['label']) == clf.score(*task.train)
    with pytest.raises(ValueError, match='give the column'): ask(some)

def test_image_folder(digits, tmp_path):
    "torchvision's datasets, with a transform or without"
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor
    task, box, ask, Y = digits
    labels = task.train[1].tolist()
    for p, k in zip(task.train[0], labels, strict=True):
        (tmp_path/str(k)).mkdir(exist_ok=True)
        p.save(tmp_path/str(k)/'0.png')
    for transform in (None, ToTensor()):
        data = ImageFolder(tmp_path, transform)
        order = [labels.index(k) for k in data.targets]
        assert torch.allclose(ask(data), Y[order], atol=1e-4)
    clf = fit(box, data, data.targets)
    assert 0 <= clf.score(data, data.targets) <= 1

@pytest.mark.parametrize('change, says', [
    (lambda y: y + .5, '10 of 10 labels are no class numbers'),
    (lambda y: y*float('nan'), 'no class numbers'),
    (lambda y: y - 1, r'\(-1, for one\)'),
    (lambda y: y + 1, r'\(10, for one\)'),
    (lambda y: y[:-1], '10 pictures but 9 labels'),
    (lambda y: [f'{k}' for k in y.tolist()], 'is no number'),
    (lambda y: torch.eye(10), r'of shape \(10, 10\)')])
def test_labels(digits, change, says):
    "A label is the number of a class, or an error in words; nothing is asked"
    task, box, *_ = digits
    own = box.with_classes(box.classnames)
    clf = CraFT(own, budget=41)
    with pytest.raises(ValueError, match=says): clf.fit(task.train[0], change(task.train[1]))
    assert own.ledger.calls == 0
    with pytest.raises(ValueError, match=says): CraFT(own).zero_shot().score(task.train[0], change(task.train[1]))

def test_nothing_to_learn_from(digits, emoji, here, said):
    task, box, *_ = digits
    save(emoji, 'pets', ['bird', 'fruit'])
    with pytest.raises(ValueError, match='no pictures to learn from'): CraFT(box).fit([], [])
    assert 'shots=0 leaves tune nothing to learn from' in said('fit pets --shots 0 --out q')
    assert 'zero_shot' in said('fit pets --shots 0 --methods zero_shot --out q --quiet')

@pytest.mark.parametrize('one', [
    'cat.jpg',
    np.zeros((8, 8, 3), np.uint8),
    torch.zeros(3, 8, 8),
    Image.new('RGB', (8, 8))])
def test_one_picture(digits, one):
    "is no set of pictures"
    with pytest.raises(ValueError, match='one picture'): CraFT(digits[1]).zero_shot().predict(one)

@pytest.mark.parametrize('odd', [iter([]), dict(a=1), torch.utils.data.DataLoader([1, 2])])
def test_odd_sets(digits, odd):
    with pytest.raises(ValueError, match='expected a list'): CraFT(digits[1], budget=41).fit(odd, [0])
