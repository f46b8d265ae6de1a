"""The fifteen benchmarks: every reader on a small tree in the true format.

Against torchvision's readers, where they can read it."""
import hashlib, json, random, shutil, warnings
from collections import Counter
from inspect import signature
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets as tv
from craft_nb.data import BENCHMARKS, canonical
from craft_nb.lab.datasets import benchmark_rows, distinct, locate, missing_pictures, read, sources
from craft_nb.lab.integrity import check, download, print_check, read_indices, write_indices

pytestmark = pytest.mark.filterwarnings('ignore:.*will not compare with the paper')
ALL = list(BENCHMARKS)
WNIDS = ['n01440764', 'n01443537', 'n01484850', 'n03773504', 'n04008634', 'n04355933', 'n04356056']
NAMES = ['tench', 'goldfish', 'great white shark', 'missile', 'missile', 'sunglasses', 'sunglasses']

# --- small trees in the true format

def paint(d, *names):
    for n in names:
        (d/n).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (3, 3), 'red').save(d/n, format='JPEG')

def write(file, *rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('\n'.join(rows) + '\n', encoding='utf-8')

def zhou(d, name, **parts): # train=[(picture, label, name)], ...
    write(d/BENCHMARKS[name]['split'], json.dumps({'val': [], **parts}, indent=4))

def make_pets(root, folder='oxford_pets'):
    "annotations/*.txt: picture, class from 1, species, breed in the species; list.txt has comments, and is not read"
    d = root/folder
    breeds = {1: 'Abyssinian', 2: 'american_bulldog', 3: 'american_pit_bull_terrier', 12: 'Egyptian_Mau'}
    paint(d/'images', *(f'{c}_{i}.jpg' for c in breeds.values() for i in (1, 20, 300)))
    (d/'images/Abyssinian_1.mat').touch()       # the true archive holds such files among the pictures
    write(d/'annotations/list.txt', '#Image CLASS-ID SPECIES BREED ID')
    for f, ids in (('trainval', (1, 20)), ('test', (300,))):
        lines = [f'{c}_{i} {k} {1 + c[0].islower()} 1' for k, c in breeds.items() for i in ids]
        write(d/f'annotations/{f}.txt', *lines)
    return d

def make_flowers(root, folder='oxford_flowers'):
    d = root/folder
    labels = np.array([[77]*3 + [1]*3 + [102]*3], np.uint8)
    parts = dict(trnid=[1, 4, 7], valid=[2, 5, 8], tstid=[9, 6, 3])
    paint(d/'jpg', *(f'image_{i:05d}.jpg' for i in range(1, 10)))
    savemat(d/'imagelabels.mat', dict(labels=labels))
    savemat(d/'setid.mat', {part: np.array([ids], np.uint16) for part, ids in parts.items()})
    return d

def make_aircraft(root, folder='fgvc_aircraft'):
    d = root/folder
    kinds = ['707-320', 'A300B4', 'Cessna 172', 'F-16A/B']
    pics = {s: [(f'{7*i + j:07d}', c) for i, c in enumerate(kinds)] for j, s in enumerate(('train', 'val', 'test'))}
    paint(d/'images', *(f'{i}.jpg' for p in pics.values() for i, _ in p))
    write(d/'variants.txt', *kinds)
    for s, p in pics.items(): write(d/f'images_variant_{s}.txt', *(f'{i} {c}' for i, c in p))
    write(d/'images_variant_trainval.txt', *(f'{i} {c}' for s in ('train', 'val') for i, c in pics[s]))
    write(d/'families.txt', 'Boeing 707')
    write(d/'images_family_train.txt', '0000000 Boeing 707')
    return d

def make_dtd(root, folder='dtd'):
    d = root/folder
    for i, s in enumerate(('train', 'val', 'test'), 1):
        pictures = [f'{c}/{c}_{i:04d}.jpg' for c in ('banded', 'polka-dotted', 'zigzagged')]
        paint(d/'images', *pictures)
        write(d/f'labels/{s}1.txt', *pictures)
    (d/'images/banded/.directory').touch()      # the true archive holds some of these
    return d

def make_eurosat(root, folder='eurosat'):
    kinds = 'SeaLake', 'AnnualCrop', 'Forest'
    paint(root/folder/'2750', *(f'{c}/{c}_{i}.jpg' for c in kinds for i in range(1, 11)))
    return root/folder

def make_cars(root, folder='stanford_cars'):
    "annotations: a 1 x n struct array, with a box before class and file name"
    d = root/folder
    names = ['AM General Hummer SUV 2000', 'Ram C/V Cargo Van Minivan 2012', 'smart fortwo Convertible 2012']
    fields = 'bbox_x1', 'bbox_y1', 'bbox_x2', 'bbox_y2', 'class', 'fname'
    def annos(labels):
        a = np.empty((1, len(labels)), dtype=[(f, object) for f in fields])
        for i, k in enumerate(labels): a[0, i] = (*np.uint16([1, 2, 3, 4]), np.uint8(k), f'{i+1:05d}.jpg')
        return dict(annotations=a)
    cells = np.empty((1, len(names)), object)
    cells[0, :] = names
    train, test = [3, 1, 2, 3], [2, 1, 3]
    for part, labels in dict(train=train, test=test).items():
        paint(d/f'cars_{part}', *(f'{i+1:05d}.jpg' for i in range(len(labels))))
    (d/'devkit').mkdir()
    savemat(d/'devkit/cars_meta.mat', dict(class_names=cells))
    savemat(d/'devkit/cars_train_annos.mat', annos(train))
    savemat(d/'cars_test_annos_withlabels.mat', annos(test))
    return d

def make_food(root, folder='food-101'):
    d = root/folder
    dishes = ['apple_pie', 'waffles']
    for s, ids in (('train', (12, 345)), ('test', (6,))):
        paint(d/'images', *(f'{c}/{i}.jpg' for c in dishes for i in ids))
        write(d/f'meta/{s}.txt', *(f'{c}/{i}' for c in dishes for i in ids))
        write(d/f'meta/{s}.json', json.dumps({c: [f'{c}/{i}' for i in ids] for c in dishes}))
    return d

def make_sun(root, folder='sun397'):
    d = root/folder
    scenes = ['/a/abbey', '/a/apartment_building/outdoor', '/a/apse/indoor']
    for s, n in (('Training', 'aaa'), ('Testing', 'bbb')):
        pics = [f'{c}/sun_{n}{i}.jpg' for c in scenes for i in (1, 2)]
        paint(d/'SUN397', *(o[1:] for o in pics))
        write(d/f'{s}_01.txt', *pics)
    for f in ('.', 'SUN397'): write(d/f/'ClassName.txt', *scenes)
    return d

def make_caltech(root, folder='caltech-101'):
    d = root/folder
    classes = 'BACKGROUND_Google', 'Faces', 'Faces_easy', 'Leopards', 'Motorbikes', 'airplanes', 'crocodile_head'
    paint(d/'101_ObjectCategories', *(f'{c}/image_{i:04d}.jpg' for c in classes for i in range(1, 11)))
    return d

def make_ucf(root, folder='ucf101'):
    "HandstandPushups/v_HandStandPushups_g01_c01.avi: folder and file differ by a capital, in the true lists too"
    d = root/folder
    lists, frames = d/'ucfTrainTestlist', d/'UCF-101-midframes'
    acts = [                                    # class, as its files spell it, its folder of frames
        ('ApplyEyeMakeup', 'ApplyEyeMakeup', 'Apply_Eye_Makeup'),
        ('HandstandPushups', 'HandStandPushups', 'Handstand_Pushups'),
        ('YoYo', 'YoYo', 'Yo_Yo')]
    classes, train, test = [], [], []
    for i, (act, spelt, words) in enumerate(acts, 1):
        paint(frames/words, f'v_{spelt}_g01_c01.jpg', f'v_{spelt}_g02_c01.jpg')
        classes.append(f'{i} {act}')
        train.append(f'{act}/v_{spelt}_g01_c01.avi {i}')
        test.append(f'{act}/v_{spelt}_g02_c01.avi')
    write(lists/'classInd.txt', *classes)
    write(lists/'trainlist01.txt', *train)
    write(lists/'testlist01.txt', *test)
    return d

def write_names(d): write(d/'classnames.txt', *(f'{w} {c}' for w, c in zip(WNIDS, NAMES)))

def make_imagenet(root, folder='imagenet'):
    for i, w in enumerate(WNIDS):
        paint(root/folder/'images/train'/w, f'{w}_10.JPEG', f'{w}_2.JPEG')
        paint(root/folder/'images/val'/w, f'ILSVRC2012_val_{i+1:08d}.JPEG')
    write_names(root/folder)
    return root/folder

def make_shift(root, name, folders, files=()):
    d = root/BENCHMARKS[name]['folders'][0]
    for w in folders: paint(d/BENCHMARKS[name]['images']/w, 'a_1.jpg', 'b_0.JPEG')
    for f in files: (d/BENCHMARKS[name]['images']/f).touch()
    write_names(d)
    return d

def make_v2(root): return make_shift(root, 'imagenetv2', map(str, range(7)), ['.DS_Store'])
def make_sketch(root): return make_shift(root, 'imagenet_sketch', WNIDS)
def make_a(root): return make_shift(root, 'imagenet_a', [WNIDS[5], WNIDS[1], WNIDS[4]], ['README.txt', '.DS_Store'])
def make_r(root): return make_shift(root, 'imagenet_r', [WNIDS[2], WNIDS[0]], ['README.txt', '._n01440764'])

MAKE = dict(
    oxford_pets=make_pets,
    oxford_flowers=make_flowers,
    fgvc_aircraft=make_aircraft,
    dtd=make_dtd,
    eurosat=make_eurosat,
    stanford_cars=make_cars,
    food101=make_food,
    sun397=make_sun,
    caltech101=make_caltech,
    ucf101=make_ucf,
    imagenet=make_imagenet,
    imagenetv2=make_v2,
    imagenet_sketch=make_sketch,
    imagenet_a=make_a,
    imagenet_r=make_r)

PETS = ['abyssinian', 'american bulldog', 'american pit bull terrier', 'egyptian mau']
CARS = ['2000 AM General Hummer SUV', '2012 Ram C/V Cargo Van Minivan', '2012 smart fortwo Convertible']
APART = ['tench', 'goldfish', 'great white shark', 'missile', 'Missile', 'sunglasses', 'Sunglasses']

# name -> class names of its small tree, template
EXPECTED = dict(
    oxford_pets=(PETS, 'a photo of a {}, a type of pet.'),
    oxford_flowers=(['pink primrose', 'passion flower', 'blackberry lily'], 'a photo of a {}, a type of flower.'),
    fgvc_aircraft=(['707-320', 'A300B4', 'Cessna 172', 'F-16A/B'], 'a photo of a {}, a type of aircraft.'),
    dtd=(['banded', 'polka-dotted', 'zigzagged'], '{} texture.'),
    eurosat=(['Annual Crop Land', 'Forest', 'Sea or Lake'], 'a centered satellite photo of {}.'),
    stanford_cars=(CARS, 'a photo of a {}.'),
    food101=(['apple pie', 'waffles'], 'a photo of {}, a type of food.'),
    sun397=(['abbey', 'outdoor apartment building', 'indoor apse'], 'a photo of a {}.'),
    caltech101=(['face', 'leopard', 'motorbike', 'airplane', 'crocodile head'], 'a photo of a {}.'),
    ucf101=(['Apply Eye Makeup', 'Handstand Pushups', 'Yo Yo'], 'a photo of a person doing {}.'),
    imagenet=(APART, 'a photo of a {}.'),
    imagenetv2=(APART, 'a photo of a {}.'),
    imagenet_sketch=(APART, 'a photo of a {}.'),
    imagenet_a=(['goldfish', 'Missile', 'sunglasses'], 'a photo of a {}.'),
    imagenet_r=(['tench', 'great white shark'], 'a photo of a {}.'))

each = pytest.mark.parametrize('name', ALL)
with_split = pytest.mark.parametrize('name', [n for n in ALL if BENCHMARKS[n]['split']])

@pytest.fixture
def root(tmp_path): return tmp_path/'ROOT'

def rows_of(name, root, split):
    "[(path, label number)] of a split"
    rows, names, _ = benchmark_rows(name, root)
    return [(str(p), names.index(c)) for p, c, s in rows if s == split]

def same(ours, paths, labels):
    assert ours and ours == [(str(p), int(y)) for p, y in zip(paths, labels, strict=True)]

# --- all fifteen

def test_fifteen(): assert len(ALL) == 15 and set(ALL) == set(MAKE) == set(EXPECTED)

@each
def test_rows(name, root):
    "Names, template, order of labels; every picture is there and opens"
    MAKE[name](root)
    rows, names, template = benchmark_rows(name, root)
    seen = {r[1] for r in rows}
    assert ([c for c in names if c in seen], template) == EXPECTED[name]
    assert seen <= set(names) and len(set(names)) == len(names) and template.count('{}') == 1
    assert rows and not missing_pictures(rows) and len({r[0] for r in rows}) == len(rows)
    for p, c, s in rows:
        assert isinstance(p, Path) and s in ('train', 'val', 'test')
        with Image.open(p) as im: im.load()

@each
def test_same_twice(name, root):
    "and no global generator is moved"
    MAKE[name](root)
    def state(): return random.getstate(), str(np.random.get_state())
    before = state()
    assert benchmark_rows(name, root) == benchmark_rows(name, root)
    assert state() == before

@each
def test_splits(name, root):
    MAKE[name](root)
    n = Counter(r[2] for r in benchmark_rows(name, root)[0])
    assert n['test'] and bool(n['train']) == (BENCHMARKS[name]['counts'][1] is not None)
    assert bool(n['val']) == (name in ('oxford_flowers', 'fgvc_aircraft', 'dtd', 'eurosat', 'caltech101'))

@each
def test_check_of_a_small_tree(name, root, capsys):
    MAKE[name](root)
    report = {o['what']: o for o in check(name, root)}
    K, train, test = BENCHMARKS[name]['counts']
    assert report['classes']['expected'] == K and report['test']['expected'] == test
    assert ('train' in report) == bool(train)
    assert not report['classes']['ok'] and not report['test']['ok'] and report['missing pictures']['ok']
    assert report['split']['ok'] == (not BENCHMARKS[name]['split'])
    assert print_check(list(report.values())) is False and f'expected: {K}' in capsys.readouterr().out

@pytest.mark.parametrize('name', [n for n in ALL if BENCHMARKS[n]['reader'] != 'folders'])
def test_check_that_agrees(name, root, monkeypatch):
    "With the counts of the small tree in the table, and its own split taken for CoOp's"
    MAKE[name](root)
    rows, names, _ = benchmark_rows(name, root)
    n = Counter(r[2] for r in rows)
    counts = [len({r[1] for r in rows}), n['train'] or None, n['test']]
    monkeypatch.setitem(BENCHMARKS, name, {**BENCHMARKS[name], 'counts': counts, 'split': None, 'md5': {}})
    assert print_check(check(name, root))

@each
def test_spellings(name):
    b = BENCHMARKS[name]
    assert {canonical(o) for o in (name, b['paper'], name.upper(), name.replace('_', '-'), *b['aliases'])} == {name}

def test_known_spellings():
    pairs = dict(flowers102='oxford_flowers', fgvcaircraft='fgvc_aircraft', DTD='dtd', imagenet_v2='imagenetv2')
    assert {o: canonical(o) for o in pairs} == pairs
    says = "unknown benchmark 'oxford_pet'. Did you mean 'oxford_pets'. There are: oxford_pets, "
    with pytest.raises(ValueError, match=says): canonical('oxford_pet')

def test_table_is_the_papers():
    "Table 11, row by row"
    t = {b['paper']: b['counts'] for b in BENCHMARKS.values()}
    assert t == {
        'OxfordPets':      [37,   2944,    3669],
        'Flowers102':      [102,  4093,    2463],
        'FGVCAircraft':    [100,  3334,    3333],
        'DTD':             [47,   2820,    1692],
        'EuroSAT':         [10,   13500,   8100],
        'StanfordCars':    [196,  6509,    8041],
        'Food101':         [101,  50500,   30300],
        'SUN397':          [397,  15880,   19850],
        'Caltech101':      [100,  4128,    2465],
        'UCF101':          [101,  7639,    3783],
        'ImageNet':        [1000, 1281167, 50000],
        'ImageNetV2':      [1000, None,    10000],
        'ImageNet-Sketch': [1000, None,    50889],
        'ImageNet-A':      [200,  None,    7500],
        'ImageNet-R':      [200,  None,    30000]}
    assert f'{t["ImageNet"][1]/1e6:.2f}M' == '1.28M'

# --- CoOp's split files

@with_split
def test_coop_split_comes_first(name, root):
    "The same pictures, another split and own names: CoOp's file is believed, and there is no word about the split"
    d = MAKE[name](root)
    b = BENCHMARKS[name]
    folder = d/b['images']
    rel = [p.relative_to(folder).as_posix() for p, *_ in benchmark_rows(name, root)[0]]
    parts = dict(
        train=[[rel[0], 1, 'second_name']],
        val=[[rel[1], 0, 'First']],
        test=[[rel[3], 0, 'First'], [rel[2], 1, 'second_name']])
    zhou(d, name, **parts)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        got, names, template = benchmark_rows(name, root)
    assert names == ['First', 'second name'] and template == b['template'] and read(b, root)[2] == 'CoOp'
    assert got == [(folder/p, names[y], part) for part, rows in parts.items() for p, y, _ in rows]
    told = [str(o.message) for o in said]
    assert '2 classes have pictures' in told[0] and not [o for o in told if 'split' in o]
    assert next(o for o in check(name, root) if o['what'] == 'split')['ok']

@with_split
def test_split_is_enough(name, root):
    "With CoOp's file no list of the dataset is needed"
    d = MAKE[name](root)
    b = BENCHMARKS[name]
    rows, names, _ = benchmark_rows(name, root)
    def rel(p): return p.relative_to(d/b['images']).as_posix()
    def part(split): return [[rel(p), names.index(c), c] for p, c, s in rows if s == split]
    zhou(d, name, train=part('train'), val=part('val'), test=part('test'))
    for f in sources(b)[-1][1]: (d/f).unlink()
    got, got_names, _ = benchmark_rows(name, root)
    assert sorted(got) == sorted(rows) and got_names == [c for c in names if c in {r[1] for r in rows}]

def test_split_warns(root):
    make_dtd(root)
    says = 'dtd: its split is not CoOp.*split_zhou_DescribableTextures.json is not there.*own files'
    with pytest.warns(UserWarning, match=says): benchmark_rows('dtd', root)
    make_eurosat(root)
    with pytest.warns(UserWarning, match='drawn here'): benchmark_rows('eurosat', root)

TWO_NAMES = dict(train=[['a.jpg', 0, 'a']], val=[], test=[['b.jpg', 0, 'b']])
ONE_NAME = dict(train=[['a.jpg', 0, 'a'], ['a.jpg', 1, 'a'], ['a.jpg', 2, 'a']], val=[], test=[['a.jpg', 0, 'a']])

@pytest.mark.parametrize('text, says', [
    ('{', 'JSONDecodeError'),
    ('[]', 'TypeError'),
    ('{"train": [], "test": []}', "KeyError('val')"),
    ('{"train": [["a.jpg", 0]], "val": [], "test": []}', 'ValueError'),
    (json.dumps(TWO_NAMES), "label 0 is called 'a' and 'b'"),
    (json.dumps(ONE_NAME), 'not distinct')])
def test_bad_split(root, text, says):
    d = make_pets(root)
    (d/'split_zhou_OxfordPets.json').write_text(text)
    with pytest.raises(ValueError) as e: benchmark_rows('oxford_pets', root)
    assert says in str(e.value)
    assert not check('oxford_pets', root)[0]['ok']

HAVE_LISTS = [
    'oxford_pets', 'oxford_flowers', 'fgvc_aircraft', 'dtd', 'stanford_cars', 'food101', 'sun397', 'ucf101']

@pytest.mark.parametrize('name', HAVE_LISTS)
def test_missing_pictures(name, root):
    MAKE[name](root)
    rows = benchmark_rows(name, root)[0]
    for r in rows[1:3]: r[0].unlink()
    with pytest.raises(ValueError) as e: benchmark_rows(name, root)
    says = str(e.value)
    assert f'{name}: 2 of {len(rows)} pictures of the split are not there' in says and str(rows[1][0]) in says
    assert next(o for o in check(name, root) if o['what'] == 'missing pictures')['found'] == 2

# --- torchvision as oracle

def test_pets_oracle(root):
    make_pets(root, 'oxford-iiit-pet')
    number = {0: 0, 1: 1, 2: 2, 11: 3}      # torchvision counts as the files do: breeds 1, 2, 3 and 12
    for part, split in (('trainval', 'train'), ('test', 'test')):
        o = tv.OxfordIIITPet(root, part)
        same(rows_of('oxford_pets', root, split), o._images, [number[y] for y in o._labels])
    names = benchmark_rows('oxford_pets', root)[1]
    assert [c.lower() for c in o.classes] == names

def test_flowers_oracle(root, monkeypatch):
    "torchvision knows the sums of the true .mat files; ours are small ones"
    monkeypatch.setattr(tv.Flowers102, '_check_integrity', lambda self: True)
    make_flowers(root, 'flowers-102')
    for split in ('train', 'val', 'test'):
        o = tv.Flowers102(root, split)
        same(rows_of('oxford_flowers', root, split), o._image_files, o._labels)
    assert benchmark_rows('oxford_flowers', root)[1] == [c.rstrip('?') for c in o.classes]

def test_flowers_names(root):
    "cat_to_name.json counts from '1', in no order"
    d = make_flowers(root)
    names = [f'flower {k}' for k in range(1, 103)]
    write(d/'cat_to_name.json', json.dumps({str(k): names[k-1] for k in sorted(range(1, 103), key=str)}))
    rows, got, _ = benchmark_rows('flowers102', root)
    assert got == names and [c for p, c, s in rows if s == 'train'] == ['flower 77', 'flower 1', 'flower 102']

def test_aircraft_oracle(root):
    make_aircraft(root, 'fgvc-aircraft-2013b/data')
    for split in ('train', 'val', 'test'):
        o = tv.FGVCAircraft(root, split)
        same(rows_of('fgvc_aircraft', root, split), o._image_files, o._labels)
    assert o.classes == benchmark_rows('fgvc_aircraft', root)[1]
    assert read(BENCHMARKS['fgvc_aircraft'], root)[2] == 'CoOp'    # its own split is CoOp's

def test_dtd_oracle(root):
    make_dtd(root, 'dtd/dtd')
    for split in ('train', 'val', 'test'):
        o = tv.DTD(root, split)
        same(rows_of('dtd', root, split), o._image_files, o._labels)
    assert o.classes == benchmark_rows('dtd', root)[1]

def test_food_oracle(root):
    make_food(root)
    for split in ('train', 'test'):
        o = tv.Food101(root, split)
        same(rows_of('food101', root, split), o._image_files, o._labels)
    assert [c.replace('_', ' ') for c in o.classes] == benchmark_rows('food101', root)[1]

def test_cars_oracle(root):
    make_cars(root)
    for split in ('train', 'test'):
        o = tv.StanfordCars(root, split)
        same(rows_of('stanford_cars', root, split), *zip(*o._samples))
    for ours, theirs in zip(benchmark_rows('stanford_cars', root)[1], o.classes, strict=True):
        assert ours == f'{theirs[-4:]} {theirs[:-5]}'

def test_one_car(root):
    "scipy squeezes an array of one to none"
    d = make_cars(root)
    a = np.empty((1, 1), dtype=[('class', object), ('fname', object)])
    a[0, 0] = (np.uint8(2), '00001.jpg')
    for f in ('devkit/cars_train_annos.mat', 'cars_test_annos_withlabels.mat'): savemat(d/f, dict(annotations=a))
    rows = benchmark_rows('stanford_cars', root)[0]
    assert [(p.parent.name, c, s) for p, c, s in rows] == [
        ('cars_train', '2012 Ram C/V Cargo Van Minivan', 'train'),
        ('cars_test', '2012 Ram C/V Cargo Van Minivan', 'test')]

def test_sun_oracle(root):
    d = make_sun(root)
    o = tv.SUN397(d)
    rows, names, _ = benchmark_rows('sun397', root)
    assert {(p, names.index(c)) for p, c, _ in rows} == set(zip(o._image_files, o._labels)) and len(rows) == 12

def test_eurosat_oracle(root):
    make_eurosat(root)
    o = tv.EuroSAT(root)
    rows, names, _ = benchmark_rows('eurosat', root)
    assert sorted((str(p), names.index(c)) for p, c, _ in rows) == sorted(o.samples) and len(rows) == 30

def test_caltech_oracle(root):
    "torchvision counts Faces_easy as a class; CoOp leaves it out"
    make_caltech(root, 'caltech101')
    o = tv.Caltech101(root)
    rows, names, _ = benchmark_rows('caltech101', root)
    kept = [c for c in o.categories if c != 'Faces_easy']
    theirs = [(o.categories[y], f'image_{i:04d}.jpg') for y, i in zip(o.y, o.index, strict=True)]
    theirs = [(c, file) for c, file in theirs if c in kept]
    assert sorted((kept[names.index(c)], p.name) for p, c, _ in rows) == sorted(theirs) and len(rows) == 50

def test_drawn_split(root):
    "50, 20 and 30 per cent of each class, as CoOp's code rounds them"
    make_caltech(root)
    n = Counter(r[1:] for r in benchmark_rows('caltech101', root)[0])
    assert all((n[c, 'train'], n[c, 'val'], n[c, 'test']) == (5, 2, 3) for c in EXPECTED['caltech101'][0])

def test_ucf_files(root):
    d = make_ucf(root)
    file = d/'UCF-101-midframes/Handstand_Pushups/v_HandStandPushups_g01_c01.jpg'
    assert (file, 'Handstand Pushups', 'train') in benchmark_rows('ucf101', root)[0]

def test_lists_that_do_not_fit(root):
    tests = make_ucf(root)/'ucfTrainTestlist/testlist01.txt'
    write(tests, 'Archery/v_Archery_g01_c01.avi')
    with pytest.raises(ValueError, match=r"classInd.txt does not know \['Archery'\]"): benchmark_rows('ucf101', root)
    write(tests, '', 'what is this')
    says = "testlist01.txt, line 2: 'what is this' is not of the form"
    with pytest.raises(ValueError, match=says): benchmark_rows('ucf101', root)

def test_broken_mat(root):
    file = make_flowers(root)/'setid.mat'
    file.write_bytes(file.read_bytes()[:150])
    says = 'setid.mat is not readable as MATLAB file'
    with pytest.raises(ValueError, match=says): benchmark_rows('oxford_flowers', root)

# --- ImageNet and its shifts

def test_imagenet_oracle(root):
    d = make_imagenet(root)
    for split, f in (('train', 'train'), ('test', 'val')):
        o = tv.ImageFolder(d/'images'/f)
        same(rows_of('imagenet', root, split), *zip(*o.samples))

@pytest.mark.parametrize('name', ['imagenet_sketch', 'imagenet_a', 'imagenet_r'])
def test_shift_oracle(name, root):
    "The labels that sorted folders have, and ImageNet's names for them"
    d = MAKE[name](root)
    o = tv.ImageFolder(d/BENCHMARKS[name]['images'])
    same(rows_of(name, root, 'test'), *zip(*o.samples))
    assert benchmark_rows(name, root)[1] == [distinct(NAMES)[WNIDS.index(w)] for w in o.classes]

def test_v2_is_numbered(root):
    "Folder 10 is class 10, whatever the order of the folders as text"
    names = [f'thing {i}' for i in range(12)]
    for k in range(12): paint(root/f'imagenetv2/imagenetv2-matched-frequency-format-val/{k}', 'a.jpeg')
    lines = [f'n{i:08d} {c}' for i, c in enumerate(names)]
    write(root/'imagenet/classnames.txt', *reversed(lines))     # not sorted, and not in imagenetv2/
    rows, got, _ = benchmark_rows('imagenetv2', root)
    assert got == names
    assert [(p.parent.name, c, s) for p, c, s in rows] == [(str(i), c, 'test') for i, c in enumerate(names)]

def test_same_prompt_for_clip():
    "A capital keeps two names apart for us, and gives CLIP the same tokens; no other of its names are alike"
    import open_clip
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES as names
    tokenizer, ours = open_clip.get_tokenizer('RN50'), distinct([*names])
    changed = [(a, b) for a, b in zip(names, ours, strict=True) if a != b]
    assert changed == [('missile', 'Missile'), ('sunglasses', 'Sunglasses')] and len(set(ours)) == 1000
    def tokens(name): return tokenizer(f'a photo of a {name}.')
    assert all(tokens(a).equal(tokens(b)) for a, b in changed)

def test_unknown_folder(root):
    make_shift(root, 'imagenet_a', [WNIDS[0], 'n99999999'])
    says = r"classnames.txt does not know: \['n99999999'\]"
    with pytest.raises(ValueError, match=says): benchmark_rows('imagenet_a', root)

def test_no_classnames(root):
    (MAKE['imagenet_r'](root)/'classnames.txt').unlink()
    says = 'imagenet-rendition/classnames.txt or ../imagenet/classnames.txt'
    with pytest.raises(FileNotFoundError, match=says): benchmark_rows('imagenet_r', root)
    write_names(root/'imagenet')
    assert benchmark_rows('imagenet_r', root)[1] == EXPECTED['imagenet_r'][0]

def test_wordnets_names(root):
    "The list with synonyms fits the folders, and is not CLIP's"
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
    assert not [c for c in IMAGENET_CLASSNAMES if ',' in c]
    d = make_imagenet(root)
    write(d/'classnames.txt', *(f'{w} {c}, Res quaedam' for w, c in zip(WNIDS, NAMES)))
    says = "not CLIP's names but WordNet's .'tench, Res quaedam'"
    with pytest.raises(ValueError, match=says): benchmark_rows('imagenet', root)

def test_flat_val(root):
    d = make_imagenet(root)
    shutil.rmtree(d/'images/val')
    paint(d/'images/val', 'ILSVRC2012_val_00000001.JPEG')
    says = '(?s)class folders in .*images/val.*the archive of val/ is flat'
    with pytest.raises(FileNotFoundError, match=says): benchmark_rows('imagenet', root)

def test_links(root, tmp_path):
    "CoOp's page recommends symbolic links"
    d = make_imagenet(tmp_path/'elsewhere')
    (root/'imagenet').mkdir(parents=True)
    (root/'imagenet/images').symlink_to(d/'images')
    (root/'imagenet/classnames.txt').symlink_to(d/'classnames.txt')
    assert len(benchmark_rows('imagenet', root)[0]) == 21

# --- what is not there

@each
def test_no_root(name, tmp_path):
    with pytest.raises(FileNotFoundError, match='no such folder .looked from'): benchmark_rows(name, tmp_path/'ROTO')

@each
def test_empty_root(name, tmp_path):
    b = BENCHMARKS[name]
    with pytest.raises(FileNotFoundError) as e: benchmark_rows(name, tmp_path)
    text = str(e.value)
    assert str(tmp_path/b['folders'][0]) in text and b['page'] in text and 'DATASETS.md' in text
    assert (b['split'] or 'txt') in text and all(f.split('|')[0] in text for f in sources(b)[-1][1])
    assert ('lab.integrity.download' in text) == bool(b['torchvision']) and b.get('note', '') in text
    assert check(name, tmp_path) == [dict(what='files', expected='complete', found=text, ok=False)]

@each
def test_half_copied(name, root):
    "Each file that a reader needs, away by itself"
    d = MAKE[name](root)
    b = BENCHMARKS[name]
    for f in [*b.get('needs', [b['images']]), *sources(b)[-1][1]]:
        f = f.split('|')[0]
        (d/f).rename(d/'away')
        with pytest.raises(FileNotFoundError) as e: benchmark_rows(name, root)
        assert str(d/f) in str(e.value) and not print_check(check(name, root))
        (d/'away').rename(d/f)
    benchmark_rows(name, root)

@pytest.mark.parametrize('name', ['eurosat', 'caltech101', 'imagenet_sketch', 'imagenet_a'])
def test_folders_without_pictures(name, root):
    d = MAKE[name](root)
    for p in (d/BENCHMARKS[name]['images']).rglob('*.*'): p.unlink()
    with pytest.raises(FileNotFoundError, match='pictures of the test split'): benchmark_rows(name, root)

def test_root_is_the_dataset(root):
    "A common slip: the dataset's folder in place of the one that holds it"
    make_pets(root)
    with pytest.raises(FileNotFoundError, match=f'ROOT is the folder that holds oxford_pets/; did you mean {root}'):
        benchmark_rows('oxford_pets', root/'oxford_pets')

def test_home(root, monkeypatch):
    make_dtd(root)
    monkeypatch.setenv('HOME', str(root))
    assert benchmark_rows('dtd', '~')[0][0][0].is_relative_to(root) and check('dtd', '~')[1]['found'] == 3

# --- archives, downloads, indices

def test_archives(root):
    d = make_dtd(root)
    (root/'dtd-r1.0.1.tar.gz').write_bytes(b'cut off')
    shutil.copy(root/'dtd-r1.0.1.tar.gz', d)
    found = [o for o in check('dtd', root) if 'tar.gz' in o['what']]
    assert [o['what'] for o in found] == [str(p/'dtd-r1.0.1.tar.gz') for p in (d, root)]
    assert all(o['found'] == hashlib.md5(b'cut off').hexdigest() and not o['ok'] for o in found)
    assert not [o for o in check('dtd', root, archives=False) if 'tar.gz' in o['what']]

def test_sums_are_torchvisions():
    "and they are the ones in its source, as far as it still has them"
    src = ''.join(p.read_text(encoding='utf-8') for p in Path(tv.__file__).parent.glob('*.py'))
    sums = {(n, f): h for n, b in BENCHMARKS.items() for f, h in b.get('md5', {}).items()}
    assert all(len(h) == 32 for h in sums.values())
    lost = {k for k, h in sums.items() if h not in src}
    assert {n for n, _ in lost} == {'stanford_cars', 'caltech101', 'imagenet_a', 'imagenet_r'}
    assert ('caltech101', 'caltech-101.zip') not in lost

@pytest.mark.parametrize('name', [n for n in ALL if not BENCHMARKS[n]['torchvision']])
def test_no_download(name, root):
    with pytest.raises(ValueError, match='torchvision has no download of it. Get it from http'): download(name, root)
    assert not root.exists()

@pytest.mark.parametrize('name', [n for n in ALL if BENCHMARKS[n]['torchvision']])
def test_download(name, root, monkeypatch, capsys):
    b = BENCHMARKS[name]
    kind, sub = b['torchvision']
    assert 'download' in signature(getattr(tv, kind)).parameters
    calls = []
    def fetch(where, download):
        calls.append((Path(where), download))
        (root/b['folders'][-1]).mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(tv, kind, fetch)
    assert download(name, root) == root/b['folders'][-1] and calls == [(root/sub, True)]
    assert (b['split'] or '') in capsys.readouterr().out

@pytest.mark.parametrize('name, folder', [
    ('oxford_pets', 'oxford-iiit-pet'),
    ('oxford_flowers', 'flowers-102'),
    ('dtd', 'dtd/dtd'),
    ('fgvc_aircraft', 'fgvc-aircraft-2013b/data'),
    ('caltech101', 'caltech101')])
def test_torchvisions_folders(name, folder, root):
    "A tree that torchvision fetched is read as it lies; CoOp's folder comes first where both are whole"
    MAKE[name](root, folder)
    assert locate(BENCHMARKS[name], root)[0] == root/folder
    with warnings.catch_warnings(): benchmark_rows(name, root)
    MAKE[name](root)
    assert locate(BENCHMARKS[name], root)[0] == root/BENCHMARKS[name]['folders'][0]

@each
def test_indices(name, root, tmp_path):
    "Written here, read under another ROOT"
    MAKE[name](root)
    MAKE[name](tmp_path/'other')
    rows = benchmark_rows(name, root)[0]
    others = benchmark_rows(name, tmp_path/'other')[0]
    places = [len(rows)-1, 0, 1]
    file = tmp_path/'shots.json'
    write_indices(file, name, 3, 1, places, rows)
    d = json.loads(file.read_text())
    assert (d['name'], d['seed'], d['shots'], d['labels']) == (name, 3, 1, [rows[i][1] for i in places])
    assert str(tmp_path) not in file.read_text() and not any(p.startswith('/') for p in d['pictures'])
    assert read_indices(file, rows) == read_indices(file, others) == places
    assert read_indices(file, others[::-1]) == [len(rows) - 1 - i for i in places]

def test_indices_of_others(root, tmp_path):
    make_dtd(root)
    rows = benchmark_rows('dtd', root)[0]
    write_indices(tmp_path/'i.json', 'dtd', 1, 1, [0, 1], rows)
    other = [(p, 'another', s) for p, c, s in rows[:1]] + rows[1:]
    says = '1 of 2 pictures are not in these rows .*such as banded/banded_0001.jpg; it was written for dtd'
    with pytest.raises(ValueError, match=says): read_indices(tmp_path/'i.json', other)
