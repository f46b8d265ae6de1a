"The wall is real: a box in another process, reached by messages alone, gives the same run bit for bit."
import multiprocessing as mp
import pytest, torch
from conftest import HANG
from craft_nb.blackbox import BlackBox, BudgetExceeded, ImageSet
from craft_nb.clip import CLIPBlackBox
from craft_nb.craft import CraFT
from craft_nb.data import fewshot

def serve(pipe, classnames, budget):
    "The owner's side: answer messages until told to stop"
    box = CLIPBlackBox('craft-mini', classnames, budget)
    while (msg := pipe.recv()) is not None:
        name, args, kw = msg
        try: answer = getattr(box, name)(*args, **kw)
        except Exception as e: answer = e
        pipe.send((answer, vars(box.ledger)))

class ProcessBox(BlackBox):
    "The user's side: pictures and prompts out, handles and logits in"
    def __init__(self, classnames, budget=None):
        super().__init__(classnames, budget)
        self.pipe, there = mp.get_context('spawn').Pipe()
        self.process = mp.get_context('spawn').Process(target=serve, args=(there, classnames, budget), daemon=True)
        self.process.start()
    def _ask(self, name, *args, **kw):
        self.pipe.send((name, args, kw))
        answer, ledger = self.pipe.recv()
        self.theirs = ledger
        if isinstance(answer, Exception): raise answer
        return answer
    def _encode(self, pictures, **kw): return self._ask('upload', list(pictures), **kw), 0
    def _embed(self, text): return self._ask('embed', text)
    def _logits(self, prompts, images): return self._ask('query', prompts, images)
    def close(self):
        self.pipe.send(None)
        self.process.join(HANG)

@pytest.fixture(scope='module')
def task(): return fewshot('digits', 2, 1)

def test_same_run(task):
    "Same prompt, refiner, history and count of queries on both sides of a process boundary"
    near, far = CLIPBlackBox('craft-mini', task.classnames), ProcessBox(task.classnames)
    a, b = (CraFT(box, budget=164, seed=3).fit(*task.train) for box in (near, far))
    assert torch.equal(a.prompt_, b.prompt_) and a.history_ == b.history_
    assert all(torch.equal(u, v) for u, v in zip(a.refiner_.parameters(), b.refiner_.parameters()))
    assert near.ledger.queries == far.ledger.queries == far.theirs['queries'] == 164
    far.close()

def test_budget_beyond_the_wall(task):
    "The owner's cap holds on the owner's side, whatever the user's side believes"
    far = ProcessBox(task.classnames, budget=3)
    far.ledger.budget = None
    images, p0 = far.upload(task.train[0][:2]), far.embed('a photo of a')
    far.query(p0.expand(3, -1, -1), images)
    with pytest.raises(BudgetExceeded, match='1 queries asked, 0 left'): far.query(p0[None], images)
    assert far.theirs['queries'] == 3
    far.close()

def test_handles_are_handles(task):
    "What an upload gives the user holds a name and a count, nothing of the model"
    box = CLIPBlackBox('craft-mini', task.classnames)
    assert set(vars(box.upload(task.train[0][:2]))) == {'id', 'n'} and ImageSet('x', 3).n == 3
