"""`protected`: run programs over JAX as if they had never run; `tidied`: without what a transformation leaves in them.

`Parameters` of all runs; `speaks`: is it NumPyro?
"""

import random
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import experimental
from jax.core import Tracer
from numpyro.distributions import biject_to, constraints
from numpyro.infer.autoguide import AutoGuide
from numpyro.primitives import _PYRO_STACK, Messenger

from .jitter import Jitter
from .reach import closed_over, contents, global_names, parts, restore

PLAIN = (type(None), bool, int, float, complex, str, bytes, type, types.ModuleType, np.ndarray, np.generic, jax.Array)
MOST = 100_000  # objects that are looked into, arrays and numbers apart
FOREIGN = ("builtins", "flax", "haiku", "jax", "jaxlib", "numpy", "numpyro", "pyro", "scipy", "torch")


def root(item: Any) -> str:
    """The package that defines something."""
    name = item.__name__ if isinstance(item, types.ModuleType) else getattr(item, "__module__", None)
    return str(name or "").partition(".")[0]


def reachable(roots: Iterable[Any]) -> list[Any]:
    """Objects that programs hold, with attributes, closures, default arguments and the globals they name.

    Objects of libraries are found but not looked into, NumPyro's guides and handlers apart.
    """
    found: dict[int, Any] = {}
    stack, others = list(roots), 0
    while stack and others < MOST:
        item = stack.pop()
        if id(item) in found:
            continue
        found[id(item)] = item
        if isinstance(item, PLAIN):
            continue
        others += 1
        if (inside := parts(item, _named)) is not None:
            stack.extend(inside)
        elif isinstance(item, (AutoGuide, Messenger)) or root(type(item)) not in FOREIGN:
            stack += [getattr(item, "__dict__", {}), vars(type(item)).get("__call__")]
    return list(found.values())


def _named(function: types.FunctionType) -> list[Any]:
    """Objects that a function closes over, has as defaults or names among its globals."""
    if root(function) in FOREIGN:
        return []
    return closed_over(function) + [value for _, values in global_names(function) for value in values]


@contextmanager
def protected(programs: Iterable[Callable], double: bool) -> Iterator[None]:
    """Take down what runs may touch, let the caller run programs, and put it back."""
    put_back = attributes_of(programs)
    handlers, numbers, state = _PYRO_STACK[:], np.random.get_state(), random.getstate()
    _PYRO_STACK.clear()  # handlers around the caller are none of the programs'
    try:
        with ExitStack() as stack:
            stack.enter_context(numpyro.validation_enabled(False))
            if double:
                stack.enter_context(_x64())
            yield
    finally:
        _PYRO_STACK[:] = handlers
        np.random.set_state(numbers)
        random.setstate(state)
        put_back()


def attributes_of(programs: Iterable[Callable]) -> Callable[[], None]:
    """A function that gives every object that programs hold the attributes that it has now."""
    objects = [item for item in reachable(programs) if not isinstance(item, (*PLAIN, types.FunctionType))]
    saved = [(item, vars(item), contents(vars(item))) for item in objects if _owned(item)]

    def put_back() -> None:
        for _, attributes, content in saved:
            restore(attributes, content)

    return put_back


def streams() -> tuple:
    """The states of the generators of random numbers that are not JAX's: NumPy's and Python's own."""
    numpys: Any = np.random.get_state()
    return numpys[1].tobytes(), numpys[2:], random.getstate()


def hold_tracers(programs: Iterable[Callable]) -> bool:
    """Whether a run inside a transformation of JAX has left arrays of it in what programs hold.

    Such an array has no numbers, and whatever reads it later fails.
    """
    return any(isinstance(item, Tracer) for item in reachable(programs))


@contextmanager
def tidied(*programs: Callable) -> Iterator[None]:
    """On the way out, programs in which runs have left tracers get their attributes of before again."""
    put_back = attributes_of(programs)
    try:
        yield
    finally:
        if hold_tracers(programs):
            put_back()


def _x64() -> Any:
    home: Any = jax if hasattr(jax, "enable_x64") else experimental  # before JAX 0.8
    return home.enable_x64(True)


def _owned(item: Any) -> bool:
    mine = isinstance(item, (AutoGuide, Messenger)) or root(type(item)) not in FOREIGN
    return mine and isinstance(getattr(item, "__dict__", None), dict)


