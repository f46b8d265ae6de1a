"Batched augmentation of RGBA pictures, in torch: shape, colour, background, and the look of small grey photos."
import math
import torch, torch.nn.functional as F

def _u(gen, n, a=0., b=1.): return torch.rand(n, generator=gen)*(b-a)+a

def affine(x, gen, turn=15, scale=(.85, 1.6), shift=.15):
    "Rotate (degrees), zoom out by `scale`, shift and mirror premultiplied RGBA (B, 4, H, W)"
    B = len(x)
    a = _u(gen, B, -turn, turn)*math.pi/180
    s = torch.exp(_u(gen, B, *map(math.log, scale)))
    r = torch.exp(_u(gen, B, -.2, .2))
    f = (torch.rand(B, generator=gen) < .5).float()*2-1
    t = torch.stack([torch.stack([f*s*r*a.cos(), -s*a.sin(), _u(gen, B, -shift, shift)*s], 1),
                     torch.stack([f*s*a.sin(), s/r*a.cos(), _u(gen, B, -shift, shift)*s], 1)], 1)
    return F.grid_sample(x, F.affine_grid(t, x.shape, align_corners=False), mode='bilinear', align_corners=False)

def resize(x, n): return F.interpolate(x, size=(n, n), mode='bilinear', align_corners=False, antialias=True)

def lowres(x, gen, lo=24, hi=56):
    "Shrink to a small size and blow up again"
    n = int(torch.randint(lo, hi+1, (1,), generator=gen))
    return F.interpolate(resize(x, n), size=x.shape[-2:], mode='bicubic', align_corners=False).clamp(0, 1)

def grey(x): return (x*x.new_tensor([.3, .59, .11])[:, None, None]).sum(1, keepdim=True).expand(-1, 3, -1, -1)

def augment(
    x,        # RGBA, uint8 (B, H, W, 4)
    mono,     # Which are one-coloured icons, bool (B,)
    gen,      # torch.Generator
    small=.15, # Share made to look like small grey photos on black
):            # RGB in 0..1, (B, 3, H, W)
    "A random view of every picture"
    B = len(x)
    x = x.permute(0, 3, 1, 2).float()/255
    a = x[:, 3:]
    rgb = x[:, :3]
    p = lambda q: (torch.rand(B, generator=gen) < q)[:, None, None, None]
    col = torch.rand(B, 3, 1, 1, generator=gen)
    # colour the icons
    rgb = torch.where(mono[:, None, None, None] & p(.7), col, rgb)
    # mix the channels
    M = torch.eye(3)+torch.where(p(.7)[..., 0], torch.randn(B, 3, 3, generator=gen)*.15, torch.zeros(1))
    rgb = torch.bmm(M*_u(gen, (B, 1, 1), .8, 1.2), rgb.flatten(2)).view_as(rgb).clamp(0, 1)
    x = affine(torch.cat([rgb*a, a], 1), gen)
    g = torch.rand(B, 3, 1, 1, generator=gen)
    ramp = torch.linspace(0, 1, x.shape[-1])[None, None, None]
    g2 = torch.rand(B, 3, 1, 1, generator=gen)
    bg = torch.where(p(.55), torch.ones_like(g), torch.where(p(.25), torch.zeros_like(g), g))
    bg = torch.where(p(.12), g*ramp+g2*(1-ramp), bg.expand(-1, -1, 1, x.shape[-1]))
    y = x[:, :3]+bg*(1-x[:, 3:])
    y = torch.where(p(.12), 1-y, y)
    i = (torch.rand(B, generator=gen) < .15).nonzero()[:, 0]
    y[i] = grey(y[i])
    # small grey photos: bright thing on black
    i = (torch.rand(B, generator=gen) < small).nonzero()[:, 0]
    if len(i):
        shade = grey(x[i, :3])
        k = torch.where(p(.5)[i], .35+.65*shade, 1-.8*shade)*x[i, 3:]
        y[i] = F.interpolate(resize(k, 28), size=y.shape[-2:], mode='bicubic', align_corners=False).clamp(0, 1)
    i = (torch.rand(B, generator=gen) < .12).nonzero()[:, 0]
    if len(i): y[i] = lowres(y[i], gen)
    return y.clamp(0, 1)

def plain(x):
    "RGBA uint8 (B, H, W, 4) on white -> (B, 3, H, W) in 0..1"
    x = x.permute(0, 3, 1, 2).float()/255
    return x[:, :3]*x[:, 3:]+1-x[:, 3:]
