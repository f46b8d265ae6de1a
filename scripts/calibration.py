"How good are CraFT's probabilities, by temperature? Writes nbs/results/calibration.jsonl, a line a run; `07_collab` shows the means."
import json, sys
from pathlib import Path
import torch
from craft_nb.ablations import ece
from craft_nb.clip import CLIPBlackBox
from craft_nb.collab import CraFT, best_temperature
from craft_nb.data import fewshot, tasks
from craft_nb.losses import cross_entropy

OUT = Path(__file__).parent.parent/'nbs/results/calibration.jsonl'
SHOTS = {1: 2000, 4: 4000, 16: 8000}    # -> budget
SEEDS = 2, 3                            # the rule was chosen on draw 1
EIGHT = [t['name'] for t in tasks() if t['shots'] and t['shots'] >= 16 and not t['name'].startswith('shift') and not t['name'].endswith('unseen')]

def marks(Y, y, T):
    "Negative log-likelihood in nats and expected calibration error in percent, of logits over a temperature"
    Y = Y.double()/T
    conf, guess = Y.softmax(-1).max(-1)
    return dict(T=round(T, 2), nll=round(cross_entropy(Y, y).item(), 3), ece=round(100*ece(conf, guess == y), 1))

def run(name, shots, seed):
    "A fit, and its marks on the test pictures for each temperature"
    task = fewshot(name, shots, seed)
    clf = CraFT(CLIPBlackBox('craft-mini', task.classnames), seed=seed, budget=SHOTS[shots]).fit(*task.train)
    Y, y = clf.decision_function(task.test[0]), task.test[1]
    Ts = {'none': 1.} | clf._temperatures() | {'used': clf.temperature_, 'best on the test': best_temperature(Y, y)}
    accuracy = round(100*(Y.argmax(-1) == y).double().mean().item(), 1)
    return dict(task=name, shots=shots, seed=seed, budget=SHOTS[shots], accuracy=accuracy, marks={k: marks(Y, y, T) for k, T in Ts.items()})

if __name__ == '__main__':
    done = [json.loads(l) for l in OUT.read_text().splitlines()] if OUT.exists() else []
    for cell in [(t, k, s) for s in SEEDS for k in SHOTS for t in EIGHT]:
        if cell in [(r['task'], r['shots'], r['seed']) for r in done]: continue
        line = json.dumps(run(*cell))
        with OUT.open('a') as f: f.write(line + '\n')
        print(line, file=sys.stderr)
