"""The guides as NumPyro programs (Equinox modules): same file names, sites and parameter names as in `guides`."""

import lazy_loader

from ppl_models.numpyro import installed as installed

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
