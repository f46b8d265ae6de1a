"""Build the six tasks of icons and fonts: craft_nb/assets/suite.zip and their tables in craft_nb/assets/tasks.

    python scripts/minivlm/suite.py --work build/minivlm

The packages, their versions and licences stand in suite.csv. An icon set, or a family of fonts, is one *hand*: it draws
for the pool or for the test of a task, never for both. A rerun gives the same bytes."""
import argparse, csv, io, json, re, sys
from itertools import cycle
from pathlib import Path
from random import Random
import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).parent))
import fetch
from overlap import manifest, nearest
from pairs import hashes
from tasks import SAME, Album, dhash, encode, shuffled, white

HERE = Path(__file__).parent
PX = 96     # side, in pixels, of every picture
LEAK = 2    # bits of 64, in both hashes: `craft-mini` was trained on this drawing, or on one just like it

# icon sets of one house, or a set and its fork, are one hand; every other set is a hand of its own
HOUSES = ['bx bxs', 'fa-solid fa-regular la icons8 wpf', 'feather lucide meteor-icons',
    'fluent fluent-color fluent-mdl2 codicon', 'heroicons heroicons-outline', 'ion famicons',
    'pepicons-pencil pepicons-pop pepicons-print', 'pixelarticons majesticons', 'uil uim uis',
    'guidance streamline streamline-flex streamline-freehand-color streamline-pixel streamline-plump '
    'streamline-ultimate streamline-ultimate-color']
HOUSE = {o: house.split()[0] for house in HOUSES for o in house.split()}

def house(icon_set):
    "The hand that drew an icon set"
    return HOUSE.get(icon_set, icon_set)

# words in an icon's name that tell how it is drawn, and not what it shows
STYLE = set('''outline outlined line linear fill filled solid bold regular light thin duotone twotone broken rounded
    round sharp alt
    16 20 24 28 32 48 01 02 1 duo bulk micro mini color flat remix stroke interface essential'''.split())

# the 100 classes of `icons`: what a set may call them. Left out is what every hand draws alike (plus, minus, check,
# menu, stop, arrows)
ICONS = {o.split('|')[0].replace('-', ' '): o.split('|') for o in '''
    calendar star home|house link heart bookmark flag folder camera search|magnifier|magnifying-glass share play
    clock|time download moon phone|telephone|call eye pause cloud tag lock book credit-card globe|earth|world sun
    bell|notification gift shield code key pin|pushpin|thumbtack trash|bin|trash-can user|person map upload
    briefcase|suitcase database clipboard compass keyboard file|document refresh|reload|sync bug table calculator trophy
    image|picture|photo printer|print rocket pencil|edit inbox microphone|mic ticket wallet hourglass car
    save|floppy-disk wifi building terminal|console laptop server layers music|music-note video tablet settings|gear|cog
    bluetooth box|package umbrella mail|envelope|email shopping-bag|bag shopping-cart|cart comment|chat|message
    fire|flame send|paper-plane paperclip|attachment qr-code mouse headphones|headphone palette wrench
    lightbulb|bulb|light-bulb brush|paint-brush|paintbrush megaphone|bullhorn thumbs-up|like crown leaf barcode magnet
    hospital truck bus scissors|cut coffee|cup anchor|harbor ruler target tv|television thermometer'''.split()}
# the classes of `badges`: how a set's name for an icon goes on when it carries one
BADGES = {
    'a plus':              'plus add new',
    'a minus':             'minus remove subtract',
    'a check mark':        'check checked tick checkmark done',
    'a cross':             'x close cancel',
    'a slash':             'off slash disabled',
    'an arrow up':         'up upload arrow-up',
    'an arrow down':       'down download arrow-down',
    'a lock':              'lock locked',
    'a magnifying glass':  'search',
    'a heart':             'heart love',
    'an exclamation mark': 'exclamation alert warning error',
    'a gear':              'settings cog gear'}
NUMBERS = 'one two three four five six seven eight'.split()
TYPEFACES = {
    'serif':       'serif typeface',
    'sans-serif':  'sans-serif typeface',
    'display':     'display typeface',
    'handwriting': 'handwriting',
    'monospace':   'monospaced typeface'}
