"""The widgets, driven in a real browser: JupyterLab, headless Chromium, a slider moved by keys. `make test-browser` runs this.

Chromium is the system's own (Debian: `apt-get install chromium`; or name one in CHROMIUM)."""
import json, os, re, shutil, signal, subprocess, sys, time
from pathlib import Path
import pytest

root = Path(__file__).resolve().parent.parent.parent
chromium = os.environ.get('CHROMIUM') or next((p for n in ('chromium', 'chromium-browser', 'google-chrome') if (p := shutil.which(n))), None)
pytestmark = pytest.mark.skipif(not chromium, reason='no Chromium: apt-get install chromium, or name one in CHROMIUM')
has_widget = lambda p: re.search(r'^interact\(', '\n'.join(''.join(c['source']) for c in json.loads(p.read_text(encoding='utf-8'))['cells']), flags=re.M)
notebooks = [p for p in sorted(root.glob('nbs/[!_.]*.ipynb')) if has_widget(p)]

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "Address of a JupyterLab on a copy of the notebooks"
    tmp = tmp_path_factory.mktemp('lab')
    shutil.copytree(root/'nbs', tmp/'nbs')
    plain = tmp/'settings/@jupyterlab/notebook-extension'
    plain.mkdir(parents=True)
    (plain/'tracker.jupyterlab-settings').write_text('{"windowingMode": "none"}')  # cells out of sight are drawn, too
    env = {**os.environ, 'PYTHONPATH': str(root), 'JUPYTERLAB_SETTINGS_DIR': str(tmp/'settings'), 'JUPYTER_RUNTIME_DIR': str(tmp/'run'), 'IPYTHONDIR': str(tmp/'ipython')}
    log = open(tmp/'log', 'w+')
    p = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--port=0', '--IdentityProvider.token=', '--expose-app-in-browser',
                          f'--ServerApp.root_dir={tmp}/nbs', '--ServerApp.open_browser=False'], env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(120):
            found = re.search(r'http://(?:localhost|127\.0\.0\.1):\d+', (tmp/'log').read_text())
            if found: break
            time.sleep(.5)
        assert found, (tmp/'log').read_text()
        yield found[0]
    finally:
        os.killpg(p.pid, signal.SIGTERM)
        p.wait(20)

@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        yield b
        b.close()

def picture(widget):
    "What a widget shows: its figure, or its text"
    return widget.evaluate("w => [...w.querySelectorAll('.jp-OutputArea-output img')].map(i => i.src).join() || w.querySelector('.jp-OutputArea')?.innerText")

@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_widgets(lab, browser, path, tmp_path):
    "Every slider of every widget changes what is shown, and no cell and no callback ends in an error"
    page = browser.new_page(viewport={'width': 1400, 'height': 1000})
    page.goto(f'{lab}/lab/tree/{path.name}?reset')
    page.wait_for_function('window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === "idle"', timeout=90_000)
    page.evaluate("() => { window.ran = 0; window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => window.ran = 1) }")
    page.wait_for_function('window.ran === 1', timeout=240_000)
    errors = lambda: page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]').all_inner_texts()
    assert not errors(), errors()[0]
    widgets = page.locator('.widget-interact').all()
    assert widgets, 'no widget was drawn'
    moved = 0
    for w in widgets:
        w.scroll_into_view_if_needed()
        for slider in w.locator('.noUi-handle').all():
            old, key = picture(w), 'ArrowLeft' if slider.get_attribute('aria-valuenow') == slider.get_attribute('aria-valuemax') else 'ArrowRight'
            for _ in range(3): slider.press(key)
            deadline = time.time() + 30
            while picture(w) == old and time.time() < deadline: page.wait_for_timeout(200)
            assert picture(w) != old, 'the slider moved and nothing changed'
            moved += 1
        page.wait_for_timeout(500)
        w.screenshot(path=tmp_path/f'{path.stem}_{moved}.png')
    assert not errors(), errors()[0]
    print(f'{path.stem}: {len(widgets)} widgets, {moved} sliders moved; pictures in {tmp_path}')
    page.close()
