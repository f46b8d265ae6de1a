"""Train `craft-mini`: text distillation, the head on frozen features, the image tower at 128 px, the texts once more.

nbs/90_minivlm.ipynb explains it. About an hour on two cores:

    python scripts/minivlm/train.py --work build/minivlm --out craft_nb/assets/craft-mini

Seconds, on drawn shapes, with no downloads:

    python scripts/minivlm/train.py --smoke --out build/smoke"""
import argparse, copy, gzip, hashlib, math, random, time, zlib
from pathlib import Path
import numpy as np, torch, torch.nn.functional as F
from augment import augment, plain
from build import CFG, MEAN, STD, build, imagenet, save
from fetch import ICONS, TASK, TRAIN, emojis, fashion, stamps, weights
from pairs import captions, fit, hamming, hashes, read
from text import Space, Teacher, Tokens, bag, distil, encode, say, text_params, token_init, wordnet

DROP = 6     # bits: a training picture whose hashes are this near to a task picture's is dropped
GROUPS = {'animals-nature', 'food-drink', 'travel-places', 'objects', 'activities'}
MONO = {'openmoji-black', 'game-icons', 'mdi', 'ph', 'icon-park'}

def log(*o): print(time.strftime('%H:%M:%S'), *o, flush=True)

class Pairs:
    "Training pictures (N, 128, 128, 4) with their words: `own[i]` names, `tags[i]`, `kinds[i]` index into `words`"
    def __init__(self,
        parts,     # Iterator of (style, keys, pictures, hashes (n, 2), sha1)
        caption,   # (style, key) -> (names, tags, kinds)
        near=None, # Hashes of the task pictures (M, 2)
    ):
        xs = []
        mono = []
        words = {}           # word -> its index
        self.own = []
        self.tags = []
        self.kinds = []
        self.row = []        # of the manifest
        self.dropped = {}    # style -> pictures too near to a task's
        add = lambda ws: [words.setdefault(w.lower(), len(words)) for w in dict.fromkeys(ws)]
        for s, ks, x, h, sha in parts:
            bad = np.zeros(len(ks), bool) if near is None else nearest(h, near) <= DROP
            keep = []
            for i, k in enumerate(ks):
                n, t, c = caption(s, str(k))
                if not n or bad[i]: continue
                keep.append(i)
                self.own.append(add(n))
                self.tags.append(add(t))
                self.kinds.append(add(c))
                self.row.append((s, str(k), sha[i], f'{int(h[i, 0]):016x}', f'{int(h[i, 1]):016x}'))
            self.dropped[s] = int(bad.sum())
            xs.append(x[keep])
            mono += [s in MONO]*len(keep)
        self.x = torch.tensor(np.concatenate(xs))
        self.mono = torch.tensor(mono)
        self.words = list(words)
        self.all = [set(a+b+c) for a, b, c in zip(self.own, self.tags, self.kinds)]
    def __len__(self): return len(self.x)
    def pick(self, i, rng, p=(.7, .15)):
        "A word of picture `i`: its name, a tag or its kind"
        r = rng.random()
        if r > p[0] and self.tags[i] and r < 1-p[1]: return rng.choice(self.tags[i])
        if r > 1-p[1] and self.kinds[i]: return rng.choice(self.kinds[i])
        return rng.choice(self.own[i])
    def manifest(self, f):
        "source, style, name, sha1 and hashes of every picture trained on"
        buf = '\n'.join(','.join(o) for o in [('style', 'name', 'sha1', 'phash', 'dhash'), *self.row])+'\n'
        Path(f).write_bytes(gzip.compress(buf.encode(), mtime=0))

def nearest(h, near, bs=512):
    "For each hash of `h` the distance to its nearest in `near`"
    return np.concatenate([hamming(h[i:i+bs], near).min(1) for i in range(0, len(h), bs)])

def task_hashes(work, cache, fashion_n=10000):
    "Hashes of every picture that a task may show, (M, 2)"
    from PIL import Image
    f = Path(cache)/'task_hashes.npy'
    if not f.exists():
        st = [hashes(o[2]) for o in stamps(work)]
        fm = [hashes(Image.fromarray(o)) for o in fashion(work)[0][:fashion_n]]
        styles = [read(s, work, cache)[2] for s in TASK]
        np.save(f, np.concatenate([*styles, np.array(st), np.array(fm)]))
    return np.load(f)

