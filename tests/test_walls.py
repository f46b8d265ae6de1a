"The walls between the rooms: who may import whom, and what an import leaves alone."
import ast, re
import pytest
from conftest import modules, py, root

def exported(path):
    "The module that a notebook writes, or None"
    m = re.search(r'#\| *default_exp ([\w.]+)', path.read_text(encoding='utf-8'))
    return m and m[1]

rooms = {exported(p): p.stem for p in sorted(root.glob('nbs/[0-9][0-9]_*.ipynb')) if exported(p)}
each = pytest.mark.parametrize('room', rooms)

def tree(room): return ast.parse(modules[room].read_text(encoding='utf-8'))

def imports(room):
    "(module, names) of each import of a room; modules of this package without its name, `` for the package itself"
    package = room.split('.')[:-1]
    for n in ast.walk(tree(room)):
        if isinstance(n, ast.Import): yield from ((a.name.removeprefix('craft_nb.'), []) for a in n.names)
        if not isinstance(n, ast.ImportFrom): continue
        above = package[:len(package) + 1 - n.level] if n.level else []
        module = '.'.join([*above, *(n.module or '').split('.')]).strip('.')
        names = [a.name for a in n.names]
        if module in ('', 'craft_nb'): yield from ((a, []) for a in names)       # `from craft_nb import x`
        else: yield module.removeprefix('craft_nb.'), names

def test_one_order():
    "A notebook's number is its place, and no number stands twice"
    numbers = [p.stem[:2] for p in sorted(root.glob('nbs/[0-9][0-9]_*.ipynb'))]
    assert len(set(numbers)) == len(numbers)

@each
def test_from_above(room):
    "A room imports only from rooms with a smaller number, and names what it takes"
    assert not [m for m, _ in imports(room) if rooms.get(m, '') >= rooms[room]]
    assert not [m for m, names in imports(room) if '*' in names]

CLIP = {'tower', 'clip'}       # the service reaches a CLIP through `clip`

@each
def test_behind_the_box(room):
    "Only `tower` and `clip` know open_clip"
    if room not in CLIP: assert 'open_clip' not in {m.split('.')[0] for m, _ in imports(room)}

GRADIENTS = {'refiner', 'heads', 'rivals.prompts', 'rivals.features', 'rivals.adapters', 'rivals.prior', 'rivals.ares'}

@each
def test_gradients(room):
    "Gradients are computed in the refiner, the heads of the probes, and the rivals that say they need them"
    calls = {n.func.attr for n in ast.walk(tree(room)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}
    if room not in GRADIENTS: assert not calls & {'backward', 'grad'}

@each
def test_size(room):
    "A room can be read in one sitting"
    lines = [l for l in modules[room].read_text(encoding='utf-8').splitlines() if l.strip() and not l.startswith('#')]
    assert len(lines) <= 345, len(lines)

def test_quiet_imports():
    "Importing the rooms moves no global random state and says nothing"
    code = """
import importlib, random, sys, numpy, torch
import httpx # where rich is installed, it draws a number: not ours
state = lambda: (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
old = state()
for room in sys.argv[1:]:
    importlib.import_module(f'craft_nb.{room}')
    if state() != old: sys.exit(f'importing {room} moved a global random state')
"""
    rc, out = py(code, *rooms)
    assert rc == 0 and not out, out

@pytest.mark.parametrize('room', ['service.client', 'craft', 'heads', 'probes', 'texts', 'apis'])
def test_light_imports(room):
    "The method and the client pull in no model and no server"
    heavy = 'torchvision', 'open_clip', 'timm', 'fastapi'
    rc, out = py(f"import sys, craft_nb.{room}; print([m for m in {heavy} if m in sys.modules])")
    assert rc == 0 and out.strip() == '[]', out

def test_from_the_top():
    "`from craft_nb import CraFT` works, and `import craft_nb` alone takes no torch"
    code = """
import sys, craft_nb
assert 'torch' not in sys.modules
for name in craft_nb.__all__: getattr(craft_nb, name)
try: craft_nb.nothing
except AttributeError: pass
"""
    rc, out = py(code)
    assert rc == 0, out

def test_editors_find_members():
    "An editor that reads the source finds what a user calls"
    import jedi
    wanted = dict(
        CraFT='fit predict predict_proba score save load zero_shot set_params',
        CLIPBlackBox='upload query query_chunks embed with_texts with_classes fingerprint forget left',
        Probes='fit predict price save load',
        FusedProbes='fit predict price save load asks',
        LocalProbe='fit predict save load',
        RemoteBlackBox='close account upload query')
    for name, members in wanted.items():
        code = f'from craft_nb import {name}\n{name}.'
        offers = jedi.Script(code, project=jedi.Project(root)).complete(2, len(name) + 1)
        missing = set(members.split()) - {o.name for o in offers}
        assert not missing, (name, missing)

SERVER = ['service.limits', 'service.handlers', 'service.app']
EXTRAS = 'fastapi', 'starlette', 'uvicorn', 'prometheus_client', 'ray', 'wandb', 'tensorboard'

def test_plain_install():
    "Without the extras every room but the server's is there, and `craft-nb serve` says what it needs"
    rooms = [f'craft_nb.{room}' for room in modules if room not in SERVER]
    code = f'''
import sys
for name in {EXTRAS!r}: sys.modules[name] = None
from importlib import import_module
for room in {rooms!r}: import_module(room)
from craft_nb.cli import main
main(['serve', '--store', sys.argv[1]])
'''
    rc, out = py(code, 'never-made.sqlite')
    assert rc == 1 and "pip install 'craft_nb[serve]'" in out, out
    assert not (root/'never-made.sqlite').exists()
