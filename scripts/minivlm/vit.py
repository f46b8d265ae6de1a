"""Train `craft-mini-vit`, the second backbone.

A small hybrid Vision Transformer learns to see what `craft-mini` sees. nbs/90_minivlm.ipynb explains it. Half an hour
on two cores, after `make model` has fetched:

    python scripts/minivlm/vit.py --work build/minivlm --out craft_nb/assets/craft-mini-vit

Seconds, on drawn shapes, with no downloads:

    python scripts/minivlm/vit.py --smoke --out build/smoke-vit"""
import argparse, json, math, time
from pathlib import Path
import torch, torch.nn.functional as F
from augment import augment, plain
from craft_nb.clip import load_clip, with_vit
from safetensors.torch import load_file
from evaluate import GROUPS, image_features, text_features
from fetch import TRAIN, emojis
from pairs import captions, read
from train import Pairs, drawn, features, log, low, share, task_hashes, told

VIT = dict(image_size=96, stages=5, width=192, layers=4, heads=3)

def make_views(clip, vit, pairs, p, n, gen, bs=64):
    """What two towers make of `n` random views.

    The teacher `clip`: unit vectors (n, e). The frozen stem of `vit`: maps (n, C, h, w)."""
    px = vit.image_size[0]
    size = clip.visual.image_size[0]
    T = []
    S = []
    idx = torch.multinomial(p, n, replacement=True, generator=gen)
    for i, j in enumerate(idx.split(bs)):
        x = augment(pairs.x[j], pairs.mono[j], gen)
        T.append(F.normalize(features(clip.visual, x, bs, size), dim=-1).half())
        S.append(features(vit.conv1[0], x, bs, px).bfloat16())
        if i % 100 == 0: log(f'views {i*bs:7} of {n}')
    return torch.cat(T), torch.cat(S)

def judge(clip, vit, x, names, y, T):
    "Top-1 of the teacher and of `vit` on pictures it never learnt from, in percent, and their vectors' mean cosine"
    a = image_features(clip, x, clip.visual.image_size[0])
    b = F.normalize(features(vit, x, 64, vit.image_size[0]), dim=-1)
    top = lambda z: round(100*((z@T.T).argmax(-1) == y).float().mean().item(), 1)
    return dict(teacher=top(a), vit=top(b), cosine=round(F.cosine_similarity(a, b).mean().item(), 3))

def alike(z, t, words, tau=.05):
    """How far the unit vectors `z` are from the teacher's `t` (B, e).

    Returns 1 - cosine, and the KL divergence of the choice among `words` (W, e)."""
    choice = lambda v: (v@words.T/tau).log_softmax(-1)
    far = 1-(z*t).sum(-1).mean()
    kl = F.kl_div(choice(z), choice(t), log_target=True, reduction='batchmean')
    return far, kl

def distil(vit, T, S, words, report, steps=10**9, minutes=15, bs=256, lr=1e-3, seed=4):
    "Train all but the stem: the teacher's vectors `T`, and its choice among `words` (W, e), from the stem's maps `S`"
    gen = torch.Generator().manual_seed(seed)
    t0 = time.time()
    stem = vit.conv1[0]
    vit.conv1[0] = torch.nn.Identity()
    vit.requires_grad_(True)
    some = [o for k, o in vit.named_parameters() if o.ndim > 1 and 'embedding' not in k]
    rest = [o for k, o in vit.named_parameters() if o.ndim < 2 or 'embedding' in k]
    groups = [dict(params=some, weight_decay=.05), dict(params=rest, weight_decay=0)]
    opt = torch.optim.AdamW(groups, lr=lr, betas=(.9, .98))
    for i in range(steps):
        f = max(i/steps, (time.time()-t0)/60/minutes)
        if f >= 1: break
        for g in opt.param_groups: g['lr'] = lr*min(1, (i+1)/100)*.5*(1+math.cos(math.pi*f))
        k = torch.randint(len(T), (bs,), generator=gen)
        with low(): z = vit(S[k].float())
        few = words[torch.randint(len(words), (512,), generator=gen)]
        a, b = alike(F.normalize(z.float(), dim=-1), T[k].float(), few)
        loss = 4*a+b
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vit.parameters(), 1.)
        opt.step()
        if i % 100 == 0: log(f'vit {i:5} ({100*f:.0f}%): 1 - cosine {a.item():.3f}, words {b.item():.3f}')
        if i % 1000 == 999 or i == steps-1:
            vit.conv1[0] = stem
            log(report())
            vit.conv1[0] = torch.nn.Identity()
    vit.conv1[0] = stem
    return vit.eval().requires_grad_(False)

