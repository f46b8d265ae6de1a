"""What plain classifiers make of sixteen pictures a class: which tasks leave something to learn, and what CraFT is held against.

The rule, written before any black-box method was run on these tasks: a task has *headroom* if a linear probe on the box's image features
beats zero-shot by ten points or more at 16 shots, mean of three draws. No task comes or goes for what the methods do on it.

For each task and draw: zero-shot; the nearest training picture, pixel by pixel, which asks no model; logistic regression (scikit-learn; its
strength by cross-validation on the shots) on the zero-shot logits, as the refiner reads them; the same on the box's image features, which no
user of a black box sees; and, with `--work`, on the features of EfficientNet-Lite0 as it comes from ImageNet, which any user can run himself."""
import json, sys
from functools import lru_cache
from pathlib import Path
import numpy as np, torch
from fastcore.script import call_parse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from craft_nb.clip import CLIPBlackBox, load_clip
from craft_nb.collab import CraFT
from craft_nb.data import ELEVEN, fewshot

def probe(X, y, Z, z):
    "Accuracy in percent on (Z, z) of a logistic regression fitted on (X, y)"
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    return 100*GridSearchCV(model, {'logisticregression__C': [.001, .01, .1, 1, 10]}, cv=folds).fit(X, y).score(Z, z)

def pixels(task):
    "Accuracy in percent of the label of the nearest training picture, at 32 x 32 pixels in colour"
    (X, y), (Z, z) = [(np.stack([np.asarray(p.convert('RGB').resize((32, 32)), float).ravel() for p in pics]), y) for pics, y in (task.train, task.test)]
    return 100*KNeighborsClassifier(1).fit(X, y).score(Z, z)

@lru_cache(1)
def lite0(work):
    "EfficientNet-Lite0 with ImageNet's weights, at the 224 pixels that it was trained on"
    import timm
    sys.path.insert(0, str(Path(__file__).parent/'minivlm'))
    from build import imagenet
    from fetch import weights
    net = timm.create_model('tf_efficientnet_lite0', num_classes=0).eval()
    imagenet(weights(work), net)
    return net

@torch.no_grad()
def local(pictures, work, px=224):
    "Features (N, 1280) of pictures, by a network of the user's own"
    net, (_, prepare, _) = lite0(work), load_clip()
    def tensor(p): return torch.nn.functional.interpolate(prepare(p)[None], size=px, mode='bicubic', antialias=True)
    return torch.cat([net(torch.cat([tensor(p) for p in pictures[i:i+32]])) for i in range(0, len(pictures), 32)])

def once(pictures, encode, known):
    "Features of pictures, each encoded when it first comes: the draws of a task share their test pictures"
    keys = [str(o) if isinstance(o, tuple) else o.tobytes() for o in pictures.sources]
    new = [i for i, k in enumerate(keys) if k not in known]
    if new: known.update(zip([keys[i] for i in new], encode(pictures[new])))
    return torch.stack([known[k] for k in keys])

def rows_of(name, model, work):
    "The rows of a task, three draws"
    names = fewshot(name, 16, 1).classnames
    box, seen, mine = CLIPBlackBox(model, names), {}, {}
    white = box._weights(CraFT(box).zero_shot().prompt_[None])[0]
    for seed in (1, 2, 3):
        task = fewshot(name, 16, seed)
        y, z = task.train[1].numpy(), task.test[1].numpy()
        features = [once(pics, lambda o: box._encode(o)[0], seen) for pics, _ in (task.train, task.test)]
        logits = [(o @ white.T).numpy() for o in features]
        figures = dict(pixels=pixels(task), zero_shot=100*float((logits[1].argmax(1) == z).mean()), logits=probe(logits[0], y, logits[1], z),
                       features=probe(features[0].numpy(), y, features[1].numpy(), z), local=None)
        if work:
            A, B = [once(pics, lambda o: local(o, work), mine).numpy() for pics, _ in (task.train, task.test)]
            figures['local'] = probe(A, y, B, z)
        yield dict(task=name, classes=len(names), seed=seed, **{k: v and round(v, 2) for k, v in figures.items()})

@call_parse
def main(tasks: str=','.join(ELEVEN), # names with commas between
         model: str='craft-mini', # the box
         work: str=None,          # folder that minivlm/fetch.py filled: adds `local`
         out: str='nbs/results/headroom.json'):  # where the rows go
    "Zero-shot and the references on each task, three draws"
    rows = []
    for name in tasks.split(','):
        for row in rows_of(name, model, work): rows.append(row); print(row, flush=True)
    Path(out).write_text('[\n' + ',\n'.join(map(json.dumps, rows)) + '\n]\n')
