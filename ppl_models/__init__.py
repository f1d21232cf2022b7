"""Deep generative models as Pyro programs, with guides (package `guides`) named by their structure."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
