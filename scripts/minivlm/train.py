"Train `craft-mini`: text distillation, heads on frozen features, then the image tower at 128 px. See nbs/90_minivlm.ipynb."
import argparse, copy, csv, gzip, json, math, random, time
from pathlib import Path
import numpy as np, torch, torch.nn.functional as F
from augment import augment, plain
from build import CFG, MEAN, PRE, STD, build, imagenet, save
from fetch import EMOJI, ICONS, TASK, TRAIN, emojis, fashion, stamps, weights
from pairs import captions, fit, hamming, hashes, read
from text import TEMPLATES, Space, Teacher, Tokens, distil, encode, text_params, token_init, wordnet

DROP = 6     # bits: a training picture whose hashes are this near to a task picture's is dropped
MONO = {'openmoji-black', 'game-icons', 'mdi', 'ph', 'icon-park'}

def log(*o): print(time.strftime('%H:%M:%S'), *o, flush=True)

class Pairs:
    "Training pictures (N, 128, 128, 4) with their words: `own[i]` names, `tags[i]`, `kinds[i]` index into `words`"
    def __init__(self, styles, work, cache, near=None):
        xs, self.words, self.own, self.tags, self.kinds, self.row, mono = [], {}, [], [], [], [], []
        add = lambda ws: [self.words.setdefault(w.lower(), len(self.words)) for w in dict.fromkeys(ws)]
        self.dropped = {}
        for s in styles:
            ks, x, h, sha = read(s, work, cache)
            bad = nearest(h, near) <= DROP if near is not None else np.zeros(len(ks), bool)
            keep = []
            for i, k in enumerate(ks):
                n, t, c = captions(s, str(k), work)
                if not n or bad[i]: continue
                keep.append(i); self.own.append(add(n)); self.tags.append(add(t)); self.kinds.append(add(c))
                self.row.append((s, str(k), sha[i], f'{int(h[i, 0]):016x}', f'{int(h[i, 1]):016x}'))
            self.dropped[s] = int(bad.sum()); xs.append(x[keep]); mono += [s in MONO]*len(keep)
        self.x, self.mono = torch.tensor(np.concatenate(xs)), torch.tensor(mono)
        self.words = list(self.words); self.style = [o[0] for o in self.row]
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

def nearest(h, near, bs=512): return np.concatenate([hamming(h[i:i+bs], near).min(1) for i in range(0, len(h), bs)])

def task_hashes(work, cache, fashion_n=10000):
    "Hashes of every picture that a task may show, (M, 2)"
    from PIL import Image
    f = Path(cache)/'task_hashes.npy'
    if not f.exists():
        st = [hashes(o[2]) for o in stamps(work)]
        fm = [hashes(Image.fromarray(o)) for o in fashion(work)[0][:fashion_n]]
        np.save(f, np.concatenate([*[read(s, work, cache)[2] for s in TASK if s != 'openclipart' or (Path(cache)/f'{s}.npz').exists()], np.array(st), np.array(fm)]))
    return np.load(f)

def conse(clip, w, b, IN, a=1., t=3.):
    "Head that sums the ImageNet names' vectors, weighted by a soft threshold of their logits"
    fc1, fc2, K = clip.visual.head.mlp.fc1, clip.visual.head.mlp.fc2, len(IN)
    with torch.no_grad():
        fc1.weight[:K], fc1.bias[:K] = a*w, a*(b-t)
        fc2.weight.mul_(.1); fc2.weight[:, :K] = IN.T

@torch.no_grad()
def features(trunk, x, bs=128):
    "RGB in 0..1 -> pooled features (N, 1280)"
    with torch.autocast('cpu', torch.bfloat16):
        return torch.cat([trunk(((b-MEAN)/STD).contiguous(memory_format=torch.channels_last)).float() for b in x.split(bs)])

@torch.no_grad()
def views(clip, pairs, n, seed=0):
    "Features of the plain pictures and of `n` augmented views, half precision: (1+n, N, 1280)"
    gen, res = torch.Generator().manual_seed(seed), []
    for v in range(1+n):
        res.append(torch.cat([features(clip.visual.trunk, plain(x) if v == 0 else augment(x, m, gen)).half()
                              for x, m in zip(pairs.x.split(256), pairs.mono.split(256))]))
        log(f'view {v+1} of {n+1}')
    return torch.stack(res)

def pseudo(feats, w, k=2.):
    "Features that the ImageNet classifier's rows stand for, had its classes the pictures' covariance: mean + k S w, and a root of S for noise"
    mu = feats.mean(0); S = torch.cov(feats.T)
    d = w@S; d = d/d.norm(dim=-1, keepdim=True)*feats.sub(mu).norm(dim=-1).mean()
    ev, U = torch.linalg.eigh(S)
    return mu+k*d, (U*ev.clamp_min(0).sqrt()).T

def heads(clip, V, pairs, T, IN, w, steps=1500, bs=1024, lr=1e-3, tau=.04, seed=0):
    "Stage A: train the head on frozen features `V`, against fixed text vectors `T` of `pairs.words`"
    rng, gen = random.Random(seed), torch.Generator().manual_seed(seed)
    head = clip.visual.head; opt = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=.05)
    P, R = pseudo(V[0].float(), w)
    names = torch.tensor(sorted({o[0] for o in pairs.own}))
    for i in range(steps):
        for g in opt.param_groups: g['lr'] = lr*min(1, (i+1)/50)*.5*(1+math.cos(math.pi*i/steps))
        idx = torch.randint(len(pairs), (bs,), generator=gen)
        f = V[torch.randint(len(V), (bs,), generator=gen), idx].float()
        c = torch.tensor([pairs.pick(j, rng) for j in idx.tolist()])
        loss = nce(F.normalize(head(f), dim=-1), c, [pairs.all[j] for j in idx.tolist()], T, names, tau, gen)
        j = torch.randint(len(w), (256,), generator=gen)
        q = (P[j]+torch.randn(256, R.shape[0], generator=gen)@R*.7).clamp_min(0)
        loss = loss+.5*F.cross_entropy(F.normalize(head(q), dim=-1)@IN.T/tau, j)
        opt.zero_grad(); loss.backward(); opt.step()
        if i % 200 == 0: log(f'heads {i:5}: loss {loss.item():.3f}')

