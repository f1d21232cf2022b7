"""Arrays and records in, figures and ArviZ objects out; matplotlib and ArviZ are imported when the first is made."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
