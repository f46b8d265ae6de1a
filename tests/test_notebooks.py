"""Every notebook runs from top to bottom: alone, in a process of its own, offline, on one thread.

On the way, each of its exercises fails until it is written. `nbdev_test` runs the same cells, without the exercises."""
import runpy, time
import pytest
from conftest import in_fork, name, notebooks, py, root

def check(path): runpy.run_path(str(root/'scripts/exercises.py'))['check'](path)

@pytest.mark.parametrize('path', notebooks, ids=name)
def test_runs(path):
    start = time.time()
    rc, out = in_fork(check, path)
    print(f'{name(path)}: {time.time() - start:.1f} s\n{out}')
    assert rc == 0, out
    if '#| exercise' in path.read_text(encoding='utf-8'): assert 'exercise' in out, out   # it is what fails

def test_nbdev_test():
    "What CI asks elsewhere: nbdev's own runner, from a checkout, on one notebook"
    code = "from nbdev.test import nbdev_test; nbdev_test(path='nbs/10_classifier.ipynb', n_workers=0)"
    rc, out = py(code)
    assert rc == 0 and 'Success.' in out, out
