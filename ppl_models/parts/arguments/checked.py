"""`checked`: a function whose arguments are held against their annotations at every call, with one form of message."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import cache, wraps
from inspect import Parameter, signature, unwrap
from types import NoneType
from typing import Any, TypeVar, cast, get_type_hints

from .kinds import PLAIN, WRONG, Either, Is, Kind, Sizes, Text, kind_of

F = TypeVar("F", bound=Callable[..., Any])


def check(where: str, name: str, value: Any, kind: Kind, default: Any = Parameter.empty) -> Any:
    """The value as it is passed on, if it is of a kind.

    Args:
        where: what an error starts with, the function that asks.
        name: of the argument.
        value: of it, and its `default`.
        kind: what it may be.

    Raises:
        TypeError: it is not, where an object is wanted.
        ValueError: it is not, where a number or a word is wanted.

    >>> from ppl_models.parts.arguments.kinds import Number
    >>> check("fit", "lr", "1e-3", Number(above=0))
    Traceback (most recent call last):
    ValueError: fit: found lr='1e-3', want a number of more than 0; try lr=0.001
    """
    found = kind.read(value)
    if found is not WRONG:
        return found
    kinds = kind.kinds if isinstance(kind, Either) else (kind,)
    errors = {getattr(each, "error", ValueError) for each in kinds if each != PLAIN[NoneType]}
    instead = _instead(name, value, kind, default)
    want = kind.want(value).replace("NAME", name) + (f"; {instead}" if instead else "")
    raise (errors.pop() if len(errors) == 1 else ValueError)(f"{where}: found {name}={told(value)}, want {want}")


def told(value: Any) -> str:
    """A value for a message: itself where it is short, else its type with shape or length.

    >>> told("mlp"), told([1, 2]), told(bytes(100)), told(int)
    ("'mlp'", '[1, 2]', 'a bytes of length 100', 'int, a class')
    """
    if isinstance(value, type):
        return f"{value.__name__}, a class"
    if _short(value):
        return repr(value)
    kind, shape = type(value).__name__, getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"a {kind} of shape {tuple(shape)} and type {getattr(value, 'dtype', 'unknown')}"
    return f"a {kind} of length {len(value)}" if isinstance(value, Collection) else f"a {kind}"


def checked(function: F, where: str | None = None, but: Sequence[str] = ()) -> F:
    """A decorator of functions and classes: arguments are held against their annotations at every call.

    Args:
        function: with annotations; of a class its constructor's.
        where: what an error starts with; by default its name.
        but: arguments that are looked at elsewhere.

    Raises:
        TypeError, ValueError: when called, see `check`; TypeError for a keyword that it does not take.

    >>> from ppl_models.parts.arguments.kinds import Count
    >>> @checked
    ... def half(steps: Count, skip: bool = False) -> float:
    ...     return steps / 2
    >>> half(3)
    1.5
    >>> half(3, skip="no")
    Traceback (most recent call last):
    ValueError: half: found skip='no', want True or False; try skip=False
    """
    if isinstance(function, type):
        setattr(function, "__init__", checked(function.__init__, where or function.__name__, but))  # noqa: B010
        return cast(F, function)
    asks = where or function.__qualname__.removesuffix(".__init__").rpartition("<locals>.")[2]
    parameters = signature(function).parameters
    positions = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    extra = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    @cache
    def kinds() -> dict[str, tuple[Kind, Any]]:
        return {name: (kind, parameters[name].default) for name, kind in declared(function).items() if name not in but}

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        known = kinds()
        given = list(args)
        for i, name in enumerate(positions[: len(args)]):
            if name in known:
                given[i] = check(asks, name, args[i], *known[name])
        for name, value in kwargs.items():
            if name in known:
                kwargs[name] = check(asks, name, value, *known[name])
            elif not extra and name not in parameters:
                near = nearest(name, positions + [*known])
                raise TypeError(f"{asks}: found the argument {name!r}, want one that it takes; try {near}=")
        return function(*given, **kwargs)

    call.__dict__ |= {"asks": asks, "but": but}
    return cast(F, call)


def declared(function: Callable[..., Any]) -> dict[str, Kind]:
    """Argument -> its kind, of those whose annotations say one; nothing of a function that cannot be looked at.

    >>> [*declared(checked(lambda x: x))], declared(nearest)["word"].want(1)
    ([], 'a text')
    """
    try:
        hints = _hints(unwrap(function.__init__ if isinstance(function, type) else function))
        names = signature(function).parameters
    except (TypeError, ValueError, AttributeError):
        return {}
    found = {name: kind_of(hint) for name, hint in hints.items() if name in names}
    variable = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return {name: kind for name, kind in found.items() if kind is not None and names[name].kind not in variable}


def _hints(function: Any) -> dict[str, Any]:
    """The annotations, less those with names that are there for checkers alone."""
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:
        given, found = dict(function.__annotations__), {}
        for name, hint in given.items():
            with suppress(NameError, SyntaxError):
                found[name] = eval(hint, function.__globals__) if isinstance(hint, str) else hint
        return found


def nearest(word: str, among: Sequence[str]) -> str:
    """The one of some names that was probably meant, "" where there is none."""
    near = get_close_matches(word, among, 1, 0)
    return near[0] if near else ""


def _short(value: Any) -> bool:
    """Whether a message may show a value as it is written."""
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and len(value) < 10 and all(map(_short, value)) and len(repr(value)) < 60
    plain = value is None or type(value) in (bool, int, float, str, bytes)
    return plain and len(repr(value)) < 60 if type(value) is not int else abs(value) < 10**30


def _instead(name: str, value: Any, kind: Kind, default: Any) -> str:
    """What to try in place of a value."""
    if isinstance(value, str):
        for word in (value, {"no": "False", "off": "False", "yes": "True", "on": "True"}.get(value.lower(), value)):
            for parse in (int, float, {"true": True, "false": False, "none": None}.__getitem__):
                try:
                    if (meant := kind.read(parse(word.strip().lower()))) is not WRONG:
                        return f"try {name}={meant!r}"
                except (ValueError, KeyError):
                    continue
    alternatives = kind.kinds if isinstance(kind, Either) else (kind,)
    if isinstance(value, type) and any(isinstance(each, Is) and each is not Text for each in alternatives):
        return f"try {value.__name__}()"
    own = next((each.instead for each in alternatives if isinstance(each, Is) and each.instead), "")
    if own or default is Parameter.empty or not _short(default):
        several = any(isinstance(each, Sizes) for each in alternatives)
        return own or (f"try {name}=(3, 2)" if several else "")
    return f"try {name}={default!r}"
