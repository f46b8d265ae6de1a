"The pictures: what the built-in tasks promise, and what bad input is told."
import csv, hashlib, json, random, shutil, sys, warnings
from collections import Counter
from pathlib import Path
from zipfile import ZipFile
import numpy as np, pytest, torch
from PIL import Image
from craft_nb.data import ASSETS, DEBIAN, ELEVEN, HEADROOM, SATURATED, SUITE, TASKS, fewshot, find_rows, tasks
from craft_nb.lab.integrity import FASHION
from craft_nb.pictures import Pictures, as_labels, as_pictures
from conftest import py

SHIPPED = [o for o in TASKS if o != 'stamps']
FINE = ['animals', 'food', 'travel', 'objects']
ZIPS = 'pictures.zip', 'suite.zip'
ROOT = Path(__file__).parents[1]
each = pytest.mark.parametrize('name', SHIPPED)

@pytest.fixture(autouse=True)
def no_env(monkeypatch): monkeypatch.delenv('CRAFT_NB_DATA', raising=False)

@pytest.fixture(scope='module')
def table(): return {o['name']: o for o in tasks()}

@pytest.fixture(scope='module')
def digests():
    res = {}
    for pictures in ZIPS:
        with ZipFile(ASSETS/pictures) as z: res |= {o: hashlib.sha256(z.read(o)).hexdigest() for o in z.namelist()}
    return res

def parts(name, key):
    rows, _ = find_rows(name)
    return [{key(r) for r in rows if r.split == s} for s in ('train', 'test')]

@each
def test_enough_pictures(name, table):
    assert table[name]['test'] >= 500
    if name in FINE: assert table[name]['shots'] == 2
    else: assert table[name]['shots'] >= 16

@each
def test_every_class_is_tested(name):
    rows, _ = find_rows(name)
    assert {r.label for r in rows if r.split == 'test'} == {r.label for r in rows}

@each
def test_disjoint_bytes(name, digests):
    def content(r): return r.source.tobytes() if isinstance(r.source, np.ndarray) else digests[r.source[1]]
    pool, test = parts(name, content)
    assert pool and test and not pool & test

def has_other_drawings(name): return name.startswith('shift') or name.endswith('_unseen')

@pytest.mark.parametrize('name', [o for o in SHIPPED if o == 'clipart' or has_other_drawings(o)])
def test_disjoint_drawings(name):
    "By code point for emoji, by file for clip art"
    pool, test = parts(name, lambda r: r.source[1].split('/')[1])
    assert pool and test and not pool & test

def test_emoji_on_both_sides():
    "The plain tasks show some emoji in the pool and in the test; the unseen and shifted ones show none"
    emoji = [o for o in SHIPPED if o not in ('fashion', 'digits', 'clipart', *SUITE)]
    shared = {}
    for name in emoji:
        pool, test = parts(name, lambda r: r.source[1].split('/')[1])
        shared[name] = len(pool & test)
    assert {o for o, n in shared.items() if not n} == {o for o in emoji if has_other_drawings(o)}

@pytest.mark.parametrize('name, styles', [
    ('shift_v2', {'noto-v1', 'emojione'}),
    ('shift_sketch', {'fluent-hc', 'emojione-mono'}),
    ('shift_a', {'clip'}),
    ('shift_r', {'fluent-3d', 'fluent-flat'})])
def test_shift_styles(name, styles):
    pool, test = parts(name, lambda r: r.source[1].split('/')[0])
    assert pool == {'noto'} and test == styles

@pytest.mark.parametrize('name', [o for o in SHIPPED if o.endswith('_unseen')])
def test_two_forms(name):
    "The same classes; in the one most test emoji have a drawing in the pool"
    seen = name.removesuffix('_unseen')
    assert fewshot(name, 1).classnames == fewshot(seen, 1).classnames
    pool, test = parts(seen, lambda r: r.source[1].split('/')[1])
    assert len(pool & test) > len(test)/2

