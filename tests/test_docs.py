"The site: built from the notebooks, every link in it leads somewhere, nothing in it is loaded from elsewhere."
import re
import pytest
from conftest import build_site, modules, notebooks, root, script

docs = script('docs')

@pytest.fixture(scope='module')
def site(tmp_path_factory): return build_site(tmp_path_factory.mktemp('site'), '--base', 'https://example.org/craft/')

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

def test_side_bar(site):
    "The course by its groups; answers and reference a line each, whose pages are listed while one of them is shown"
    def bar(page):
        text = (site/page).read_text(encoding='utf-8')
        return re.search(r'<div class="sidebar-tree">(.*?)</div>', text, flags=re.S)[1]
    groups = docs.course_map()
    assert sum(groups.values(), []) == [p.stem for p in notebooks if p.parent.name == 'nbs' and p.stem != 'index']
    for page in 'index.html', 'api/losses.html': assert all(f'>{group}</span>' in bar(page) for group in groups)
    assert 'href="api/heads.html"' not in bar('09_losses.html') and 'href="heads.html"' in bar('api/losses.html')
    here = re.findall(r'class="[^"]*current-page[^"]*"><a class="[^"]*" href="([^"]*)">([^<]*)', bar('09_losses.html'))
    assert here == [('#', '09 · The two losses')]

def test_tables(site):
    "A table that a cell writes in Markdown is set as a table"
    rule = re.compile(r'^\|(?: *:?-+:? *\|)+$', flags=re.M)  # the line below the heads
    raw = [p.name for p in site.glob('*.html') if rule.search(p.read_text(encoding='utf-8'))]
    assert raw == []
    tables = len(rule.findall((root/'README.md').read_text(encoding='utf-8')))
    assert (site/'index.html').read_text(encoding='utf-8').count('<table') == tables > 3

def test_found(site):
    "Search engines read what a page says of itself, and a list of all pages"
    said = re.search(r'<meta name="description" content="([^"]*)"', (site/'09_losses.html').read_text(encoding='utf-8'))
    assert said[1].startswith('One number for a prompt')
    places = re.findall('<loc>([^<]*)</loc>', (site/'sitemap.xml').read_text(encoding='utf-8'))
    assert {'https://example.org/craft/index.html', 'https://example.org/craft/api/losses.html'} <= {*places}

def test_download(site):
    "Each chapter's notebook can be taken away, as it stands here"
    text = (site/'09_losses.html').read_text(encoding='utf-8')
    copy = site/re.search(r'href="(_downloads/[^"]*09_losses.ipynb)"', text)[1]
    assert copy.read_bytes() == (root/'nbs/09_losses.ipynb').read_bytes()

def test_names_of_others():
    "`read` and `check` lead to the reference where they are imported or built; classes lead there anywhere"
    names = dict(read='lab.datasets', check='lab.integrity', CraFT='craft', kl_div='losses')
    def cell(kind, source): return dict(cell_type=kind, source=source, outputs=[], id=source, metadata={})
    nb = dict(cells=[
        cell('code', '#| default_exp losses'),
        cell('code', 'from craft_nb.lab.integrity import (\n    check, md5)'),
        cell('markdown', '`read` `check` `CraFT` `kl_div`')])
    out = docs.chapter(nb, names)['cells'][-2]['source']
    assert re.findall('<craft_nb.([^>]*)>', out) == ['lab.integrity.check', 'craft.CraFT', 'losses.kl_div']

def test_links():
    path = root/'nbs/solutions/09_losses.ipynb'
    assert docs.links(path) == '{download}`Download this notebook </notebooks/solutions/09_losses.ipynb>`'
    assert docs.links(path, 'https://github.com/a/b').split(' · ')[1:] == [
        '[Edit it](https://github.com/a/b/edit/main/nbs/solutions/09_losses.ipynb)',
        '[Open in Colab](https://colab.research.google.com/github/a/b/blob/main/nbs/solutions/09_losses.ipynb)']

def test_broken_links_are_found(tmp_path):
    "The check itself: a dead link, a dead anchor, a script from elsewhere"
    (tmp_path/'a.html').write_text(
        '<a href="b.html">x</a>'
        '<a href="#y">x</a>'
        '<a id="z" href="#z">x</a>'
        '<a href="https://e.org">x</a>'
        '<script src="https://e.org/x.js"></script>')
    problems = [b.split(': ', 1)[1] for b in docs.broken(tmp_path)]
    assert problems == [
        'loads https://e.org/x.js from elsewhere',
        'b.html leads nowhere',
        '#y: no such place on that page']
