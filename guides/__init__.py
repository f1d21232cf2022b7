"""Inference networks q(z | x), named by their structure and swappable on any model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