# writing systems: the subset of a font, and languages whose names of countries are written in it
SCRIPTS = {
    'Latin':      ('latin', 'en de fr es it pt nl sv'),
    'Greek':      ('greek', 'el'),
    'Cyrillic':   ('cyrillic', 'ru uk bg sr'),
    'Hebrew':     ('hebrew', 'he'),
    'Arabic':     ('arabic', 'ar'),
    'Devanagari': ('devanagari', 'hi mr ne'),
    'Thai':       ('thai', 'th')}


def sources():
    "Rows of suite.csv: package, version, licence, author, url"
    return list(csv.DictReader(open(HERE/'suite.csv', encoding='utf-8')))

def download(work):
    "Install the packages of suite.csv, as they were, where they are missing"
    npm = Path(work)/'npm'
    npm.mkdir(parents=True, exist_ok=True)
    def have(o):
        f = npm/'node_modules'/o['package']/'package.json'
        return f.exists() and json.loads(f.read_text())['version'] == o['version']
    fetch.npm_install(npm, [f"{o['package']}@{o['version']}" for o in sources() if not have(o)])

def deal(hands, kind=lambda hand: ''):
    "Half of the hands of each kind for the pool, half for the test: dict hand -> 'train' or 'test'"
    res = {}
    turn = cycle(('train', 'test'))
    for hand in sorted(shuffled(sorted(hands), 'suite'), key=kind): res[hand] = next(turn)
    return res


class IconSets:
    "The icon sets of suite.csv"
    def __init__(self, work):
        root = Path(work)/'npm/node_modules'
        names = [o['package'].split('/')[1] for o in sources() if o['package'].startswith('@iconify-json/')]
        self.sets = {o: json.loads((root/'@iconify-json'/o/'icons.json').read_text()) for o in names}
        self.plain = {o: self.by_name(d['icons']) for o, d in self.sets.items()}
        self.split = deal(set(map(house, names)))

    def by_name(self, icons):
        "What an icon shows -> its names, the shortest first"
        res = {}
        for name in sorted(icons, key=lambda o: (len(o), o)):
            words = name.split('-')
            while len(words) > 1 and words[-1] in STYLE: words.pop()
            while len(words) > 1 and words[0] in STYLE: words.pop(0)
            res.setdefault('-'.join(words), []).append(name)
        return res

    def find(self, icon_set, aliases):
        "At most two icons of a set that show one thing: the plainest, then one that is filled"
        names = next((self.plain[icon_set][o] for o in aliases if o in self.plain[icon_set]), [])
        filled = [o for o in names[1:] if re.search('fill|solid|bold|duo', o)]
        return names[:1] + filled[:1]

    def draw(self, icon_set, name, px=PX):
        "An icon as an RGBA picture"
        return fetch.svg(fetch.icon_svg(self.sets[icon_set], name), px)

    def members(self, aliases):
        "(set, name, split) of every icon that shows one thing, set by set in a fixed mixed order"
        return [(s, n, self.split[house(s)]) for s in shuffled(self.sets, *aliases) for n in self.find(s, aliases)]


class Fonts:
    "The fonts of suite.csv"
    def __init__(self, work):
        self.root = Path(work)/'npm/node_modules/@fontsource'
        self.about = {}    # name of a font -> its metadata
        for o in sources():
            if o['package'].startswith('@fontsource/'):
                name = o['package'].split('/')[1]
                self.about[name] = json.loads((self.root/name/'metadata.json').read_text())
        rare = {s: sum(s in m['subsets'] for m in self.about.values()) for s, _ in SCRIPTS.values()}
        kinds = {}
        for name, m in self.about.items():
            rarest = min((n, s) for s, n in rare.items() if s in m['subsets'])[1]
            kinds.setdefault(self.family(name), []).append((rarest, m['category']))
        self.split = deal(kinds, lambda o: min(kinds[o]))

    def family(self, name):
        "The fonts of one family, such as ibm-plex-sans and ibm-plex-mono, share the first word of their names"
        return name.split('-')[0]

    def carrying(self, subset):
        "Names of the fonts with the letters of `subset`"
        return [o for o, m in self.about.items() if subset in m['subsets']]

    def load(self, name, subset, size):
        "A font in its regular weight, or the one nearest to it"
        weight = min(self.about[name]['weights'], key=lambda w: abs(w-400))
        file = self.root/name/'files'/f'{name}-{subset}-{weight}-normal.woff2'
        return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.RAQM)

    def draw(self, name, subset, text, px=PX, margin=8):
        "Black text on white, as large as fits the square; lines are centred"
        font = self.load(name, subset, 64)
        pen = ImageDraw.Draw(Image.new('L', (8, 8)))
        left, top, right, bottom = pen.multiline_textbbox((0, 0), text, font, align='center')
        scale = min((px-2*margin)/(right-left), (px-2*margin)/(bottom-top))
        font = self.load(name, subset, max(6, int(64*scale)))
        im = Image.new('RGB', (px, px), 'white')
        ImageDraw.Draw(im).multiline_text((px/2, px/2), text, 'black', font, anchor='mm', align='center')
        return im


