"""The text side of `craft-mini`.

The MiniLM teacher, its space, the vocabulary, and the distillation of the small causal tower."""
import random, re
from pathlib import Path
import numpy as np, torch, torch.nn.functional as F
from fetch import minilm, share

TEMPLATES = ['a photo of a {}.', '{}', 'a {}', 'a drawing of a {}.', 'clip art of a {}', 'an icon of a {}',
             'a picture of a {}.', 'a photo of the {}', 'the {}.', 'an image of {}', 'a cartoon {}', 'a small {}',
             'emoji of a {}', 'a sketch of a {}.', 'a symbol of {}', 'this is a {}']

class Teacher:
    "MiniLM sentence vectors, (N, 384), unit length; remembers what it has seen"
    def __init__(self, work):
        from transformers import AutoModel, AutoTokenizer
        self.tk = AutoTokenizer.from_pretrained(minilm(work))
        self.lm = AutoModel.from_pretrained(minilm(work)).eval()
        self.seen = {}

    @torch.no_grad()
    def __call__(self, texts, bs=256):
        new = sorted({o for o in texts if o not in self.seen}, key=len)
        for i in range(0, len(new), bs):
            b = self.tk(new[i:i+bs], padding=True, truncation=True, max_length=48, return_tensors='pt')
            k = b['attention_mask'][..., None]
            h = (self.lm(**b).last_hidden_state*k).sum(1)/k.sum(1)
            self.seen.update(zip(new[i:i+bs], F.normalize(h, dim=-1)))
        return torch.stack([self.seen[o] for o in texts])

class Space:
    "Centre and partly whiten the teacher's vectors, then pad them to `dim`"
    def __init__(self, E, dim=512, power=.25):
        self.mu, self.dim = E.mean(0), dim
        ev, U = torch.linalg.eigh((E-self.mu).T@(E-self.mu)/len(E))
        self.P = U*ev.clamp_min(1e-4)**-power
    def __call__(self, E): return F.pad(F.normalize((E-self.mu)@self.P, dim=-1), (0, self.dim-E.shape[1]))

def wordnet(work, files=('05', '06', '08', '13', '17', '19', '20'), most=3):
    """Nouns for things one can draw, of at most `most` words.

    Animals, artefacts, bodies, food, objects, phenomena, plants."""
    res = {}
    for o in (share(work)/'wordnet/data.noun').read_text().splitlines():
        f = o.split(' ')
        if o.startswith(' ') or f[1] not in files: continue
        for w in f[4:4+2*int(f[3], 16):2]:
            w = w.replace('_', ' ').split('(')[0]
            if w.islower() and len(w.split()) <= most and re.fullmatch("[a-z' -]+", w): res[w] = None
    return list(res)

def token_words():
    "The string of each of CLIP's 49,408 BPE tokens"
    from open_clip.tokenizer import SimpleTokenizer
    tk = SimpleTokenizer()
    return [tk.decode([i]).strip() or ' ' for i in range(tk.vocab_size)]

def token_init(teacher, width=256, std=.03, cache=None):
    "Teacher's vectors of the tokens' strings, PCA to `width` (zeros beyond the teacher's own): (49408, width)"
    if cache and Path(cache).exists(): E = torch.load(cache).float()
    else:
        E = teacher(token_words())
        if cache: torch.save(E.half(), cache)
    E = E-E.mean(0)
    U = torch.linalg.eigh(E.T@E)[1][:, -width:]
    return F.pad(F.normalize(E@U, dim=-1), (0, max(0, width-U.shape[1])))*std*width**.5

class Tokens:
    "Tokenise, and cut at the longest text"
    def __init__(self, context_length=32):
        from open_clip.tokenizer import SimpleTokenizer
        self.tk = SimpleTokenizer(context_length=context_length)
        self.seen = {}
        self.n = context_length
    def __call__(self, texts):
        for t in texts:
            if t not in self.seen: self.seen[t] = self.tk([t])[0]
        x = torch.stack([self.seen[t] for t in texts])
        return x[:, :int((x != 0).sum(1).max())]

