"""How often bf16 changes a prediction.

The share of test pictures that keep their label on each built-in task, over p0 and eight prompts beside it."""
import json
from pathlib import Path
import torch
from fastcore.script import call_parse
from craft_nb.clip import CLIPBlackBox
from craft_nb.tower import PRECISIONS
from craft_nb.data import fewshot, tasks

def agreement(name):
    "Percent, over all test pictures and nine prompts"
    task = fewshot(name, 1)
    fp32, bf16 = [CLIPBlackBox('craft-mini', task.classnames, precision=o) for o in PRECISIONS]
    images = fp32.upload(task.test[0])
    p0 = fp32.embed('a photo of a')
    bf16._store = fp32._store    # both look at the same features
    P = p0 + .05*torch.randn(9, *p0.shape, generator=torch.Generator().manual_seed(3))
    P[0] = p0
    kept = fp32.query(P, images).argmax(-1) == bf16.query(P, images).argmax(-1)
    return 100*kept.float().mean().item()

@call_parse
def main(out: str='nbs/results/bf16.json'):  # where the figures go
    "bf16 against fp32 on every built-in task"
    rows = {}
    for name in [t['name'] for t in tasks() if t['shots']]:
        rows[name] = round(agreement(name), 2)
        print(name, rows[name], flush=True)
    Path(out).write_text(json.dumps(rows, indent=1) + '\n')
