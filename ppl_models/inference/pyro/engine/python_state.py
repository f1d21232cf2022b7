"""Snapshot of the Python attributes of programs: finds, and undoes, what a run changes and no graph would repeat."""

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import numpy as np
from torch import Tensor, nn

CHANGES = "changes in Python at every run, which no graph does"
DEEP = 4  # functions in closures of functions, as wrappers make them


@contextmanager
def generators_kept() -> Iterator[Callable[[], bool]]:
    """Python's and NumPy's own generators go on afterwards from where they were; tells whether they have moved."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield lambda: python != random.getstate() or str(numpy) != str(np.random.get_state())
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


class Attributes:
    """A snapshot of the attributes of programs, to see what a run changed, and to undo it.

    A captured step replays what a run did to tensors, and nothing that it did in Python. So what is carried from run to
    run there must be found, and what a capture left behind must go.

    Args:
        programs: modules or functions; of functions also the modules and variables that they close over.
    """

    def __init__(self, *programs: Callable) -> None:
        self.modules: list[tuple[nn.Module, dict[str, Any]]] = []
        self.cells: list[tuple[str, CellType, Any]] = []
        seen: set[int] = set()
        values: list[Any] = []
        for program in programs:
            _reach(program, seen, DEEP, self.modules, self.cells, values)
        self.contents = [(v, v.copy()) for v in values if type(v) in (list, dict, set, deque)]
        self.drawn = [(v, _state(v)) for v in values if _state(v) is not None]

    def restore(self, read: Iterable[Tensor] = ()) -> str | None:
        """Undo every change; what one run carried to the next in Python, in one line, or None.

        A number or a buffer that a run replaces is carried, and so is any tensor that it replaces and has `read`. What
        it only writes (its last latent, for a look at it) is not.
        """
        held, carried = {id(t) for t in read}, None
        for generator, before in self.drawn:
            if str(before) != str(_state(generator)):
                carried = "the programs draw from a generator of their own, which a graph cannot repeat"
                _set_state(generator, before)
        for value, before in self.contents:
            if not _same(value, before):
                for name, old in before.items() if isinstance(before, dict) else ():
                    now = value.get(name)
                    if now is not old and (isinstance(old, int | float) or id(old) in held or _registered(self, value)):
                        carried = carried or f"{name!r} of a program {CHANGES}"
                value.clear()
                value.update(before) if isinstance(value, dict | set) else value.extend(before)
        for module, before in self.modules:
            now = vars(module)
            for name in [name for name in now if name not in before]:
                del now[name]
            for name, old in before.items():
                if now.get(name, self) is not old:
                    if _carries(old, now.get(name), held):
                        carried = carried or f"{type(module).__name__}.{name} {CHANGES}"
                    now[name] = old
        for name, cell, old in self.cells:
            if cell.cell_contents is not old:
                if _carries(old, cell.cell_contents, held):
                    carried = carried or f"the variable {name!r} of a program {CHANGES}"
                cell.cell_contents = old
        return carried


@contextmanager
def undone(modules: Iterable[nn.Module], attributes: Attributes) -> Iterator[None]:
    """Inside, programs may run, whose buffers and attributes are afterwards what they were."""
    buffers = [buffer for module in modules for buffer in module.buffers()]
    before = [buffer.clone() for buffer in buffers]
    yield
    attributes.restore()
    for buffer, value in zip(buffers, before, strict=True):
        buffer.data.copy_(value)


def _state(value: Any) -> Any:
    """The state of a generator of Python's or NumPy's, None for anything else."""
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    return value.bit_generator.state if isinstance(value, np.random.Generator) else None


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        (generator.setstate if isinstance(generator, random.Random) else generator.set_state)(state)


def _carries(old: Any, new: Any, held: set[int]) -> bool:
    if isinstance(old, Tensor):
        return id(old) in held
    return isinstance(old, int | float | str) and not (type(new) is type(old) and new == old)


def _registered(attributes: Attributes, container: Any) -> bool:
    """Whether a container is that of the parameters or buffers of a module."""
    return any(container is vars(m)["_buffers"] or container is vars(m)["_parameters"] for m, _ in attributes.modules)


def _same(a: Any, b: Any) -> bool:
    if len(a) != len(b):
        return False
    if isinstance(a, Mapping):
        return all(k in b and a[k] is b[k] for k in a)
    return a == b if isinstance(a, set) else all(x is y for x, y in zip(a, b, strict=True))


def _reach(
    found: Any,
    seen: set[int],
    deep: int,
    modules: list[tuple[nn.Module, dict[str, Any]]],
    cells: list[tuple[str, CellType, Any]],
    values: list[Any],
) -> None:
    """Add the modules and variables that a program is made of, and all values that these hold."""
    values.append(found)
    if id(found) in seen or deep < 0:
        return
    seen.add(id(found))
    inner: list[Any] = []
    if isinstance(found, nn.Module):
        modules.append((found, dict(vars(found))))
        for child in found.children():  # however deep
            _reach(child, seen, deep, modules, cells, values)
        inner = [v for k, v in vars(found).items() if k != "_modules"]
    elif isinstance(found, partial):
        inner = [found.func]
    elif isinstance(found, MethodType):
        inner = [found.__self__, found.__func__]
    elif isinstance(found, FunctionType):
        for name, cell in zip(found.__code__.co_freevars, found.__closure__ or (), strict=True):
            try:
                cells.append((name, cell, cell.cell_contents))
            except ValueError:  # not yet assigned
                continue
            inner.append(cell.cell_contents)
        inner += [found.__globals__.get(name) for name in found.__code__.co_names]
    for value in inner:
        _reach(value, seen, deep - 1, modules, cells, values)
