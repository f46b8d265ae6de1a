"""Score the classifiers of a report on the pictures of the pool that were not drawn for training.

In the emoji and clip-art tasks the test pictures show things of which training saw none (other emoji, other drawings); the rest of the pool
shows the same things as the training pictures do, in other styles. Comparing the two tells what carries over to what."""
import json
from pathlib import Path
from fastcore.script import call_parse
from craft_nb.clip import CLIPBlackBox
from craft_nb.collab import CraFT
from craft_nb.data import find_rows, make_task, sample

def rest(name, shots, seed):
    "The pool of a built-in task without the `shots` of `seed`, as a task's test part"
    rows, names = find_rows(name)
    pool = [r for r in rows if r.split == 'train']
    names = names or list(dict.fromkeys(r.label for r in rows))
    drawn = set(sample([names.index(r.label) for r in pool], shots, seed))
    return make_task([r._replace(split='test') for i, r in enumerate(pool) if i not in drawn], name, 0, seed, names)

@call_parse
def main(report: str,                        # a folder that `craft-nb fit --out` wrote, with classifiers of CraFT in it
         out: str='nbs/results/rest.json'):  # where the rows go
    "Zero-shot and CraFT on the undrawn pool, for each task and seed of a report"
    info, rows = json.loads((Path(report)/'report.json').read_text()), []
    for name in info['tasks']:
        for seed in info['seeds']:
            task = rest(name, info['shots'], seed)
            box = CLIPBlackBox(info['model'], task.classnames)
            images = box.upload(task.test[0])
            both = dict(zero_shot=CraFT(box).zero_shot(), craft=CraFT.load(Path(report)/f'{name}-seed{seed}', box))
            rows.append(dict(task=name, seed=seed, pictures=len(images), **{m: round(100*c.score(images, task.test[1]), 2) for m, c in both.items()}))
            print(rows[-1], flush=True)
    Path(out).write_text('[\n' + ',\n'.join(map(json.dumps, rows)) + '\n]\n')
