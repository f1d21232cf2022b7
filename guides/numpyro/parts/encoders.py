"""Evidence networks: from data to features of each latent, deterministic, run once a batch whatever the particles."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
from jax import Array

from ppl_models.numpyro.parts.ladder import PyramidEncoder
from ppl_models.numpyro.parts.nets import ConvEncoder, LayerNorm, Linear, Net, Silu

from .sites import Table


class Separate(eqx.Module):
    """One network a latent, uncoupled: the self-reflective VAE's choice (Apostolopoulou et al. 2020, section 3)."""

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
    """One trunk for all latents: inputs -> 2 hidden -> hidden, or any module of the user's from rows to features.

    A trunk that is a tuple is run from its first layer to its last.
    """

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
    """The deterministic pass of the ladder: d_1 = MLP(x), d_n = d_{n-1} + MLP(d_{n-1}); the last latent reads d_1.

    Levels are residual and layer-normalized, where the paper's are plain and batch-normalized (which it calls crucial):
    the codes that read the last levels die in training otherwise.

    Source: Sonderby et al. 2016 (arXiv 1602.02282), eq. 13.
    """

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
    """One convolutional network a latent, whose features come from maps of every scale.

    Source: after the inference networks of Zhao, Song, Ermon 2017 (arXiv 1702.08396 and 1702.08658).
    """

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
) -> eqx.Module:
    """An evidence network for the latents `names` by its name, or around a module of the user's.

    "separate": one network a latent; "shared": one trunk; "bottom-up": the ladder's chain; "conv": one convolutional
    trunk over rows that are images of shape `image`; "pyramid": one convolutional network a latent, read at every
    scale; "linear": the data themselves, so that `depth=0` makes the guide linear. A module must map (*plates, inputs)
    to (*plates, module.output) features; where latents read different data, each reading has a copy of its own, since
    Equinox modules are values.

    Raises:
        ValueError: an unknown name, or "conv" or "pyramid" without an image shape of the right size.
    """
    if isinstance(spec, eqx.Module):
        if not hasattr(spec, "output"):
            raise ValueError(
                f"guide {guide}: encoder {type(spec).__name__} lacks the attribute `output`, its number of features"
            )
        return Shared(names, spec, spec.output)
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
    if spec in ("conv", "pyramid"):
        if image is None or len(image) != 3 or image[0] * image[1] * image[2] != inputs:
            raise ValueError(
                f"guide {guide}: encoder {spec!r} reads rows of {inputs} values as images, found image={image}; "
                "pass image=(channels, height, width)"
            )
        if spec == "pyramid":
            return Pyramids(names, image, hidden, depth, key=key)
        return Shared(names, (ConvEncoder(image, hidden, depth=depth, key=key), Silu()), hidden)
    raise ValueError(
        f"guide {guide}: found encoder {spec!r}, want 'separate', 'shared', 'bottom-up', 'conv', 'pyramid', 'linear' "
        "or a module"
    )


def _through(layers: Sequence[Callable], x: Array) -> Array:
    for layer in layers:
        x = layer(x)
    return x
