"What the tests share: the project's root, and processes that cannot hang or outlive a test."
import os, signal, subprocess, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
notebooks = sorted([*root.glob('nbs/[!_.]*.ipynb'), *root.glob('nbs/solutions/[!_.]*.ipynb')])
modules = {'.'.join(p.relative_to(root/'craft_nb').with_suffix('').parts): p for p in sorted(root.glob('craft_nb/**/[!_]*.py'))}
name = lambda p: p.relative_to(root/'nbs').with_suffix('').as_posix()

def run(args, cwd=root, timeout=300, **env):
    "Run `args` in a process group of its own; return (exit status, output), or end the group after `timeout` seconds"
    env = {**os.environ, 'PYTHONPATH': str(root), 'HF_HUB_OFFLINE': '1', 'PYTHONUTF8': '1', **env}
    p = subprocess.Popen([str(a) for a in args], cwd=cwd, env=env, text=True, start_new_session=True,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try: out, _ = p.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        return 'timeout', f'{p.communicate()[0]}\nended after {timeout} s'
    return p.returncode, out

def py(code, *args, **kw):
    "Run `code` with `args` in a fresh interpreter"
    return run([sys.executable, '-c', code, *args], **kw)