def test_same_kinds(table):
    kinds = fewshot('emoji', 1).classnames
    assert all(fewshot(o, 1).classnames == kinds for o in ('clipart', 'shift_v2', 'shift_sketch', 'shift_a', 'shift_r'))

def test_every_shipped_picture_opens():
    "and none is shipped that no task uses"
    used = {r.source for o in SHIPPED if o != 'digits' for r in find_rows(o)[0]}
    for pictures in ZIPS:
        with ZipFile(ASSETS/pictures) as z: shipped = set(z.namelist())
        assert {o[1] for o in used if o[0].name == pictures} == shipped
    sizes = Counter(max(im.size) for im in Pictures(sorted(used)))
    assert max(sizes) == 96 and min(sizes) >= 16

def hands(name):
    with open(ASSETS/f'tasks/{name}.csv', newline='', encoding='utf-8') as f: rows = list(csv.DictReader(f))
    return rows, [{r['style'] for r in rows if r['split'] == s} for s in ('train', 'test')]

@pytest.mark.parametrize('name', SUITE)
def test_hands_apart(name):
    "An icon set or a family of fonts draws for the pool or for the test"
    rows, (pool, test) = hands(name)
    assert len(pool) >= 16 and len(test) >= 16 and not pool & test

@pytest.mark.parametrize('name', SUITE)
def test_no_copies(name, minivlm):
    "No test picture can hardly be told from a pool picture of its class"
    rows, _ = find_rows(name)
    bits = {r.source: minivlm.dhash(Pictures([r.source])[0].convert('RGBA')) for r in rows}
    def hashes(label, split): return np.array([bits[r.source] for r in rows if (r.label, r.split) == (label, split)])
    for label in {r.label for r in rows}:
        pool, test = hashes(label, 'train'), hashes(label, 'test')
        assert (test[:, None] ^ pool).sum(-1).min() > minivlm.SAME

@pytest.fixture(scope='module')
def minivlm():
    sys.path.insert(0, str(ROOT/'scripts/minivlm'))
    import tasks
    return tasks

def test_eleven(table):
    "Eight with headroom and three without, as the figures say that were taken before any method was run"
    rows = json.loads((ROOT/'nbs/results/headroom.json').read_text())
    gains = {t: [r['features'] - r['zero_shot'] for r in rows if r['task'] == t] for t in ELEVEN}
    assert all(len(g) == 3 for g in gains.values())
    assert len(HEADROOM) == 8 and len(SATURATED) == 3
    assert {t for t in ELEVEN if np.mean(gains[t]) >= 10} == set(HEADROOM)
    classes = sorted(table[t]['classes'] for t in HEADROOM)
    assert classes[-1] == 100 and sum(5 <= k <= 10 for k in classes) >= 3

def test_notice():
    "Every package that a picture of the suite comes from is named, with its version"
    notice = (ROOT/'NOTICE').read_text()
    with open(ROOT/'scripts/minivlm/suite.csv', newline='', encoding='utf-8') as f: packages = list(csv.DictReader(f))
    line = {o['package'].split('/')[1]: f"{o['package']} {o['version']}" for o in packages}
    used = {r['source'].split(':')[0] for name in SUITE for r in hands(name)[0]}
    assert len(used) > 100 and not [o for o in used if line[o] not in notice]

@each
def test_draw(name, table):
    shots = min(4, table[name]['shots'])
    a, b, c = (fewshot(name, shots, s) for s in (1, 1, 2))
    assert a.train[1].dtype == torch.int64 and set(a.train[1].bincount().tolist()) == {shots}
    def sources(t): return [str(o) for o in t.train[0].sources]
    assert sources(a) == sources(b) != sources(c)
    assert torch.equal(a.test[1], c.test[1]) and len(a.test[0]) == len(a.test[1]) == table[name]['test']

def test_draws_are_nested():
    few, many = (fewshot('emoji', k, 1).train[0].sources for k in (4, 16))
    assert set(few) < set(many)

