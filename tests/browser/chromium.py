"A headless Chromium for `make test-browser`: the system's own (Debian: `apt-get install chromium`), or CHROMIUM's."
import os, shutil
import pytest

def find_chromium():
    "Path of a browser, or None"
    names = 'chromium', 'chromium-browser', 'google-chrome'
    return os.environ.get('CHROMIUM') or next(filter(None, map(shutil.which, names)), None)

@pytest.fixture(scope='session')
def browser():
    from playwright.sync_api import sync_playwright
    chromium = find_chromium()
    if not chromium: pytest.skip('no Chromium: apt-get install chromium, or name one in CHROMIUM')
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        yield b
        b.close()
