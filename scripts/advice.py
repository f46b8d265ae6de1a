"""What `craft-nb fit --advise` says of the eleven tasks: one query on the training pictures of each draw, by shots.

`38_baselines` holds what it says against the finished runs of 1 to 16 shots."""
import json
from dataclasses import asdict
from itertools import product
from pathlib import Path
from fastcore.script import call_parse
from craft_nb.clip import CLIPBlackBox
from craft_nb.data import ELEVEN, fewshot
from craft_nb.rivals.baselines import advise

@call_parse
def main(tasks: str=','.join(ELEVEN), # names with commas between
         model: str='craft-mini',     # the box
         out: str='nbs/results/advice.json'): # where the rows go
    "The advice for each task, three draws of 1 to 16 shots"
    base = CLIPBlackBox(model, ['one', 'two'], precision='bf16')
    rows = []
    for name, shots, seed in product(tasks.split(','), (1, 2, 4, 8, 16), (1, 2, 3)):
        task = fewshot(name, shots, seed)
        said = advise(base.with_classes(task.classnames), *task.train, seed=seed)
        rows.append(dict(asdict(said), task=name, shots=shots, seed=seed))
        print(rows[-1], flush=True)
    Path(out).write_text('[\n' + ',\n'.join(map(json.dumps, rows)) + '\n]\n')
