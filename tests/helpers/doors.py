"""`doors`: every public function and class with its declared arguments; `WRONG`: values of wrong kinds; `told`."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ppl_models.inference import FitConfig
from ppl_models.parts.arguments.checked import declared
from tests.helpers.configurations import NUMBERS

TORCH = "ppl_models", "guides", "ppl_models.inference", "ppl_models.factorization", "ppl_models.data"
TORCH += "ppl_models.views", "ppl_models.runs", "ppl_models.runs.folders.configuration", "ppl_models.runs.training"
FUNCTIONS = {
    "ppl_models.runs.folders.configuration": ["configuration"],
    "ppl_models.runs.training": ["train", "resume"],
}
JAX = "ppl_models.numpyro", "guides.numpyro", "ppl_models.inference.numpyro"

# what functions give, and no one makes; protocols; what has no argument
RESULTS = "ActiveUnits Annealed Calibration Callback Chain Difference EdgePrice Evaluation Factorization"
RESULTS += " LoadedRun Mixing MutualInformation Prices Probe Reference Report Reversal Row Run Sandwich Terms"
RESULTS += " TrainingStep Verdict"
RESULTS += " elbo importance_weighted unregularized"  # of every step, which look at nothing that `fit` has looked at
TRAINS = {"fit": ("model", "guide", "data"), "price_edges": ("pair", "train", "test")}
ABSTRACT = "OrderedGuide", "TopDownGuide"
BARE = "positional argument", "unexpected keyword", "object is not", "has no len()", "not supported between"
BARE += "has no attribute", "argument must be", "keywords must be", "is not iterable", "argument of type"
# arguments of any kind: the messages about them tell of columns, of losses of a library's, of names of sites
ANY = {"data", "validation", "callbacks", "loss", "family", "found", "x", "y", "values", "states", "means", "grid"}
ANY |= {
    "images",
    "rows",
    "bounds",
    "train",
    "test",
    "records",
    "panels",
    "levels",
    "figure",
    "chain",
    "source",
    "module",
    "title",
}


def doors(rooms: tuple[str, ...]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """(room.name, function or class) of all that the faces of some rooms export and that takes arguments."""
    seen = set()
    for room in rooms:
        face = importlib.import_module(room)
        names = FUNCTIONS.get(room) or getattr(face, "__all__", None)
        names = names or [name for name, value in vars(face).items() if _of_room(value, room)]
        for name in names:
            value = getattr(face, name)
            if not callable(value) or id(value) in seen or name in RESULTS.split() or name.startswith("_"):
                continue
            seen.add(id(value))
            if parameters(value) and not (inspect.isabstract(value) or name in ABSTRACT):
                yield f"{room}.{name}", value


def parameters(function: Callable[..., Any]) -> list[str]:
    """The arguments that have a name, of a class those of its constructor."""
    variable = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind not in variable]


def kinds(function: Callable[..., Any]) -> dict[str, Any]:
    """Argument -> its kind; of what trains the options of `fit`, too."""
    trains = getattr(function, "__name__", "") in TRAINS
    return {**(declared(FitConfig) if trains else {}), **declared(function)}


def wrong() -> dict[str, Any]:
    """Values of many kinds, by what they are: none is right everywhere, and most are right nowhere."""
    return {
        "None": None,
        "a word": "elbow",
        "a number as text": "1e-3",
        "two lines": "a\nb",
        "a long text": "x" * 10_000,
        "bytes": b"abc",
        "True": True,
        "a NumPy truth": np.bool_(True),
        **NUMBERS,
        "a NumPy number": np.float32("nan"),
        "a fraction": Fraction(-1, 2),
        "a decimal": Decimal("0.5"),
        "complex": 1j,
        "no list": [],
        "a list of words": ["a", "b"],
        "a list of numbers": [0.5, -1],
        "a tuple of None": (None, None),
        "nested": [[1, 2], [3]],
        "no mapping": {},
        "a mapping": {"a": 1},
        "a mapping of numbers": {3: "x"},
        "a set": {1, 2},
        "an array of words": np.array(["a", "b"]),
        "an array of objects": np.array([object(), None]),
        "an empty array": np.zeros((0, 4)),
        "an array of complex numbers": np.ones((3, 4), complex),
        "a tensor": torch.full((2, 3), float("nan")),
        "a large tensor": torch.zeros(300, 4) - 7,
        "a sparse tensor": torch.eye(4).to_sparse(),
        "a scalar tensor": torch.tensor(-2.5),
        "a class": int,
        "a class of modules": torch.nn.Linear,
        "a module": torch.nn.Linear(2, 3),
        "a function of nothing": lambda: None,
        "a function of anything": lambda *args, **kwargs: None,
        "an object": object(),
        "a path": Path("not") / "there",
        "a generator": (i for i in range(3)),
        "a range": range(3),
        "a slice": slice(3),
        "not implemented": NotImplemented,
        "an error": ValueError("x"),
    }


def fault(error: BaseException) -> str:
    """The reason why an error is none of this library's in one line, "" if it is."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    raised = "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__", ""))
    text = str(error)
    if type(error) not in (ValueError, TypeError):
        return f"it is a {type(error).__name__}"
    if raised.partition(".")[0] not in ("ppl_models", "guides"):
        return f"it was raised in {raised}"
    if "\n" in text or len(text) > 500:
        return "it has several lines, or a very long one"
    return "it is Python's own" if any(words in text for words in BARE) else ""


def _of_room(value: Any, room: str) -> bool:
    return callable(value) and str(getattr(value, "__module__", "")).startswith(room)
