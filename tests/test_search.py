"What a generation computes: in pieces, in the box's precision, and nothing that has no say."
import pytest, torch
from craft_nb import craft
from craft_nb.cli import DEMO_TASKS, task_names
from craft_nb.lab.reports import compare
from craft_nb.clip import CLIPBlackBox
from craft_nb.craft import CraFT, fitness_of
from craft_nb.data import ELEVEN, fewshot
from craft_nb.losses import cross_entropy, prompt_loss
from craft_nb.refiner import Refiner
from craft_nb.lab.speed import least_ms, needed

@pytest.fixture(scope='module')
def task(): return fewshot('writing', 2, 1)

@pytest.fixture(scope='module')
def boxes(task): return {p: CLIPBlackBox('craft-mini', task.classnames, precision=p) for p in ('fp32', 'bf16')}

def begun(box, task, **switches):
    "A CraFT after two generations, whose refiner has learned something"
    return CraFT(box, budget=82, seed=1, **switches).fit(*task.train)

@pytest.fixture
def answers(task):
    shape = 7, len(task.train[1]), len(task.classnames)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))

@pytest.mark.parametrize('rows', [1, 30, 10**6])
def test_pieces(boxes, task, answers, rows, monkeypatch):
    "Eq. 5 for several candidates at once is Eq. 5 for each"
    clf = begun(boxes['fp32'], task, lam_i=.5)
    monkeypatch.setitem(craft.ROWS, 'cpu', rows)
    with torch.no_grad(): losses = [prompt_loss(Y, clf.refiner_(Y), clf.run_.labels, .5) for Y in answers]
    torch.testing.assert_close(fitness_of(clf.run_, answers), torch.stack(losses))

def test_precision(boxes, task, answers):
    "The refiner of the search runs in the box's precision; what it adds differs a little, the rest not at all"
    low, high = begun(boxes['bf16'], task, lam_i=.5), begun(boxes['fp32'], task, lam_i=.5)
    low.refiner_.load_state_dict(high.refiner_.state_dict())
    gap = (fitness_of(low.run_, answers) - fitness_of(high.run_, answers)).abs().max()
    assert 0 < gap < 1e-3
    assert fitness_of(low.run_, answers).dtype == torch.float32

@pytest.mark.parametrize('switches, calls', [(dict(lam_i=0.), 0), (dict(learn_refiner=False), 0), (dict(lam_i=.1), 1)])
def test_left_out(boxes, task, answers, switches, calls, monkeypatch):
    "Where λ_I is 0 the refiner is not run in the search"
    clf = begun(boxes['fp32'], task, **switches)
    seen, forward = [], Refiner.forward
    def noting(self, Y):
        seen.append(len(Y))
        return forward(self, Y)
    monkeypatch.setattr(Refiner, 'forward', noting)
    fitness = fitness_of(clf.run_, answers)
    assert bool(seen) == bool(calls)
    if not calls: torch.testing.assert_close(fitness, cross_entropy(answers, clf.run_.labels))

def test_narrow_tower(boxes, task):
    "Pictures are projected to the text tower's width: the same logits as by whole text features"
    box = boxes['fp32']
    images, p0 = box.upload(task.test[0][:20]), box.embed('a photo of a')
    prompts = p0 + .02*torch.randn(3, *p0.shape, generator=torch.Generator().manual_seed(1))
    assert len(box._text.text_projection) < box._text.text_projection.shape[1]
    wide = box._store[images.id] @ box._weights(prompts).mT
    torch.testing.assert_close(box.query(prompts, images), wide, atol=1e-4, rtol=1e-4)

def test_needed(boxes):
    "Twice the pictures, twice the products of all but the text tower; bf16 is counted at its own rate where it is used"
    box = boxes['fp32']
    one, two = needed(box, 100), needed(box, 200)
    assert one['text tower'] == two['text tower'] and all(two[k] == 2*one[k] for k in one if k != 'text tower')
    rates = dict(fp32=1., bf16=1e9)
    assert least_ms(box, 100, rates) == sum(one.values())
    assert least_ms(boxes['bf16'], 100, rates) == pytest.approx(one['logits'] + one['refiner, epoch'], rel=1e-3)

def test_watched(tmp_path, capsys):
    "A report notes test accuracy on the way; the fit pays for none of it, and is the same run as without"
    report = compare(['writing'], tmp_path, shots=2, methods=['craft'], progress=False, budget=41*4)
    row, = report.runs
    noted = [(h['queries'], h['test_accuracy']) for h in row['history'] if 'test_accuracy' in h]
    assert [q for q, _ in noted] == [41, 82, 123, 164] and row['queries'] == 164
    task = fewshot('writing', 2, 1)
    alone = CraFT(CLIPBlackBox('craft-mini', task.classnames), budget=164, seed=1).fit(*task.train)
    assert [round(h['fitness'], 4) for h in alone.history_] == [h['fitness'] for h in row['history']]

def test_eleven():
    assert task_names('eleven') == ELEVEN and set(DEMO_TASKS) < set(ELEVEN)
