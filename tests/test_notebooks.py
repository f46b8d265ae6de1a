"Every notebook runs from top to bottom: alone, in a fresh process, offline, on one thread."
import time
import pytest
from conftest import name, notebooks, py

code = 'import sys; from nbdev.test import nbdev_test; nbdev_test(path=sys.argv[1], n_workers=0)'

@pytest.mark.parametrize('path', notebooks, ids=name)
def test_runs(path):
    start = time.time()
    rc, out = py(code, path)
    print(f'{name(path)}: {time.time() - start:.1f} s')
    assert rc == 0 and 'Success.' in out, out
