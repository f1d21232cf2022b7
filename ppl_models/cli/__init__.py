"""The command line, `app`: one command a file, imported in the order that its help shows."""

from . import catalogue, train, evaluate, report, compare_runs, ablate, share, inspect, recipe, results, demo  # isort: skip  (in the order that --help shows)
from .app import app as app, paragraphs

for _command in app.registered_commands:
    _command.help = paragraphs(_command.callback)

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