def conse(clip, w, b, IN, a=1., t=3.):
    "Head that sums the ImageNet names' vectors, weighted by a soft threshold of their logits"
    fc1, fc2, K = clip.visual.head.mlp.fc1, clip.visual.head.mlp.fc2, len(IN)
    with torch.no_grad():
        fc1.weight[:K], fc1.bias[:K] = a*w, a*(b-t)
        fc2.weight.mul_(.1)
        fc2.weight[:, :K] = IN.T

def low():
    "Arithmetic of 16 bits, where the processor has units for it; elsewhere it would take ten times as long as 32"
    return torch.autocast('cpu', torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())

@torch.no_grad()
def features(net, x, bs=32, size=128):
    "RGB in 0..1 -> what `net` (a trunk, or a whole image tower) makes of it at `size` pixels, (N, d)"
    def ready(b):
        if size != b.shape[-1]: b = F.interpolate(b, size=(size, size), mode='bicubic', antialias=True).clamp(0, 1)
        return ((b-MEAN)/STD).contiguous(memory_format=torch.channels_last)
    with low():
        return torch.cat([net(ready(b)).float() for b in x.split(bs)])

def views(net, pairs, idx, gen, plainly=False, size=128, bs=96):
    "Features of one view of each of the pictures `idx`: augmented, or plain on white"
    def view(j): return plain(pairs.x[j]) if plainly else augment(pairs.x[j], pairs.mono[j], gen)
    return torch.cat([features(net, view(j), size=size) for j in idx.split(bs)])

def pseudo(feats, w, k=2.):
    """Features that the ImageNet classifier's rows stand for, had its classes the pictures' covariance S.

    Returns mean + k S w, and a root of S for noise."""
    mu = feats.mean(0)
    S = torch.cov(feats.T)
    d = w@S
    d = d/d.norm(dim=-1, keepdim=True)*feats.sub(mu).norm(dim=-1).mean()
    ev, U = torch.linalg.eigh(S)
    return mu+k*d, (U*ev.clamp_min(0).sqrt()).T

def heads(clip, pairs, p, T, IN, w, PR, n=6000, steps=300, bs=384, lr=1e-3, tau=.04, px=128, seed=0):
    """Stage A: train the head on frozen features of `n` augmented pictures.

    The text vectors `T` of `pairs.words` are fixed."""
    rng = random.Random(seed)
    gen = torch.Generator().manual_seed(seed)
    head = clip.visual.head
    opt = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=.05)
    some = torch.multinomial(p, min(n, len(pairs)), generator=gen)
    V = views(clip.visual.trunk, pairs, some, gen, size=px)
    names = torch.tensor(sorted({o[0] for o in pairs.own}))
    for i in range(steps):
        for g in opt.param_groups: g['lr'] = lr*min(1, (i+1)/50)*.5*(1+math.cos(math.pi*i/steps))
        k = torch.randint(len(some), (bs,), generator=gen)
        ids = some[k].tolist()
        c = torch.tensor([pairs.pick(j, rng) for j in ids])
        loss = nce(F.normalize(head(V[k]), dim=-1), c, [pairs.all[j] for j in ids], T, names, tau, gen)
        loss = loss+.5*named(head, IN, PR, gen, 256, tau)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if i % 100 == 0: log(f'heads {i:5}: loss {loss.item():.3f}')

def named(head, IN, PR, gen, n, tau):
    "Loss on `n` pseudo-features: each should find its own ImageNet name"
    P, R = PR
    j = torch.randint(len(P), (n,), generator=gen)
    q = (P[j]+torch.randn(n, len(R), generator=gen)@R*.7).clamp_min(0)
    return F.cross_entropy(F.normalize(head(q), dim=-1)@IN.T/tau, j)

def nce(z, c, have, T, names, tau, gen, extra=512):
    """Image -> text (own, the batch's and `extra` other names) and text -> image.

    What is true of a picture is never its negative."""
    neg = names[torch.randperm(len(names), generator=gen)[:extra]]
    cols = torch.cat([c, neg]).unique()
    pos = {w: k for k, w in enumerate(cols.tolist())}
    y = torch.tensor([pos[o] for o in c.tolist()])
    mask = torch.zeros(len(z), len(cols), dtype=torch.bool)
    rc = [(r, pos[w]) for r, ws in enumerate(have) for w in ws if w in pos]
    rc = torch.tensor(rc).T
    mask[rc[0], rc[1]] = True
    S = z@T[cols].T/tau
    mask[torch.arange(len(z)), y] = False
    a = F.cross_entropy(S.masked_fill(mask, -1e4), y)
    mine = F.one_hot(y, len(cols)).bool()
    keep = y.unique()
    own = mine[:, keep]
    log_p = F.log_softmax(S.masked_fill(mask, -1e4)[:, keep], 0)
    b = -(log_p.masked_fill(~own, 0).sum(0)/own.sum(0)).mean()
    return .5*(a+b)