def test_no_generator_moves():
    def state(): return [str(random.getstate()), str(np.random.get_state()), torch.get_rng_state().tolist()]
    before = state()
    for name in SHIPPED: fewshot(name, 1)
    assert state() == before

def test_readers_are_found_by_name(tmp_path):
    "`craft_nb.data` alone can ask for a dataset on a disk; importing it loads neither its readers nor torchvision"
    code = """
import sys
from craft_nb.data import fewshot
early = [o for o in sys.modules if o.startswith('craft_nb.lab') or o == 'torchvision']
if early: sys.exit(f'imported: {early}')
try: fewshot('eurosat', root=sys.argv[1])
except FileNotFoundError as e: sys.exit('eurosat is not complete under' not in str(e))
"""
    rc, out = py(code, str(tmp_path))
    assert rc == 0, out

def picture(path, v=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), v, np.uint8)).save(path)

@pytest.fixture
def folder(tmp_path):
    for c in ('sea_star', 'urchin'):
        for i in range(5): picture(tmp_path/'own'/c/f'{i}.png', 10*i)
    return tmp_path/'own'

def test_folder_is_csv(folder):
    lines = ['path,label']
    for p in sorted(folder.rglob('*.png')):
        kind = p.parent.name
        lines.append(f'own/{kind}/{p.name},{kind.replace("_", " ")}')
    listed = folder.parent/'own.csv'
    listed.write_text('\n'.join(lines) + '\n')
    a, b = fewshot(folder, 3), fewshot(str(listed), 3)
    assert a.classnames == b.classnames == ['sea star', 'urchin']
    for p, q in ((a.train, b.train), (a.test, b.test)): assert p[0].sources == q[0].sources and torch.equal(p[1], q[1])
    assert len(a.train[0]) == 6 and len(a.test[0]) == 4 and not set(a.train[0].sources) & set(a.test[0].sources)

def test_split_folders(folder):
    shutil.copytree(folder, folder.parent/'both/train')
    shutil.copytree(folder, folder.parent/'both/test')
    t = fewshot(folder.parent/'both', 5)
    assert len(t.train[0]) == 10 and len(t.test[0]) == 10

def test_litter(folder):
    for o in ('.DS_Store', 'urchin/Thumbs.db', 'urchin/.hidden.png', '.git/config'):
        (folder/o).parent.mkdir(exist_ok=True)
        (folder/o).write_text('x')
    assert len(fewshot(folder, 2).test[0]) == 6

def bad(match, what, exc=ValueError, **kw):
    with pytest.raises(exc, match=match): fewshot(what, **kw)

def test_bad_shots(folder):
    bad("'sea star' has 5, 'urchin' has 5, but shots=16 needs 17 .* use shots=4", folder)
    bad("shots=-1 is no count", folder, shots=-1)
    bad("use shots=2 or add pictures", 'food')

def test_bad_folder(folder):
    shutil.rmtree(folder/'urchin')
    bad(r"one class only \('sea star'\)", folder, shots=1)
    (folder/'urchin').mkdir()
    bad('empty class: .*urchin', folder, shots=1)
    (folder/'urchin/a.png').write_text('no picture')
    bad('urchin.a.png is no picture', folder, shots=1)
    (folder/'urchin/a.png').unlink()
    (folder/'urchin/notes.txt').write_text('no picture')
    bad('notes.txt is no picture', folder, shots=1)
    (folder.parent/'none').mkdir()
    bad('expected one folder a class', folder.parent/'none')

def test_cut_off(folder):
    p = folder/'urchin/0.jpg'
    Image.effect_noise((99, 99), 50).save(p)
    p.write_bytes(p.read_bytes()[:1000])
    bad('0.jpg is no picture', folder, shots=1)

@pytest.mark.parametrize('text, match', [
    ('', 'no column path and no label'),
    ('a,b\n', 'no column path and no label'),
    ('file,label\nx.png,cat\n', r'no column path; expected path,label\[,split\], found file,label'),
    ('path,label\n', 'no pictures'),
    ('path,label\nx.png,\n', 'line 2'),
    ('path,label\nx.png,cat\ny.png,dog\n', 'x.png is missing'),
    ('path,label\nx.png,cat\nx.png,dog\n', 'x.png is listed twice'),
    ('path,label,split\nx.png,cat,later\n', "line 2: split is 'later'")])
