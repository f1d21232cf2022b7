"""`Program`: what every NumPyro model and guide of the collection is, and its parameters by name."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ClassVar, Self, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, GetAttrKey, SequenceKey, tree_flatten_with_path
from numpyro.contrib.module import eqx_module
from numpyro.primitives import _PYRO_STACK

from ppl_models.parts.arguments.checked import checked

T = TypeVar("T", bound=eqx.Module)
_training: ContextVar[bool] = ContextVar("training", default=False)
_called: ContextVar[frozenset[str]] = ContextVar("called", default=frozenset())  # params of the programs that run


@contextmanager
def training() -> Iterator[None]:
    """Inside, programs are in training mode, as after `torch.nn.Module.train()`; outside, in evaluation mode.

    `fit` computes its loss inside. A program is asked while it is traced: a function that `jax.jit` has compiled keeps
    the mode of its first run, so enter the context in the function that is compiled.

    >>> with training():
    ...     print(is_training())
    True
    >>> is_training()
    False
    """
    token = _training.set(True)
    try:
        yield
    finally:
        _training.reset(token)


def is_training() -> bool:
    """Whether programs are in training mode: see `training`."""
    return _training.get()


class Constant(eqx.Module):
    """Numbers that no transformation of JAX sees, so that none trains or traces them: a buffer of torch.

    Args:
        value: a number or an array, kept in the type that it has in NumPy, a number of Python in JAX's own precision.
    """

    content: bytes = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    type: str = eqx.field(static=True)

    def __init__(self, value: float | np.floating | np.ndarray) -> None:
        array = np.asarray(value, None if isinstance(value, np.generic | np.ndarray) else jnp.result_type(float))
        self.content, self.shape, self.type = array.tobytes(), array.shape, array.dtype.name

    @property
    def value(self) -> Any:
        """The number, a scalar of its type, or the array, which is not to be written to."""
        return np.frombuffer(self.content, jnp.dtype(self.type)).reshape(self.shape)[()]

    @property
    def number(self) -> float:
        """The number, of Python."""
        return float(self.value)


class Program(eqx.Module):
    """An `equinox.Module` whose `forward` is a NumPyro program.

    Called, it registers its parameters (the floating JAX arrays in it) by `numpyro.contrib.module.eqx_module`, as one
    param "<class>$params" (two programs of one class in one run would share it: put one of them in a
    `numpyro.handlers.scope`), and runs `forward` with those that inference has put in their place. A `Constant` in it
    is none of them, as buffers are none in torch.

    Under `jax.jit` and `jax.grad` a program is a pytree like any other Equinox module.
    """

    asks: ClassVar[str] = ""  # before the name of a class where an argument is refused

    @property
    def param(self) -> str:
        """Name of the `numpyro.param` that holds the parameters, which `eqx_module` gives it."""
        return f"{type(self).__name__}$params"

    @property
    def dtype(self) -> np.dtype:
        """The type of its parameters, and so of the data it takes."""
        return next(iter(named_parameters(self).values())).dtype

    def own(self) -> Self:
        """The program without what is not its own to train (a guide's model)."""
        return self

    def restored(self, own: Self) -> Self:
        """The inverse of `own`: the program with the parameters of `own`, and the rest of this one."""
        return own

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Hold the arguments of a constructor against their annotations, and let `forward` register the parameters.

        It does so where it is called by name, too: else it would not be trained.
        """
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            setattr(cls, "__init__", checked(cls.__init__, cls.asks + cls.__name__, but=["model"]))  # noqa: B010
        if "forward" in vars(cls) and not getattr(vars(cls)["forward"], "__isabstractmethod__", False):
            own = vars(cls)["forward"]

            @wraps(getattr(own, "__wrapped__", own))
            def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
                if _PYRO_STACK and self.param not in _called.get():
                    return self(*args, **kwargs)
                return own.__get__(self, type(self))(*args, **kwargs)

            cls.forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Register the parameters, then run `forward`.

        Raises:
            ValueError: no effect handler is around it, so that there is nothing to draw with.
        """
        if not _PYRO_STACK:
            called = type(self).__name__
            raise ValueError(
                f"{called}: found no random key to draw with, want one; try numpyro.handlers.seed(program, key)(...)"
            )
        token = _called.set(_called.get() | {self.param})
        try:
            return self.restored(eqx_module(type(self).__name__, self.own())).forward(*args, **kwargs)
        finally:
            _called.reset(token)

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The program itself."""


def named_parameters(module: eqx.Module) -> dict[str, jax.Array]:
    """The parameters of a module by name, as `torch.nn.Module.named_parameters` calls them: "decoder.last.weight".

    Of a program those of its own alone: a guide's are without its model's.
    """
    leaves, _ = _flat(module)
    return {name: leaf for name, leaf in leaves if eqx.is_inexact_array(leaf)}


def named_constants(module: eqx.Module) -> dict[str, Any]:
    """The constants of a module by name, as torch calls its persistent buffers: "likelihood.scale"."""
    leaves, _ = _flat(module)
    return {name: leaf.value for name, leaf in leaves if isinstance(leaf, Constant)}


def absent_constants(module: eqx.Module) -> dict[str, np.ndarray]:
    """What constants that older files do not have are there, by name, as the `absent()` of their modules says."""
    own = module.own() if isinstance(module, Program) else module
    held, _ = tree_flatten_with_path(own, is_leaf=lambda node: hasattr(node, "absent"))
    each = [(_name(path), node.absent()) for path, node in held if hasattr(node, "absent")]
    return {f"{place}.{name}": value for place, absent in each for name, value in absent.items()}


def with_parameters(module: T, values: Mapping[str, Any]) -> T:
    """The module with other values of all its parameters, and of those constants that are given.

    Floating arrays keep their type, as far as JAX has it: float64 wants `jax_enable_x64`.

    Raises:
        ValueError: a parameter that is missing, that the module does not have, or of another shape.
    """
    leaves, structure = _flat(module)
    called = type(module).__name__
    parameters, constants = named_parameters(module), named_constants(module)
    known = {**parameters, **constants}
    for name in sorted((set(values) - set(known)) | (set(parameters) - set(values))):
        side = "found no" if name not in values else "found the"
        raise ValueError(f"{called}: {side} parameter {name!r}; build the module with the sizes the values are of")
    new = []
    for name, leaf in leaves:
        if name in known and name in values:
            found, want = np.shape(values[name]), np.shape(known[name])
            if found != want:
                raise ValueError(f"{called}: parameter {name!r} is {found}, want {want}; build it with its sizes")
            leaf = _like(leaf, values[name])
        new.append(leaf)
    restored = jax.tree_util.tree_unflatten(structure, new)
    return module.restored(restored) if isinstance(module, Program) else restored


def _like(leaf: jax.Array | Constant, value: Any) -> jax.Array | Constant:
    """The value in the place of a leaf."""
    if isinstance(leaf, Constant):
        return Constant(np.asarray(value)[()])
    return jnp.asarray(value) if eqx.is_inexact_array_like(value) else jnp.asarray(value, leaf.dtype)


def _flat(module: eqx.Module) -> tuple[list[tuple[str, Any]], Any]:
    """The leaves of a module, or of what is a program's own, by name, constants among them; and its structure."""
    own = module.own() if isinstance(module, Program) else module
    leaves, structure = tree_flatten_with_path(own, is_leaf=lambda node: isinstance(node, Constant))
    return [(_name(path), leaf) for path, leaf in leaves], structure


def _name(path: tuple[Any, ...]) -> str:
    """A field called `children` is a dict of submodules that have no attribute each: their keys alone are in names."""
    keys = {GetAttrKey: "name", DictKey: "key", SequenceKey: "idx"}
    return ".".join(str(getattr(key, keys[type(key)])) for key in path if key != GetAttrKey("children"))
