"Every public name says in one line what it is, and every parameter what it takes."
import importlib, inspect
import pytest
from fastcore.docments import docments
from conftest import modules

def ours(o): return getattr(o, '__module__', '').startswith('craft_nb.')

def public(mod):
    "(name, function or class) of all that `mod` exports, methods too"
    for n in mod.__all__:
        o = getattr(mod, n)
        if not ours(o) or not (inspect.isclass(o) or inspect.isfunction(o)): continue
        yield n, o
        if inspect.isclass(o):
            for k, m in vars(o).items():
                m = getattr(m, '__func__', getattr(m, 'fget', m))
                if not k.startswith('_') and inspect.isfunction(m) and ours(m): yield f'{n}.{k}', m

def above(name, mod):
    "The same method in the class's parents"
    cls, _, k = name.partition('.')
    return [vars(c)[k] for c in getattr(mod, cls).__mro__[1:] if k in vars(c)] if k else []

def silent(name, o, mod):
    "What `o` leaves unsaid; a method may leave what its parent said"
    up = above(name, mod)
    if not (inspect.getdoc(o) or any(inspect.getdoc(u) for u in up)): yield f'{name}: no docstring'
    if inspect.isclass(o) and o.__init__ is object.__init__ or up: return
    try: said = docments(o, full=True, returns=False)
    except (TypeError, ValueError, OSError): return
    try: pars = inspect.signature(o).parameters.values()
    except ValueError: return
    for p in pars:
        if p.name in ('self', 'cls') or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD): continue
        if not getattr(said.get(p.name), 'docment', None): yield f'{name}: {p.name} has no docment'

@pytest.mark.parametrize('name', modules)
def test_documented(name):
    mod = importlib.import_module(f'craft_nb.{name}')
    bad = [s for n, o in public(mod) for s in silent(n, o, mod)]
    assert not bad, '\n'.join(bad)
