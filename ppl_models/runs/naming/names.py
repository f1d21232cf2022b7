"""`resolve`, `build`: models and guides by short name or import string; `parse`: their sizes from a command line."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ppl_models.parts.arguments.checked import check, declared
from ppl_models.parts.arguments.kinds import WRONG, no_guide
from ppl_models.programs.arguments import signature_of
from ppl_models.programs.blame import raised
from ppl_models.programs.legible import quoted

from . import trust

PACKAGES = {"model": "ppl_models", "guide": "guides"}
_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


def package_of(kind: str, backend: str = "pyro") -> str:
    """Package of the models or guides of a backend."""
    return PACKAGES[kind] if backend == "pyro" else f"{PACKAGES[kind]}.{backend}"


def catalogue(kind: str, backend: str = "pyro") -> dict[str, type]:
    """Short name -> class of every model or guide of the collection: the concrete programs its package exports.

    The short name is the name of the file: `ppl_models/sere_vae.py` is "sere-vae", and so is its port. A guide that
    refines another one is left out: it is made of a guide, not of a model.
    """
    found, package = {}, package_of(kind, backend)
    for value in trust.programs(package).values():
        home, _, stem = value.__module__.rpartition(".")
        if home == trust.imported(package).__name__ and not hasattr(value, "refines"):
            found[stem.replace("_", "-")] = value
    return dict(sorted(found.items()))


def import_string(kind: str, name: str, backend: str = "pyro") -> str:
    """ "package.module:Attribute" of a short name; an import string is passed through.

    Raises:
        ValueError: neither a short name nor of that form; the nearest name is suggested.
    """
    known = catalogue(kind, backend)
    if name in known:
        return f"{package_of(kind, backend)}:{known[name].__name__}"
    if ":" in name:
        return name
    near = nearest(name, [*known, *(value.__name__ for value in known.values())])
    near = next((short for short, value in known.items() if value.__name__ == near), near)
    hint = f"did you mean {near!r}? There" if near else "there"
    raise ValueError(
        f"{kind} {quoted(name)} is unknown; {hint} are {', '.join(known)}, "
        "and programs of your own by an import string, mypkg.module:Name"
    )


def programs_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """ "model" and "guide" -> what a configuration says of each; a model without latents has no guide."""
    return {kind: config[kind] for kind in PACKAGES if config[kind] is not None}


def resolve(kind: str, name: str, backend: str = "pyro") -> Any:
    """The object behind a short name or an import string: a class to be built, or a program to be used as it is.

    Raises:
        ValueError: a name that is neither known nor allowed (see `trust`), of which nothing is imported; it cannot be
            found or imported, or is no program.
    """
    string = import_string(kind, name, backend)
    trust.check(kind, string)
    module_name, _, path = string.partition(":")
    try:
        with trust.findable(string):
            found = trust.imported(module_name) if trust.is_known(string) else importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"{kind} {quoted(name)}: there is no module {quoted(error.name)} here or among the installed ones; an "
            f"import string is mypkg.module:Name, and short names are {', '.join(catalogue(kind, backend))}"
        ) from None
    except (ValueError, TypeError) as error:  # "a..b", ":Name"
        if raised(error):  # by the module itself
            raise
        raise ValueError(f"{kind} {quoted(name)}: want an import string mypkg.module:Name") from None
    for part in path.split("."):
        if not hasattr(found, part):
            near = nearest(part, [n for n in dir(found) if not n.startswith("_")])
            hint = f"; did you mean {near!r}?" if near else ""
            raise ValueError(f"{kind} {quoted(name)}: {module_name} has no {quoted(part)}{hint}")
        found = getattr(found, part)
        trust.check_reached(kind, string, found)
    if not callable(found):
        raise ValueError(f"{kind} {quoted(name)}: found a {type(found).__name__}, want a class or a Pyro program")
    if inspect.isclass(found) and "__call__" not in {key for c in found.__mro__ for key in vars(c)}:
        raise ValueError(f"{kind} {quoted(name)}: objects of the class {found.__name__} cannot be called")
    return found


def parse(words: Sequence[str], option: str) -> tuple[list[str], dict[str, Any]]:
    """(words without "=", sizes): each key=value is read as a Python literal, or as the text it is.

    Raises:
        ValueError: an empty key, one given twice, or a value that no configuration file can hold.

    >>> parse(["ladder", "hidden=200", "latent=4,8", "family=full"], "-g")
    (['ladder'], {'hidden': 200, 'latent': (4, 8), 'family': 'full'})
    """
    names, sizes = [], {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            names.append(word)
            continue
        key = key.strip().replace("-", "_")
        if not key.isidentifier() or key in sizes:
            raise ValueError(f"{option} {quoted(word)}: want key=value, with a name as the key, each once")
        try:
            sizes[key] = value_of(text)
        except TypeError:
            raise ValueError(f"{option} {quoted(word)}: want a number, a word, or a list or mapping of such") from None
    return names, sizes


def parse_sizes(words: Sequence[str], option: str, why: str) -> dict[str, Any]:
    """The same where all are sizes: `why` no other word is wanted is said at the first one."""
    others, sizes = parse(words, option)
    if others:
        raise ValueError(f"{option} {quoted(others[0])}: want key=value{why}")
    return sizes


def value_of(text: str) -> Any:
    """A Python literal that a configuration file can hold, true or false, or else the text as it is.

    Raises:
        TypeError: a literal that no such file holds, a set or bytes.
    """
    try:
        value = {"true": True, "false": False}.get(text.strip(), WRONG)  # as files of TOML and JSON write them
        value = ast.literal_eval(text.strip()) if value is WRONG else value
        json.dumps(value, allow_nan=False)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value


def sizes_of(program: Any, given: int) -> dict[str, Any]:
    """Options of a class when it is built: name -> default, `inspect.Parameter.empty` where there is none.

    The first `given` positional parameters are filled in by the caller: none of a model, model and data of a guide. So
    is the random `key` of a NumPyro program.
    """
    left, found = given, {}
    for parameter in inspect.signature(program).parameters.values():
        if left and parameter.kind in _POSITIONAL and (parameter.default is parameter.empty):
            left = 0 if parameter.kind is parameter.VAR_POSITIONAL else left - 1
        elif parameter.name == "key" and parameter.kind is parameter.KEYWORD_ONLY:
            continue
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            found[parameter.name] = parameter.default
    return found


def arguments_of(program: Any) -> list[str]:
    """The names of the arguments that a program, or one of a class, takes for data: without a default, or with None.

    >>> arguments_of(lambda x, y=None, n=1: None)
    ['x', 'y']
    """
    called = program if not inspect.isclass(program) else getattr(program, "forward", program.__call__)
    known = signature_of(called)
    found = [] if known is None else list(known.parameters.values())[inspect.isclass(program) :]
    return [p.name for p in found if p.kind in _POSITIONAL and p.default in (p.empty, None)]


def check_sizes(label: str, program: Any, sizes: Mapping[str, Any], given: int, strict: bool = False) -> None:
    """Raise ValueError if a size is not among those of a class, which the message lists, or not of its kind.

    A class that takes any further ones is given them, unless it is to be `strict`.
    """
    if not inspect.isclass(program):
        if sizes:
            raise ValueError(f"{label} is no class, so it takes no sizes; found {', '.join(sizes)}")
        return
    known, kinds = sizes_of(program, given), declared(program)
    for key, value in sizes.items():
        if key in kinds and key in known:
            asks = getattr(program.__init__, "asks", label)
            check(asks, key, tuples(value), kinds[key], known.get(key, inspect.Parameter.empty))
    if not strict and any(p.kind is p.VAR_KEYWORD for p in inspect.signature(program).parameters.values()):
        return
    for key in sizes:
        if key not in known:
            near = nearest(key, known)
            raise ValueError(
                f"{label} has no size {quoted(key)}{f'; did you mean {near!r}?' if near else '.'} It takes "
                + (", ".join(n if d is inspect.Parameter.empty else f"{n}={d!r}" for n, d in known.items()) or "none")
            )


def build(
    kind: str, chosen: Mapping[str, Any] | None, args: Sequence[Any], lazy: type, backend: str = "pyro", **more: Any
) -> Any:
    """The program that a configuration has chosen: an object of a class, or a function as it is.

    Args:
        kind, chosen: "model" or "guide"; its name, import string and sizes. None for a guide that draws nothing.
        args: what a class is given first: nothing, or model and data.
        lazy: the class of the library's own guides, which are given the model alone and see data when first called.
        backend: language of the names in a message.
        more: for classes that have parameters of these names.

    Raises:
        ValueError: code that is not there, sizes that are missing or unknown, what a constructor objects to, and what
            the user's own code raises, with its place.
    """
    if chosen is None:
        return no_guide
    label, sizes = f"{kind} {chosen['name']!r}", chosen["sizes"]
    program = resolve(kind, chosen["import"], backend)
    check_sizes(label, program, sizes, len(args), strict=not trust.is_allowed(chosen["import"]))
    if not inspect.isclass(program):
        return program
    args = args[:1] if issubclass(program, lazy) else args
    missing = [n for n, d in sizes_of(program, len(args)).items() if d is inspect.Parameter.empty and n not in sizes]
    if missing:
        raise ValueError(f"{label} has no default for {', '.join(missing)}; give {missing[0]}=VALUE")
    known = inspect.signature(program).parameters
    try:
        return program(*args, **tuples(sizes), **{name: value for name, value in more.items() if name in known})
    except Exception as error:
        if own := raised(error):  # of the class itself, or of the model that a guide runs
            raise ValueError(f"{label} cannot be built: your code raised {own}") from error
        if not isinstance(error, (TypeError, ZeroDivisionError, RuntimeError, AttributeError, IndexError)):
            raise
        told = ", ".join(f"{key}={value!r}" for key, value in tuples(sizes).items())
        raise ValueError(f"{label} cannot be built with {told or 'no sizes'}: {error}") from error


def nearest(word: str, among: Iterable[str]) -> str | None:
    """The name that was probably meant."""
    near = difflib.get_close_matches(word, list(among), n=1, cutoff=0.5)
    return near[0] if near else None


def tuples(value: Any) -> Any:
    """JSON knows lists alone; sizes are tuples."""
    if isinstance(value, Mapping):
        return {key: tuples(item) for key, item in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def is_path(data: str) -> bool:
    """Whether a name of data is that of a file or folder of one's own."""
    return "/" in data or data.startswith("folder:") or data.endswith((".npy", ".npz"))


def short(data: str) -> str:
    """A name of data without the folders of a path."""
    return Path(data.removeprefix("folder:")).stem if is_path(data) else data


def slug(word: str) -> str:
    """A word that can be part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", word).strip("-.") or "data"


def stamped(*words: str) -> str:
    """A name for a folder: the words, import strings without their module, and the time."""
    return "_".join([*(slug(short(word).rpartition(":")[2]) for word in words), f"{datetime.now():%Y%m%d-%H%M%S}"])
