"""The command line: list, train, evaluate, sample, inspect, demo."""

from . import catalogue, train, evaluate, inspect, demo  # isort: skip  (in the order that --help shows)
from .app import app as app

__all__ = ["app", "catalogue", "demo", "evaluate", "inspect", "train"]