def reproject(clip, vit, pairs, p, words, n=12000, steps=600, lr=1e-3, bs=512, seed=6):
    """Fit the last matrix of `vit` to a teacher whose space has changed.

    Least squares on `n` views, then `alike`; all before the matrix stays as it is."""
    gen = torch.Generator().manual_seed(seed)
    px = vit.image_size[0]
    size = clip.visual.image_size[0]
    vit.proj = None
    T = []
    S = []
    for j in torch.multinomial(p, n, replacement=True, generator=gen).split(64):
        x = augment(pairs.x[j], pairs.mono[j], gen)
        T.append(F.normalize(features(clip.visual, x, 64, size), dim=-1))
        S.append(features(vit, x, 64, px))
    T, S = torch.cat(T), torch.cat(S)
    log('views')
    ridge = 1e-3*len(S)*S.var()*torch.eye(S.shape[1])
    P = torch.nn.Parameter(torch.linalg.solve(S.T@S + ridge, S.T@T))
    opt = torch.optim.AdamW([P], lr=lr, weight_decay=0.)
    for i in range(steps):
        for g in opt.param_groups: g['lr'] = lr*.5*(1+math.cos(math.pi*i/steps))
        k = torch.randint(len(T), (bs,), generator=gen)
        few = words[torch.randint(len(words), (512,), generator=gen)]
        a, b = alike(F.normalize(S[k]@P, dim=-1), T[k], few)
        opt.zero_grad()
        (4*a+b).backward()
        opt.step()
        if i % 100 == 0: log(f'projection {i:4}: 1 - cosine {a.item():.3f}, words {b.item():.3f}')
    vit.proj = torch.nn.Parameter(P.detach(), requires_grad=False)

def save(vit, out, results):
    "Write the shape, and in half precision the weights beside the stem's"
    from safetensors.torch import save_file
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    own = {k: v.half().contiguous() for k, v in vit.state_dict().items() if not k.startswith('conv1.0.')}
    save_file(own, out/'vision.safetensors')
    (out/'vision.safetensors').chmod(0o644)
    (out/'vision.json').write_text(json.dumps(VIT)+'\n')
    (out/'results.json').write_text(json.dumps(results, indent=1)+'\n')

def main(work, out, minutes, n, smoke, again):
    gen = torch.Generator().manual_seed(3)
    clip = load_clip()[0]
    vit = with_vit(load_clip()[0], **VIT).visual
    cache = Path(work)/'cache'
    if smoke:
        n = 64
        minutes = .1
        pairs = Pairs([drawn()], lambda s, k: ([k], k.split(), ['shape']))
        p = torch.ones(len(pairs))
        x = plain(pairs.x)
        names = pairs.words
        y = torch.tensor([o[0] for o in pairs.own])
    else:
        es = emojis(work)
        parts = ((s, *read(s, work, cache)) for s in TRAIN if s != 'streamline')
        pairs = Pairs(parts, lambda s, k: captions(s, k, work), task_hashes(work, cache))
        p = torch.tensor([share(s, es.get(k)) for s, k, *_ in pairs.row])
        ks, x, *_ = read('streamline', work, cache)
        i = [j for j, k in enumerate(ks) if es[k]['group'] in GROUPS]
        x = plain(torch.tensor(x[i]))
        names = [es[ks[j]]['name'] for j in i]
        y = torch.arange(len(i))
    words = told(clip, pairs.words)
    T = text_features(clip, names)
    report = lambda: judge(clip, vit, x, names, y, T)
    if again:
        old = load_file(Path(out)/'vision.safetensors')
        old.pop('proj')
        vit.load_state_dict(old, strict=False)
        reproject(clip, vit, pairs, p, words)
        log('after', res := report())
        return save(vit, out, json.loads((Path(out)/'results.json').read_text()) | res)
    f = cache/f'views{n}.pt'
    if f.exists() and not smoke: V = torch.load(f)
    else:
        V = make_views(clip, vit, pairs, p, n, gen)
        if not smoke: torch.save(V, f)
    log('before', report())
    distil(vit, *V, words, report, minutes=minutes, steps=3 if smoke else 10**9)
    log('after', res := report())
    save(vit, out, dict(views=n, minutes=minutes, held_out=len(x), **res))

if __name__ == '__main__':
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--work', default='build/minivlm')
    a.add_argument('--out', default='craft_nb/assets/craft-mini-vit')
    a.add_argument('--minutes', type=float, default=15, help='of training, after the views are made')
    a.add_argument('--views', type=int, default=120000)
    a.add_argument('--smoke', action='store_true')
    a.add_argument('--again', action='store_true',
                   help='fit the last matrix alone, after `widen.py` changed the teacher\'s space')
    a = a.parse_args()
    main(a.work, a.out, a.minutes, a.views, a.smoke, a.again)
