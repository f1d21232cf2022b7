"""`encoder(name, ...)`: evidence networks; see `guides.parts.encoders`."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
from jax import Array

from ppl_models.numpyro.parts.nets import ConvEncoder, LayerNorm, Linear, Net, PyramidEncoder, Silu

from ...parts.checks import check_encoder
from .table import Table


class Separate(eqx.Module):
    """See `guides.parts.encoders.Separate`."""

    nets: tuple[tuple[Net, Silu], ...]
    widths: Table = eqx.field(static=True)

    def __init__(self, names: Sequence[str], inputs: int, hidden: int, depth: int, *, key: Array) -> None:
        self.widths = Table(dict.fromkeys(names, hidden))
        keys = jax.random.split(key, len(names))
        self.nets = tuple((Net([inputs], hidden, hidden, depth, key=k), Silu()) for k in keys)

    def __call__(self, x: Array) -> dict[str, Array]:
        """(*plates, inputs) -> features by latent, (*plates, hidden)."""
        return {name: _through(net, x) for name, net in zip(self.widths, self.nets, strict=True)}


class Shared(eqx.Module):
    """See `guides.parts.encoders.Shared`; a trunk that is a tuple is run from its first layer to its last."""

    trunk: Callable | tuple[Callable, ...]
    widths: Table = eqx.field(static=True)

    def __init__(self, names: Sequence[str], trunk: Callable | tuple[Callable, ...], width: int) -> None:
        self.widths = Table(dict.fromkeys(names, width))
        self.trunk = trunk

    def __call__(self, x: Array) -> dict[str, Array]:
        """(*plates, inputs) -> the same features for every latent, (*plates, width)."""
        trunk = self.trunk if isinstance(self.trunk, tuple) else (self.trunk,)
        return dict.fromkeys(self.widths, _through(trunk, x))


class BottomUpChain(eqx.Module):
    """See `guides.parts.encoders.BottomUpChain`."""

    nets: tuple[Net, ...]
    norms: tuple[tuple[LayerNorm, Silu], ...]
    widths: Table = eqx.field(static=True)

    def __init__(self, names: Sequence[str], inputs: int, hidden: int, depth: int, *, key: Array) -> None:
        self.widths = Table(dict.fromkeys(names, hidden))
        widths = [inputs] + [hidden] * (len(names) - 1)
        keys = jax.random.split(key, len(names))
        self.nets = tuple(Net([width], hidden, hidden, depth, key=k) for width, k in zip(widths, keys, strict=True))
        self.norms = tuple((LayerNorm(hidden), Silu()) for _ in names)

    def __call__(self, x: Array) -> dict[str, Array]:
        """(*plates, inputs) -> features by latent, (*plates, hidden)."""
        features: dict[str, Array] = {}
        d, read = x, x
        for i, (name, net, norm) in enumerate(zip(reversed(self.widths), self.nets, self.norms, strict=True)):
            d = d + net(read) if i else net(read)
            features[name] = read = _through(norm, d)
        return features


class Pyramids(eqx.Module):
    """See `guides.parts.encoders.Pyramids`."""

    nets: tuple[tuple[PyramidEncoder, Silu], ...]
    widths: Table = eqx.field(static=True)

    def __init__(self, names: Sequence[str], image: Sequence[int], hidden: int, depth: int, *, key: Array) -> None:
        self.widths = Table(dict.fromkeys(names, hidden))
        channels, keys = max(hidden // 16, 4), jax.random.split(key, len(names))
        self.nets = tuple((PyramidEncoder(image, hidden, channels, depth, key=k), Silu()) for k in keys)

    def __call__(self, x: Array) -> dict[str, Array]:
        """(*plates, inputs) -> features by latent, (*plates, hidden)."""
        return {name: _through(net, x) for name, net in zip(self.widths, self.nets, strict=True)}


def encoder(
    spec: str | eqx.Module,
    names: Sequence[str],
    inputs: int,
    hidden: int,
    depth: int,
    image: Sequence[int] | None,
    guide: str,
    *,
    key: Array,
) -> "Separate | Shared | BottomUpChain | Pyramids":
    """See `guides.parts.encoders.encoder`.

    Where latents read different data, each `EvidenceKey` has a copy of a module of its own, since Equinox modules are
    values.
    """
    shape = check_encoder(guide, spec, eqx.Module, inputs, image)
    if isinstance(spec, eqx.Module):
        return Shared(names, spec, getattr(spec, "output", 0))  # ty: ignore[invalid-argument-type]
    if spec == "separate":
        return Separate(names, inputs, hidden, depth, key=key)
    if spec == "shared":
        keys = jax.random.split(key)
        inner = Net([4 * hidden], 2 * hidden, 2 * hidden, depth, key=keys[1])
        return Shared(names, (Linear(inputs, 4 * hidden, key=keys[0]), Silu(), inner, Silu()), 2 * hidden)
    if spec == "bottom-up":
        return BottomUpChain(names, inputs, hidden, depth, key=key)
    if spec == "linear":
        return Shared(names, (), inputs)
    if spec == "pyramid":
        return Pyramids(names, shape, hidden, depth, key=key)
    return Shared(names, (ConvEncoder(shape, hidden, depth=depth, key=key), Silu()), hidden)


def _through(layers: Sequence[Callable], x: Array) -> Array:
    for layer in layers:
        x = layer(x)
    return x
