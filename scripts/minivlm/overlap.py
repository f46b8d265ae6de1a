"""Was any picture of a task among the pictures that `craft-mini` learnt from?

Compares names and perceptual hashes; exits with 1 on a hit.

    python scripts/minivlm/overlap.py                         # the manifest against the shipped task pictures
    python scripts/minivlm/overlap.py --work build/minivlm    # all of the task styles, stamps, Fashion-MNIST too"""
import argparse, csv, gzip, io, sys
from functools import lru_cache
from pathlib import Path
from zipfile import ZipFile
import numpy as np
from PIL import Image
from fetch import TASK, TRAIN
from pairs import hamming, hashes

HERE = Path(__file__).parent
SAME = 2  # bits of 64, in both hashes: the same drawing, re-encoded

def manifest(f=HERE/'manifest.csv.gz'):
    "Rows of the manifest, and the hashes (N, 2)"
    rows = list(csv.DictReader(io.StringIO(gzip.open(f).read().decode())))
    return rows, np.array([[int(o['phash'], 16), int(o['dhash'], 16)] for o in rows], np.uint64)

@lru_cache(2)
def shipped(assets):
    "Names and hashes of the pictures in the package"
    names, found = [], []
    for pictures in sorted(Path(assets).glob('*.zip')):
        with ZipFile(pictures) as z:
            names += (mine := [o for o in z.namelist() if o.endswith(('.png', '.webp', '.jpg'))])
            found += [hashes(Image.open(io.BytesIO(z.read(o)))) for o in mine]
    return names, np.array(found)

def digits():
    "Names and hashes of scikit-learn's digits"
    from sklearn.datasets import load_digits
    pictures = [Image.fromarray((o*15.9).astype(np.uint8)) for o in load_digits().images]
    return [f'digit {i}' for i in range(1797)], np.array([hashes(o) for o in pictures])

def nearest(a, b, bs=1024):
    "For each of `a` the distance to, and index of, its nearest in `b`"
    D = []
    for i in range(0, len(a), bs):
        d = hamming(a[i:i+bs], b)
        D.append((d.min(1), d.argmin(1)))
    return tuple(np.concatenate(o) for o in zip(*D))

def report(what, names, h, rows, mine, same=SAME):
    "Print how near the pictures `h` come to the training pictures; returns the number of hits"
    d, j = nearest(h, mine)
    hits = np.flatnonzero(d <= same)
    print(f'{what}: {len(h)} pictures, nearest training picture {d.min()} bits away, {len(hits)} within {same}',
          flush=True)
    for i in hits[:10]:
        near = rows[j[i]]
        print(f'  {names[i]} ~ {near["style"]}/{near["name"]} ({d[i]} bits)')
    return len(hits)

def check(assets='craft_nb/assets', work=None, man=HERE/'manifest.csv.gz'):
    "All comparisons; returns the number of hits"
    rows, mine = manifest(man)
    styles = sorted({o['style'] for o in rows})
    bad = [o for o in styles if o in TASK or o not in TRAIN]
    listed = ', '.join(styles)
    print(f'{len(rows)} training pictures of {len(styles)} styles ({listed}); of the task styles: {len(bad)}')
    n = len(bad)
    n += report('shipped', *shipped(assets), rows, mine)
    n += report('digits', *digits(), rows, mine)
    if work:
        from fetch import fashion, stamps
        from pairs import read
        for s in TASK:
            ks, _, h, _ = read(s, work, Path(work)/'cache')
            n += report(s, ks, h, rows, mine)
        st = list(stamps(work))
        n += report('stamps', [o[0] for o in st], np.array([hashes(o[2]) for o in st]), rows, mine)
        for s in ('t10k', 'train'):
            x = fashion(work, s)[0]
            h = np.array([hashes(Image.fromarray(o)) for o in x])
            n += report(f'Fashion-MNIST {s}', range(len(x)), h, rows, mine)
    return n

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--assets', default='craft_nb/assets')
    p.add_argument('--work')
    p.add_argument('--manifest', default=HERE/'manifest.csv.gz')
    a = p.parse_args()
    n = check(a.assets, a.work, a.manifest)
    print(f'{n} hits')
    sys.exit(n > 0)
