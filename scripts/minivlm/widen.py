"""Widen the space in which `craft-mini`'s pictures and texts meet, so that what the image tower knows is not lost on the way there.

    python scripts/minivlm/widen.py --work build/minivlm --out build/wide

The head of 512 numbers drops a tenth of what a linear probe finds in the tower's 1,280 features. Here the towers stay as they are. To the
512 numbers of the old head come as many of the tower's features, by their principal components, and the text tower learns to speak of them."""
import argparse, copy, json, math, random, time
from pathlib import Path
import torch, torch.nn.functional as F
from build import CFG, build, load, save
from fetch import TRAIN, weights
from text import Tokens
from train import log, mix, named, nce, prepare, pseudo, views

@torch.no_grad()
def grow(old, feats, wide, ratio):
    "`old` with an embedding `wide` numbers longer: principal components of the image tower's features; texts do not use them yet"
    cfg = copy.deepcopy(CFG); E = old.text_projection.shape[1]; cfg['embed_dim'] = E + wide
    new = build(cfg=cfg).eval()
    same = {k: v for k, v in old.state_dict().items() if v.shape == new.state_dict()[k].shape}
    new.load_state_dict(same, strict=False)
    new.text_projection.zero_(); new.text_projection[:, :E] = old.text_projection
    mu = feats.mean(0); U, S, W = torch.pca_lowrank(feats - mu, wide, center=False, niter=4)
    z = old.visual.head(feats)
    W = W.T/(S[:, None]/len(feats)**.5).clamp_min(1e-6)**.5                     # half whitened: weak components count for more
    W *= ratio*z.norm(dim=-1).mean()/((feats - mu)@W.T).norm(dim=-1).mean()
    (a1, b1), (a2, b2) = [(o.weight, o.bias) for o in (old.visual.head.mlp.fc1, old.visual.head.mlp.fc2)]
    fc1, fc2 = new.visual.head.mlp.fc1, new.visual.head.mlp.fc2
    H = len(a1)
    assert 2*wide <= len(fc1.weight) - H
    for o in (fc1.weight, fc1.bias, fc2.weight): o.zero_()
    fc1.weight[:H], fc1.bias[:H], fc2.weight[:E, :H] = a1, b1, a2
    if b2 is not None: fc2.bias.zero_(); fc2.bias[:E] = b2
    rows = slice(H, H + wide), slice(H + wide, H + 2*wide)                       # GELU(x) - GELU(-x) = x
    for r, sign in zip(rows, (1, -1)):
        fc1.weight[r], fc1.bias[r] = sign*W, -sign*(W@mu)
        fc2.weight[E:, r] = sign*torch.eye(wide)
    return new

@torch.no_grad()
def behind(m, words, bs=512):
    "What the text tower has at the end token, before the projection, (N, d)"
    tk, out = Tokens(m.context_length), []
    for i in range(0, len(words), bs):
        ids = tk([f'a photo of a {o}.' for o in words[i:i+bs]])
        x = m.token_embedding(ids) + m.positional_embedding[:ids.shape[1]]
        x = m.transformer(x, attn_mask=m.attn_mask[:ids.shape[1], :ids.shape[1]])
        out.append(m.ln_final(x)[torch.arange(len(ids)), ids.argmax(-1)])
    return torch.cat(out)

def align(m, pairs, V, some, H, HI, PR, steps=1500, bs=384, lr=3e-4, tau=.04, hold=1., seed=11):
    "Train the head's old half and the text projection on frozen features `V` of the pictures `some`"
    rng, gen = random.Random(seed), torch.Generator().manual_seed(seed)
    head, P = m.visual.head, m.text_projection
    old = [P.detach().clone()]
    names = torch.tensor(sorted({o[0] for o in pairs.own}))
    opt = torch.optim.AdamW([P, *head.parameters()], lr=lr, weight_decay=0.)
    wide = {k: v.detach().clone() for k, v in head.state_dict().items()}
    T0 = F.normalize(H@old[0], dim=-1)
    for i in range(steps):
        for g in opt.param_groups: g['lr'] = lr*min(1, (i+1)/50)*.5*(1+math.cos(math.pi*i/steps))
        k = torch.randint(len(some), (bs,), generator=gen); ids = some[k].tolist()
        c = torch.tensor([pairs.pick(j, rng) for j in ids])
        T, IN = F.normalize(H@P, dim=-1), F.normalize(HI@P, dim=-1)
        loss = nce(F.normalize(head(V[k]), dim=-1), c, [pairs.all[j] for j in ids], T, names, tau, gen) + .5*named(head, IN, PR, gen, 256, tau)
        opt.zero_grad(); loss.backward()
        freeze(head)
        opt.step()
        if i % 100 == 0: log(f'align {i:5}: loss {loss.item():.3f}')

def freeze(head, E=512, H=1024):
    "The features that were added stay what they are"
    fc1, fc2 = head.mlp.fc1, head.mlp.fc2
    for o in (fc1.weight.grad, fc1.bias.grad): o[H:] = 0
    fc2.weight.grad[E:] = 0; fc2.weight.grad[:, H:] = 0
    if fc2.bias is not None: fc2.bias.grad[E:] = 0

def main(a):
    cache = Path(a.work)/'cache'
    torch.manual_seed(0)
    m = load('craft_nb/assets/craft-mini')[0]
    f = cache/'wide.pt'
    _, pairs, p, ckpt, _ = prepare(a.work, cache, [s for s in TRAIN if s != 'streamline'])
    if not f.exists():
        tr, gen = m.visual.trunk.to(memory_format=torch.channels_last), torch.Generator().manual_seed(5)
        some = torch.multinomial(p, min(a.n, len(pairs)), generator=gen); log(len(some), 'pictures')
        V = torch.cat([views(tr, pairs, some, gen, plainly=o, size=160) for o in (False, False, True)]); log('features')
        from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
        torch.save(dict(V=V.half(), some=some, H=behind(m, pairs.words), HI=behind(m, list(IMAGENET_CLASSNAMES))), f)
    d = torch.load(f); V, some, H, HI = d['V'].float(), d['some'], d['H'], d['HI']
    n = len(some)
    w = torch.load(ckpt, map_location='cpu'); w = list(w.values())[-2]
    PR = pseudo(V[2*n:][:2000], w)
    new = grow(m, V, a.wide, a.ratio)
    first = copy.deepcopy(new.state_dict())
    align(new, pairs, V, torch.cat([some]*3), H, HI, PR, steps=a.steps, lr=a.lr)
    new.load_state_dict(mix(first, new.state_dict(), a.alpha))
    save(new, a.out, cfg=json.loads(json.dumps(CFG)) | dict(embed_dim=512 + a.wide))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--work', default='build/minivlm'); p.add_argument('--out', default='build/wide')
    p.add_argument('--wide', type=int, default=512); p.add_argument('--ratio', type=float, default=.7); p.add_argument('--n', type=int, default=12000)
    p.add_argument('--alpha', type=float, default=.9, help='how far the new head follows its training')
    p.add_argument('--steps', type=int, default=1500); p.add_argument('--lr', type=float, default=3e-4)
    main(p.parse_args())
