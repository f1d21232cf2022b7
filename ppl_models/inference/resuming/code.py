"""`traits(value)`: what a function does, by its code and what it holds; `sources(program)`: the code of a program."""

import dis
import hashlib
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from importlib.util import MAGIC_NUMBER
from typing import Any

import numpy as np

from ppl_models.programs.state.reach import closed_over, global_names, parts

OURS = ("ppl_models", "guides")
# Their functions go by name, and their versions are told: what an update makes of their code is no other argument.
LIBRARIES = {
    *(*sys.stdlib_module_names, *OURS, "torch", "pyro", "numpy", "scipy", "jax", "jaxlib", "numpyro", "equinox"),
    *("optax", "networkx", "zuko", "array_api_compat", "pandas", "sklearn", "rich", "matplotlib", "opt_einsum"),
}
PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))
LEARNED = ("max_plate_nesting",)  # which losses of the libraries guess when they first meet a pair
DEEPEST, MOST = 8, 10_000  # of objects in objects, and of objects in all
LARGEST = 2**26  # bytes of an array that is read
BYTECODE = MAGIC_NUMBER.hex()  # another Python compiles the same source to other code


@dataclass
class Traits:
    """What tells a function from another one of the same name.

    Attributes:
        firm: place -> text of what stays the same: code, options, and values that are closed over.
        loose: of what may change while it is used: lists, arrays, attributes, globals.
        unknown: places of what cannot be compared.
        bytecode: of which Python the code is.
    """

    firm: dict[str, str] = field(default_factory=dict)
    loose: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    bytecode: str = BYTECODE

    def differing(self, other: "Traits") -> tuple[list[str], list[str]]:
        """(places that differ in what is firm, in what is loose)."""
        return _differing(self.firm, other.firm), _differing(self.loose, other.loose)


def traits(value: Any, name: str) -> Traits:
    """The `Traits` of an argument of `fit`: a function, a partial, an object that can be called, a number.

    >>> one, two = (traits(partial(round, ndigits=n), "beta") for n in (1, 2))
    >>> one.differing(two)
    (['ndigits of keywords of beta'], [])
    """
    found = Traits()
    try:
        _note(value, name, found, found.firm, 0, set())
    except Exception:  # noqa: BLE001 (objects of the user's may do anything when they are asked for what they hold)
        found.unknown.append(name)
    return found


def sources(program: Callable) -> dict[str, str]:
    """Name -> digest of the code, of every function and method of the user's that a program is made of."""
    found: dict[str, set[str]] = {}
    todo, seen = deque([program]), set()
    while todo and len(seen) < MOST:
        item = todo.popleft()
        if id(item) in seen or isinstance(item, (*PLAIN, types.ModuleType)):
            continue
        seen.add(id(item))
        if isinstance(item, types.FunctionType) and not _of_library(item):
            found.setdefault(_name_of(item), set()).add(_digest(item.__code__, item.__doc__))
        with suppress(Exception):  # objects of the user's may do anything when they are asked for what they hold
            todo.extend(_inside(item))
    return {name: " ".join(sorted(digests)) for name, digests in sorted(found.items())}


def _inside(item: Any) -> list[Any]:
    """What an object is made of: its methods, and what it holds, of libraries modules alone."""
    inner = parts(item, lambda function: [*closed_over(function), *_global_functions(function)])
    if inner is not None:
        return inner
    kind = item if isinstance(item, type) else type(item)
    methods = [function for _, function in _methods(kind)]
    if isinstance(item, type):
        return methods
    held, root = getattr(item, "__dict__", {}), str(kind.__module__).partition(".")[0]
    return methods + (list(held.values()) if root in OURS or not _of_library(kind) else [held.get("_modules")])


