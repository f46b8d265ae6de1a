"""Zero-shot figures of a saved `craft-mini`, as JSON.

Emoji groups in the task styles, Tux Paint animal stamps, Fashion-MNIST."""
import argparse, json, re, time
from pathlib import Path
import numpy as np, torch, torch.nn.functional as F
from augment import plain
from build import load
from fetch import FASHION, TASK, emojis, fashion, stamps
from pairs import fit, read
from text import Tokens, encode
from train import features

GROUPS = 'animals-nature food-drink travel-places objects activities'.split()
STYLES = [o for o in TASK if o != 'openclipart']
def clean(d): return re.sub('^(a|an|the) ', '', d.strip().rstrip('.!'), flags=re.I)

def image_features(m, x, size=None):
    "RGB in 0..1 (N, 3, H, W) -> unit features (N, d), at `size` pixels"
    return F.normalize(features(m.visual, x, 64, size or x.shape[-1]), dim=-1)

@torch.no_grad()
def text_features(m, names, template='a photo of a {}.'):
    "Names in a template -> unit features (N, d)"
    tokens = Tokens(m.context_length)
    return encode(m, tokens([template.format(o) for o in names]))

def sets(work, cache, styles=STYLES, fashion_n=None, split='t10k', px=128):
    "name -> (pictures (N, 3, H, W), class names, labels); the stamps, which are large, are reduced to `px` at once"
    res = {}
    es = emojis(work)
    for s in styles:
        ks, x, _, _ = read(s, work, cache)
        for g in GROUPS:
            i = [j for j, k in enumerate(ks) if es[k]['group'] == g]
            if i: res[f'{s}/{g}'] = plain(torch.tensor(x[i])), [es[ks[j]]['name'] for j in i], torch.arange(len(i))
    st = list(stamps(work))
    cs = [clean(o[1]) for o in st]
    names = sorted(set(cs))
    pictures = plain(torch.tensor(np.stack([fit(o[2], px) for o in st])))
    res['stamps'] = pictures, names, torch.tensor([names.index(o) for o in cs])
    x, y = fashion(work, split)
    x = torch.tensor(x[:fashion_n].copy())
    y = torch.tensor(y[:fashion_n].copy()).long()
    x = F.interpolate(x[:, None].float()/255, size=(128, 128), mode='bicubic').clamp(0, 1).expand(-1, 3, -1, -1)
    res['fashion'] = x, FASHION, y
    return res

def evaluate(m, data, size=None):
    "Top-1 in percent: by style and group, by group, and the three figures to reach"
    m = m.eval().to(memory_format=torch.channels_last)
    acc = {}
    for k, (x, names, y) in data.items():
        logits = image_features(m, x, size)@text_features(m, names).T
        acc[k] = round(100*(logits.argmax(-1) == y).float().mean().item(), 1)
    emoji = {k: v for k, v in acc.items() if '/' in k}
    mean = lambda f: round(float(np.mean([v for k, v in emoji.items() if f(k)])), 1)
    by = {g: mean(lambda k: k.endswith('/'+g)) for g in GROUPS} if emoji else {}
    styles = {s: mean(lambda k: k.startswith(s+'/')) for s in dict.fromkeys(k.split('/')[0] for k in emoji)}
    whole = round(float(np.mean(list(by.values()))), 1) if by else None
    return dict(emoji=whole, stamps=acc['stamps'], fashion=acc['fashion'], groups=by, styles=styles, all=emoji)

def speed(m, n_prompts=40, n_classes=10, n_tokens=10):
    """Milliseconds of one image in a batch of 32, and of a query of 40 prompts x 10 classes.

    The query goes through the plain text tower, in single precision."""
    def best(f, k=15):
        ts = []
        with torch.no_grad():
            for _ in range(k):
                t = time.time()
                f()
                ts.append(time.time()-t)
        return 1000*min(ts)
    s = m.visual.image_size[0]
    x = torch.rand(32, 3, s, s)
    ids = torch.randint(1, 40000, (n_prompts*n_classes, n_tokens))
    ids[:, -1] = 49407
    return dict(image_ms=round(best(lambda: m.encode_image(x))/32, 2), query_ms=round(best(lambda: encode(m, ids)), 1))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--work', default='build/minivlm')
    p.add_argument('--model', default='craft_nb/assets/craft-mini')
    p.add_argument('--out')
    a = p.parse_args()
    m = load(a.model)[0]
    px = m.visual.image_size[0]
    data = sets(a.work, Path(a.work)/'cache', px=px)
    res = dict(size=px, **evaluate(m, data, px), **speed(m), threads=torch.get_num_threads())
    print(s := json.dumps(res, indent=1))
    if a.out: Path(a.out).write_text(s+'\n')
