"""The self-reflective VAE's generative model (Apostolopoulou, Rosenfeld, Dubrawski 2020, arXiv 2007.05166)."""

from collections.abc import Sequence
from itertools import accumulate
from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array

from ppl_models.parts.checks import check_features
from ppl_models.parts.sizes import block_shapes, event_size, one_size

from .parts import likelihoods
from .parts.bijectors import ConditionalRankOneAffine
from .parts.distributions import diagonal_normal
from .parts.nets import ConvNet, Features, Net
from .parts.program import Program


class SeReVAE(Program):
    """Port of `ppl_models.SeReVAE`: same sites, arguments and names of parameters; `key` seeds the weights."""

    features: tuple[Features | eqx.nn.Identity, ...]
    priors: tuple[Net, ...]
    bijectors: tuple[ConditionalRankOneAffine, ...]
    estimates: tuple[Net | ConvNet, ...]
    corrections: tuple[Net | ConvNet, ...]
    likelihood: eqx.Module
    event: int = eqx.field(static=True)
    image: tuple[int, ...] | None = eqx.field(static=True)
    shared: bool = eqx.field(static=True)
    layers: int = eqx.field(static=True)
    latent: int = eqx.field(static=True)
    heights: tuple[int, ...] = eqx.field(static=True)
    blocks: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        event: int | Sequence[int] = 784,
        layers: int = 10,
        latent: int = 10,
        hidden: int = 256,
        depth: int = 1,
        likelihood: str | eqx.Module = "bernoulli",
        network: str = "mlp",
        features: str = "separate",
        *,
        key: Array,
    ) -> None:
        self.event, self.image = event_size("SeReVAE", event, network)
        self.layers = layers = one_size("SeReVAE", "layers", layers)
        self.latent = latent = one_size("SeReVAE", "latent", latent)
        hidden = one_size("SeReVAE", "hidden", hidden)
        # at least one: the normalization inside bounds z_l, since u(z) enters squared and multiplies along the chain
        depth = one_size("SeReVAE", "depth", depth)
        shapes = block_shapes("SeReVAE", layers, self.event, self.image)
        self.likelihood = likelihoods.likelihood(likelihood, "SeReVAE")
        k = self.likelihood.count
        self.heights = tuple(shape[-2:][0] for shape in shapes)  # of a band its rows, of a stretch its values
        self.blocks = tuple(prod(shape) for shape in shapes)
        check_features("SeReVAE", features)
        self.shared = shared = features == "shared"
        # what reads a code: features, or the code itself by networks of their own
        width, deep, small = (hidden, 0, hidden) if shared else (latent, depth, max(hidden // 4, 1))
        codes, priors, bijectors, estimates, corrections = [], [], [], [], []
        for i, (shape, own) in enumerate(zip(shapes, jax.random.split(key, layers), strict=True)):
            above = [width] if i else []
            keys, unit = jax.random.split(own, 4), 0.1 if shared else 1.0
            read = jax.random.fold_in(own, 4)
            codes.append(Features(latent, hidden, depth, key=read) if shared else eqx.nn.Identity())
            priors.append(Net(above, 2 * latent, small, deep, gain=0.1 if i else 0.0, norm=True, key=keys[0]))
            bijectors.append(ConditionalRankOneAffine(latent, above, small, deep, unit=unit, key=keys[1]))
            if self.image is not None:
                channels, out = max(hidden // 16, 4), (k * shape[0], *shape[1:])
                estimates.append(ConvNet([width], out, channels=channels, depth=depth, key=keys[2]))
                if i:
                    corrections.append(ConvNet([width], out, shapes[i - 1], channels, depth, key=keys[3]))
            else:
                estimates.append(Net([width], k * shape[0], hidden, deep, norm=True, key=keys[2]))
                if i:
                    inputs = [width, self.blocks[i - 1]]
                    how = {"norm": not shared, "bend": shared, "key": keys[3]}
                    corrections.append(Net(inputs, k * shape[0], hidden, depth, **how))
        self.features, self.priors, self.bijectors = tuple(codes), tuple(priors), tuple(bijectors)
        self.estimates, self.corrections = tuple(estimates), tuple(corrections)

    def forward(self, x: Array | None = None, n: int = 1) -> Array:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.dtype)
        observed = [None] * self.layers if x is None else self.cut(x)
        scale = likelihoods.soft_scale if self.shared else likelihoods.bounded_exp
        drawn = []
        with numpyro.plate("data", n):
            above: list[Array] = []
            origin: tuple[Array, ...] = ()
            for i in range(self.layers):
                # p(zl | z{l-1}): eps_l ~ N(mu, sigma^2) pushed through the bijection
                loc, raw = jnp.split(self.priors[i](*above), 2, -1)
                eps = diagonal_normal(loc, scale(raw))
                bijection = self.bijectors[i](*above, origin=origin)
                z = numpyro.sample(f"z{i + 1}", dist.TransformedDistribution(eps, [bijection]))
                # p(xl | zl, x{l-1})
                h = self.features[i](z)
                params = self.estimates[i](h)
                if i:
                    params = params + self.corrections[i - 1](h, drawn[-1])
                drawn.append(numpyro.sample(f"x{i + 1}", self.likelihood(params), obs=observed[i]))
                above, origin = [h], (*jax.tree.leaves(self.features[i]), z)
        return self.join(drawn) if x is None else x

    def cut(self, x: Array) -> list[Array]:
        """The blocks of rows x (*batch, event): consecutive values, or bands of rows of an image."""
        if self.image is None:
            return jnp.split(x, list(accumulate(self.blocks[:-1])), -1)
        bands = jnp.split(x.reshape(*x.shape[:-1], *self.image), list(accumulate(self.heights[:-1])), -2)
        return [band.reshape(*x.shape[:-1], -1) for band in bands]

    def join(self, blocks: Sequence[Array]) -> Array:
        """The rows (*batch, event) of their blocks."""
        if self.image is None:
            return jnp.concatenate(blocks, -1)
        channels, _, width = self.image
        bands = [block.reshape(*block.shape[:-1], channels, -1, width) for block in blocks]
        image = jnp.concatenate(bands, -2)
        return image.reshape(*image.shape[:-3], -1)
