"""`Program`: what every NumPyro model and guide of the collection is, and its parameters by name."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, GetAttrKey, SequenceKey, tree_flatten_with_path
from numpyro.contrib.module import eqx_module

T = TypeVar("T", bound=eqx.Module)


class Program(eqx.Module):
    """An `equinox.Module` whose `forward` is a NumPyro program.

    Called, it registers its parameters (the floating JAX arrays in it) by `numpyro.contrib.module.eqx_module`, as one
    param "<class>$params", and runs `forward` with those that inference has put in their place. NumPy arrays in it are
    constants, as buffers are in torch.

    Under `jax.jit` and `jax.grad` a program is a pytree like any other Equinox module.
    """

    @property
    def param(self) -> str:
        """Name of the `numpyro.param` that holds the parameters, which `eqx_module` gives it."""
        return f"{type(self).__name__}$params"

    def own(self) -> Self:
        """The program without what is not its own to train (a guide's model)."""
        return self

    def restored(self, own: Self) -> Self:
        """The inverse of `own`: the program with the parameters of `own`, and the rest of this one."""
        return own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Register the parameters, then run `forward`."""
        return self.restored(eqx_module(type(self).__name__, self.own())).forward(*args, **kwargs)

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The program itself."""


def named_parameters(module: eqx.Module) -> dict[str, jax.Array]:
    """The parameters of a module by name, as `torch.nn.Module.named_parameters` calls them: "decoder.last.weight".

    Of a program those of its own alone: a guide's are without its model's.
    """
    own = module.own() if isinstance(module, Program) else module
    leaves, _ = tree_flatten_with_path(own)
    return {_name(path): leaf for path, leaf in leaves if eqx.is_inexact_array(leaf)}


def with_parameters(module: T, values: Mapping[str, Any]) -> T:
    """The module with other values of all its parameters, in their dtypes.

    Raises:
        ValueError: a parameter that is missing, that the module does not have, or of another shape.
    """
    own = module.own() if isinstance(module, Program) else module
    leaves, structure = tree_flatten_with_path(own)
    names = [_name(path) if eqx.is_inexact_array(leaf) else None for path, leaf in leaves]
    called = type(module).__name__
    for name in sorted(set(values) ^ {name for name in names if name is not None}):
        side = "found no" if name not in values else "found the"
        raise ValueError(f"{called}: {side} parameter {name!r}; build the module with the sizes the values are of")
    new = []
    for name, (_, leaf) in zip(names, leaves, strict=True):
        if name is not None:
            if np.shape(values[name]) != leaf.shape:
                found = np.shape(values[name])
                raise ValueError(f"{called}: parameter {name!r} is {found}, want {leaf.shape}; build it with its sizes")
            leaf = jnp.asarray(values[name], leaf.dtype)
        new.append(leaf)
    restored = jax.tree_util.tree_unflatten(structure, new)
    return module.restored(restored) if isinstance(module, Program) else restored


def _name(path: tuple[Any, ...]) -> str:
    keys = {GetAttrKey: "name", DictKey: "key", SequenceKey: "idx"}
    return ".".join(str(getattr(key, keys[type(key)])) for key in path)
