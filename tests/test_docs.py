"The site: built from the notebooks, every link in it leads somewhere, nothing in it is loaded from elsewhere."
import re, sys
import pytest
from conftest import modules, notebooks, root, run

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    tmp = tmp_path_factory.mktemp('site')
    rc, out = run([sys.executable, 'scripts/docs.py', '--out', tmp/'site', '--work', tmp/'pages'])
    print(out)
    assert rc == 0 and ' 0 problems' in out, out
    return tmp/'site'

def test_pages(site):
    "A page for each notebook, each set of answers and each module"
    pages = {p.relative_to(site).with_suffix('').as_posix() for p in site.rglob('*.html')}
    assert {p.relative_to(root/'nbs').with_suffix('').as_posix() for p in notebooks} <= pages
    assert {f'api/{m}' for m in modules} <= pages and 'search' in pages

def test_reference(site):
    "Docments reach the page, with a link to the source"
    text = (site/'api/losses.html').read_text(encoding='utf-8')
    assert 'weight of the consistency term' in text and '_modules/craft_nb/losses.html' in text

def test_chapter(site):
    "Formulas need no script, directives and hidden cells are gone, names lead to the reference"
    text = (site/'09_losses.html').read_text(encoding='utf-8')
    assert '<math' in text and '#| export' not in text and 'default_exp' not in text
    assert 'api/losses.html#craft_nb.losses.kl_div' in text

def test_search(site):
    assert re.search(r'"?ledger"?:', (site/'searchindex.js').read_text(encoding='utf-8'))

def test_broken_links_are_found(tmp_path):
    "The check itself: a dead link, a dead anchor, a script from elsewhere"
    sys.path.insert(0, str(root/'scripts'))
    try: from docs import broken
    finally: sys.path.pop(0)
    (tmp_path/'a.html').write_text(
        '<a href="b.html">x</a>'
        '<a href="#y">x</a>'
        '<a id="z" href="#z">x</a>'
        '<a href="https://e.org">x</a>'
        '<script src="https://e.org/x.js"></script>')
    problems = [b.split(': ', 1)[1] for b in broken(tmp_path)]
    assert problems == [
        'loads https://e.org/x.js from elsewhere',
        'b.html leads nowhere',
        '#y: no such place on that page']
