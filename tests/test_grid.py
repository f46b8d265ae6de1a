"""The runner: killed and restarted, broken workers, a Ray cluster of this machine, loggers, and the command line.

And the ids of runs, which must stay."""
import json, os, signal, subprocess, sys, time
from hashlib import sha256
import pytest
from conftest import root
from craft_nb.craft import CraFT
from craft_nb.cli import main
from craft_nb.data import fewshot
from craft_nb.lab.statistics import read_lines
from craft_nb.lab.grids import PAPER, SHARED, cells, load_grid, run_id
from craft_nb.lab.experiments import CLASSES, method_class, register, run_grid

METHODS = ['PG', 'PG + PR + Co']
SMALL = dict(shots=[1], seeds=[1, 2, 3], budget=82, precision='fp32', points=0)

def what(lines):
    "What must be the same in two runs of one cell"
    same = 'id', 'method', 'accuracy', 'per_class', 'history'
    return [[*(r[k] for k in same), r['ledger']['queries']] for r in lines]

# --- ids

def shipped(name): return load_grid(root/f'craft_nb/assets/{name}.yaml')[0]

GRIDS = dict(paper=PAPER, probes=shipped('probes'), texts=shipped('texts'))
LINES = dict(paper='paper', probes='probes', texts='texts')       # committed lines -> the grid that they are of

def committed(name): return read_lines(root/f'nbs/results/{name}.jsonl')

def asked(line):
    "What a run depended on; its line has the accuracy of each target in place of their names"
    cell = {k: line[k] for k in ('settings', 'task', 'shots', 'seed', *SHARED)}
    return cell | dict(targets=list(line['targets']) if line['targets'] else None)

@pytest.mark.parametrize('name', [*LINES, 'narrow'])
def test_ids_of_committed_lines(name):
    "An id is the digest of what the line says that it is of: neither the digest nor a setting's name has changed"
    lines = committed(name)
    assert lines and [r['id'] for r in lines] == [run_id(asked(r)) for r in lines]

@pytest.mark.parametrize('name', LINES)
def test_committed_lines_are_of_the_grid(name):
    "Today's grid, recomputed, still asks for every committed run: with its names of methods, settings and classes"
    spec = GRIDS[LINES[name]]
    ids = {c['id'] for t in spec['tables'] for c in cells(spec, t)}
    assert not [(r['method'], r['settings']) for r in committed(name) if r['id'] not in ids]

def test_ids_of_leaks():
    "scripts/leaks.py makes its ids the same way"
    runs = dict(
        thief='kind defence policy texts prompts size queries fit new model',
        user='kind defence policy task shots seed budget precision model')
    lines = committed('leaks')
    assert lines
    for line in lines:
        cell = {k: line[k] for k in runs[line['kind']].split()}
        assert line['id'] == run_id(cell)

@pytest.mark.parametrize('grid, ids', [
    ('paper', '03e50ed0fd815dbd'),
    ('probes', '7c2b7b4019c0baec'),
    ('texts', '534a84a052063792')])
def test_ids_of_grids(grid, ids):
    "The ids of all cells, those not yet run too; whoever changes a grid on purpose writes the new digest here"
    spec = GRIDS[grid]
    every = [c['id'] for t in spec['tables'] for c in cells(spec, t)]
    assert sha256('\n'.join(every).encode()).hexdigest()[:16] == ids

# --- the registry

@pytest.mark.parametrize('name', [*LINES, 'narrow'])
def test_names_of_committed_classes(name):
    "The class of every committed line is still found by the name that the line has"
    for kind in {r['settings']['is'] for r in committed(name)}: assert isinstance(method_class(kind), type)

def test_register():
    class Mine(CraFT): pass
    try:
        register('Mine', Mine)
        assert method_class('Mine') is Mine
        class Mine(CraFT): pass
        register('Mine', Mine)                            # written again, as in a notebook
        assert method_class('Mine') is Mine
    finally: CLASSES.pop('Mine')
    with pytest.raises(ValueError, match='choose another'): register('BBT', Mine)
    with pytest.raises(ValueError, match='register'): method_class('os.path')

# --- the runner