def _note(value: Any, place: str, found: Traits, into: dict[str, str], depth: int, seen: set[int]) -> None:
    """Write down what a value is, and what it holds."""

    def inner(each: Any, where: str, into: dict[str, str] = into) -> None:
        _note(each, f"{where} of {place}", found, into, depth + 1, seen)

    if isinstance(value, PLAIN):
        into[place] = repr(value)
    elif depth > DEEPEST or len(seen) > MOST:
        found.unknown.append(place)
    elif id(value) in seen:
        pass
    elif hasattr(value, "shape") and hasattr(value, "dtype"):
        found.loose[place], whole = _numbers(value)
        found.unknown += [] if whole else [place]
    elif _of_library(value) and hasattr(value, "__qualname__") and not isinstance(value, types.MethodType):
        into[place] = _name_of(value)
    else:
        seen.add(id(value))
        if isinstance(value, partial):
            inner(value.func, "function")
            inner(value.args, "arguments")
            inner(value.keywords, "keywords")
        elif isinstance(value, types.MethodType):
            inner(value.__func__, "code")
            inner(value.__self__, "owner")
        elif isinstance(value, types.FunctionType):
            _note_function(value, place, found, inner)
        elif callable(wrapped := getattr(value, "__wrapped__", None)):
            inner(wrapped, "function")
        elif isinstance(value, type):
            for owner, function in _methods(value):
                into[f"{_name_of(owner)}.{function.__name__} of {place}"] = _digest(function.__code__)
        elif isinstance(value, (tuple, list)):
            for i, each in enumerate(value):
                inner(each, f"[{i}]", into if isinstance(value, tuple) else found.loose)
        elif isinstance(value, Mapping):
            own = into if place.startswith("keywords of ") else found.loose
            for key, each in value.items():
                inner(each, str(key), own)
        elif isinstance(value, (set, frozenset)):
            if all(isinstance(each, PLAIN) for each in value):
                found.loose[place] = _told(frozenset(value))
            else:
                found.unknown.append(place)
        else:
            _note_object(value, place, found, into, inner)


def _note_function(function: types.FunctionType, place: str, found: Traits, inner: Callable[..., None]) -> None:
    code = function.__code__
    found.firm[f"code of {place}"] = _digest(code, function.__doc__)
    inner(function.__defaults__, "defaults", found.firm)
    for name, value in (function.__kwdefaults__ or {}).items():
        inner(value, name, found.firm)
    written = {each.argval for part in _codes(code) for each in dis.get_instructions(part) if "STORE" in each.opname}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # that is being defined
            continue
        inner(value, name, found.loose if name in written else found.firm)
    for name in sorted({n for part in _codes(code) for n in _globals_read(part)} & function.__globals__.keys()):
        value = function.__globals__[name]
        if not isinstance(value, types.ModuleType):
            inner(value, name, found.firm if isinstance(value, (types.FunctionType, type)) else found.loose)


def _note_object(value: Any, place: str, found: Traits, into: dict[str, str], inner: Callable[..., None]) -> None:
    kind, held = type(value), getattr(value, "__dict__", {})
    into[f"class of {place}"] = _name_of(kind)
    frozen = is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    if not _of_library(kind):
        inner(kind, "class")
    for name, each in held.items():
        if not _of_library(kind) or frozen:
            inner(each, name, into if frozen else found.loose)
        elif isinstance(each, PLAIN) and name not in LEARNED:
            inner(each, name, found.loose)
    seen_through = frozen or not _of_library(kind) or all(isinstance(each, PLAIN) for each in held.values())
    if not seen_through or not hasattr(value, "__dict__"):
        found.unknown.append(place)


def _methods(kind: type) -> Iterator[tuple[type, types.FunctionType]]:
    """(the class, the function) of every method that a class has of the user's."""
    for owner in kind.__mro__:
        for each in vars(owner).values() if not _of_library(owner) else ():
            each = getattr(each, "__func__", getattr(each, "fget", each))
            if isinstance(each, types.FunctionType):
                yield owner, each


def _global_functions(function: types.FunctionType) -> list[Any]:
    values = [each for _, held in global_names(function) for each in held]
    return [each for each in values if isinstance(each, (types.FunctionType, type)) and not _of_library(each)]


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code and those of the functions that are defined in it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _codes(const)


def _globals_read(code: types.CodeType) -> set[str]:
    return {each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}


def _digest(code: types.CodeType, text: str | None = None) -> str:
    """Of what a code does: neither its names for what is local, nor its lines, nor its docstring."""
    consts = [c for i, c in enumerate(code.co_consts) if i or text is None or c != text]
    told: list[Any] = [code.co_code, code.co_names, code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount]
    told += [_digest(c) if isinstance(c, types.CodeType) else _told(c) for c in consts]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _told(const: Any) -> str:
    return str(sorted(map(repr, const))) if isinstance(const, frozenset) else repr(const)


def _numbers(array: Any) -> tuple[str, bool]:
    """(shape, type and a digest of an array, whether that says all of it); of one that is trained the first two do."""
    told = f"{tuple(array.shape)} {array.dtype}"
    if getattr(array, "requires_grad", False):
        return told, True
    try:
        numbers = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)
    except (TypeError, ValueError, RuntimeError):
        return told, False
    if numbers.nbytes > LARGEST:
        return told, False
    return f"{told} {hashlib.sha256(np.ascontiguousarray(numbers).tobytes()).hexdigest()[:16]}", True


def _of_library(value: Any) -> bool:
    module = getattr(value, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] in LIBRARIES


def _name_of(value: Any) -> str:
    return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return [place for place in {**one, **other} if one.get(place) != other.get(place)]
