"""What plain classifiers make of sixteen pictures a class: three references that CraFT is held against.

For each 16-shot task and seed: the nearest training picture, pixel by pixel, which asks no model; logistic regression (scikit-learn; its strength by
cross-validation on the shots) on the zero-shot logits, as the refiner reads them; and the same on the image features, which no user of a black box sees."""
import json
from pathlib import Path
import numpy as np
from fastcore.script import call_parse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from craft_nb.clip import CLIPBlackBox
from craft_nb.collab import CraFT
from craft_nb.data import fewshot

def probe(X, y, Z, z):
    "Accuracy in percent on (Z, z) of a logistic regression fitted on (X, y)"
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    return 100*GridSearchCV(model, {'logisticregression__C': [.001, .01, .1, 1, 10]}, cv=folds).fit(X, y).score(Z, z)

def pixels(task):
    "Accuracy in percent of the label of the nearest training picture, at 32 x 32 pixels in colour"
    (X, y), (Z, z) = [(np.stack([np.asarray(p.convert('RGB').resize((32, 32)), float).ravel() for p in pics]), y) for pics, y in (task.train, task.test)]
    return 100*KNeighborsClassifier(1).fit(X, y).score(Z, z)

def row(name, seed):
    task = fewshot(name, 16, seed)
    box = CLIPBlackBox('craft-mini', task.classnames)
    zero, (train, test) = CraFT(box).zero_shot(), [box.upload(pics) for pics, _ in (task.train, task.test)]
    y, z = task.train[1].numpy(), task.test[1].numpy()
    logits, features = [[f(o).numpy() for o in (train, test)] for f in (zero.decision_function, lambda o: box._store[o.id])]
    return dict(task=name, seed=seed, pixels=round(pixels(task), 2), zero_shot=round(100*float((logits[1].argmax(1) == z).mean()), 2),
                logits=round(probe(logits[0], y, logits[1], z), 2), features=round(probe(features[0], y, features[1], z), 2))

@call_parse
def main(tasks: str='fashion,digits,emoji,clipart,animal_kinds,food_kinds,travel_kinds,object_kinds', # names with commas between
         out: str='nbs/results/ceiling.json'):  # where the rows go
    "Zero-shot and three references on each task, three seeds"
    rows = []
    for name in tasks.split(','):
        for seed in (1, 2, 3): rows.append(row(name, seed)); print(rows[-1], flush=True)
    Path(out).write_text('[\n' + ',\n'.join(map(json.dumps, rows)) + '\n]\n')