def add(album, name, members, pool, test):
    """A task of `members`: class -> (path, draw, split, hand, source), of which at most `pool` and `test` are kept.

    Left out are a drawing that comes twice, one that `craft-mini` was trained on, and a test picture too near to one of
    the pool's."""
    trained = manifest()[1]
    rows = []
    lost = dict(near_the_pool=0, near_training=0)
    for label, pictures in members.items():
        hands = {k: {o[3] for o in pictures if o[2] == k} for k in ('train', 'test')}
        assert not hands['train'] & hands['test'], 'a hand on both sides'
        seen = set()
        near = []
        kept = {'train': 0, 'test': 0}
        for path, draw, split, hand, source in sorted(pictures, key=lambda o: o[2] == 'test'):
            if kept[split] == (pool if split == 'train' else test): continue
            im = draw()
            data = encode(white(im, PX), mono=is_grey(im))
            if data in seen or is_blank(im): continue
            seen.add(data)
            stored = Image.open(io.BytesIO(data))
            if nearest(np.array([hashes(stored)]), trained)[0][0] <= LEAK:
                lost['near_training'] += 1
                continue
            bits = dhash(stored.convert('RGBA'))
            if split == 'train': near.append(bits)
            elif min((bits ^ o).sum() for o in near) <= SAME:
                lost['near_the_pool'] += 1
                continue
            kept[split] += 1
            album.bytes[path] = data
            rows.append((path, label, split, hand, source))
    album.task(name, rows, near=None)
    sizes = {k: sum(r[2] == k for r in rows) for k in ('train', 'test')}
    hands = {k: len({r[3] for r in rows if r[2] == k}) for k in ('train', 'test')}
    return dict(classes=len(members), **sizes, **lost, hands=hands)

def is_grey(im):
    "Has a picture no colours"
    a = np.asarray(white(im), int)
    return np.abs(a - a.mean(-1, keepdims=True)).max() < 8

def is_blank(im):
    "Is nothing drawn"
    return np.ptp(np.asarray(white(im).convert('L'))) < 32

