"""`Units`: where the factor of a global latent begins, and the units in which its family's numbers live; constants."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import handlers
from numpyro.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
    biject_to,
)
from numpyro.distributions.transforms import AffineTransform
from numpyro.primitives import Messenger

from guides.parts.families.starts import (
    INIT_SCALE,
    Start,
    Units as Found,
    check_given,
    draws_of,
    mean_and_spread,
    median_and_spread,
    shape_of,
    start_width,
    units_shape,
)
from guides.parts.looks.latents import Latent
from guides.parts.looks.layout import Layout
from ppl_models.numpyro.parts.distributions import RankOneNormal, diagonal_normal
from ppl_models.numpyro.parts.program import Constant
from ppl_models.programs.numpyro import run

from .families import gaussian_base


class Units(eqx.Module):
    """See `guides.parts.families.units.Units`: its buffers are constants here, of double precision."""

    loc: Constant
    spread: Constant
    root: Constant
    width: Constant
    slope: Constant
    old_width: float = eqx.field(static=True)

    def __init__(self, latent: Latent, start: Start, units: str, read: int, old_width: float) -> None:
        shape, self.old_width = units_shape(latent), old_width
        own = start.scale.reshape(shape)
        self.loc, self.spread = Constant(start.loc), Constant(start.scale)
        self.root = Constant(_diagonal(own) if units in ("full", "copula") else own)
        self.width = Constant(np.ones(shape) if start.width is None else start.width / own)
        self.slope = Constant(np.zeros((shape[-1], read)))

    def read(self, value: Array) -> Array:
        """An unconstrained value as those read it that are given it, (*particles, *plates, *event)."""
        return (value - _like(self.loc, value)) / _like(self.spread, value)

    def shifted(self, raw: Array, inputs: Sequence[Array]) -> Array:
        """The raw numbers of a factor, of which the first n are shifts, with the linear part of its parents."""
        if not self.slope.shape[-1]:
            return raw
        n, slope = self.slope.shape[0], _like(self.slope, raw)
        parts = jnp.split(slope, np.cumsum([x.shape[-1] for x in inputs])[:-1], -1)
        shift = raw[..., :n]
        for x, part in zip(inputs, parts, strict=True):
            shift = shift + x @ part.T
        return jnp.concatenate([shift, jnp.broadcast_to(raw[..., n:], (*shift.shape[:-1], raw.shape[-1] - n))], -1)

    def of(self, residual: Callable, raw: Array) -> Distribution:
        """The factor of the `residual` of a family."""
        width = _like(self.width, raw)
        return in_units(residual(raw, 0.0, width), _like(self.loc, raw).reshape(width.shape), _like(self.root, raw))

    def narrow(self) -> Self:
        """See `guides.parts.families.units.Units.narrow`."""
        own = self.spread.value.reshape(self.width.shape)
        return self._with({"width": np.minimum(INIT_SCALE / own, 1.0)})

    def begun(self, loc: np.ndarray, found: Found) -> Self:
        """The units of a mode, where raw numbers of 0 give the Gaussian that `found` is."""
        values = {"loc": loc, "spread": found.spread, "root": found.root, "width": np.ones(self.width.shape)}
        if self.slope.shape[-1]:
            values["slope"] = found.slope
        return self._with(values)

    def _with(self, values: Mapping[str, np.ndarray]) -> Self:
        new = copy(self)
        for name, value in values.items():
            constant = Constant(np.asarray(value, float).reshape(getattr(self, name).shape))
            object.__setattr__(new, name, constant)  # as Equinox itself fills a module
        return new

    def absent(self) -> dict[str, np.ndarray]:
        """The constants of a file that has none: units of 1 around 0."""
        ones = np.ones(self.width.shape)
        root = ones if self.root.shape == ones.shape else _diagonal(ones)
        found = {"loc": np.zeros(self.loc.shape), "spread": np.ones(self.loc.shape), "root": root}
        return {**found, "width": self.old_width * ones, "slope": np.zeros(self.slope.shape)}


class Base(eqx.Module):
    """See `guides.parts.families.units.Base`."""

    loc: Constant
    spread: Constant

    def __init__(self, loc: np.ndarray, spread: np.ndarray) -> None:
        self.loc, self.spread = Constant(loc), Constant(spread)

    def like(self, raw: Array) -> tuple[Array, Array]:
        """(mean, spread) in the precision of the numbers of a factor."""
        return _like(self.loc, raw), _like(self.spread, raw)


def in_units(q: Any, loc: Array, root: Array) -> Distribution:
    """See `guides.parts.families.units.in_units`."""
    if root.ndim == loc.ndim:
        if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
            return diagonal_normal(loc + root * q.base_dist.loc, root * q.base_dist.scale)
        if isinstance(q, RankOneNormal):
            return RankOneNormal(loc + root * q.loc, q.diagonal / jnp.square(root), q.vector / root)
        return TransformedDistribution(q, [AffineTransform(loc, root)])
    if isinstance(q, MultivariateNormal):
        return MultivariateNormal(loc + (root @ q.loc[..., None])[..., 0], scale_tril=root @ q.scale_tril)
    scale = jnp.linalg.norm(root, axis=-1)
    tril = root / scale[..., None] @ q.base_dist.scale_tril
    tril = tril / jnp.linalg.norm(tril, axis=-1, keepdims=True)
    base = MultivariateNormal(q.base_dist.loc, scale_tril=tril)
    return TransformedDistribution(base, [*q.transforms, AffineTransform(loc, scale)])


def prior_starts(
    model: Callable, args: Sequence[Any], layout: Layout, init_loc_fn: Callable | None, init_scale: float | None
) -> dict[str, Start]:
    """See `guides.parts.families.units.prior_starts`; `init_loc_fn` is a function of a site, as for AutoNormal.

    Raises:
        ValueError: see `start_width`, `check_given`.
    """
    width = start_width(init_loc_fn, init_scale)
    latents = {n: latent for n, latent in layout.latents.items() if latent.is_global and not latent.facts.is_discrete}
    if not latents:
        return {}
    starting = _Starting(layout.guide, latents, init_loc_fn, width)
    with handlers.block(), starting, handlers.seed(rng_seed=0):
        model(*args)
    shapes = {name: shape_of(latent) for name, latent in latents.items()}
    plain = {name: Start(np.zeros(shape), np.ones(shape), width) for name, shape in shapes.items()}  # inside a scan
    return {name: starting.found.get(name, plain[name]) for name in latents}


def prior_bases(model: Callable, args: Sequence[Any], layout: Layout) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """See `guides.parts.families.units.prior_bases`."""
    latents = run(model, args).latents
    found = {name: gaussian_base(latents[name].fn) for name in layout.latents if name in latents}
    return {name: mean_and_spread(*(np.asarray(part) for part in base[:2])) for name, base in found.items() if base}


class _Starting(Messenger):
    """Hold every global at its start."""

    def __init__(
        self, guide: str, latents: Mapping[str, Latent], init_loc_fn: Callable | None, width: float | None
    ) -> None:
        super().__init__()
        self.guide, self.latents, self.init_loc_fn, self.width = guide, latents, init_loc_fn, width
        self.found: dict[str, Start] = {}

    def process_message(self, msg: dict[str, Any]) -> None:
        """Put a global at its start."""
        latent = self.latents.get(msg.get("name", "")) if msg["type"] == "sample" else None
        if latent is None or msg["value"] is not None:
            return
        bijection = biject_to(latent.facts.support)
        value, loc, scale = _of_prior(msg["fn"], bijection, msg["kwargs"]["rng_key"])
        given = None if self.init_loc_fn is None else self.init_loc_fn(msg)
        if given is not None:
            check_given(self.guide, latent.name, jnp.shape(given), jnp.shape(value))
            value, loc = given, bijection.inv(given)
        msg["value"] = value
        loc, scale = (np.asarray(x, float).reshape(shape_of(latent)) for x in (loc, scale))
        self.found[latent.name] = Start(loc, scale, self.width)


def _of_prior(fn: Distribution, bijection: Any, key: Array) -> tuple[Array, Array, Array]:
    """(a value, its place and the spread in unconstrained coordinates) of a prior."""
    base = gaussian_base(fn)
    if base is not None:
        place, scale, event, transforms = base
        place, further = (x.reshape((*x.shape[:-1], *event)) for x in (place, place + scale))
        for transform in transforms:
            place, further = transform(place), transform(further)
        loc = bijection.inv(place)
        spread = jnp.abs(bijection.inv(further) - loc)
        if jnp.isfinite(loc).all() and jnp.isfinite(spread).all() and (spread > 0).all():
            return place, loc, spread
    draws = bijection.inv(fn.sample(key, (draws_of(fn.shape()),)))
    loc, spread = (jnp.asarray(x, draws.dtype) for x in median_and_spread(np.asarray(draws)))
    return bijection(loc), loc, spread


def _like(constant: Constant, array: Array) -> Array:
    return jnp.asarray(constant.value, array.dtype)


def _diagonal(vector: np.ndarray) -> np.ndarray:
    return vector[..., None] * np.eye(vector.shape[-1])
