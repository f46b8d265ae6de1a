"The rules of the house that a machine can hold: `ruff.toml`, over modules, notebooks, tests and scripts."
import sys
from conftest import run

def test_ruff():
    rc, out = run([sys.executable, '-m', 'ruff', 'check', '--output-format', 'concise'])
    assert rc == 0, out
