"""Data sets as rows of stored values with the transform a model sees.

>>> from ppl_models import data
>>> train, test = data.load("digits")
>>> train[0].shape, len(test)
(torch.Size([64]), 300)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
