"""The models as NumPyro programs (Equinox modules), and what trains, evaluates and compares them; no torch in here.

Same file names, sites and parameter names as in `ppl_models`; the guides are in `guides.numpyro`.
"""

import lazy_loader

from . import installed as installed

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
