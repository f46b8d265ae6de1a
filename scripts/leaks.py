"""The owner's defences, from both sides: the lines of nbs/results/leaks.jsonl, which 27_policy shows. Lines that are there already are left as they are.

The thief: 720 test pictures of the eight built-in tasks, up to 1,000 ImageNet names asked of them behind a policy, in one query and in whatever other way is best against it; how much of the
features comes back (R²), and how often a copy agrees with the box (`craft_nb.service.policy`). The user: zero-shot and a fit of CraFT with 410 queries behind the same policy, 16 shots, on the test pictures.
Noise is drawn from a digest of prompts and features, to the bit: on another machine these lines come out a little otherwise."""
import json, time, torch
from math import ceil
from pathlib import Path
from fastcore.script import call_parse
from craft_nb.ablations import measures, read_lines
from craft_nb.clip import white_box
from craft_nb.blackbox import digest
from craft_nb.clip import CLIPBlackBox, IMAGENET_CLASSNAMES
from craft_nb.craft import CraFT
from craft_nb.data import fewshot
from craft_nb.pictures import Pictures
from craft_nb.experiments import append, versions
from craft_nb.service.policy import DEFENCES, Policy, PolicyBox, agreement, recovered, stolen

EIGHT = 'fashion', 'digits', 'emoji', 'clipart', 'animal_kinds', 'food_kinds', 'travel_kinds', 'object_kinds'

def cell(**kw): return dict(kw, model='craft-mini', id=digest(json.dumps(dict(kw, model='craft-mini'), sort_keys=True))[:16])

def ways(policy, texts=1000): # -> (texts, prompts, texts of a query): once, and what else is worth trying
    "How a thief asks against a policy."
    n = min(texts, policy.get('distinct', texts))
    sizes = [min(n, policy.get('texts', n))]
    if policy.get('top_k') or policy.get('decimals') and policy.get('probabilities'): sizes += [1] if policy.get('top_k') == 1 else [5, 20] if policy.get('probabilities') else [5]
    return [(n, 1, s) for s in sizes] + [(n, 16, n)]*bool(policy.get('noise'))

class Thief:
    "The pictures, and what he asks of them."
    def __init__(self):
        self.box = CLIPBlackBox('craft-mini', ['anything'])
        self.names = [IMAGENET_CLASSNAMES[i] for i in torch.randperm(1000, generator=torch.Generator().manual_seed(0)).tolist()]
        tests = [fewshot(t, shots=1, seed=1).test[0] for t in EIGHT]
        self.images, self.p0 = self.box.upload(Pictures(s for p in tests for s in p[::max(1, len(p)//90)][:90].sources)), self.box.embed('a photo of a')
        self.X = white_box(self.box, 'the judge').features(self.images)
        self.other = self.box.with_texts(fewshot('emoji', 1, 1).classnames).query(self.p0[None], self.images)[0]
        self.fit = torch.randperm(len(self.X), generator=torch.Generator().manual_seed(1)).argsort() < 560

    def __call__(self, c):
        moved = self.p0 + 1e-4*torch.randn(16, *self.p0.shape, generator=torch.Generator().manual_seed(5))
        L = stolen(self.box, Policy(**c['policy']), self.names, self.p0[None] if c['prompts'] == 1 else moved, self.images, c['size'])
        return dict(r2=round(recovered(L, self.X, self.fit), 4), agreement=round(agreement(L, self.other, self.fit), 4))

def user(c):
    "Zero-shot and CraFT behind a policy; no CraFT where the account may not ask so many texts."
    task, policy = fewshot(c['task'], c['shots'], c['seed']), Policy(**c['policy'])
    box = PolicyBox(CLIPBlackBox(c['model'], task.classnames, precision=c['precision']), policy)
    test = box.upload(task.test[0])
    zero, start = measures(CraFT(box).zero_shot().decision_function(test), task.test[1]), time.process_time()
    clf = None if policy.distinct else CraFT(box, seed=c['seed'], budget=c['budget']).fit(*task.train)
    spent = time.process_time() - start
    fit = measures(clf.decision_function(test), task.test[1]) if clf else dict(accuracy=None, ece=None)
    return dict(zero_shot=zero['accuracy'], zero_shot_ece=zero['ece'], craft=fit['accuracy'], craft_ece=fit['ece'], cpu=round(spent, 1))

@call_parse
def main(out: str='nbs/results/leaks.jsonl',      # where the lines go
         kind: str='thief,user',                  # of lines, with commas between
         defences: str='',                        # names of `DEFENCES`, with semicolons between; default: all
         tasks: str='digits,emoji', seeds: str='1,2,3'): # of the users
    torch.set_num_threads(1)
    chosen = defences.split(';') if defences else list(DEFENCES)
    grid = [cell(kind='thief', defence=d, policy=DEFENCES[d], texts=n, prompts=p, size=s, queries=p*ceil(n/s), fit=560, new=160) for d in chosen for n, p, s in ways(DEFENCES[d]) if 'thief' in kind]
    grid += [cell(kind='user', defence=d, policy=DEFENCES[d], task=t, shots=16, seed=int(s), budget=410, precision='bf16') for t in tasks.split(',') for s in seeds.split(',') for d in chosen if 'user' in kind]
    done, thief = {r['id'] for r in read_lines(out)} if Path(out).exists() else set(), None
    for c in grid:
        if c['id'] in done: continue
        if c['kind'] == 'thief': thief = thief or Thief()
        append(Path(out), c | (thief(c) if c['kind'] == 'thief' else user(c)) | versions())
        print(c['kind'], c['defence'], c.get('task', ''), c.get('seed', ''))
