"""`check`: the programs that a file may name, which are those of the collection and a few autoguides; `allow`: others.

A run folder or a recipe may come from a stranger, and to import a module is to run it. So a name in a file is looked up
only where it is known, or where somebody in this process has said it: by `trust=`, by `--trust`, or by naming the
program for a training. What was said holds until the process ends.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import ppl_models
from ppl_models.programs.legible import quoted

# All programs that these packages export are known, and so are their ports.
FACES = tuple(f"{package}{port}" for port in ("", ".numpyro") for package in ("ppl_models", "guides"))
_BOTH = (
    "AutoNormal",
    "AutoDelta",
    "AutoDiagonalNormal",
    "AutoMultivariateNormal",
    "AutoLowRankMultivariateNormal",
    "AutoLaplaceApproximation",
    "AutoIAFNormal",
)
AUTOGUIDES = {  # those that are built of a model, numbers and words alone
    "pyro.infer.autoguide": (
        *_BOTH,
        "AutoStructured",
        "AutoGaussian",
        "AutoDiscreteParallel",
        "AutoNormalMessenger",
        "AutoHierarchicalNormalMessenger",
        "AutoRegressiveMessenger",
    ),
    "numpyro.infer.autoguide": (
        *_BOTH,
        "AutoBNAFNormal",
        "AutoDAIS",
        "AutoBatchedMultivariateNormal",
        "AutoBatchedLowRankMultivariateNormal",
    ),
}

LONGEST = 100  # characters of a name that is shown whole
# What was said in this process: a module, or "module:Name"; and whether it was typed, on a command line.
_allowed: dict[str, bool] = {}


def allow(names: Iterable[str], typed: bool = False) -> None:
    """Let files name the programs of these modules, and of those beneath them.

    Args:
        names: "mypkg.models", or a single program, "mypkg.models:Model".
        typed: on a command line: such modules may lie in the current directory.

    Raises:
        TypeError: no names, or a text in place of a list of such.
        ValueError: what is no name of a module.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"trust: found {quoted(names)}, want names of modules; try trust=('mypkg.models',)")
    for name in list(names):
        if not isinstance(name, str) or not _is_name(name):
            raise ValueError(
                f"trust: found {quoted(name)}, want the name of a module, mypkg.models, or mypkg.models:Name"
            )
        _allowed[name] = typed or _allowed.get(name, False)


def received(*strings: str, typed: bool = False) -> None:
    """Note the import strings of programs that a caller names himself: they are as good as allowed."""
    for string in strings:
        if ":" in string and not is_known(string):
            _allowed[string] = typed or _allowed.get(string, False)


def check(label: str, string: str) -> None:
    """Raise ValueError unless an import string is known or allowed; nothing that it names is imported for that.

    Args:
        label: what is to be built, for the message: "model 'vae'".
        string: "package.module:Name".
    """
    if is_allowed(string) or is_known(string):
        return
    module = string.partition(":")[0]
    want = "want a program of the collection, or one of Pyro's or NumPyro's autoguides"
    cure = f"; if you trust its code, try --trust {module}, or trust=({module!r},) in Python"
    cure = cure if _is_name(string) and len(string) <= LONGEST else ""
    raise ValueError(f"{label}: found {_short(string)} in a file, {want}{cure}")


def check_reached(label: str, string: str, found: Any) -> None:
    """Raise ValueError for what an allowed module did not define: a module in it, or a class or function of others.

    Args:
        label, string: as for `check`.
        found: what a part of the string has led to.
    """
    if string in _allowed or is_known(string) or _is_own(string, found):
        return
    raise ValueError(
        f"{label}: found {_short(_home(found) or repr(found))} behind {_short(string)}, want what its module defines; "
        f"if you trust it, try --trust {string}"
    )


def needed(string: str, found: Any) -> str | None:
    """The name that another process has to allow before a file may name this program; None for what is known."""
    if is_known(string):
        return None
    module, _, path = string.partition(":")
    return module if "." not in path and _is_own(string, found) else string


def is_allowed(string: str) -> bool:
    """Whether a module, one above it, or the program itself was allowed or named in this process."""
    return any(name in _allowed for name in _covering(string))


def is_known(string: str) -> bool:
    """Whether an import string is that of a program of the collection, or of one of `AUTOGUIDES`.

    >>> is_known("ppl_models:VAE"), is_known("guides.ladder:Ladder"), is_known("ppl_models.numpyro:fit")
    (True, True, False)
    >>> is_known("pyro.infer.autoguide:AutoNormal"), is_known("sympy:Lambda")
    (True, False)
    """
    module, _, name = string.partition(":")
    for face in (*FACES, *AUTOGUIDES):
        if module == face or module.startswith(f"{face}."):
            value = programs(face).get(name)
            if value is not None and module in (face, value.__module__):
                return True
    return False


def programs(face: str) -> dict[str, type]:
    """Name -> class of every program that a package exports and a file may name."""
    package = imported(face)
    if face in AUTOGUIDES:
        return {name: getattr(package, name) for name in AUTOGUIDES[face] if hasattr(package, name)}
    base = importlib.import_module(f"{face.replace('guides', 'ppl_models')}.parts").Program
    found = {name: getattr(package, name) for name in package.__all__}
    return {n: v for n, v in found.items() if inspect.isclass(v) and issubclass(v, base) and not inspect.isabstract(v)}


def imported(name: str) -> ModuleType:
    """The module of this name; one of the package `guides` is that of the collection, whatever else has that name."""
    first, dot, rest = name.partition(".")
    return importlib.import_module(f"{ppl_models.guides.__name__}{dot}{rest}" if first == "guides" else name)


@contextmanager
def findable(string: str) -> Iterator[None]:
    """Inside, the module of a name that was typed is found in the current directory, after everywhere else."""
    if not any(_allowed.get(name) for name in _covering(string)) or {"", here := os.getcwd()} & set(sys.path):
        yield
        return
    sys.path.append(here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _is_own(string: str, found: Any) -> bool:
    """Whether a part of an allowed module is its package's own, of another allowed one, or known."""
    if not (inspect.ismodule(found) or inspect.isclass(found) or inspect.isroutine(found)):
        return True  # an object that the module has made
    home = _home(found)
    if inspect.ismodule(found):
        return is_allowed(home)
    same = home.partition(".")[0] == string.partition(":")[0].partition(".")[0]
    return bool(home) and (same or is_allowed(home) or is_known(f"{home}:{getattr(found, '__qualname__', '')}"))


def _home(found: Any) -> str:
    """The module of a class or function; of a module its name."""
    return str(getattr(found, "__name__" if inspect.ismodule(found) else "__module__", None) or "")


def _covering(string: str) -> list[str]:
    """The names that, allowed, allow this one: itself, its module, and the packages of that."""
    parts = string.partition(":")[0].split(".")
    return [string, *(".".join(parts[: i + 1]) for i in range(len(parts)))]


def _is_name(string: str) -> bool:
    """Whether a text is a.b or a.b:c.d."""
    return all(part.isidentifier() for part in string.replace(":", ".", 1).split("."))


def _short(string: str) -> str:
    """In quotes, and not by the page."""
    return repr(string if len(string) <= LONGEST else f"{string[:LONGEST]}...")
