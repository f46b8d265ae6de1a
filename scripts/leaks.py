"""Make the lines of nbs/results/leaks.jsonl that are missing: the owner's defences, from both sides.

`33_policy` shows them. The thief: 720 test pictures of the eight built-in tasks, up to 1,000 ImageNet names asked of
them behind a policy, in one query and in whatever other way is best against it; how much of the features comes back
(R²), and how often a copy agrees with the box (`craft_nb.service.policy`). The user: zero-shot and a fit of CraFT with
410 queries behind the same policy, 16 shots, on the test pictures. Noise is drawn from a digest of prompts and
features, to the bit: on another machine these lines come out a little otherwise."""
import json, time, torch
from math import ceil
from pathlib import Path
from fastcore.script import call_parse
from craft_nb.lab.statistics import measures, read_lines
from craft_nb.blackbox import digest
from craft_nb.clip import CLIPBlackBox, white_box
from craft_nb.craft import CraFT
from craft_nb.data import fewshot
from craft_nb.pictures import Pictures
from craft_nb.probes import IMAGENET_NAMES
from craft_nb.lab.experiments import versions
from craft_nb.lab.statistics import append_line
from craft_nb.service.policy import DEFENCES, Policy, PolicyBox, agreement, recovered, stolen

EIGHT = 'fashion', 'digits', 'emoji', 'clipart', 'animal_kinds', 'food_kinds', 'travel_kinds', 'object_kinds'

def cell(**settings):
    "Return the settings of a line with its id."
    settings |= dict(model='craft-mini')
    line_id = digest(json.dumps(settings, sort_keys=True))[:16]
    return dict(settings, id=line_id)

def ways(policy, texts=1000):
    "Return how a thief asks against a policy, as (texts, prompts, texts of a query): once, and what else may pay."
    n = min(texts, policy.get('distinct', texts))
    sizes = [min(n, policy.get('texts', n))]
    if policy.get('top_k') == 1: sizes += [1]
    elif policy.get('probabilities') and (policy.get('top_k') or policy.get('decimals')): sizes += [5, 20]
    elif policy.get('top_k'): sizes += [5]
    asked = [(n, 1, size) for size in sizes]
    if policy.get('noise'): asked.append((n, 16, n))
    return asked

class Thief:
    "Hold the pictures, and ask about them."
    def __init__(self):
        self.box = CLIPBlackBox('craft-mini', ['anything'])
        order = torch.randperm(1000, generator=torch.Generator().manual_seed(0)).tolist()
        self.names = [IMAGENET_NAMES[i] for i in order]
        tests = [fewshot(t, shots=1, seed=1).test[0] for t in EIGHT]
        pictures = Pictures(s for p in tests for s in p[::max(1, len(p)//90)][:90].sources)
        self.images = self.box.upload(pictures)
        self.p0 = self.box.embed('a photo of a')
        self.X = white_box(self.box, 'the judge').features(self.images)
        emoji = fewshot('emoji', 1, 1).classnames
        self.other = self.box.with_texts(emoji).query(self.p0[None], self.images)[0]
        self.fit = torch.randperm(len(self.X), generator=torch.Generator().manual_seed(1)).argsort() < 560

    def __call__(self, c):
        steps = torch.randn(16, *self.p0.shape, generator=torch.Generator().manual_seed(5))
        prompts = self.p0[None] if c['prompts'] == 1 else self.p0 + 1e-4*steps
        L = stolen(self.box, Policy(**c['policy']), self.names, prompts, self.images, c['size'])
        r2, copy = recovered(L, self.X, self.fit), agreement(L, self.other, self.fit)
        return dict(r2=round(r2, 4), agreement=round(copy, 4))

def user(c):
    "Run zero-shot and CraFT behind a policy; no CraFT where the account may not ask so many texts."
    task = fewshot(c['task'], c['shots'], c['seed'])
    policy = Policy(**c['policy'])
    box = PolicyBox(CLIPBlackBox(c['model'], task.classnames, precision=c['precision']), policy)
    test = box.upload(task.test[0])
    zero = measures(CraFT(box).zero_shot().decision_function(test), task.test[1])
    start = time.process_time()
    clf = None if policy.distinct else CraFT(box, seed=c['seed'], budget=c['budget']).fit(*task.train)
    spent = time.process_time() - start
    fit = measures(clf.decision_function(test), task.test[1]) if clf else dict(accuracy=None, ece=None)
    return dict(zero_shot=zero['accuracy'], zero_shot_ece=zero['ece'],
                craft=fit['accuracy'], craft_ece=fit['ece'], cpu=round(spent, 1))

def thief_cells(defence):
    "Return the lines of the thief behind a defence."
    policy = DEFENCES[defence]
    return [cell(kind='thief', defence=defence, policy=policy, texts=n, prompts=p, size=s, queries=p*ceil(n/s),
                 fit=560, new=160)
            for n, p, s in ways(policy)]

def user_cells(defences, tasks, seeds):
    "Return the lines of the honest users."
    return [cell(kind='user', defence=d, policy=DEFENCES[d], task=t, shots=16, seed=s, budget=410,
                 precision='bf16')
            for t in tasks for s in seeds for d in defences]

@call_parse
def main(out: str='nbs/results/leaks.jsonl',  # where the lines go
         kind: str='thief,user',              # of lines, with commas between
         defences: str='',                    # names of `DEFENCES`, with semicolons between; default: all
         tasks: str='digits,emoji',           # of the users
         seeds: str='1,2,3'):                 # of the users
    "Run the lines that are missing"
    torch.set_num_threads(1)
    chosen = defences.split(';') if defences else list(DEFENCES)
    grid = []
    if 'thief' in kind: grid += [c for d in chosen for c in thief_cells(d)]
    if 'user' in kind: grid += user_cells(chosen, tasks.split(','), [int(s) for s in seeds.split(',')])
    done = {r['id'] for r in read_lines(out)} if Path(out).exists() else set()
    thief = None
    for c in grid:
        if c['id'] in done: continue
        if c['kind'] == 'thief':
            thief = thief or Thief()
            result = thief(c)
        else: result = user(c)
        append_line(Path(out), c | result | versions())
        print(c['kind'], c['defence'], c.get('task', ''), c.get('seed', ''))
