"The walls between the rooms: who may import whom, and what an import leaves alone."
import ast, re
import pytest
from conftest import py, root

rooms = {m[1]: p.stem for p in root.glob('nbs/[0-9][0-9]_*.ipynb')
         if (m := re.search(r'#\| *default_exp (\w+)', p.read_text(encoding='utf-8')))}
each = pytest.mark.parametrize('room', rooms)

def imports(room):
    "Names of the modules that a room imports; those of this package without their prefix"
    src = (root/f'craft_nb/{room}.py').read_text(encoding='utf-8')
    for n in ast.walk(ast.parse(src)):
        if isinstance(n, ast.Import): yield from (a.name for a in n.names)
        elif isinstance(n, ast.ImportFrom): yield (n.module or '').removeprefix('craft_nb.')

@each
def test_from_above(room):
    "A room imports only from rooms above its own, in the order of the notebooks' file names"
    assert not [m for m in imports(room) if rooms.get(m, '') >= rooms[room]]

@each
def test_behind_the_box(room):
    "Only `clip` and `service` know that a CLIP exists"
    if room not in ('clip', 'service'): assert 'open_clip' not in {m.split('.')[0] for m in imports(room)}

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