def share(style, e, icons=.4, things=3., rest=.7):
    "How often a picture is drawn: emoji of things often, icons and faces seldom; `e` is the emoji's entry"
    return icons if style in ICONS else things if e['group'] in GROUPS else rest

def tune(clip, pairs, p, T, IN, w, b, PR, steps=1000, minutes=None, bs=128, lr=4e-4, tau=.04, lwf=.3, ema=.99,
         frozen=2, seed=1):
    "Stage B: tune the image tower (batch norms fixed, stem and first `frozen` stages too) against the text vectors `T`"
    rng = random.Random(seed)
    gen = torch.Generator().manual_seed(seed)
    t0 = time.time()
    vis = clip.visual.eval()
    tr = clip.visual.trunk
    old = copy.deepcopy(tr).requires_grad_(False)
    mean = copy.deepcopy(vis).requires_grad_(False)
    for o in [tr.conv_stem, tr.bn1, *tr.blocks[:frozen]]: o.requires_grad_(False)
    names = torch.tensor(sorted({o[0] for o in pairs.own}))
    opt = torch.optim.AdamW([o for o in vis.parameters() if o.requires_grad], lr=lr, weight_decay=.05, fused=True)
    for i in range(steps):
        f = max(i/steps, (time.time()-t0)/60/minutes if minutes else 0)
        if f >= 1: break
        for g in opt.param_groups: g['lr'] = lr*min(1, (i+1)/40)*(.02+.98*.5*(1+math.cos(math.pi*f)))
        idx = torch.multinomial(p, bs, generator=gen)
        ids = idx.tolist()
        x = ((augment(pairs.x[idx], pairs.mono[idx], gen)-MEAN)/STD).contiguous(memory_format=torch.channels_last)
        with low(): h = tr(x).float()
        with torch.no_grad(), low(): t = old(x).float()
        c = torch.tensor([pairs.pick(j, rng) for j in ids])
        a = nce(F.normalize(vis.head(h), dim=-1), c, [pairs.all[j] for j in ids], T, names, tau, gen, extra=1500)
        now = F.log_softmax((h@w.T+b)/2, -1)
        before = F.log_softmax((t@w.T+b)/2, -1)
        kd = F.kl_div(now, before, log_target=True, reduction='batchmean')*4
        loss = a+lwf*kd+.25*named(vis.head, IN, PR, gen, 192, tau)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vis.parameters(), 5.)
        opt.step()
        with torch.no_grad():
            for u, v in zip(mean.parameters(), vis.parameters()): u.lerp_(v, 1-min(ema, (i+1)/(i+10)))
        if i % 20 == 0: log(f'tune {i:5} ({100*f:.0f}%): pairs {a.item():.3f}, old classes {kd.item():.3f}')
    vis.load_state_dict(mean.state_dict())
    vis.requires_grad_(True)

