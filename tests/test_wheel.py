"The wheel, built through the source distribution: small, complete, and light to import away from the repository."
import shutil, sys, zipfile
import pytest
from conftest import py, root, run

built = 'settings.ini setup.py MANIFEST.in LICENSE NOTICE README.md'.split()

@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "A wheel of the project"
    src, out = tmp_path_factory.mktemp('src'), tmp_path_factory.mktemp('dist')
    for f in built: shutil.copy(root/f, src)
    shutil.copytree(root/'craft_nb', src/'craft_nb', ignore=shutil.ignore_patterns('__pycache__'))
    rc, log = run([sys.executable, '-m', 'build', '--no-isolation', '--outdir', out, src], PYTHONPATH='')
    assert rc == 0, log
    return next(out.glob('*.whl'))

@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory):
    "A folder into which the wheel is installed, its requirements taken from the running environment"
    dst = tmp_path_factory.mktemp('site')
    rc, log = run([sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', '--target', dst, wheel])
    assert rc == 0, log
    return dst

def test_size(wheel):
    mb = wheel.stat().st_size/1e6
    print(f'{wheel.name}: {mb:.1f} MB')
    assert mb < 60

def test_contents(wheel):
    "Each asset of the repository, the licences, and nothing of the tests"
    names = zipfile.ZipFile(wheel).namelist()
    assets = [p.relative_to(root).as_posix() for p in (root/'craft_nb/assets').rglob('*') if p.is_file()]
    assert len(assets) > 2 and set(assets) <= set(names)
    assert any(n.endswith('open_clip_model.safetensors') for n in names) and 'craft_nb/assets/pictures.zip' in names
    assert {'LICENSE', 'NOTICE'} <= {n.rsplit('/', 1)[-1] for n in names}
    assert not [n for n in names if n.split('/')[0] != 'craft_nb' and '.dist-info/' not in n]

def test_import(site, tmp_path):
    "From the wheel, and quick: it loads nothing beside itself and the standard library"
    code = '''
import sys
old = set(sys.modules)
import craft_nb
packages = {name.split('.')[0] for name in set(sys.modules) - old}
print(craft_nb.__file__, *packages - set(sys.stdlib_module_names))
'''
    rc, out = py(code, cwd=tmp_path, PYTHONPATH=str(site))
    assert rc == 0, out
    file, *loaded = out.split()
    assert file.startswith(str(site)) and loaded == ['craft_nb'], out

@pytest.mark.parametrize('arg, says', [('--help', 'fit'), ('tasks', 'fashion')])
def test_command(site, tmp_path, arg, says):
    "The installed command answers, away from the repository"
    rc, out = run([sys.executable, site/'bin'/'craft-nb', arg], cwd=tmp_path, PYTHONPATH=str(site))
    assert rc == 0 and says in out, out
