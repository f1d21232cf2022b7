"""The command line: list, train, evaluate, sample, compare-runs, inspect, recipe, results, demo."""

from . import catalogue, train, evaluate, compare_runs, inspect, recipe, results, demo  # isort: skip  (in the order that --help shows)
from .app import app as app

__all__ = ["app", "catalogue", "compare_runs", "demo", "evaluate", "inspect", "recipe", "results", "train"]
