"Every notebook runs from top to bottom: alone, in a fresh process, offline. Two run at a time, on a thread each."
import os, time
from concurrent.futures import ThreadPoolExecutor
import pytest
from conftest import name, notebooks, py

code = 'import sys; from nbdev.test import nbdev_test; nbdev_test(path=sys.argv[1], n_workers=0)'

def timed(path):
    "Run a notebook: seconds, exit status, output"
    start = time.time()
    rc, out = py(code, path, OMP_NUM_THREADS='1')
    return time.time() - start, rc, out

@pytest.fixture(scope='module')
def runs(request):
    "The runs of all notebooks that are asked for, under way"
    paths = [i.callspec.params['path'] for i in request.session.items if i.module is request.module]
    with ThreadPoolExecutor(min(2, os.cpu_count())) as pool:
        yield {p: pool.submit(timed, p) for p in paths}
        pool.shutdown(cancel_futures=True)

@pytest.mark.parametrize('path', notebooks, ids=name)
def test_runs(runs, path):
    secs, rc, out = runs[path].result()
    print(f'{name(path)}: {secs:.1f} s')
    assert rc == 0 and 'Success.' in out, out
