"""Widen the space in which `craft-mini`'s pictures and texts meet.

    python scripts/minivlm/widen.py --work build/minivlm     # a quarter of an hour; then vit.py --again

What the image tower knows is not to be lost on the way there: the head of 512 numbers drops a tenth of what a linear
probe finds in the tower's 1,280 features. Here both towers stay as they are. The 512 numbers of the old head get as
many neighbours, principal components of the tower's features, and the texts' projection learns to speak of them; the
old head learns on. nbs/90_minivlm.ipynb explains it."""
import argparse, copy, math, random
from pathlib import Path
import torch, torch.nn.functional as F
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from build import CFG, build, load, save
from fetch import TRAIN
from text import Tokens
from train import log, mix, named, nce, prepare, pseudo, views

E = CFG['embed_dim']    # numbers of the old embedding
H = 2*E                 # and of the layer before it

def components(feats, n):
    """Mean (d,) and the `n` strongest principal directions (n, d) of features (N, d).

    Weak directions are made up for by the root of their spread."""
    mu = feats.mean(0)
    _, S, W = torch.pca_lowrank(feats - mu, n, center=False, niter=4)
    spread = S/len(feats)**.5
    return mu, W.T/spread[:, None].clamp_min(1e-6)**.5

@torch.no_grad()
def grow(old, feats, wide, ratio):
    """`old` with an embedding that is `wide` numbers longer.

    The new numbers are components of the image tower's features, `ratio` times as long as the old part; texts say
    nothing of them yet."""
    new = build(cfg=CFG | dict(embed_dim=E + wide)).eval()
    shapes = {k: v.shape for k, v in new.state_dict().items()}
    kept = {k: v for k, v in old.state_dict().items() if v.shape == shapes[k]}
    new.load_state_dict(kept, strict=False)
    new.text_projection.zero_()
    new.text_projection[:, :E] = old.text_projection

    mu, W = components(feats, wide)
    W *= ratio*old.visual.head(feats).norm(dim=-1).mean()/((feats - mu)@W.T).norm(dim=-1).mean()
    before = old.visual.head.mlp
    after = new.visual.head.mlp
    for o in after.parameters(): o.zero_()
    after.fc1.weight[:H] = before.fc1.weight
    after.fc1.bias[:H] = before.fc1.bias
    after.fc2.weight[:E, :H] = before.fc2.weight
    # GELU(x) - GELU(-x) = x
    for rows, sign in ((slice(H, H + wide), 1), (slice(H + wide, H + 2*wide), -1)):
        after.fc1.weight[rows] = sign*W
        after.fc1.bias[rows] = -sign*(W@mu)
        after.fc2.weight[E:, rows] = sign*torch.eye(wide)
    return new

def keep_components(head):
    "Take the gradients off the new part of a head: the components stay what they are"
    head.mlp.fc1.weight.grad[H:] = 0
    head.mlp.fc1.bias.grad[H:] = 0
    head.mlp.fc2.weight.grad[E:] = 0
    head.mlp.fc2.weight.grad[:, H:] = 0

@torch.no_grad()
def behind(m, words, bs=512):
    "What the text tower has at the end token of each of `words`, before the projection, (N, d)"
    tk = Tokens(m.context_length)
    out = []
    for i in range(0, len(words), bs):
        ids = tk([f'a photo of a {o}.' for o in words[i:i+bs]])
        x = m.token_embedding(ids) + m.positional_embedding[:ids.shape[1]]
        x = m.transformer(x, attn_mask=m.attn_mask[:ids.shape[1], :ids.shape[1]])
        out.append(m.ln_final(x)[torch.arange(len(ids)), ids.argmax(-1)])
    return torch.cat(out)

def align(m, pairs, V, some, words, PR, steps=1500, bs=384, lr=3e-4, tau=.04, seed=11):
    """Train the projection of the texts and the old head on frozen features `V` of the pictures `some`.

    `words`: (pairs' words, ImageNet's names), as `behind` has them."""
    rng = random.Random(seed)
    gen = torch.Generator().manual_seed(seed)
    head = m.visual.head
    P = m.text_projection
    names = torch.tensor(sorted({o[0] for o in pairs.own}))
    opt = torch.optim.AdamW([P, *head.parameters()], lr=lr, weight_decay=0.)
    for i in range(steps):
        for g in opt.param_groups: g['lr'] = lr*min(1, (i+1)/50)*.5*(1+math.cos(math.pi*i/steps))
        k = torch.randint(len(some), (bs,), generator=gen)
        ids = some[k].tolist()
        c = torch.tensor([pairs.pick(j, rng) for j in ids])
        T, IN = [F.normalize(o@P, dim=-1) for o in words]
        loss = nce(F.normalize(head(V[k]), dim=-1), c, [pairs.all[j] for j in ids], T, names, tau, gen)
        loss = loss + .5*named(head, IN, PR, gen, 256, tau)
        opt.zero_grad()
        loss.backward()
        keep_components(head)
        opt.step()
        if i % 100 == 0: log(f'align {i:5}: loss {loss.item():.3f}')

def look(m, pairs, p, n):
    "Pictures drawn by their shares (n,), and the tower's features of two random views and a plain one, (3n, 1280)"
    trunk = m.visual.trunk.to(memory_format=torch.channels_last)
    gen = torch.Generator().manual_seed(5)
    some = torch.multinomial(p, min(n, len(pairs)), generator=gen)
    px = m.visual.image_size[0]
    V = torch.cat([views(trunk, pairs, some, gen, plainly=o, size=px) for o in (False, False, True)])
    return some, V.half().float()

def widen(work, model, out, n, wide, ratio, steps, alpha):
    m = load(model)[0]
    if m.text_projection.shape[1] != E: raise SystemExit(f'{model} is widened already: run train.py first')
    torch.manual_seed(0)
    _, pairs, p, ckpt, _ = prepare(work, Path(work)/'cache', [s for s in TRAIN if s != 'streamline'])
    some, V = look(m, pairs, p, n)
    log(len(V), 'views')
    words = behind(m, pairs.words), behind(m, list(IMAGENET_CLASSNAMES))
    *_, w, _ = torch.load(ckpt, map_location='cpu').values()
    PR = pseudo(V[2*len(some):][:2000], w)
    new = grow(m, V, wide, ratio)
    first = copy.deepcopy(new.state_dict())
    align(new, pairs, V, torch.cat([some]*3), words, PR, steps=steps)
    new.load_state_dict(mix(first, new.state_dict(), alpha))
    save(new, out, cfg=CFG | dict(embed_dim=E + wide))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--work', default='build/minivlm')
    p.add_argument('--model', default='craft_nb/assets/craft-mini', help='as train.py wrote it')
    p.add_argument('--out', default='craft_nb/assets/craft-mini')
    p.add_argument('--n', type=int, default=12000, help='pictures')
    p.add_argument('--wide', type=int, default=512, help='components')
    p.add_argument('--ratio', type=float, default=.7, help='their length, beside that of the old numbers')
    p.add_argument('--steps', type=int, default=1500)
    p.add_argument('--alpha', type=float, default=.9, help='how far the new weights follow their training')
    widen(**vars(p.parse_args()))
