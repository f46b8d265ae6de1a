"""A generation with 1,000 classes and 16,000 pictures stays under 2 GB: its logits are never held at once.

It has 16 candidates here, whose logits are 1.0 GB. If they were held, the peak would be 2.7 GB (5.4 GB with all forty);
as they come in pieces, their number makes no difference to it: 1.7 GB."""
from conftest import py

RUN = """
import re, torch
from pathlib import Path
from craft_nb.probes import IMAGENET_NAMES
from craft_nb.craft import CraFT
from craft_nb.lab.speed import Rehearsal
box = Rehearsal('craft-mini', IMAGENET_NAMES)
clf = CraFT(box, budget=17, popsize=16).fit(range(16000), torch.arange(16000) % 1000)
assert box.ledger.queries == 17 and box.ledger.bytes_out > 17*16000*1000*4 and clf.history_[0]['fitness'] > 0
print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])
"""

def test_peak_memory():
    rc, out = py(RUN)
    assert rc == 0, out
    assert int(out.split()[-1])*1024 < 2e9
