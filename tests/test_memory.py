"A generation with 1,000 classes and 16,000 pictures stays under 2 GB: the 2.6 GB of its logits are never held at once."
from conftest import py

RUN = """
import re, torch
from pathlib import Path
from craft_nb.probes import IMAGENET_NAMES
from craft_nb.craft import CraFT
from craft_nb.lab.speed import Rehearsal
box = Rehearsal('craft-mini', IMAGENET_NAMES)
clf = CraFT(box, budget=41).fit(range(16000), torch.arange(16000) % 1000)
assert box.ledger.queries == 41 and box.ledger.bytes_out > 41*16000*1000*4 and clf.history_[0]['fitness'] > 0
print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])
"""

def test_peak_memory():
    rc, out = py(RUN)
    assert rc == 0, out
    assert int(out.split()[-1])*1024 < 2e9