def icon_tasks(album, sets):
    "`icons`, `badges` and `counts`"
    def drawings(aliases):
        "What `add` takes: every icon of one thing"
        return [(f'icons/{s}/{n}.webp', lambda s=s, n=n: sets.draw(s, n), split, house(s), f'{s}:{n}')
                for s, n, split in sets.members(aliases)]
    yield 'icons', add(album, 'icons', {label: drawings(aliases) for label, aliases in ICONS.items()}, pool=32, test=12)

    things = [o for aliases in ICONS.values() for o in aliases]
    badges = {}
    for label, words in BADGES.items():
        names = [f'{thing}-{word}' for word in words.split() for thing in things if thing != word]
        badges[f'icon with {label}'] = shuffled([o for name in names for o in drawings([name])], 'badges', label)
    yield 'badges', add(album, 'badges', badges, pool=48, test=60)

    def several(s, n, k, seed):
        "`k` equal icons, none over another"
        rng = Random(seed)
        side = rng.randint(18, 24)
        places = []
        while len(places) < k:
            p = rng.randint(1, PX-side-1), rng.randint(1, PX-side-1)
            apart = all(max(abs(p[0]-x), abs(p[1]-y)) >= side+1 for x, y in places)
            if apart: places.append(p)
            elif rng.random() < .002: places = []
        im = Image.new('RGBA', (PX, PX))
        for p in places: im.paste(sets.draw(s, n, side), p)
        return im
    counted = {}
    for k, number in enumerate(NUMBERS, 1):
        pictures = []
        for i, (_, aliases) in enumerate(shuffled(ICONS.items(), 'counts', number)*2):
            for s, n, split in sets.members(aliases)[i//len(ICONS)::29]:
                draw = lambda s=s, n=n, k=k: several(s, n, k, f'{k}/{s}/{n}')
                pictures.append((f'counts/{k}-{s}-{n}.webp', draw, split, house(s), f'{s}:{n}'))
        counted[f'{number} icon' + 's'*(k > 1)] = pictures
    yield 'counts', add(album, 'counts', counted, pool=48, test=80)

def font_tasks(album, fonts):
    "`letters`, `typefaces` and `writing`"
    def picture(path, f, subset, text):
        "What `add` takes: a text in a font"
        family = fonts.family(f)
        return path, lambda: fonts.draw(f, subset, text), fonts.split[family], family, f

    latin = fonts.carrying('latin')
    letters = {}
    for o in 'ABCDEFGHIJKLMNOPQRSTUVWXYZ':
        letters[f'the letter {o}'] = [picture(f'letters/{o}-{f}.webp', f, 'latin', o)
                                      for f in shuffled(latin, 'letters')]
    yield 'letters', add(album, 'letters', letters, pool=48, test=48)

    words = [o for o in ICONS if o.isalpha() and 4 < len(o) < 9]
    kinds = {}
    for category, label in TYPEFACES.items():
        mine = [f for f in latin if fonts.about[f]['category'] == category]
        kinds[label] = []
        for turn in range(6):
            for f in shuffled(mine, 'typefaces'):
                text = '\n'.join(shuffled(words, f, turn)[:2])
                kinds[label].append(picture(f'typefaces/{f}-{turn}.webp', f, 'latin', text))
    yield 'typefaces', add(album, 'typefaces', kinds, pool=64, test=120)

    writing = {}
    for label, (subset, languages) in SCRIPTS.items():
        names = written(subset, languages)
        writing[f'{label} script'] = []
        for turn in range(16):
            for f in shuffled(fonts.carrying(subset), 'writing', label):
                text = '\n'.join(shuffled(names, label, f, turn)[:3])
                path = f'writing/{label.lower()}-{f}-{turn}.webp'
                writing[f'{label} script'].append(picture(path, f, subset, text))
    yield 'writing', add(album, 'writing', writing, pool=64, test=90)

def written(subset, languages):
    """Names of countries in the languages of a script, as Unicode's CLDR has them.

    One word each, and nothing but letters of the script."""
    import unicodedata
    from babel import Locale
    names = {o for l in languages.split() for o in Locale(l).territories.values()}
    def ours(c):
        if unicodedata.category(c)[0] == 'M': return True
        return unicodedata.name(c, '').startswith(subset.upper()) and (subset != 'latin' or c.isascii())
    return sorted(o for o in names if 3 < len(o) < 11 and all(map(ours, o)))


def notice(tables):
    "Lines for NOTICE: the packages that some picture of `tables` comes from"
    used = {r[4].split(':')[0] for rows in tables.values() for r in rows}
    for o in sources():
        if o['package'].split('/')[1] not in used: continue
        yield f"  {o['package']} {o['version']}: {o['author']}, {o['licence']}, {o['url']}"

def build(work, out):
    album = Album()
    report = {}
    for tasks in (icon_tasks(album, IconSets(work)), font_tasks(album, Fonts(work))):
        for name, counts in tasks: report[name] = counts
    album.save(out, 'suite.zip')
    Path(work, 'notice.txt').write_text('\n'.join(notice(album.tables)) + '\n', encoding='utf-8')
    (HERE.parents[1]/'nbs/results/suite.json').write_text(json.dumps(report, indent=1) + '\n')

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--work', default='build/minivlm', help='folder for the downloads')
    p.add_argument('--out', default=str(HERE.parents[1]/'craft_nb/assets'), help='where the assets go')
    a = p.parse_args()
    download(a.work)
    build(a.work, a.out)
