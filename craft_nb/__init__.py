__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING: # for editors; at run time a name is looked up when it is first asked for, since torch takes seconds
    from craft_nb.checkpoint import Checkpoint
    from craft_nb.clip import CLIPBlackBox
    from craft_nb.craft import CraFT
    from craft_nb.data import fewshot, tasks
    from craft_nb.local import FusedProbes, LocalProbe
    from craft_nb.probes import Probes
    from craft_nb.service.client import RemoteBlackBox
    from craft_nb.tuning import tune

_home = dict(Checkpoint='checkpoint', CLIPBlackBox='clip', CraFT='craft', fewshot='data', tasks='data',
             Probes='probes', FusedProbes='local', LocalProbe='local', RemoteBlackBox='service.client',
             tune='tuning')
__all__ = [*_home]

def __getattr__(name):
    if name not in _home: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_home[name]}'), name)

def __dir__(): return [*globals(), *_home]
