"""The image-text pairs that `craft-mini` learns from.

Pictures as uint8 RGBA arrays, captions as lists of words, perceptual hashes."""
import hashlib, re
from pathlib import Path
import numpy as np
from PIL import Image
from fetch import ICONS, TASK, TRAIN, emojis, pictures

SIDE = 128  # pixels
SUBGROUP = {  # words for Unicode's subgroups, so that a picture also answers to its kind
    'animal-mammal': 'animal|mammal', 'animal-bird': 'bird|animal', 'animal-amphibian': 'amphibian|animal',
    'animal-reptile': 'reptile|animal', 'animal-marine': 'sea animal|animal', 'animal-bug': 'insect|bug',
    'plant-flower': 'flower|plant', 'plant-other': 'plant',
    'food-fruit': 'fruit|food', 'food-vegetable': 'vegetable|food', 'food-prepared': 'meal|food',
    'food-asian': 'asian food|food', 'food-marine': 'seafood', 'food-sweet': 'dessert|sweet',
    'drink': 'drink', 'dishware': 'dishware',
    'place-map': 'map', 'place-geographic': 'landscape', 'place-building': 'building',
    'place-religious': 'religious building|building', 'place-other': 'place',
    'transport-ground': 'vehicle', 'transport-water': 'boat|vehicle', 'transport-air': 'aircraft|vehicle',
    'hotel': 'hotel', 'time': 'clock|time', 'sky-weather': 'weather|sky',
    'event': 'celebration', 'award-medal': 'award', 'sport': 'sport', 'game': 'game|toy', 'arts-crafts': 'art',
    'clothing': 'clothing', 'sound': 'sound', 'music': 'music', 'musical-instrument': 'musical instrument',
    'phone': 'phone', 'computer': 'computer', 'light-video': 'device', 'book-paper': 'paper|book',
    'money': 'money', 'mail': 'mail', 'writing': 'writing tool', 'office': 'office supplies',
    'lock': 'lock', 'tool': 'tool', 'science': 'science', 'medical': 'medicine',
    'household': 'household object', 'other-object': 'object',
    'country-flag': 'flag', 'subdivision-flag': 'flag', 'flag': 'flag'}
# words in an icon's name that tell how it is drawn, or what it carries
NOISE = {'outline', 'variant', 'off', 'alt', 'fill', 'bold', 'duotone', 'thin', 'light',
    'one', 'two', 'three', 'four', 'five', 'box', 'circle', 'square',
    'plus', 'minus', 'check', 'remove', 'alert'}
# icons that show no thing
SKIP = re.compile(r'(^|-)(abstract|alpha|numeric|format|arrow|arrows|align|border|roman|chevron|caret|text|letter|'
                  r'number|sort|sorting|signal|logo|bracket|brackets|currency|code|script|function|vector|network|'
                  r'database|api|ab|dots|list|filter|align|selection|view|wifi|battery)(-|$)')

def icon_words(style, key):
    "An icon's name -> its words, most specific first; [] if it names no thing"
    if SKIP.search(key) or re.search(r'\d', key): return []
    if style == 'ph': key = re.sub('-(bold|fill|duotone|light|thin)$', '', key)
    ws = key.split('-')
    if style in ('mdi', 'ph', 'icon-park'):
        noise = NOISE if style == 'mdi' else NOISE - {'light', 'box', 'square', 'circle'}
        ws = [w for w in ws if w not in noise]
    if not ws or len(ws) > 4: return []
    return [' '.join(ws)]

def captions(style, key, work):
    "(names, tags, kinds) of a picture: lists of plain words"
    if style in ICONS: return icon_words(style, key), [], []
    e = emojis(work)[key]
    if e['group'] == 'component': return [], [], []
    name = e['name'].replace('flag: ', 'flag of ').replace(':', '')
    kinds = SUBGROUP[e['subgroup']].split('|') if e['subgroup'] in SUBGROUP else []
    return [name], e['tags'][:8], kinds

def fit(im, side=SIDE, pad=0):
    "RGBA picture -> uint8 array (side, side, 4), aspect kept, centred on transparency"
    im = im.convert('RGBA')
    s = (side-2*pad)/max(im.size)
    w, h = (max(1, round(o*s)) for o in im.size)
    res = Image.new('RGBA', (side, side))
    res.paste(im.resize((w, h), Image.BICUBIC), ((side-w)//2, (side-h)//2))
    return np.asarray(res)

def white(im):
    "Any picture -> RGB on white"
    im = im.convert('RGBA')
    res = Image.new('RGBA', im.size, 'white')
    res.alpha_composite(im)
    return res.convert('RGB')

def hashes(im):
    "(phash, dhash) of a picture on white at 64 px, as two uint64"
    import imagehash
    im = white(im).resize((64, 64), Image.BICUBIC)
    bits = [f(im).hash.flatten() for f in (imagehash.phash, imagehash.dhash)]
    return [np.packbits(o).view('>u8')[0].astype(np.uint64) for o in bits]

def hamming(a, b):
    "Distances between two lists of hashes (N, 2), (M, 2) -> (N, M): the larger of the two hashes' distances"
    f = lambda i: np.bitwise_count(a[:, None, i]^b[None, :, i])
    return np.maximum(f(0), f(1))

def read(style, work, cache):
    "All of a style: (keys, arrays (N, 128, 128, 4), hashes (N, 2), sha1); kept in `cache`"
    f = Path(cache)/f'{style}.npz'
    if not f.exists():
        f.parent.mkdir(parents=True, exist_ok=True)
        ks, xs, hs, ss = [], [], [], []
        for k, im in pictures(style, work):
            if style == 'ph' and re.search('-(light|thin)$', k): continue
            if style in ICONS and not icon_words(style, k): continue
            x = fit(im)
            if not x[..., 3].any(): continue
            ks.append(k)
            xs.append(x)
            hs.append(hashes(im))
            ss.append(hashlib.sha1(im.tobytes()).hexdigest())
        np.savez(f, keys=np.array(ks), x=np.stack(xs), h=np.array(hs), sha=np.array(ss))
    d = np.load(f)
    return d['keys'], d['x'], d['h'], d['sha']

if __name__ == '__main__':
    import sys
    for s in sys.argv[3:] or TRAIN+TASK: print(s, read(s, sys.argv[1], sys.argv[2])[1].shape, flush=True)