def encode(clip, ids):
    "open_clip's `encode_text`, on texts cut at the longest: (B, n) -> (B, d)"
    x = clip.token_embedding(ids)+clip.positional_embedding[:ids.shape[1]]
    x = clip.transformer(x, attn_mask=clip.attn_mask[:ids.shape[1], :ids.shape[1]].to(x.dtype))
    x = clip.ln_final(x)[torch.arange(len(x)), ids.argmax(-1)]
    return F.normalize(x@clip.text_projection, dim=-1)

def text_params(clip):
    "What the text tower learns"
    return [*clip.transformer.parameters(), *clip.ln_final.parameters(),
            clip.positional_embedding, clip.text_projection, clip.token_embedding.weight]

@torch.no_grad()
def bag(clip, words, targets, n=6000, seed=0, ridge=1e-3):
    """Start the tower as a bag of words.

    Uniform attention in the first block, silent blocks after it, a projection fitted by least squares."""
    rng = random.Random(seed)
    tk = Tokens(clip.context_length)
    w = clip.transformer.width
    for i, b in enumerate(clip.transformer.resblocks):
        b.mlp.c_proj.weight.zero_()
        b.attn.out_proj.weight.mul_(i > 0).mul_(.1)
    a = clip.transformer.resblocks[0].attn
    a.in_proj_weight[:2*w].mul_(.1)
    a.in_proj_weight[2*w:] = torch.eye(w)
    a.out_proj.weight.copy_(torch.eye(w))
    idx = sorted(rng.sample(range(len(words)), min(n, len(words))), key=lambda i: len(words[i]))
    clip.text_projection.data = torch.eye(w)
    X = []
    for i in range(0, len(idx), 256):
        texts = [rng.choice(TEMPLATES[:4]).format(words[j]) for j in idx[i:i+256]]
        X.append(encode(clip, tk(texts))*w**.5)
    X = torch.cat(X)
    Y = targets[idx]
    P = torch.linalg.solve(X.T@X/len(X)+ridge*torch.eye(w), X.T@Y/len(X))
    clip.text_projection.data = P/P.norm()*P.shape[1]**.5
    return F.cosine_similarity(X@P, Y).mean().item()

def say(word, rng):
    "A word in a random template, in six of ten cases one of the first four"
    return rng.choice(TEMPLATES[:4] if rng.random() < .6 else TEMPLATES).format(word)

def distil(clip, words, targets, steps=3000, bs=384, lr=1e-3, seed=0, weights=None, log=print, minutes=None):
    "Teach the text tower that `words`, in any template, lie where `targets` (unit length) say"
    import time
    rng = random.Random(seed)
    gen = torch.Generator().manual_seed(seed)
    tk = Tokens(clip.context_length)
    t0 = time.time()
    opt = torch.optim.AdamW(text_params(clip), lr=lr, betas=(.9, .98), weight_decay=.01, fused=True)
    p = torch.ones(len(words)) if weights is None else weights
    m = 0.    # running mean of the cosine
    for i in range(steps):
        f = max(i/steps, (time.time()-t0)/60/minutes if minutes else 0)
        if f >= 1: break
        for g in opt.param_groups: g['lr'] = lr*min(1, (i+1)/200)*max(0, .5*(1+np.cos(np.pi*f)))+1e-6
        idx = torch.multinomial(p, bs, generator=gen).unique().tolist()
        ids = tk([say(words[j], rng) for j in idx])
        z = encode(clip, ids)
        t = targets[idx]
        loss = F.cross_entropy(z@t.T/.05, torch.arange(len(idx)))+4*(1-(z*t).sum(-1).mean())
        opt.zero_grad()
        loss.backward()
        opt.step()
        cosine = (z*t).sum(-1).mean().item()
        m = cosine if i == 0 else .98*m+.02*cosine
        if i % 100 == 0: log(f'text {i:5}: loss {loss.item():.3f}, cosine {m:.3f}, {time.time()-t0:.0f} s')