def retell(clip, pairs, p, Z, some, words, T0, weights=None, steps=380, bs=256, lr=4e-4, tau=.04, keep=1., seed=2):
    """Stage C: tune the text tower on the image vectors `Z` of the pictures `some`.

    All the while `words` stay near the teacher's `T0`."""
    rng = random.Random(seed)
    gen = torch.Generator().manual_seed(seed)
    tk = Tokens(clip.context_length)
    t0 = time.time()
    opt = torch.optim.AdamW(text_params(clip), lr=lr, betas=(.9, .98), weight_decay=.01, fused=True)
    wt = torch.ones(len(words)) if weights is None else weights
    for i in range(steps):
        for g in opt.param_groups: g['lr'] = lr*min(1, (i+1)/40)*.5*(1+math.cos(math.pi*i/steps))+1e-6
        k = torch.randint(len(some), (bs,), generator=gen)
        ids = some[k].tolist()
        c = torch.tensor([pairs.pick(j, rng) for j in ids])
        cols = c.unique()
        j = torch.multinomial(wt, bs//2, generator=gen)
        texts = [say(pairs.words[o], rng) for o in cols.tolist()]
        texts += [say(words[o], rng) for o in j.tolist()]
        z = encode(clip, tk(texts))
        T = torch.zeros(len(pairs.words), z.shape[1]).index_copy(0, cols, z[:len(cols)])
        a = nce(Z[k], c, [pairs.all[o] for o in ids], T, cols, tau, gen, extra=len(cols))
        t = T0[j]
        q = z[len(cols):]
        d = .5*F.cross_entropy(q@t.T/.05, torch.arange(len(j)))+4*(1-(q*t).sum(-1).mean())
        loss = a+keep*d
        opt.zero_grad()
        loss.backward()
        opt.step()
        if i % 50 == 0: log(f'retell {i:4}: pairs {a.item():.3f}, teacher {d.item():.3f}, {time.time()-t0:.0f} s')

def mix(a, b, alpha):
    "Weights between two state dicts: `a` + `alpha` (`b` - `a`)"
    return {k: v.lerp(b[k], alpha) if v.is_floating_point() else v for k, v in a.items()}

class Fake:
    "A teacher that needs no download: a text is the sum of its words' random vectors"
    def __init__(self, dim=64): self.dim = dim
    def word(self, w):
        gen = torch.Generator().manual_seed(zlib.crc32(w.encode()))
        return torch.randn(self.dim, generator=gen)
    def __call__(self, texts):
        vectors = [sum(map(self.word, o.split() or [''])) for o in texts]
        return F.normalize(torch.stack(vectors), dim=-1)

def drawn(seed=0):
    "A few shapes in a few colours, as one part for `Pairs`: (style, keys, pictures, hashes, sha1)"
    from PIL import Image, ImageDraw
    how = dict(ellipse={}, rectangle={}, line=dict(width=9), arc=dict(start=0, end=250, width=9))
    rng = random.Random(seed)
    ks = []
    ims = []
    for c in ('red', 'green', 'blue', 'orange'):
        for s in ('ellipse', 'rectangle', 'line', 'arc'):
            for _ in range(3):
                im = Image.new('RGBA', (128, 128))
                a = [rng.randint(8, 40), rng.randint(8, 40), rng.randint(80, 120), rng.randint(80, 120)]
                getattr(ImageDraw.Draw(im), s)(a, fill=c, **how[s])
                ks.append(f'{c} {s}')
                ims.append(im)
    sha = [hashlib.sha1(o.tobytes()).hexdigest() for o in ims]
    return 'drawn', np.array(ks), np.stack([fit(o) for o in ims]), np.array([hashes(o) for o in ims]), np.array(sha)

def prepare(work, cache, styles):
    "Everything that needs the downloads: (teacher, pairs, shares, ImageNet weights, further nouns)"
    es = emojis(work)
    parts = ((s, *read(s, work, cache)) for s in styles)
    pairs = Pairs(parts, lambda s, k: captions(s, k, work), task_hashes(work, cache))
    p = torch.tensor([share(s, es.get(k)) for s, k, *_ in pairs.row])
    return Teacher(work), pairs, p, weights(work), [o for o in wordnet(work) if len(o) <= 24]

def smoke():
    "The same for drawn shapes, with no download"
    pairs = Pairs([drawn()], lambda s, k: ([k], k.split(), ['shape']))
    return Fake(), pairs, torch.ones(len(pairs)), None, ['cat', 'dog', 'house', 'tree']

def start(m, words, T0, teacher, cache):
    "Token embeddings from the teacher, and a tower that is a bag of words"
    file = cache and Path(cache)/'tokens.pt'
    with torch.no_grad():
        m.token_embedding.weight.copy_(token_init(teacher, CFG['text_cfg']['width'], cache=file))
    log(f'bag of words: cosine {bag(m, words, T0):.3f}')

@torch.no_grad()
def told(m, words, bs=512):
    "Text vectors of `words` in the default prompt, (N, d)"
    tk = Tokens(m.context_length)
    out = []
    for i in range(0, len(words), bs):
        texts = [f'a photo of a {o}.' for o in words[i:i+bs]]
        out.append(encode(m, tk(texts)))
    return torch.cat(out)

STEPS = dict(text=700, head=300, image=1350, again=2300, retell=380, refit=400)

def train(
    parts,            # What `prepare` or `smoke` gives
    out,              # Folder for the model
    cache=None,       # Folder for what may be kept between runs
    steps=STEPS,      # Of each stage
    bs=(256, 384, 128), # Batch sizes: texts, features, pictures
    n=6000,           # Pictures whose features are kept for the head
    alpha=(.7, .5),   # How far from the untuned tower: as the text tower sees it, and in the end
    beta=.7,          # How far the text tower follows the pictures
    gamma=.5,         # How far the head follows its last fit
):                    # (model, pairs)
    "The whole recipe, stage by stage"
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
    teacher, pairs, p, ckpt, more = parts
    log(len(pairs), 'pictures', len(pairs.words), 'words; too near to a task picture, dropped:', pairs.dropped)
    m = build().eval()
    IN = list(IMAGENET_CLASSNAMES)
    px = CFG['vision_cfg']['image_size']
    tr = m.visual.trunk.to(memory_format=torch.channels_last)
    gen = torch.Generator().manual_seed(3)
    w, b = imagenet(ckpt, tr) if ckpt else (torch.randn(1000, 1280, generator=gen)*.03, torch.zeros(1000))

    # the text tower learns from the teacher
    words = list(dict.fromkeys(IN+pairs.words+more))
    known = len(dict.fromkeys(IN+pairs.words))
    E = teacher(words)
    T0 = Space(E[:known], CFG['embed_dim'])(E)
    wt = torch.ones(len(words))
    wt[:known] = 4
    wt[:len(set(IN))] = 8
    wt *= torch.tensor([len(o) <= 24 for o in words])
    start(m, words, T0, teacher, cache)
    distil(m, words, T0, steps=steps['text'], bs=bs[0], lr=7e-4, weights=wt, log=log)

    # the head, from ConSE, on frozen features; then the image tower
    T = told(m, pairs.words)
    TI = told(m, IN)
    conse(m, w, b, TI)
    some = torch.multinomial(p, min(n, len(pairs)), generator=gen)
    PR = pseudo(views(tr, pairs, some[:2000], gen, plainly=True), w)
    heads(m, pairs, p, T, TI, w, PR, n=n, steps=steps['head'], bs=bs[1])
    first = copy.deepcopy(m.visual.state_dict())
    tune(m, pairs, p, T, TI, w, b, PR, steps=steps['image'], bs=bs[2])
    tuned = copy.deepcopy(m.visual.state_dict())

    # the text tower again: more of the teacher, then from the pictures
    m.visual.load_state_dict(mix(first, tuned, alpha[0]))
    distil(m, words, T0, steps=steps['again'], bs=bs[0], lr=6e-4, weights=wt, seed=7, log=log)
    Z = torch.cat([views(m.visual, pairs, some, gen, plainly=o, size=px) for o in (False, True)])
    Z = F.normalize(Z, dim=-1)
    told_by = copy.deepcopy(m.state_dict())
    retell(m, pairs, p, Z, torch.cat([some, some]), words, T0, weights=wt, steps=steps['retell'], bs=bs[0])
    m.load_state_dict(mix(told_by, m.state_dict(), beta))

    # halfway back to the ImageNet tower, and a head that fits it
    m.visual.load_state_dict(mix(first, tuned, alpha[1]))
    T = told(m, pairs.words)
    TI = told(m, IN)
    before = copy.deepcopy(m.visual.head.state_dict())
    PR = pseudo(views(tr, pairs, some[:2000], gen, plainly=True, size=px), w)
    heads(m, pairs, p, T, TI, w, PR, n=n*4//3, steps=steps['refit'], bs=bs[1], lr=5e-4, px=px, seed=9)
    m.visual.head.load_state_dict(mix(before, m.visual.head.state_dict(), gamma))
    with torch.no_grad(): m.logit_scale.fill_(math.log(1/.04))
    save(m, out)
    return m, pairs

if __name__ == '__main__':
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--work', default='build/minivlm')
    a.add_argument('--out', default='craft_nb/assets/craft-mini')
    a.add_argument('--without', default='streamline', help='training styles to leave out, for validation')
    a.add_argument('--manifest', default=str(Path(__file__).parent/'manifest.csv.gz'))
    a.add_argument('--smoke', action='store_true')
    a = a.parse_args()
    t0 = time.time()
    if a.smoke: m, pairs = train(smoke(), a.out, steps=dict.fromkeys(STEPS, 3), bs=(16,)*3, n=32)
    else:
        cache = Path(a.work)/'cache'
        styles = [s for s in TRAIN if s not in a.without.split(',')]
        m, pairs = train(prepare(a.work, cache, styles), a.out, cache)
    pairs.manifest(Path(a.out)/'manifest.csv.gz' if a.smoke else a.manifest)
    log(f'{a.out}: done in {(time.time()-t0)/60:.1f} minutes')