@pytest.fixture(scope='module')
def few(tmp_path_factory):
    "A folder with 120 pictures of the task `digits`: each process encodes all test pictures, and 1,200 prove no more"
    folder = tmp_path_factory.mktemp('tasks')/'few'
    task = fewshot('digits', 2, 1)
    for split, (pictures, y) in dict(train=task.train, test=task.test).items():
        for i in range(len(y) if split == 'train' else 100):
            to = folder/split/task.classnames[y[i]]
            to.mkdir(parents=True, exist_ok=True)
            pictures[i].save(to/f'{i}.png')
    return str(folder)

@pytest.fixture(scope='module')
def grid(few): return cells(PAPER, 'table3', methods=METHODS, tasks=[few], **SMALL)

@pytest.fixture(scope='module')
def alone(grid, tmp_path_factory):
    "The lines of a run without trouble, in processes"
    return run_grid(grid, tmp_path_factory.mktemp('alone'), jobs=2, progress=False)

def test_lines(alone, grid):
    assert [r['id'] for r in alone] == [c['id'] for c in grid] and all(r['ledger']['queries'] <= 82 for r in alone)
    assert {r['threads'] for r in alone} == {1} and all(0 <= r['worst'] <= r['accuracy'] <= 100 for r in alone)

def test_killed(alone, grid, few, tmp_path):
    "SIGKILL to all processes after the first line; a restart in one does the rest, and the lines are the same"
    code = f'''
from craft_nb.lab.experiments import run_grid
from craft_nb.lab.grids import PAPER, cells

if __name__ == '__main__':
    grid = cells(PAPER, 'table3', methods={METHODS!r}, tasks=[{few!r}], **{SMALL!r})
    run_grid(grid, {str(tmp_path)!r}, jobs=2, progress=False)
'''
    (tmp_path/'go.py').write_text(code)
    p = subprocess.Popen([sys.executable, tmp_path/'go.py'], start_new_session=True)
    lines = tmp_path/'cells.jsonl'
    def has_line(): return lines.exists() and lines.read_text().endswith('\n')
    def is_over(): return os.waitid(os.P_PID, p.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)   # its group is still there
    while not has_line() and not is_over(): time.sleep(.02)
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()
    assert 1 <= len(read_lines(tmp_path)) <= len(grid)
    run_grid(grid, tmp_path, jobs=1, progress=False)
    assert sorted(what(read_lines(tmp_path))) == sorted(what(alone))

def test_failed_cell(grid, tmp_path, capsys):
    no_task = dict(grid[0], id='no task', task='nowhere')
    no_class = dict(grid[0], id='no class', settings={'is': 'Magic'})
    lines = run_grid([no_task, no_class, grid[2]], tmp_path, jobs=1, progress=False)
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

def test_command(few, tmp_path, capsys):
    "bench, twice, and report, of a grid of one's own"
    (tmp_path/'mine.yaml').write_text(f'''
defaults:
  {{model: craft-mini, tasks: [{json.dumps(few)}], shots: [1], seeds: [1], budget: 82, precision: fp32, points: 1}}
methods:
  zero-shot: {{is: ZeroShot}}
  CraFT: {{is: CraFT}}
tables:
  mine:
    title: Mine
    rows: method
    cols: task
    cells: [{{methods: [zero-shot, CraFT]}}]
    claims: [[CraFT, zero-shot]]
''')
    words = f'bench {tmp_path}/mine.yaml --jobs 1 --quiet --out {tmp_path}/runs'.split()
    main(words)
    first = capsys.readouterr().out
    assert 'mine: Mine' in first and 'CraFT against zero-shot' in first
    main(words)
    assert capsys.readouterr().out == first and len(read_lines(tmp_path/'runs')) == 2

@pytest.mark.parametrize('words, says', [
    ('bench table99', 'no grid'),
    ('bench table3 --engine slurm --quick', 'expected one of local, ray'),
    ('report nowhere', 'holds no result lines'),
    ('data check dtdd x', 'unknown benchmark'),
    ('data check dtd nowhere', 'does not agree'),
    ('data sample dtd nowhere', 'no such folder')])
def test_errors(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e: main(words.split())
    assert says in str(e.value)

def test_smoke():
    "Every cell of every table can be made: its class takes its settings"
    for spec in GRIDS.values():
        for cell in [c for table in spec['tables'] for c in cells(spec, table, quick=True)]:
            kw = dict(cell['settings'])
            kind = method_class(kw.pop('is'))
            kw.pop('templates', None)
            assert kind(None, seed=1, **dict(budget=8) | kw).get_params()
