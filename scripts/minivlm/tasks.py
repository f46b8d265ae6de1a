"""Build the pictures and tables of the built-in tasks: craft_nb/assets/pictures.zip and craft_nb/assets/tasks/*.csv.

    python scripts/minivlm/tasks.py --work build/minivlm

Everything is decided here, once: which pictures belong to which class, which of them are the pool that shots are drawn
from and which are test. A rerun gives the same bytes. Pictures of these styles are never shown to `craft-mini` in
training."""
import argparse, csv, io, re, sys
from pathlib import Path
from random import Random
from zipfile import ZipFile, ZipInfo
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import fetch

PX = 96              # side, in pixels, of a picture
SHOTS = 16           # pictures of a class that the pool holds at least
SAME = 20            # differing bits of two `dhash`: one drawing twice
NEAR = 44            # and a drawing and its variant
UNSEEN = '_unseen'   # tasks whose test shows things that the pool does not
OLD = ['noto-v1', 'emojione']      # colour styles of 2014-2017
NEW = ['fluent-3d', 'fluent-flat'] # and of 2021
MONO = ['fluent-hc', 'emojione-mono']
STYLES = ['noto'] + OLD + NEW + MONO

# the fourteen kinds that `emoji`, `clipart` and the shift tasks share: Unicode subgroups + single emoji
KINDS = {
    'mammal':            'animal-mammal',
    'bird':              'animal-bird',
    'fruit':             'food-fruit',
    'drink':             'drink',
    'meal':              'food-prepared food-asian',
    'plant':             'plant-flower plant-other',
    'building':          'place-building place-religious',
    'vehicle':           'transport-ground transport-water transport-air',
    'weather':           'sky-weather',
    'sport':             'sport',
    'clothing':          'clothing',
    'tool':              'tool',
    'electronic device': 'phone computer',
    'office supply':     'office writing book-paper'}
ALSO = {
    'tool': 'scissors;straight ruler;triangular ruler;broom;bucket;plunger;razor;fire extinguisher;flashlight;'
            'magnifying glass tilted left;magnifying glass tilted right;toothbrush;sponge',
    'electronic device': 'movie camera;film projector;television;camera;camera with flash;video camera;radio;headphone;'
            'microphone;studio microphone;video game;joystick',
    'vehicle': 'suspension railway;mountain cableway;aerial tramway',
    'weather': 'foggy',
    'sport': 'pool 8 ball;bullseye',
    'building': 'tent;circus tent'}
# members of a subgroup that show something else than its name says
NOT = set((
    'paw prints;pig nose;feather;wing;spider web;microbe;ice;butter;salt;canned food;takeout box;'
    'empty nest;nest with eggs;mushroom;rosette;building construction;brick;rock;wood;Statue of Liberty;'
    'station;bus stop;motorway;railway track;oil drum;fuel pump;wheel;police car light;'
    'horizontal traffic light;vertical traffic light;stop sign;construction;roller skate;skateboard;'
    'manual wheelchair;motorized wheelchair;anchor;ring buoy;parachute;seat;satellite;suspension railway;'
    'mountain cableway;aerial tramway;ringed planet;star;glowing star;shooting star;milky way;comet;fire;'
    'water wave;hair pick;prayer beads;lipstick;ring;gem stone;running shirt;dagger;crossed swords;bomb;'
    'boomerang;bow and arrow;shield;balance scale;white cane;battery;low battery;electric plug;abacus;'
    'computer disk;floppy disk;optical disk;dvd;briefcase;label;bookmark').split(';'))
ONLY_ALSO = set(ALSO['tool'].split(';'))  # never in another of the kinds

