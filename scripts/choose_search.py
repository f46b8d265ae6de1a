"""Compare ways to search for the robust CraFT, on pictures that no table is tested on.

As in `choose_robust.py`, what a draw leaves of a pool tests the choice. Each way has 1,000 queries on all training
pictures; random halves have twice as many, on half of the pictures, and ask p0 once more in each generation. python
scripts/choose_search.py writes nbs/results/choose_search.json, a row for each way, task and number of shots."""
import json
from pathlib import Path
import numpy as np, torch
from cma.sigma_adaptation import CMAAdaptSigmaTPA
from fastcore.script import call_parse
from choose_probes import SEEDS, SPARE, accuracy, draws
from choose_robust import pool_box
from craft_nb.cmaes import CMAES
from craft_nb.probes import vocabulary
from craft_nb.prompts import PromptSpace
from craft_nb.robust import leave_one_out, settled_head

TASKS = 'digits', 'fashion', 'badges', 'writing', 'clipart'
POPSIZE, QUERIES, SAMPLED = 40, 1000, 200
WAYS = {'as it is': {}, 'TPA': dict(AdaptSigma=CMAAdaptSigmaTPA), 'diagonal': dict(CMA_diagonal=True)}

def search(box, p0, images, Y_0, y, seed, generations, **options):
    "The centre after some generations, by the left-out error"
    space, es = PromptSpace(p0, seed=seed), CMAES(512, .1, POPSIZE, seed, **options)
    for _ in range(generations):
        chunks = box.query_chunks(space(es.ask()), images)
        es.tell(torch.cat([leave_one_out(Y_0, Y, y) for Y in chunks]))
    return space(es.mean)

def warm_start(box, p0, images, Y_0, y, seed):
    "The best of some prompts of four random words, to start from"
    rng, words = np.random.default_rng(seed), vocabulary('words')
    texts = [' '.join(rng.choice(words, 4)) for _ in range(SAMPLED)]
    prompts = torch.stack([box.embed(t)[:len(p0)] for t in texts])
    errors = torch.cat([leave_one_out(Y_0, Y, y) for Y in box.query_chunks(prompts, images)])
    return prompts[errors.argmin()]

def half_of(places, rng): return torch.tensor(rng.permutation(places)[:len(places)//2])

def in_batches(box, p0, train, y, seed, generations):
    "A search that sees a random half of each class in a generation, twice as many generations"
    rng = np.random.default_rng(seed)
    space, es = PromptSpace(p0, seed=seed), CMAES(512, .1, POPSIZE, seed)
    for _ in range(2*generations):
        half = torch.cat([half_of((y == k).nonzero()[:, 0], rng) for k in y.unique()])
        images = box.upload(train[half])
        Y_0 = box.query(p0[None], images)[0]
        chunks = box.query_chunks(space(es.ask()), images)
        es.tell(torch.cat([leave_one_out(Y_0, Y, y[half]) for Y in chunks]))
        box.forget(images)
    return space(es.mean)

def found(box, train, y, seed):
    "A prompt for each way"
    images, p0 = box.upload(train), box.embed('a photo of a')
    Y_0 = box.query(p0[None], images)[0]
    generations = QUERIES//POPSIZE
    prompts = {name: search(box, p0, images, Y_0, y, seed, generations, **options) for name, options in WAYS.items()}
    best = warm_start(box, p0, images, Y_0, y, seed)
    left = generations - SAMPLED//POPSIZE
    prompts['from the best of 200 texts'] = search(box, best, images, Y_0, y, seed, left)
    prompts['on random halves'] = in_batches(box, p0, train, y, seed, generations)
    return p0, Y_0, prompts

def rows_of(task, shots):
    "A row for each way, mean over draws"
    box, y = pool_box(task)
    if int(y.bincount().min()) - SPARE < shots: return
    scores = {}
    for i, (train, left) in enumerate(draws(y, shots)):
        p0, Y_0, prompts = found(box, train, y[train], i)
        learned, images = box.upload(train), box.upload(left)
        Z_0 = box.query(p0[None], images)[0]
        for name, prompt in prompts.items():
            head, _ = settled_head(Y_0, box.query(prompt[None], learned)[0], y[train])
            answer = head(Z_0, box.query(prompt[None], images)[0])
            scores.setdefault(name, []).append(accuracy(answer, y[left]))
    for name, found_scores in scores.items():
        yield dict(task=task, shots=shots, way=name, accuracy=round(float(np.mean(found_scores)), 2))

@call_parse
def main(out:str='nbs/results/choose_search.json'): # file to write
    "Compare the ways at 16 shots and at 4"
    torch.set_num_threads(1)
    rows = []
    for shots in (16, 4):
        for task in TASKS:
            for row in rows_of(task, shots):
                rows.append(row)
                print(row, flush=True)
    text = json.dumps(dict(seeds=SEEDS, rows=rows), indent=1, ensure_ascii=False)
    Path(out).write_text(text + '\n', encoding='utf-8')
