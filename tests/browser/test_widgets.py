"The widgets, driven in a real browser: JupyterLab, headless Chromium, a slider moved by keys."
import json, os, re, shutil, signal, subprocess, sys, time
import pytest
from conftest import HANG, root

pytest_plugins = 'chromium',

def has_widget(path):
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    source = '\n'.join(''.join(c['source']) for c in cells)
    return re.search(r'^interact\(', source, flags=re.M)

notebooks = [p for p in sorted(root.glob('nbs/[!_.]*.ipynb')) if has_widget(p)]

def address(process, log):
    "What a JupyterLab writes into its log once it can be reached"
    end = time.monotonic() + HANG
    while process.poll() is None and time.monotonic() < end:
        found = re.search(r'http://(?:localhost|127\.0\.0\.1):\d+', log.read_text())
        if found: return found[0]
        time.sleep(.5)
    pytest.fail(log.read_text())

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "Address of a JupyterLab on a copy of the notebooks"
    tmp = tmp_path_factory.mktemp('lab')
    shutil.copytree(root/'nbs', tmp/'nbs')
    plain = tmp/'settings/@jupyterlab/notebook-extension'
    plain.mkdir(parents=True)
    (plain/'tracker.jupyterlab-settings').write_text('{"windowingMode": "none"}')  # cells out of sight are drawn, too
    env = os.environ | {
        'PYTHONPATH': str(root),
        'JUPYTERLAB_SETTINGS_DIR': str(tmp/'settings'),
        'JUPYTER_RUNTIME_DIR': str(tmp/'run'),
        'IPYTHONDIR': str(tmp/'ipython')}
    options = [
        '--no-browser', '--allow-root', '--port=0', '--IdentityProvider.token=', '--expose-app-in-browser',
        f'--ServerApp.root_dir={tmp}/nbs', '--ServerApp.open_browser=False']
    with open(tmp/'log', 'w+') as log:
        p = subprocess.Popen(
            [sys.executable, '-m', 'jupyterlab', *options],
            env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield address(p, tmp/'log')
    finally:
        os.killpg(p.pid, signal.SIGTERM)
        p.wait(HANG)

def picture(widget):
    "What a widget shows: its figure, or its text"
    return widget.evaluate('''w =>
        [...w.querySelectorAll('.jp-OutputArea-output img')].map(i => i.src).join()
        || w.querySelector('.jp-OutputArea')?.innerText''')

IDLE = 'window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === "idle"'
RUN_ALL = '''() => {
    window.ran = 0
    window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => window.ran = 1)
}'''
ERRORS = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]'

def move(page, widget, slider):
    "Press an arrow key three times, and wait until the widget shows something else"
    at_end = slider.get_attribute('aria-valuenow') == slider.get_attribute('aria-valuemax')
    old = picture(widget)
    for _ in range(3): slider.press('ArrowLeft' if at_end else 'ArrowRight')
    end = time.monotonic() + HANG
    while picture(widget) == old and time.monotonic() < end: page.wait_for_timeout(200)
    assert picture(widget) != old, 'the slider moved and nothing changed'

@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_widgets(lab, browser, path, tmp_path):
    "Every slider of every widget changes what is shown, and no cell and no callback ends in an error"
    page = browser.new_page(viewport={'width': 1400, 'height': 1000})
    page.set_default_timeout(1000*HANG)
    page.goto(f'{lab}/lab/tree/{path.name}?reset')
    page.wait_for_function(IDLE)
    page.evaluate(RUN_ALL)
    page.wait_for_function('window.ran === 1')
    def errors(): return page.locator(ERRORS).all_inner_texts()
    assert not errors(), errors()[0]
    widgets = page.locator('.widget-interact').all()
    assert widgets, 'no widget was drawn'
    moved = 0
    for w in widgets:
        w.scroll_into_view_if_needed()
        for slider in w.locator('.noUi-handle').all():
            move(page, w, slider)
            moved += 1
        page.wait_for_timeout(500)   # the callbacks of all three keys are under way
        page.wait_for_function(IDLE)
        w.screenshot(path=tmp_path/f'{path.stem}_{moved}.png')
    assert not errors(), errors()[0]
    print(f'{path.stem}: {len(widgets)} widgets, {moved} sliders moved; pictures in {tmp_path}')
    page.close()