# classes of the four Unicode tasks
GROUPS = {
    'animal_kinds': {'mammal': 'animal-mammal', 'bird': 'animal-bird', 'reptile': 'animal-reptile',
        'sea animal': 'animal-marine', 'bug': 'animal-bug', 'flower': 'plant-flower', 'plant': 'plant-other'},
    'food_kinds': {'fruit': 'food-fruit', 'vegetable': 'food-vegetable', 'prepared food': 'food-prepared',
        'Asian food': 'food-asian', 'dessert': 'food-sweet', 'drink': 'drink', 'tableware': 'dishware'},
    'travel_kinds': {'map': 'place-map', 'landscape': 'place-geographic', 'building': 'place-building',
        'place of worship': 'place-religious', 'land vehicle': 'transport-ground', 'boat': 'transport-water',
        'aircraft': 'transport-air', 'clock': 'time', 'weather': 'sky-weather'},
    'object_kinds': {'clothing': 'clothing', 'musical instrument': 'musical-instrument', 'phone': 'phone',
        'computer': 'computer', 'book': 'book-paper', 'money': 'money', 'mail': 'mail', 'writing tool': 'writing',
        'office supply': 'office', 'lock': 'lock', 'tool': 'tool', 'laboratory instrument': 'science',
        'medical supply': 'medical', 'household item': 'household'}}
FINE = {'animals': 'animals-nature', 'food': 'food-drink', 'travel': 'travel-places', 'objects': 'objects'}

