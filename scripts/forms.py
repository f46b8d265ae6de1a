"""Fit probes behind each form of answer that a service may give, on the eleven tasks: nbs/results/forms.jsonl.

A line a run; those that are there are not made again: python scripts/forms.py"""
from pathlib import Path
import torch
from fastcore.script import call_parse
from craft_nb.apis import CallableBlackBox
from craft_nb.clip import CLIPBlackBox
from craft_nb.data import ELEVEN, fewshot
from craft_nb.lab.grids import run_id
from craft_nb.lab.statistics import append_line, measures, read_lines
from craft_nb.probes import Probes

SHOTS, SEEDS = 16, (1, 2, 3)

def shares(Y, texts): return Y.softmax(-1)
def rounded(decimals): return lambda Y, texts: shares(Y, texts).round(decimals=decimals)
def best(k): return lambda Y, texts: [{texts[j]: float(p[j]) for j in p.topk(k)[1]} for p in shares(Y, texts)]
def labels(Y, texts): return [texts[j] for j in Y.argmax(-1)]

FORMS = {  # name -> (form, most texts of a call)
    'logits': (lambda Y, texts: Y, None),
    'probabilities': (shares, None),
    'four decimals': (rounded(4), None),
    'two decimals': (rounded(2), None),
    'best twenty': (best(20), None),
    'best five': (best(5), None),
    'probabilities of 8 texts a call': (shares, 8),
    'two decimals, 8 texts a call': (rounded(2), 8),
    'best label alone, 8 texts a call': (labels, 8)}

def service(box, form, sets):
    "A function (texts, pictures) -> scores; `sets` holds what was encoded"
    def answer(texts, pictures):
        key = len(pictures), pictures[0].tobytes(), pictures[-1].tobytes()
        if key not in sets: sets[key] = box.upload(pictures)
        return form(box.with_texts(texts, ending='').score('', sets[key]), texts)
    return answer

@call_parse
def main(out:str='nbs/results/forms.jsonl'): # file to add to
    "Run what has no line yet"
    torch.set_num_threads(1)
    done = {r['id'] for r in (read_lines(out) if Path(out).exists() else [])}
    model = CLIPBlackBox('craft-mini', ['one', 'two'])
    for name in ELEVEN:
        sets = {}
        box = model.with_classes(fewshot(name, SHOTS).classnames)
        for seed in SEEDS:
            task = fewshot(name, SHOTS, seed)
            for method, (form, most) in FORMS.items():
                line = dict(task=name, shots=SHOTS, seed=seed, method=method)
                if run_id(line) in done: continue
                kind = 'logits' if method == 'logits' else 'probabilities'
                asked = CallableBlackBox(service(box, form, sets), task.classnames, kind=kind, max_texts=most)
                clf = Probes(asked).fit(*task.train)
                found = measures(clf.decision_function(task.test[0]), task.test[1])
                bill = dict(calls=asked.ledger.calls, queries=asked.ledger.queries, texts=asked.ledger.texts)
                append_line(Path(out), dict(line, id=run_id(line), accuracy=found['accuracy'], ledger=bill))
            print(name, seed, flush=True)
