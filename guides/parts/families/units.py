"""`Units`: where the factor of a global latent begins and the units in which its family's numbers live, as buffers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import biject_to
from torch.distributions.transforms import AffineTransform
from torch.nn.functional import linear, normalize

from ppl_models.parts.distributions import RankOneNormal, diagonal_normal
from ppl_models.programs.pyro import run

from ..looks.latents import Latent
from ..looks.layout import Layout
from .continuous import gaussian_base
from .starts import (
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


class Units(nn.Module):
    """Location and units of the factor of one global latent, in unconstrained coordinates.

        z = loc + root (slope x + u),     u of the family around N(0, width^2),     x = (parents - their loc) / spread

    Args:
        latent: the latent.
        start: where it begins.
        units: of its family (`Factor.units`).
        read: how many entries of parents its network reads; 0 where it has no slope.
        old_width: the width that a file means which has no units.

    Attributes:
        loc: (*plates, *event).
        spread: the marginal standard deviations, by which those divide that read it, of the same shape.
        root: (*plates, n), or a triangular matrix, (*plates, n, n).
        width: (*plates, n).
        slope: (n, read).
    """

    loc: Tensor
    spread: Tensor
    root: Tensor
    width: Tensor
    slope: Tensor

    def __init__(self, latent: Latent, start: Start, units: str, read: int, old_width: float) -> None:
        super().__init__()
        shape, self.correlated, self.old_width = units_shape(latent), units in ("full", "copula"), old_width
        loc, scale = torch.tensor(start.loc), torch.tensor(start.scale)
        self.register_buffer("loc", loc)
        self.register_buffer("spread", scale)
        own = scale.reshape(shape)
        self.register_buffer("root", torch.diag_embed(own) if self.correlated else own.clone())
        self.register_buffer("width", torch.ones_like(own) if start.width is None else start.width / own)
        self.register_buffer("slope", torch.zeros(shape[-1], read, dtype=own.dtype))

    def read(self, value: Tensor) -> Tensor:
        """An unconstrained value as those read it that are given it, (*particles, *plates, *event)."""
        return (value - self.loc) / self.spread

    def shifted(self, raw: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """The raw numbers of a factor, of which the first n are shifts, with the linear part of its parents."""
        if not self.slope.shape[-1]:
            return raw
        n, parts = self.slope.shape[0], self.slope.split([x.shape[-1] for x in inputs], -1)
        shift = raw[..., :n]
        for x, part in zip(inputs, parts, strict=True):
            shift = shift + linear(x, part)
        return torch.cat([shift, raw[..., n:].expand(*shift.shape[:-1], -1)], -1)

    def forward(self, q: TorchDistributionMixin) -> TorchDistributionMixin:
        """The factor of a density of the family, residual(raw, 0, width)."""
        return in_units(q, self.loc.reshape(self.width.shape), self.root)

    @torch.no_grad()
    def begin(self, loc: np.ndarray, found: Found) -> None:
        """Start at a mode, in the units of the curvature there; raw numbers of 0 give the Gaussian that `found` is."""
        values = {"loc": loc, "spread": found.spread, "root": found.root, "width": 1.0}
        if self.slope.shape[-1]:
            values["slope"] = found.slope
        for name, value in values.items():
            buffer = getattr(self, name)
            buffer.copy_(torch.as_tensor(value).reshape(buffer.shape) if np.ndim(value) else buffer.new_tensor(value))

    @torch.no_grad()
    def narrow(self) -> None:
        """Begin with a standard deviation of 0.1, as AutoNormal does, or that of the prior where it is less."""
        own = self.spread.reshape(self.width.shape)
        self.width.copy_((INIT_SCALE / own).clamp(max=1.0))

    def absent(self) -> dict[str, Tensor]:
        """The buffers of a file that has none: units of 1 around 0."""
        ones = torch.ones_like(self.width)
        root = torch.diag_embed(ones) if self.correlated else ones
        found = {"loc": torch.zeros_like(self.loc), "spread": torch.ones_like(self.spread), "root": root}
        return {**found, "width": self.old_width * ones, "slope": torch.zeros_like(self.slope)}

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        for name, value in self.absent().items():
            state_dict.setdefault(prefix + name, value)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class Base(nn.Module):
    """Where the base of a local factor begins that has one of its own: mean and spread of the prior's on the example.

    Attributes:
        loc, spread: (n,).
    """

    loc: Tensor
    spread: Tensor

    def __init__(self, loc: np.ndarray, spread: np.ndarray) -> None:
        super().__init__()
        for name, value in (("loc", loc), ("spread", spread)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.get_default_dtype()))


def in_units(q: TorchDistributionMixin, loc: Tensor, root: Tensor) -> TorchDistributionMixin:
    """The density of loc + root u, u of q over R^n.

    Args:
        q: of a family, any of one's own where the root is a vector.
        loc: (*batch, n).
        root: a unit for each entry, (*batch, n), or a triangular matrix, (*batch, n, n). Of a flow it is the scale of
            each entry, outside, and the correlations of the base, inside.
    """
    if root.dim() == loc.dim():
        if isinstance(q, dist.Independent) and isinstance(q.base_dist, torch.distributions.Normal):
            return diagonal_normal(loc + root * q.base_dist.loc, root * q.base_dist.scale)
        if isinstance(q, RankOneNormal):
            return RankOneNormal(loc + root * q.loc, q.diagonal / root.square(), q.vector / root)
        return dist.TransformedDistribution(q, [AffineTransform(loc, root, cache_size=1)])
    if isinstance(q, torch.distributions.MultivariateNormal):
        moved = (root @ q.loc.unsqueeze(-1)).squeeze(-1)
        return dist.MultivariateNormal(loc + moved, scale_tril=root @ q.scale_tril)
    scale = root.norm(dim=-1)
    tril = normalize(root / scale.unsqueeze(-1) @ q.base_dist.scale_tril, dim=-1)
    base = dist.MultivariateNormal(q.base_dist.loc, scale_tril=tril)
    return dist.TransformedDistribution(base, [*q.transforms, AffineTransform(loc, scale, cache_size=1)])


def prior_starts(
    model: Callable, args: Sequence[Any], layout: Layout, init_loc_fn: Callable | None, init_scale: float | None
) -> dict[str, Start]:
    """The starts of the globals: location and scale of their priors, each given the locations of those before it.

    Args:
        model, args: the model and an example, on which it is run once, if there are globals.
        layout: of the model.
        init_loc_fn: gives the location in place of the prior's, a function of a site, as for Pyro's AutoNormal.
        init_scale: the standard deviation to begin with, in unconstrained coordinates; with `init_loc_fn` alone 0.1.

    Raises:
        ValueError: see `start_width`, `check_given`.
    """
    width = start_width(init_loc_fn, init_scale)
    latents = {n: latent for n, latent in layout.latents.items() if latent.is_global and not latent.facts.is_discrete}
    if not latents:
        return {}
    starting = _Starting(layout.guide, latents, init_loc_fn, width)
    with torch.random.fork_rng([]), torch.no_grad(), poutine.block(), starting:
        model(*args)
    return {name: starting.found[name] for name in latents}


def prior_bases(model: Callable, args: Sequence[Any], layout: Layout) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The bases of priors that are Gaussians, pushed through bijections or not: mean and spread over an example, (n,).

    Args:
        model, args: the model and an example, on which it is run once.
        layout: of the model.
    """
    with torch.random.fork_rng([]):
        latents = run(model, args).latents
    found = {name: gaussian_base(latents[name].fn) for name in layout.latents if name in latents}
    arrays = {name: [part.detach().cpu().double().numpy() for part in base[:2]] for name, base in found.items() if base}
    return {name: mean_and_spread(*parts) for name, parts in arrays.items()}