# Open Clip Art: kind -> folders; `-word` drops the files whose name starts so, `+path` adds files of a shared folder
CLIP = {
    'mammal': '''
        animals/mammals animals/mammals/bears animals/mammals/big_cats animals/mammals/dogs animals/mammals/horses
        animals/mammals/housecats -crazy_monkey -toro_al -cat_scrathing -sleeping_bear -dolphin_01 -horse_2_kon
        -le_mie_tigri -skoynk +animals/armadillo +animals/bison +animals/seal_sek +unsorted/cammello +unsorted/elefant
        +unsorted/mucca +unsorted/pecorella''',
    'bird': '''
        animals/birds animals/birds/penguin -contour_bat -duck_yellow_ii -mirjam -wing_ -turkey_on -tux_didier -baby-tux
        -acquila_architetto_franc_04 -manager +animals/pinguino +animals/tux_head +unsorted/Anatra +unsorted/Colombo
        +unsorted/Pinguino +unsorted/gabbiano +unsorted/papera +unsorted/pennuto +unsorted/struzzo''',
    'fruit': '''
        food/fruit -apple_juice -pie_ -apple_mateya -banana_mateya -champignon -gumnut -juice_glass -kallisti -slate
        -straw_tote -tree_whit -turkey -candied -tile_orange -eris -orange_juice''',
    'drink': '''
        food/beverages food/beverages/alcohol -ice_cube -icecube -macchina_caffe -wine_corks -wooden_barrel -milk_mateya
        -noi_due -flower-pot_02 +unsorted/biberon''',
    'meal': '''
        food/meats_and_eggs food/breads_and_carbs food -egg_mateya -salami -fuoco -potato_nicu -bread_mateya
        -pasta_mateya -apple_ -candied -champignon -chef -come_si -crawfish -food_leif -fruitcoll -grapes -gumnut -honey
        -juice_glass -large_plate -small_plate -libro -marshmallow -meatgrinder -mix_cucina -picnic -pomodori -pumpkin
        -sugarbox -toque -watermelon -zucca -bread_and -cake_and -bowl_chaspo -galette -frying_pan +unsorted/tramezzino
        +unsorted/Tacchino''',
    'plant': '''
        plants plants/flowers plants/trees -cayenne -champignon -mushroom -toadstool -fall_scene -human -island -potato
        -bowsaw -bypass -christmas_balls -mirjam -simple_five -fiore_02 -magnolia_white -acorn -gumnut -cannabis
        +unsorted/foglie +unsorted/rosa +unsorted/rose +recreation/holiday/christmas/simple_ever
        +recreation/holiday/christmas/tree''',
    'building': '''
        buildings buildings/homes -brick -capitello -old_sign -school_hallway -wall -city_horizon -house_fudriot
        -houses_jon -demoliz +unsorted/Condominio +unsorted/azienda +unsorted/fattoria +unsorted/igloo +unsorted/tenda
        +transportation/vehicles/lighthouse''',
    'vehicle': '''
        transportation/vehicles transportation/vehicles/hummers -autos_01 -crossroads -curve -cycle_ -lighthouse
        -parking -quay -redcar -shelby -wing_ -the_mad -toy_paper +transportation/bicycle +transportation/bike_
        +transportation/bmw +transportation/car_ +transportation/dodge +transportation/fire_engine
        +transportation/formula +transportation/motorcycle +transportation/pallone +transportation/plane_in
        +transportation/soviet +transportation/sportcar +transportation/toyota +transportation/tramway
        +transportation/truck_ +unsorted/ambulanza +unsorted/betoniera +unsorted/Montacarichi +unsorted/caterpillar
        +transportation/boating/boat_ +transportation/boating/sailboat_illustration
        +transportation/boating/sailing_sunset''',
    'weather': '''
        signs_and_symbols/weather geography/astronomy -tsunami -00_moon -southen -jupiter -mars -saturn
        -lightning_jon_phillips_02 -lightning_jon_phillips_03 -lightning_jon_phillips_04 +recreation/party/rainbow
        +recreation/holiday/snowman +recreation/holiday/sunshine''',
    'sport': '''
        recreation/sports -backpacker -binoc -hikinh -ticket -sportcar -stylized_yoga -tennis_shoe -baseball_cap
        -cronometro -nunchaku -football_pitch -golf_flag_ball -volleball_net -badminton +recreation/toys/ball
        +recreation/toys/beach +recreation/toys/surf +recreation/runner +recreation/rollerblades +unsorted/pesistica''',
    'clothing': '''
        people/clothing people/clothing/hats people/clothing/pantyhose -shoe_print -straw_tote -jacob -gold_chain
        -earring +unsorted/Attacca +unsorted/calzettoni +unsorted/borsetta +unsorted/vestito +unsorted/zaino''',
    'tool': '''
        tools -bottle -bucket -bussola -cellular -compass -digital -gallows -green_burner -orange_burner -hurricane
        -insecticide -ironing -kexi -lampada -lock -padlock -key -chiave -mattone -metal_cage -natural -nodding
        -nunchaku -pan_ -panel -pansement -pencil -route -scart -smoke -scolapasta -telescope -thermometer -umbrella
        -vacuum -vavuum -blue_vac -ferro -binocolo -meatgrinder -paint_roller_ba -paint_roller_bo -paint_roller_wa
        -electric_lighter -forchettoni +unsorted/motosega +unsorted/sega +unsorted/metro +unsorted/pinzatrice
        +unsorted/carretta +unsorted/guanti +unsorted/scala +unsorted/lampada_da +plants/trees/bowsaw
        +plants/trees/bypass +office/scissors''',
    'electronic device': '''
        computer/hardware electronics office/telephone -8port_switch -firewall -gis -transistor -capacitors -diodes
        -resistors -filmphoto -bobine -pfd -navigation -saku -satellite -numero -telephone_lutte -telephone_sauv
        -antenna -zinf -various -cd -compact -casco -cassette -video_cassette +office/handphone +unsorted/proiettore''',
    'office supply': '''
        office education/books -arrow1 -bluepane -cross_hand -cup_ -desk_lamp -fabbrica -handphone -handshake -inservice
        -lamp_ -lana -large_braces -laser -lcd -liberty -lightbulb -lotion -magnifying -lens -megaphone -milimetered
        -mail -envelop -addressed -lettera -phone_ -slim -stylized -user -video -wooden -reunion -cassa -clessidra
        -floppy -picture_frame -postage -printer -scissors -ink -manuscriot -cartoon_squirrel -diagramma -open_box
        -pennello +unsorted/blocco_notes'''}


