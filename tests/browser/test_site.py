"The site in a real browser: pages as wide as their window, code that is not cut on a laptop."
import pytest
from conftest import build_site

pytest_plugins = 'chromium',

@pytest.fixture(scope='module')
def site(tmp_path_factory): return build_site(tmp_path_factory.mktemp('site'))

MEASURE = """() => {
    const cells = [...document.querySelectorAll('article pre')]
    const cut = cells.filter(cell => cell.scrollWidth > cell.clientWidth + 1)
    return [cells.length, cut.length, document.documentElement.scrollWidth - innerWidth]
}"""

@pytest.mark.parametrize('width', [1280, 390])
def test_width(site, browser, width):
    "No page is wider than its window; at 1280 pixels fewer than one cell in fifty is cut, on a phone code is scrolled"
    page = browser.new_page(viewport={'width': width, 'height': 900})
    cells = cut = 0
    for path in sorted(site.glob('*.html')):
        page.goto(path.as_uri())
        n, c, over = page.evaluate(MEASURE)
        assert over <= 0, f'{path.name} is {over} pixels wider than {width}'
        cells, cut = cells + n, cut + c
    print(f'{width} pixels: {cut} of {cells} cells are cut')
    assert width < 1280 or cut < cells/50
