"""Objectives by the words of a command line: "free-bits:nats=0.5", "info-vae:alpha=1,lambda=100,kernel=imq"."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ppl_models.inference as inference
from ppl_models.inference.objectives import discrepancies
from ppl_models.parts.arguments.checked import check, declared
from ppl_models.programs.legible import cut, quoted

from . import names

WORDS = (  # the names of functions, with hyphens
    "elbo",
    "free-bits",
    "soft-free-bits",
    "adaptive-free-bits",
    "geco",
    "rewo",
    "vhp",
    "semi-supervised",
    "importance-weighted",
    "unregularized",
    "info-vae",
    "moment-matching",
)
OF_MMD = ("kernel", "estimator")


def objective_of(spec: str) -> Callable:
    """The objective of a text, a word with options after a colon; it serves both backends.

    The options are those of the function: `free-bits:nats=0.5,per=unit`. Of "info-vae" they are alpha and lambda, and
    how its discrepancy is measured: `kernel` and `estimator` of `mmd`, or `discrepancy=moments`.

    Raises:
        ValueError: an unknown word or option.

    >>> objective_of("free-bits:nats=0.5").keywords
    {'nats': 0.5}
    """
    word, _, rest = spec.partition(":")
    if word not in WORDS:
        near = names.nearest(word, WORDS)
        hint = f"; did you mean {near!r}?" if near else ""
        raise ValueError(f"objective {quoted(spec)}: found {quoted(word)}, want one of {', '.join(WORDS)}{hint}")
    function = objective_function(word)
    extra, options = names.parse([part for part in rest.split(",") if part], "objective")
    if extra:
        raise ValueError(f"objective {quoted(spec)}: found {quoted(extra[0])}, want options as name=value")
    found = _with(function, options, spec)
    if isinstance(function, type):  # an objective with state: an object, where the others are functions
        return found()
    return found if found.keywords else function


def objective_function(word: str) -> Callable:
    """The function, or the class of an objective with state, of one of `WORDS`."""
    return getattr(inference, word.replace("-", "_"))


def _example(spec: str, function: Callable) -> str:
    """The word with the options that have no default."""
    parameters = inspect.signature(function).parameters.values()
    needed = [p.name.rstrip("_") for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    return f"{spec.partition(':')[0]}:{','.join(f'{name}=1' for name in needed)}"


def _with(function: Callable, options: dict[str, Any], spec: str) -> partial:
    """The function with options, those of a discrepancy gathered in one."""
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    told = [name.rstrip("_") for name in known if name != "discrepancy"]
    told += [*OF_MMD, "discrepancy"] if "discrepancy" in known else []
    chosen: dict[str, Any] = {}
    kinds = declared(function)
    for name, value in options.items():
        if name not in told:
            raise ValueError(
                f"objective {quoted(spec)}: found the option {quoted(name)}, want some of {', '.join(told) or 'none'}"
            )
        if name == "discrepancy":
            _check_word(spec, name, value, ("mmd", "moments"))
            chosen[name] = getattr(discrepancies, value)
        elif name not in OF_MMD:
            chosen[name if name in known else f"{name}_"] = value
    for parameter in inspect.signature(function).parameters.values():
        name, usual = parameter.name, parameter.default
        if parameter.kind is not parameter.KEYWORD_ONLY or name == "discrepancy":
            continue
        if name not in chosen and usual is parameter.empty:
            raise ValueError(f"objective {quoted(spec)}: found no {name.rstrip('_')}, try {_example(spec, function)}")
        if name in chosen and name in kinds:
            chosen[name] = check(f"objective {quoted(spec)}", name.rstrip("_"), chosen[name], kinds[name], usual)
    of_mmd = {name: value for name, value in options.items() if name in OF_MMD}
    if of_mmd:
        for name, known in (("kernel", discrepancies.KERNELS), ("estimator", discrepancies.ESTIMATORS)):
            if name in of_mmd:
                _check_word(spec, name, of_mmd[name], (*known,))
        if options.get("discrepancy", "mmd") != "mmd":
            raise ValueError(f"objective {quoted(spec)}: found {', '.join(of_mmd)}, which are of discrepancy=mmd alone")
        chosen["discrepancy"] = partial(discrepancies.mmd, **of_mmd)
    return partial(function, **chosen)


def _check_word(spec: str, name: str, value: Any, known: Sequence[str]) -> None:
    """Raise ValueError for an option of the objective `spec` that is none of the known words."""
    if value not in known:
        want = " or ".join(known) if len(known) == 2 else f"one of {', '.join(known)}"
        raise ValueError(f"objective {quoted(spec)}: found {name}={cut(str(value), 100)}, want {want}")