def white(im, px=PX):
    "RGBA picture -> RGB on white, cut to what is drawn, at most `px` pixels on its longer side"
    im = im.convert('RGBA')
    bg = Image.new('RGBA', im.size, 'white')
    bg.alpha_composite(im)
    bg = bg.convert('RGB')
    if max(bg.size) > px: bg.thumbnail((px, px), Image.LANCZOS)
    return bg

def square(im):
    "Centre `im` on a white square"
    n = max(im.size)
    res = Image.new('RGB', (n, n), 'white')
    res.paste(im, ((n - im.width)//2, (n - im.height)//2))
    return res

def trim(im):
    "Cut away the transparent or white border of an RGBA picture"
    rgb = white(im, 10**6)
    box = Image.fromarray((np.asarray(rgb.convert('L')) < 250).astype(np.uint8)*255).getbbox()
    return im.crop(box) if box else im

def encode(im, mono=False):
    "RGB picture -> WebP bytes; line drawings in 8 greys, lossless"
    buf = io.BytesIO()
    if mono:
        greys = im.convert('L').point(lambda v: round(v/36.4)*36.43).convert('RGB')
        greys.save(buf, 'WEBP', lossless=True, quality=100, method=6)
    else: im.save(buf, 'WEBP', quality=75, method=6)
    return buf.getvalue()

def png(a):
    "Grey array -> PNG bytes"
    buf = io.BytesIO()
    Image.fromarray(a).save(buf, 'PNG', optimize=True)
    return buf.getvalue()

def dhash(im):
    "256 bits: is each pixel of the 17x16 grey picture darker than its right neighbour"
    im = square(white(trim(im.convert('RGBA')))).convert('L')
    a = np.asarray(im.resize((17, 16), Image.LANCZOS), int)
    return (a[:, :-1] < a[:, 1:]).ravel()

def shuffled(xs, *seed):
    "A shuffled copy, the same for the same seed"
    xs = list(xs)
    Random('/'.join(map(str, seed))).shuffle(xs)
    return xs

def divide(groups, seed, n=SHOTS, share=0., cap=None):
    """Divide lists of pictures into (pool, test).

    Whole groups go to the pool until it holds `n` pictures and `share` of all; test takes the other groups, as long as
    it holds no more than `cap`."""
    total = sum(map(len, groups))
    pool = []
    test = []
    for g in shuffled(groups, *seed):
        if len(pool) < max(n, share*total): pool += g
        elif cap is None or len(test) + len(g) <= cap: test += g
    return pool, test


class Album:
    "The pictures that some task uses, and the tables of the tasks"
    def __init__(self):
        self.bytes = {}     # path -> the encoded picture
        self.tables = {}    # name of a task -> its rows
        self.hashes = {}    # path -> its `dhash`

    def hash(self, path):
        if path not in self.hashes: self.hashes[path] = dhash(Image.open(io.BytesIO(self.bytes[path])))
        return self.hashes[path]

    def apart(self, rows, near):
        "Without the test pictures within `near` bits of a pool picture of their class"
        pool = {}
        for r in rows:
            if r[2] == 'train': pool.setdefault(r[1], []).append(self.hash(r[0]))
        def far(r): return all((self.hash(r[0]) ^ h).sum() > near for h in pool[r[1]])
        return [r for r in rows if r[2] == 'train' or far(r)]

    def task(self, name, rows, near=SAME):
        """Take a task of `rows`: (path, label, split, style, source), class by class, pool before test.

        Test pictures within `near` bits of the pool are dropped; None keeps every one."""
        n = len(rows)
        if near is not None: rows = self.apart(rows, near)
        self.tables[name] = rows
        lost = f'{n-len(rows)} test pictures too near to the pool'
        pool = {}
        for r in rows:
            if r[2] == 'train': pool[r[1]] = pool.get(r[1], 0) + 1
        n = sum(r[2] == 'test' for r in rows)
        classes = len(set(r[1] for r in rows))
        least = min(pool.values())
        print(f'{name:19} {classes:4} classes  pool {len(rows)-n:5} (least {least:3})  test {n:5}; dropped {lost}')

    def save(self, out, pictures='pictures.zip'):
        "Write the tables, and the zip of the pictures they name"
        out = Path(out)
        (out/'tasks').mkdir(parents=True, exist_ok=True)
        for name, rows in self.tables.items():
            with open(out/'tasks'/f'{name}.csv', 'w', newline='') as f:
                csv.writer(f, lineterminator='\n').writerows([('path', 'label', 'split', 'style', 'source'), *rows])
        used = sorted({r[0] for rows in self.tables.values() for r in rows})
        with ZipFile(out/pictures, 'w') as z:
            for o in used: z.writestr(ZipInfo(o, (2026, 1, 1, 0, 0, 0)), self.bytes[o])
        print(f'{len(used)} pictures, {(out/pictures).stat().st_size/2**20:.2f} MiB')


def emoji_pictures(album, work):
    "Encode every task style; dict emoji -> the styles that draw it"
    es = fetch.emojis(work)
    have = {}
    seen = set()
    groups = {*FINE.values(), 'activities'}
    for style in STYLES:
        for k, im in fetch.pictures(style, work):
            if k not in es or es[k]['group'] not in groups: continue
            b = encode(white(im), style in MONO)
            if b in seen: continue  # the same drawing under two code points
            seen.add(b)
            album.bytes[f'{style}/{k}.webp'] = b
            have.setdefault(k, []).append(style)
    return have

def kind_members(es, have):
    "kind -> its emoji"
    res = {}
    for kind, subs in KINDS.items():
        also = set(ALSO.get(kind, '').split(';'))
        no = NOT if kind == 'tool' else NOT | ONLY_ALSO
        def shows(o): return o['name'] in also or (o['subgroup'] in subs.split() and o['name'] not in no)
        res[kind] = [k for k, o in es.items() if k in have and shows(o)]
    return res

def emoji_tasks(album, es, have):
    "The `emoji` task and the four of Unicode's subgroups, each in two forms, and the four of single emoji"
    row = lambda k, s, label, split: (f'{s}/{k}.webp', label, split, s, es[k]['name'])
    kinds = kind_members(es, have)

    def add(name, classes, part, near=SAME, **kw):
        rows = []
        for c, ks in classes.items():
            groups = part([[(k, s) for s in have[k]] for k in ks])
            pool, test = divide(groups, (name.removesuffix(UNSEEN), c), **kw)
            rows += [row(*o, c, 'train') for o in pool]
            rows += [row(*o, c, 'test') for o in test]
        album.task(name, rows, near)

    def both(name, classes, **kw):
        "Pool and test from one distribution, picture by picture; and with no emoji on both sides"
        add(name, classes, lambda emoji: [[o] for e in emoji for o in e], NEAR, **kw)
        add(name + UNSEEN, classes, lambda emoji: emoji, **kw)

    def subgroup(s): return [k for k, o in es.items() if k in have and o['subgroup'] == s and o['name'] not in NOT]

    both('emoji', kinds, n=40, cap=60)
    for name, subs in GROUPS.items():
        both(name, {c: subgroup(s) for c, s in subs.items()}, n=SHOTS, share=.2, cap=150)
    for name, g in FINE.items():
        ks = [k for k, o in es.items() if o['group'] == g and len(have.get(k, [])) > 2]
        add_fine(album, name, ks, es, have, row)
    return kinds, row

def add_fine(album, name, ks, es, have, row):
    "One class an emoji: two of its pictures are the pool, the rest test"
    rows = []
    for k in ks:
        styles = shuffled(have[k], name, k)
        rows += [row(k, s, es[k]['name'], 'train') for s in styles[:2]]
        rows += [row(k, s, es[k]['name'], 'test') for s in styles[2:]]
    album.task(name, rows)

def shift_tasks(album, kinds, have, row, clips):
    """The shift tasks.

    Pool: `noto`, 16 emoji of each kind, those that the old styles lack first. Test: other emoji, other styles, or clip
    art."""
    tests = {'shift_v2': OLD, 'shift_sketch': MONO, 'shift_a': None, 'shift_r': NEW}
    pools = {}
    for c, ks in kinds.items():
        ks = shuffled([k for k in ks if 'noto' in have[k]], 'shift', c)
        pools[c] = sorted(ks, key=lambda k: bool({*OLD, *MONO[1:]} & {*have[k]}))[:SHOTS]
    for name, styles in tests.items():
        rows = []
        for c, ks in kinds.items():
            rows += [row(k, 'noto', c, 'train') for k in pools[c]]
            if styles is None: rows += [(p, c, 'test', 'openclipart', src) for p, src in clips[c]]
            else:
                others = [k for k in ks if k not in pools[c]]
                rows += [row(k, s, c, 'test') for k in others for s in have[k] if s in styles]
        album.task(name, rows)

def clip_files(work):
    "kind -> the clip art files of the table `CLIP`"
    root = fetch.share(work)/'openclipart/png'
    res = {}
    for kind, text in CLIP.items():
        words = text.split()
        drop = tuple(w[1:] for w in words if w[0] == '-')
        fs = []
        for w in words:
            if w[0] in '+-': continue
            fs += [f for f in sorted((root/w).glob('*.png')) if not f.name.startswith(drop)]
        for w in words:
            if w[0] == '+': fs += sorted((root/w[1:]).parent.glob(Path(w[1:]).name + '*.png'))
        res[kind] = fs
    return root, res

def clip_tasks(album, work):
    "`clipart`: near duplicates are dropped, a drawing and its black-and-white twin stay on one side"
    root, files = clip_files(work)
    names = set()
    clips = {}
    rows = []
    for kind, fs in files.items():
        groups = {}
        hashes = []
        for f in fs:
            if f.name in names: continue
            im = Image.open(f).convert('RGBA')
            h = dhash(im)
            path = f'clip/{f.stem}.webp'
            twin = re.sub('_?(bw|ganson|simple)', '', f.stem)
            near, like = min((((h ^ o).sum(), t) for o, t in hashes), default=(256, ''))
            names.add(f.name)
            if near <= SAME: continue
            if near <= NEAR: twin = like
            hashes.append((h, twin))
            album.bytes[path] = encode(white(trim(im)))
            groups.setdefault(twin, []).append((path, str(f.relative_to(root))))
        clips[kind] = [o for g in groups.values() for o in g]
        pool, test = divide(list(groups.values()), ('clipart', kind), n=20, share=.3)
        for s, part in (('train', pool), ('test', test)):
            rows += [(p, kind, s, 'openclipart', src) for p, src in part]
    album.task('clipart', rows)
    return clips

def fashion_task(album, work, pool=64, test=200):
    "A class-balanced part of Fashion-MNIST's own train and test sets: the first of each class"
    rows = []
    parts = [('train', *fetch.fashion(work, 'train'), pool),
             ('test', *fetch.fashion(work, 't10k'), test)]
    for c, name in enumerate(fetch.FASHION):
        for split, x, y, n in parts:
            for i in np.flatnonzero(y == c)[:n]:
                path = f'fashion/{split}-{i}.png'
                album.bytes[path] = png(x[i])
                rows.append((path, name, split, 'photo', f'{split}[{i}]'))
    album.task('fashion', rows, near=None)


def build(work, out):
    album = Album()
    fashion_task(album, work)
    es = fetch.emojis(work)
    have = emoji_pictures(album, work)
    kinds, row = emoji_tasks(album, es, have)
    clips = clip_tasks(album, work)
    shift_tasks(album, kinds, have, row, clips)
    album.save(out)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--work', default='build/minivlm', help='folder that fetch.py filled')
    p.add_argument('--out', default=str(Path(__file__).parents[2]/'craft_nb/assets'), help='where the assets go')
    args = p.parse_args()
    build(args.work, args.out)
