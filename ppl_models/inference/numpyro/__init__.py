"""Train and evaluate any (model, guide) pair of NumPyro programs."""

import lazy_loader

from ppl_models.numpyro import installed as installed

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