def nce(z, c, have, T, names, tau, gen, extra=512):
    "Image -> text (own, the batch's and `extra` other names) and text -> image; what is true of a picture is never its negative"
    neg = names[torch.randperm(len(names), generator=gen)[:extra]]
    cols = torch.cat([c, neg]).unique()
    pos = {w: k for k, w in enumerate(cols.tolist())}
    y = torch.tensor([pos[o] for o in c.tolist()])
    mask = torch.zeros(len(z), len(cols), dtype=torch.bool)
    rc = [(r, pos[w]) for r, ws in enumerate(have) for w in ws if w in pos]
    rc = torch.tensor(rc).T; mask[rc[0], rc[1]] = True
    S = z@T[cols].T/tau
    mask[torch.arange(len(z)), y] = False
    a = F.cross_entropy(S.masked_fill(mask, -1e4), y)
    mine = F.one_hot(y, len(cols)).bool()
    S2, keep = S.masked_fill(mask, -1e4), y.unique()
    b = -(F.log_softmax(S2[:, keep], 0).masked_fill(~mine[:, keep], 0).sum(0)/mine[:, keep].sum(0)).mean()
    return .5*(a+b)

GROUPS = {'animals-nature', 'food-drink', 'travel-places', 'objects', 'activities'}

def shares(pairs, work, icons=.4, things=3., rest=.7):
    "How often each picture is drawn: emoji of things often, icons and faces seldom"
    es = emojis(work)
    return torch.tensor([icons if s in ICONS else things if es[k]['group'] in GROUPS else rest for s, k, *_ in pairs.row])

def tune(clip, pairs, T, IN, w, b, p, V0, minutes=40, steps=900, bs=192, lr=4e-4, tau=.04, lwf=.3, ema=.99, frozen=2, seed=1, save=None, every=8):
    "Stage B: tune the image tower (batch norms fixed, stem and first `frozen` blocks too) against the text vectors `T`"
    rng, gen, t0 = random.Random(seed), torch.Generator().manual_seed(seed), time.time()
    vis = clip.visual; old = copy.deepcopy(vis.trunk).eval().requires_grad_(False); best = copy.deepcopy(vis).eval().requires_grad_(False)
    vis.eval(); tr = vis.trunk
    for o in [tr.conv_stem, tr.bn1, *tr.blocks[:frozen]]: o.requires_grad_(False)
    P, R = pseudo(V0, w)
    names = torch.tensor(sorted({o[0] for o in pairs.own}))
    ps = [o for o in tr.parameters() if o.requires_grad]
    opt = torch.optim.AdamW([dict(params=ps, k=1.), dict(params=vis.head.parameters(), k=1.)], lr=lr, weight_decay=.05, fused=True)
    low, last = (lambda: torch.autocast('cpu', torch.bfloat16)), t0
    for i in range(steps):
        f = max(i/steps, (time.time()-t0)/60/minutes)
        if f >= 1: break
        for g in opt.param_groups: g['lr'] = g['k']*lr*min(1, (i+1)/40)*(.02+.98*.5*(1+math.cos(math.pi*f)))
        idx = torch.multinomial(p, bs, generator=gen); ids = idx.tolist()
        x = ((augment(pairs.x[idx], pairs.mono[idx], gen)-MEAN)/STD).contiguous(memory_format=torch.channels_last)
        with low(): h = tr(x).float()
        with torch.no_grad(), low(): t = old(x).float()
        c = torch.tensor([pairs.pick(j, rng) for j in ids])
        a = nce(F.normalize(vis.head(h), dim=-1), c, [pairs.all[j] for j in ids], T, names, tau, gen, extra=1500)
        kd = F.kl_div(F.log_softmax((h@w.T+b)/2, -1), F.log_softmax((t@w.T+b)/2, -1), log_target=True, reduction='batchmean')*4
        j = torch.randint(len(w), (192,), generator=gen)
        q = (P[j]+torch.randn(192, R.shape[0], generator=gen)@R*.7).clamp_min(0)
        ps_loss = F.cross_entropy(F.normalize(vis.head(q), dim=-1)@IN.T/tau, j)
        loss = a+lwf*kd+.25*ps_loss
        opt.zero_grad(); loss.backward()
        torch.nn.utils.clip_grad_norm_(vis.parameters(), 5.); opt.step()
        e = min(ema, (i+1)/(i+10))
        with torch.no_grad():
            for u, v in zip(best.parameters(), vis.parameters()): u.lerp_(v, 1-e)
        if i % 20 == 0: log(f'tune {i:5} ({100*f:.0f}%): pairs {a.item():.3f}, lwf {kd.item():.3f}, pseudo {ps_loss.item():.3f}')
        if save and time.time()-last > 60*every: last = time.time(); save(best, i)
    vis.load_state_dict(best.state_dict()); vis.requires_grad_(True)