def test_bad_csv(tmp_path, text, match):
    (tmp_path/'a.csv').write_text(text)
    bad(match, tmp_path/'a.csv', shots=1)

def test_no_csv(tmp_path):
    picture(tmp_path/'disc.png')
    bad('disc.png is no CSV in UTF-8', tmp_path/'disc.png')

def test_folder_of_a_built_in_name(folder, monkeypatch):
    "The built-in task is meant, and a warning says so; a path is the folder"
    folder.rename(folder.parent/'digits')
    monkeypatch.chdir(folder.parent)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        assert len(fewshot('digits', 2).classnames) == 10
    assert [str(o.message) for o in said] == [
        "'digits' is the built-in task of that name, not the digits that lies here: write ./digits for that"]
    for o in ('./digits', Path('digits')): assert fewshot(o, 2).classnames == ['sea star', 'urchin']

class Column:
    "As pandas' Series: places are not its keys"
    iloc, ndim = None, 1
    def __len__(self): return 2
    def __getitem__(self, i): raise KeyError(i)
    def tolist(self): return ['a.png', 'b.png']

def test_collections():
    assert as_pictures(Column()) == ['a.png', 'b.png']
    assert as_pictures([('a.zip', 'in/disc.png')])[0][1] == 'in/disc.png'

@pytest.mark.parametrize('labels, says', [
    ([0, -1], r'\(-1, for one\)'),
    ([0, float('nan')], r'\(nan, for one\)'),
    ([0, 2], 'from 0 to 1'),
    ([0], '2 pictures but 1 labels'),
    (['cat', 'dog'], 'is no number'),
    (np.eye(2), r'of shape \(2, 2\)')])
def test_bad_labels(labels, says):
    with pytest.raises(ValueError, match=says): as_labels(labels, 2, 2)

def test_no_labels():
    with pytest.raises(ValueError, match='no pictures to learn from'): as_labels([], 0, 3)

def test_unknown(tmp_path):
    bad("unknown task 'digit'. Did you mean 'digits'\\? Built in: fashion, .*shift_r", 'digit')
    bad("unknown task 'fasion'. Did you mean 'fashion'\\? Built in: fashion, digits, emoji", 'fasion')
    bad('no such folder or CSV', tmp_path/'nowhere', exc=FileNotFoundError)
    bad('pictures.csv: no such folder or CSV', 'pictures.csv', exc=FileNotFoundError)
    bad('apt install tuxpaint-stamps-default', 'stamps', exc=FileNotFoundError, root=tmp_path/'nowhere')
    bad('no train-images', 'fashion', exc=FileNotFoundError, root=tmp_path)

def test_other_places(tmp_path, monkeypatch):
    "$CRAFT_NB_DATA leads to data that is not shipped"
    picture(tmp_path/'stamps/animals/fish/cod.png')
    picture(tmp_path/'stamps/animals/bird.png')
    (tmp_path/'stamps/animals/fish/cod.txt').write_text('A cod (a fish).\nde=Ein Dorsch.')
    (tmp_path/'stamps/animals/bird.txt').write_text('Bird!')
    monkeypatch.setenv('CRAFT_NB_DATA', str(tmp_path))
    t = fewshot('stamps', 0)
    assert t.classnames == ['Bird', 'cod'] and len(t.train[0]) == 0 and t.test[1].tolist() == [0, 1]
    assert len(fewshot('fashion').test[0]) == 2000

@pytest.mark.skipif(not Path(DEBIAN['fashion'][0]).is_dir(), reason='dataset-fashion-mnist is not installed')
def test_real_fashion():
    t = fewshot('fashion', root=DEBIAN['fashion'][0])
    assert t.classnames == FASHION and t.test[1].bincount().tolist() == [1000]*10
