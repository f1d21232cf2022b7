"""The command line: list, train, evaluate, sample, report, compare-runs, ablate, share, inspect, recipe, results, demo."""

from . import catalogue, train, evaluate, report, compare_runs, ablate, share, inspect, recipe, results, demo  # isort: skip  (in the order that --help shows)
from .app import app as app

__all__ = [
    "ablate",
    "app",
    "catalogue",
    "compare_runs",
    "demo",
    "evaluate",
    "inspect",
    "recipe",
    "report",
    "results",
    "share",
    "train",
]