class _Starting(Messenger):
    """Hold every global at its start."""

    def __init__(
        self, guide: str, latents: Mapping[str, Latent], init_loc_fn: Callable | None, width: float | None
    ) -> None:
        super().__init__()
        self.guide, self.latents, self.init_loc_fn, self.width = guide, latents, init_loc_fn, width
        self.found: dict[str, Start] = {}

    def _pyro_sample(self, msg: Any) -> None:
        latent = self.latents.get(msg["name"])
        if latent is None or msg["value"] is not None:
            return
        bijection, shape = biject_to(latent.facts.support), tuple(msg["fn"].shape())
        value, loc, scale = _of_prior(msg["fn"], bijection)
        given = None if self.init_loc_fn is None else self.init_loc_fn(msg)
        if given is not None:
            check_given(self.guide, latent.name, given.shape, shape)
            value, loc = given.detach(), bijection.inv(given.detach())
        msg["value"], msg["done"] = value, True
        loc, scale = (x.cpu().double().numpy().reshape(shape_of(latent)) for x in (loc, scale))
        self.found[latent.name] = Start(loc, scale, self.width)


def _of_prior(fn: Any, bijection: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(a value, its place and the spread in unconstrained coordinates) of a prior."""
    base = gaussian_base(fn)
    if base is not None:
        place, scale, event, transforms = base
        place, further = (x.reshape((*x.shape[:-1], *event)) for x in (place, place + scale))
        for transform in transforms:
            place, further = transform(place), transform(further)
        loc = bijection.inv(place)
        spread = (bijection.inv(further) - loc).abs()
        if torch.isfinite(loc).all() and torch.isfinite(spread).all() and (spread > 0).all():
            return place, loc, spread
    draws = bijection.inv(fn.sample(torch.Size([draws_of(fn.shape())])))
    found, like = median_and_spread(draws.cpu().numpy()), {"dtype": draws.dtype, "device": draws.device}
    loc, spread = (torch.tensor(x, **like) for x in found)
    return bijection(loc), loc, spread
