"""The command line: list, train, evaluate, sample, inspect, recipe, demo."""

from . import catalogue, train, evaluate, inspect, recipe, demo  # isort: skip  (in the order that --help shows)
from .app import app as app

__all__ = ["app", "catalogue", "demo", "evaluate", "inspect", "recipe", "train"]
