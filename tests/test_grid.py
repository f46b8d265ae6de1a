"The runner: killed and restarted, broken workers, a Ray cluster of this machine, loggers, and the command line."
import json, os, signal, subprocess, sys, time
import pytest
from craft_nb.ablations import PAPER, cells, read_lines
from craft_nb.cli import main
from craft_nb.experiments import kind_of, run_grid

SMALL = dict(tasks=['digits'], shots=[1], seeds=[1, 2], budget=82, precision='fp32', points=0)
what = lambda lines: [(r['id'], r['method'], r['accuracy'], r['per_class'], r['ledger']['queries']) for r in lines]

@pytest.fixture(scope='module')
def grid(): return cells(PAPER, 'table3', methods=['PG', 'PR', 'PG + PR + Co'], **SMALL)

@pytest.fixture(scope='module')
def alone(grid, tmp_path_factory):
    "The lines of a run without trouble, in processes"
    return run_grid(grid, tmp_path_factory.mktemp('alone'), jobs=2, progress=False)

def test_lines(alone, grid):
    assert [r['id'] for r in alone] == [c['id'] for c in grid] and all(r['ledger']['queries'] <= 82 for r in alone)
    assert {r['threads'] for r in alone} == {1} and all(0 <= r['worst'] <= r['accuracy'] <= 100 for r in alone)

def test_killed(alone, tmp_path):
    "SIGKILL after the first line; the restart does the rest, and the lines are the same"
    code = ("from craft_nb.ablations import PAPER, cells\nfrom craft_nb.experiments import run_grid\nif __name__ == '__main__': "
            f"run_grid(cells(PAPER, 'table3', methods=['PG', 'PR', 'PG + PR + Co'], **{SMALL!r}), {str(tmp_path)!r}, jobs=2, progress=False)")
    (tmp_path/'go.py').write_text(code)
    p = subprocess.Popen([sys.executable, tmp_path/'go.py'], start_new_session=True)
    while p.poll() is None and not (tmp_path/'cells.jsonl').exists(): time.sleep(.2)
    os.killpg(p.pid, signal.SIGKILL); p.wait()
    assert 1 <= len(read_lines(tmp_path)) <= 6
    subprocess.run([sys.executable, tmp_path/'go.py'], check=True)
    assert sorted(what(read_lines(tmp_path))) == sorted(what(alone))

def test_failed_cell(grid, tmp_path, capsys):
    bad = [dict(grid[0], id='no task', task='nowhere'), dict(grid[0], id='no class', settings={'is': 'Magic'})]
    lines = run_grid(bad + grid[2:3], tmp_path, jobs=1, progress=False)
    assert [r['id'] for r in lines] == [grid[2]['id']] and '2 of 3 runs failed' in capsys.readouterr().out
    errors = [json.loads(l)['error'] for l in (tmp_path/'failed.jsonl').read_text().splitlines()]
    assert 'unknown task' in errors[0] and 'Magic' in errors[1]

def test_ray(alone, grid, tmp_path):
    "A cluster of this machine gives the same lines"
    ray = pytest.importorskip('ray')
    try: assert what(run_grid(grid, tmp_path, jobs=2, engine='ray', progress=False)) == what(alone)
    finally: ray.shutdown()

@pytest.mark.parametrize('log', ['tensorboard', 'wandb'])
def test_loggers(grid, tmp_path, log):
    pytest.importorskip(log)
    run_grid(grid[:1], tmp_path, jobs=1, progress=False, log=log)
    assert list(tmp_path.rglob('events.out.*' if log == 'tensorboard' else '*.wandb'))

def test_command(tmp_path, capsys):
    "bench, twice, and report, of a grid of one's own"
    (tmp_path/'mine.yaml').write_text('''
defaults: {model: craft-mini, tasks: [digits], shots: [1], seeds: [1], budget: 82, precision: fp32, points: 1}
methods: {zero-shot: {is: ZeroShot}, CraFT: {is: CraFT}}
tables: {mine: {title: Mine, rows: method, cols: task, cells: [{methods: [zero-shot, CraFT]}], claims: [[CraFT, zero-shot]]}}''')
    words = f'bench {tmp_path}/mine.yaml --jobs 1 --quiet --out {tmp_path}/runs'.split()
    main(words); first = capsys.readouterr().out
    assert 'mine: Mine' in first and 'CraFT against zero-shot' in first
    main(words); assert capsys.readouterr().out == first and len(read_lines(tmp_path/'runs')) == 2

@pytest.mark.parametrize('words, says', [('bench table99', 'no grid'), ('report nowhere', 'holds no result lines'), ('data check dtdd x', 'unknown benchmark'),
    ('data check dtd nowhere', 'does not agree'), ('data sample dtd nowhere', 'no such folder'), ('bench table3 --engine slurm --quick', 'expected one of local, ray')])
def test_errors(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e: main(words.split())
    assert says in str(e.value)

def test_smoke():
    "Every cell of every table can be made: its class takes its settings"
    for name in PAPER['tables']:
        for c in cells(PAPER, name, quick=True):
            kw = dict(c['settings']); kind = kind_of(kw.pop('is'))
            kw.pop('templates', None)
            assert kind(None, seed=1, **dict(budget=8) | kw).get_params()
