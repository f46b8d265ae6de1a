"What is generated equals what it is generated from, and the notebooks are clean."
import json, re, shutil, sys
import pytest
from conftest import name, notebooks, py, root, run

machine = re.compile(r'(?<![\w.:/])/(home|root|tmp|Users|work|var|opt)/[\w.-]+|site-packages/')
each = pytest.mark.parametrize('path', notebooks, ids=name)

@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    "The modules as `nbdev_export` writes them from the notebooks alone"
    tmp = tmp_path_factory.mktemp('export')
    (tmp/'craft_nb').mkdir()
    for f in 'settings.ini', 'craft_nb/__init__.py': shutil.copy(root/f, tmp/f)
    shutil.copytree(root/'nbs', tmp/'nbs', ignore=shutil.ignore_patterns('.*'))
    rc, out = py("from nbdev.doclinks import nbdev_export; nbdev_export(path='nbs')", cwd=tmp, PYTHONPATH='')
    assert rc == 0, out
    made = tmp/'craft_nb'
    return {p.relative_to(made).as_posix(): p.read_text(encoding='utf-8') for p in made.rglob('*.py')}

def test_no_orphans(exported):
    ours = {p.relative_to(root/'craft_nb').as_posix() for p in root.glob('craft_nb/**/*.py')}
    assert ours == set(exported), 'modules without a notebook, or not exported: run `make export`'

def test_export_in_sync(exported):
    old = [k for k, v in exported.items() if (root/'craft_nb'/k).read_text(encoding='utf-8') != v]
    assert not old, f'out of date: {old}; run `make export`'

def test_readme_in_sync():
    rc, out = run([sys.executable, 'scripts/readme.py', '--check'])
    assert rc == 0, out

@each
def test_clean(path):
    "No counts, no stray metadata, no random ids, no machine's paths, no error left in an output"
    nb = json.loads(path.read_text(encoding='utf-8'))
    cells = nb['cells']
    code = [c for c in cells if c['cell_type'] == 'code']
    outs = [o for c in code for o in c['outputs']]
    plain = [''.join(o.get('data', {}).get('text/plain', '')) for o in outs]
    text = [''.join(o.get('text', '')) + shown for o, shown in zip(outs, plain)]
    assert set(nb['metadata']) <= {'kernelspec'}
    assert not any(c['metadata'] for c in cells)
    assert len({c['id'] for c in cells}) == len(cells)
    assert not any(c['execution_count'] for c in code) and not any(o.get('execution_count') for o in outs)
    assert outs, 'committed without outputs: run it, then save'
    assert not [o['ename'] for o in outs if o['output_type'] == 'error']
    bare = [o for o, shown in zip(outs, plain) if '<Figure' in shown and 'image/png' not in o['data']]
    assert not bare, 'a figure was named, not drawn: import matplotlib.pyplot in the notebook'
    assert not [t for t in text if machine.search(t)], 'an output names a path of the machine it ran on'
    assert not [t for o, t in zip(outs, text) if o.get('name') == 'stderr' and 'Warning' in t]
    assert not [o for o in outs if any('widget' in k for k in o.get('data', {}))], 'clear the widgets\' outputs'

def test_workflow():
    "The workflow runs targets that the Makefile has, on each Python that setup.py names"
    text = (root/'.github/workflows/ci.yml').read_text(encoding='utf-8')
    asked = set(re.findall(r'run: make ([\w-]+)', text))
    targets = set(re.findall(r'^([\w-]+):', (root/'Makefile').read_text(encoding='utf-8'), re.M))
    assert {'check', 'test', 'docs'} <= asked <= targets
    versions = re.search(r"py_versions = '([^']+)'", (root/'setup.py').read_text(encoding='utf-8'))[1].split()
    for listed in re.findall(r'python-version: \[([^]]+)\]', text): assert re.findall(r'[\d.]+', listed) == versions
