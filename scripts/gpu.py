"""On a GPU: is the method right there, and how fast is the paper's largest run? One command, under ten minutes.

    python scripts/gpu.py                       # on cuda; writes runs/gpu/gpu.json
    python scripts/gpu.py --device cpu --classes 20 --generations 2   # a rehearsal of this script without a GPU

First the text tower and the whole method on the device are held against the CPU. Then CraFT runs at the size of the
paper's ImageNet: 1,000 classes, 16,000 pictures, RN50's towers, 8,000 queries, in bf16, each part timed beside its
limit. The weights are random, as OpenAI's cannot be had where this was written, and the pictures' features are made up:
the same matrices are multiplied. The paper names 1 h 44 min on an RTX 3090."""
import json, time
from pathlib import Path
import torch
from fastcore.script import call_parse
from craft_nb.clip import CLIPBlackBox
from craft_nb.lab.speed import matmul_rate
from craft_nb.probes import IMAGENET_NAMES
from craft_nb.tower import PRECISIONS
from craft_nb.craft import CraFT
from craft_nb.data import fewshot
from craft_nb.lab.speed import Rehearsal, needed, profile_run, time_limits

def say(*o): print(time.strftime('%H:%M:%S'), *o, flush=True)

def tower_agrees(device):
    "Largest difference of unit text features between the CPU in fp32 and the device, by precision"
    here = CLIPBlackBox('craft-mini', IMAGENET_NAMES[:100])
    p0 = here.embed('a photo of a')
    prompts = p0 + .02*torch.randn(5, *p0.shape, generator=torch.Generator().manual_seed(0))
    unit = lambda box: torch.nn.functional.normalize(box._tower(prompts.to(box.device)).float().cpu(), dim=-1)
    true = unit(here)
    diff = {}
    for p in PRECISIONS:
        there = CLIPBlackBox('craft-mini', here.classnames, device=device, precision=p)
        diff[p] = float((unit(there) - true).abs().max())
    assert diff['fp32'] < 1e-4 and diff['bf16'] < .05, diff
    return diff

# every switch that changes what is multiplied
SWITCHES = dict(paper={}, reverse=dict(reverse_kl=True), no_lam=dict(lam_i=0.), prompt_only=dict(learn_refiner=False),
                refiner_only=dict(learn_prompt=False), views=dict(views=2), fallback=dict(fallback=True))

def method_agrees(device, generations=8):
    "The run on the device beside the CPU's: fitness of each generation, the refiner's loss, accuracy"
    task = fewshot('fashion', 4, 1)
    pictures, labels = task.test[0][::10], task.test[1][::10]
    out = {}
    for name, switches in SWITCHES.items():
        rows = []
        for where in ('cpu', device):
            box = CLIPBlackBox('craft-mini', task.classnames, device=where)
            clf = CraFT(box, budget=41*generations + 2, seed=1, **switches).fit(*task.train)
            curve = [h.get('fitness', h.get('loss')) for h in clf.history_]
            rows.append((curve, 100*clf.score(pictures, labels)))
        (a, x), (b, y) = rows
        gap = max(abs(p - q)/abs(p) for p, q in zip(a, b))
        out[name] = dict(largest_relative_gap=gap, accuracy_cpu=x, accuracy_device=y)
        # the first generation: before rounding can send the search elsewhere
        assert abs(a[0] - b[0]) < 1e-3*abs(a[0]), (name, a[0], b[0])
        say(name, out[name])
    return out

def largest_run(device, classes, shots, generations):
    """Seconds of a run of 8,000 queries in bf16, and its parts in milliseconds a generation.

    Beside each part stands what it would take at the device's rate."""
    names = IMAGENET_NAMES[:classes]
    box = Rehearsal(('RN50', 'random'), names, device=device, precision='bf16')
    N = shots*classes
    rates = {p: matmul_rate(d, device) for p, d in PRECISIONS.items()}
    ms, parts = profile_run(box, range(N), generations)
    whole = 8000//41    # generations of a run
    memory = torch.cuda.max_memory_allocated()/2**30 if device == 'cuda' else None
    res = dict(classes=classes, pictures=N, generations=generations, generation_ms=ms, run_seconds=whole*ms/1e3,
               parts_ms=parts, limit_ms=time_limits(box, N, rates),
               petaflop=whole*sum(needed(box, N).values())/1e15,
               rates_gflops={k: v/1e6 for k, v in rates.items()}, memory_gib=memory)
    say(json.dumps(res, indent=1))
    return res

@call_parse
def main(device: str='cuda', # or cpu, to rehearse
         classes: int=1000,  # of ImageNet's
         shots: int=16,      # pictures a class
         generations: int=194, # that are timed, after one that warms up: 8,000 queries in all
         out: str='runs/gpu'): # folder of gpu.json
    "Check the method on a GPU, then time the paper's largest run"
    if device == 'cuda' and not torch.cuda.is_available():
        raise SystemExit('no GPU here: --device cpu rehearses the script')
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    res = dict(device=torch.cuda.get_device_name() if device == 'cuda' else 'cpu', torch=torch.__version__)
    say(res)
    checks = dict(tower=lambda: tower_agrees(device),
                  method=lambda: method_agrees(device),
                  largest=lambda: largest_run(device, classes, shots, generations))
    for key, f in checks.items():
        start = time.perf_counter()
        res[key] = f()
        res[f'{key}_seconds'] = time.perf_counter() - start
        say(key, 'done', round(res[f'{key}_seconds'], 1), 's')
        (out/'gpu.json').write_text(json.dumps(res, indent=1) + '\n')
