"""Weights between torch and JAX, by name and without loss; the one file of the ports that knows torch.

It is imported when weights are converted, so that a program which has none of torch's needs no torch.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Is

from .parts.program import named_constants, named_parameters, with_parameters

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T", bound=eqx.Module)
OF_TORCH = Is("a module of torch or tensors by name", lambda v: isinstance(v, Mapping) or hasattr(v, "state_dict"))
OF_JAX = Is("a module of Equinox", lambda v: isinstance(v, eqx.Module))


@checked
def from_torch(source: Annotated[Any, OF_TORCH]) -> dict[str, jax.Array]:
    """The parameters and persistent buffers of a torch module, or its `state_dict`, as JAX arrays of the same types.

    A guide's are without its model's, as its `state_dict` is. Copies: neither side sees what becomes of the other.

    Raises:
        ValueError: values of a type that JAX would round, float64 unless `jax_enable_x64` is set.

    >>> from ppl_models import VAE
    >>> sorted(from_torch(VAE(event=4, latent=2, depth=0, likelihood="gaussian:0.1")))
    ['decoder.first.0.bias', 'decoder.first.0.weight', 'likelihood.scale']
    """
    state = source if isinstance(source, Mapping) else source.state_dict()
    return {name: _to_jax(name, tensor.detach().cpu()) for name, tensor in state.items()}


@checked
def to_torch(source: eqx.Module | Mapping[str, jax.Array]) -> "dict[str, Tensor]":
    """The inverse of `from_torch`: what `torch.nn.Module.load_state_dict` takes, from a module or arrays by name.

    Of a module the parameters and the constants; of a guide its own. Copies, on the CPU, of the same types.

    >>> from ppl_models.numpyro import VAE
    >>> {name: tuple(t.shape) for name, t in to_torch(VAE(event=4, latent=2, depth=0, key=jax.random.key(0))).items()}
    {'decoder.first.0.weight': (4, 2), 'decoder.first.0.bias': (4,)}
    """
    values = {**named_parameters(source), **named_constants(source)} if isinstance(source, eqx.Module) else source
    return {name: _to_torch(np.asarray(value)) for name, value in values.items()}


@checked
def like_torch(module: Annotated[T, OF_JAX], source: Annotated[Any, OF_TORCH]) -> T:
    """The module with the weights of a torch module of the same sizes: `with_parameters(module, from_torch(source))`.

    Raises:
        ValueError: see `from_torch` and `parts.program.with_parameters`.

    >>> from ppl_models import VAE
    >>> from ppl_models.numpyro import VAE as Port
    >>> sizes = {"event": 4, "latent": 2, "hidden": 8}
    >>> model = like_torch(Port(**sizes, key=jax.random.key(0)), VAE(**sizes))
    """
    return with_parameters(module, from_torch(source))


def _to_jax(name: str, tensor: "Tensor") -> jax.Array:
    import torch

    # NumPy has no bfloat16 of its own: the same bits, read as the one that JAX brings
    if tensor.dtype == torch.bfloat16:
        return jnp.array(tensor.view(torch.int16).numpy().view(jnp.bfloat16), copy=True)
    array = tensor.numpy()
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise ValueError(
            f"weights: {name!r} is {array.dtype}, which JAX rounds; call jax.config.update('jax_enable_x64', True) "
            "first, or pass the torch module's .float()"
        )
    return jnp.array(array, copy=True)


def _to_torch(array: np.ndarray) -> "Tensor":
    import torch

    if array.dtype == jnp.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())
