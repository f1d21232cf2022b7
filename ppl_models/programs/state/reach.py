"""Steps from a program, in any language, to what it holds and is given: `parts`, `closed_over`, `named_leaves`."""

import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from inspect import signature
from itertools import accumulate, pairwise
from operator import is_
from typing import Any


def parts(item: Any, named: Callable[[types.FunctionType], list[Any]]) -> list[Any] | None:
    """Parts of a container, a partial, a method or a function (by `named`); None for anything else."""
    if isinstance(item, dict):
        return list(item.values())
    if isinstance(item, (list, tuple, set, frozenset, deque)):
        return list(item)
    if isinstance(item, partial):
        return [item.func, item.args, item.keywords]
    if isinstance(item, types.MethodType):
        return [item.__self__, item.__func__]
    return named(item) if isinstance(item, types.FunctionType) else None


def closed_over(function: types.FunctionType) -> list[Any]:
    """Objects that a function closes over, has as defaults or wraps."""
    found = [function.__defaults__, function.__kwdefaults__, getattr(function, "__wrapped__", None)]
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # a recursive function that is being defined
            pass
    return found


def global_names(function: types.FunctionType) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """For a function and each one defined in it, the names it uses and those of its globals that have one."""
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        yield code.co_names, [function.__globals__[name] for name in code.co_names if name in function.__globals__]
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]


def held_by(container: Any) -> Any:
    """A copy of what a dict, a list, a set or a deque holds."""
    if isinstance(container, dict):
        return dict(container)
    return set(container) if isinstance(container, set) else list(container)


def put_back(container: Any, content: Any) -> None:
    """Let a container hold again what it held, in the same order; nothing is done where it does."""
    if isinstance(container, dict):
        kept = all(map(is_, container, content)) and all(map(is_, container.values(), content.values()))
    elif isinstance(container, set):
        kept = {*map(id, container)} == {*map(id, content)}
    else:
        kept = all(map(is_, container, content))
    if not kept or len(container) != len(content):
        container.clear()
        (container.update if isinstance(container, (dict, set)) else container.extend)(content)


def contents(attributes: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The attributes of an object, with copies of those that are containers."""
    return {k: (v, held_by(v) if isinstance(v, (dict, list, set)) else None) for k, v in attributes.items()}


def restore(attributes: dict[str, Any], saved: dict[str, tuple[Any, Any]]) -> None:
    """Put the attributes of an object, and the containers among them, back to what they were."""
    for key in set(attributes) - set(saved):
        del attributes[key]
    for key, (value, content) in saved.items():
        if content is not None:
            put_back(value, content)
        attributes[key] = value


def named_leaves(
    program: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    where: Sequence[int],
    count: Callable[[Any], int],
) -> list[str]:
    """A name for each array among the arguments: the parameter that it is passed as, or is part of.

    No container is made anew: one of the user's may check what it is given.

    Args:
        program: whose parameters they are.
        args, kwargs: the arguments, in the order in which their leaves are counted.
        where: the places of those leaves that are arrays.
        count: the number of leaves of a value.
    """
    ends = [0, *accumulate(map(count, (*args, *kwargs.values())))]
    spans = [range(first, last) for first, last in pairwise(ends)]
    by_name = dict(zip(kwargs, spans[len(args) :], strict=True))
    try:
        known = signature(getattr(program, "forward", program))
        bound = known.bind_partial(*spans[: len(args)], **by_name).arguments
    except (TypeError, ValueError):
        bound = {f"arg{i}": span for i, span in enumerate(spans)}
    names: dict[int, str] = {}
    for name, value in bound.items():  # of *args a tuple of spans, of **kwargs a dict
        several = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else [value]
        inside = [i for span in several for i in span if i in where]
        names |= {i: name if len(inside) == 1 else f"{name}.{k}" for k, i in enumerate(inside)}
    return [names.get(i, f"arg{i}") for i in where]
