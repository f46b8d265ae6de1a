"What the tests share: the project's root, and processes that cannot hang or outlive a test."
import importlib.util, multiprocessing, os, re, signal, subprocess, sys, tempfile
from pathlib import Path
import pytest

HANG = 1800  # seconds; it ends a test that hangs, and measures nothing: no test may fail because a machine is busy

root = Path(__file__).resolve().parent.parent
# of every process: one thread (tests run beside each other, and two processes round alike), and offline
os.environ.update(OMP_NUM_THREADS='1', PYTHONPATH=str(root), HF_HUB_OFFLINE='1', PYTHONUTF8='1')
notebooks = sorted([*root.glob('nbs/[!_.]*.ipynb'), *root.glob('nbs/solutions/[!_.]*.ipynb')])

def module_name(path): return '.'.join(path.relative_to(root/'craft_nb').with_suffix('').parts)
modules = {module_name(p): p for p in sorted(root.glob('craft_nb/**/[!_]*.py'))}

def name(path): return path.relative_to(root/'nbs').with_suffix('').as_posix()

def run(args, cwd=root, timeout=HANG, **env):
    "Run `args` in a process group of its own; return (exit status, output), or end the group after `timeout` seconds"
    p = subprocess.Popen([str(a) for a in args], cwd=cwd, env={**os.environ, **env}, text=True, start_new_session=True,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try: out, _ = p.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        return 'timeout', f'{p.communicate()[0]}\nended after {timeout} s'
    return p.returncode, out

def py(code, *args, **kw):
    "Run `code` with `args` in a fresh interpreter"
    return run([sys.executable, '-c', code, *args], **kw)

def script(name):
    "A file of `scripts/`, as a module"
    spec = importlib.util.spec_from_file_location(name, root/f'scripts/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def build_site(tmp, *options):
    "Build the site below a folder, without a problem in it; return where it lies"
    rc, out = run([sys.executable, root/'scripts/docs.py', '--out', tmp/'site', '--work', tmp/'pages', *options])
    print(out)
    assert rc == 0 and ' 0 problems' in out, out
    return tmp/'site'

# a server that holds the libraries of the notebooks (none of ours): its children start without five seconds of imports
forks = multiprocessing.get_context('forkserver')
forks.set_forkserver_preload(['execnb.shell', 'torch', 'timm', 'open_clip', 'matplotlib.pyplot', 'ipywidgets',
                              'sklearn.linear_model', 'scipy.stats'])

def _child(f, args, out):
    os.setsid()
    for fd in (1, 2): os.dup2(os.open(out, os.O_WRONLY | os.O_APPEND), fd)
    f(*args)

def in_fork(f, *args, timeout=HANG):
    "Call `f`, a function of a test's module, in a process like `run`'s; return (exit status, output)"
    with tempfile.NamedTemporaryFile('w+') as out:
        p = forks.Process(target=_child, args=(f, args, out.name))
        p.start()
        p.join(timeout)
        rc, ended = p.exitcode, ''
        if rc is None:
            os.killpg(p.pid, signal.SIGKILL)
            p.join()
            ended = f'\nended after {timeout} s'
        return rc, Path(out.name).read_text() + ended

def changed_notebooks():
    "Notebooks that differ from the branch `main`, or from the last commit where there is no such branch"
    git = ['git', '-C', root]
    rc, base = run([*git, 'merge-base', 'HEAD', 'main'])
    against = base.strip() if rc == 0 else 'HEAD'
    _, differ = run([*git, 'diff', '--name-only', '--relative', against, '--', 'nbs'])
    _, new = run([*git, 'ls-files', '--others', '--exclude-standard', '--', 'nbs'])
    paths = {root/line for line in (differ + new).splitlines()}
    return [p for p in notebooks if p in paths]

def pytest_addoption(parser):
    parser.addoption('--changed', action='store_true', help='of the notebooks, run those that git says were changed')

ALONE = 'test_notebooks.py',  # each test of these is a process of its own, and shares nothing

@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "Send a file's tests to one process, which makes their fixtures once; those of `ALONE` go wherever there is room"
    from xdist.scheduler import LoadScopeScheduling
    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split('::')[0]
            return nodeid if file.endswith(ALONE) else file
    return ByFile(config, log)

def said_seconds(path):
    "How long a notebook says that it runs; its answers take as long, more or less"
    text = (root/'nbs'/path.name).read_text(encoding='utf-8')
    said = re.search(r'(?:[Rr]uns\W* in|to read,? and)(?: about)? (\d+) s', text)
    return int(said[1]) if said else 0

def path_of(item):
    "The notebook that a test runs; None if it runs none"
    if item.path.name != 'test_notebooks.py' or not hasattr(item, 'callspec'): return None
    return item.callspec.params.get('path')

def pytest_collection_modifyitems(config, items):
    "Long notebooks first, so that no process ends with one; with --changed, leave out those that stand as in git"
    items.sort(key=lambda item: -said_seconds(path_of(item)) if path_of(item) else 0)
    if not config.getoption('--changed'): return
    changed = changed_notebooks()
    def is_other(item): return path_of(item) is not None and path_of(item) not in changed
    left_out = [item for item in items if is_other(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