@contextmanager
def untouched() -> Iterator[None]:
    """Leaves the random numbers and parameters of Pyro as they were, without importing it."""
    torch, pyro = sys.modules.get("torch"), sys.modules.get("pyro")
    numbers = torch.get_rng_state() if torch else None
    try:
        with ExitStack() as stack:
            if pyro:
                store = pyro.get_param_store()
                stack.enter_context(store.scope(store.get_state()))
            yield
    finally:
        if torch:
            torch.set_rng_state(numbers)


class Parameters:
    """The values of `numpyro.param` and `numpyro.mutable` sites, for all programs and all runs.

    Args:
        double: whether they are kept in float64.
    """

    def __init__(self, double: bool) -> None:
        self.double = double
        self.moved: Jitter | None = None
        self._first: dict[str, tuple[Any, Any]] = {}
        self._moved: dict[str, Any] = {}
        self._states: dict[str, Any] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._first

    def jitter(self, jitter: Jitter | int | None) -> None:
        """Move them as `Jitter` says, those with a constraint before it is met; None takes them as they are."""
        jitter = Jitter.of(jitter)
        if jitter != self.moved:
            self.moved, self._moved = jitter, {}

    def keep(self, name: str, value: Any, constraint: Any) -> None:
        """The value that a program starts from."""
        self._first[name] = jax.tree.map(self._wide, value), constraint

    def __getitem__(self, name: str) -> Any:
        if name not in self._moved:
            value, constraint = self._first[name]
            self._moved[name] = value if self.moved is None else _jittered(self.moved, name, value, constraint)
        return self._moved[name]

    def now(self) -> dict[str, Any]:
        """All of them, as they are in the next run."""
        return {name: self[name] for name in self._first}

    @contextmanager
    def given(self, values: Mapping[str, Any]) -> Iterator[None]:
        """Inside, they have these values."""
        kept, self._moved = self._moved, dict(values)
        try:
            yield
        finally:
            self._moved = kept

    def state(self, name: str) -> Any:
        """Start of a mutable site, if it has been met before: a copy, as runs write to it."""
        return jax.tree.map(lambda x: x, self._states[name]) if name in self._states else None

    def keep_state(self, name: str, value: Any) -> None:
        """See `state`."""
        self._states[name] = jax.tree.map(self._wide, value)

    def _wide(self, leaf: Any) -> Any:
        floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, jnp.float64) if self.double and floating else leaf


def _jittered(jitter: Jitter, name: str, value: Any, constraint: Any) -> Any:
    rng = np.random.default_rng((jitter.seed, crc32(name.encode())))

    def moved(leaf: Any) -> Any:
        if not np.ndim(leaf) and isinstance(leaf, (bool, int)):
            return leaf
        leaf = jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        noise = jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype)
        other = jnp.where(leaf == 0, 0.1 * noise, leaf * jnp.exp(0.3 * noise)) * jitter.shrink
        return other * jnp.asarray(rng.choice([-1.0, 1.0], leaf.shape), leaf.dtype) if jitter.flips else other

    if constraint in (None, constraints.real) or len(jax.tree.leaves(value)) != 1:
        return jax.tree.map(moved, value)
    try:
        bijection = biject_to(constraint)
        free = bijection.inv(jnp.asarray(value))
        return bijection(moved(free)) if bool(jnp.isfinite(free).all()) else value
    except NotImplementedError:  # a constraint that no bijection is known to
        return value


def speaks(programs: Sequence[Callable], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether programs are NumPyro's: by their arguments, by what they name, or by the first statement they run."""
    leaves = jax.tree.leaves((list(args), dict(kwargs)))
    if any(isinstance(leaf, jax.Array) for leaf in leaves):
        return True
    if any(root(type(leaf)) == "torch" for leaf in leaves):
        return False
    if any(isinstance(program, (AutoGuide, Messenger)) for program in programs):
        return True
    found = {root(cls) for item in reachable(programs) for cls in (item, *type(item).__mro__)}
    ours, theirs = "numpyro" in found, bool({"pyro", "torch"} & found)
    if ours != theirs:
        return ours
    return any(_starts(program, args, kwargs) for program in programs)


def _starts(program: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a program gets to a NumPyro statement; it is stopped there."""
    probe = _First()
    with untouched(), protected([program], False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with probe:
                program(*args, **kwargs)
        except _Found:
            return True
        except Exception:  # noqa: BLE001 (it is not for us to report)
            return probe.found
    return probe.found


class _Found(BaseException):
    """Not an Exception, so that no program catches it."""


class _First(Messenger):
    found = False

    def process_message(self, msg: dict) -> None:
        self.found = True
        raise _Found
