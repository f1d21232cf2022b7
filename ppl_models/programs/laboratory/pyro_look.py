"""`Look`: a handler that holds some sites of a run of a Pyro program and records all of them."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.ops.provenance import detach_provenance
from pyro.poutine.messenger import Messenger
from pyro.util import get_rng_state, set_rng_state
from torch import Tensor

from ..pyro import (
    elementwise,
    in_support,
    layers,
    site_of,
    support_of,
    unmasked,
    unwrapped,
)
from ..record import Site, is_masked_out
from ..state.torch import seed_generators
from .base_coordinates import BASE, couples, pulled, pushed, stretch
from .experiments import Values
from .site_records import SiteRecord


class Look(Messenger):
    """Hold values and take down every site."""

    def __init__(self, held: Values, seed: int, devices: dict[str, torch.device], hidden: dict[str, bool]) -> None:
        super().__init__()
        self.held, self.seed, self.devices, self.hidden = held, seed, devices, hidden
        self.records: list[SiteRecord] = []

    def _pyro_sample(self, msg: dict) -> None:
        name = msg["name"]
        msg["infer"] = {**(msg["infer"] or {}), "_computed": msg["value"]}
        if name in self.held:
            value = torch.from_numpy(np.array(self.held[name]))
            msg["value"], msg["done"] = value.to(self.devices.get(name, "cpu")), True
        elif name + BASE in self.held:
            base = torch.from_numpy(np.array(self.held[name + BASE])).to(self.devices.get(name, "cpu"))
            msg["value"], msg["done"] = pushed(layers(msg["fn"]).transforms, base), True

    def _pyro_post_sample(self, msg: dict) -> None:
        computed = msg["infer"].pop("_computed", None)
        value = detach_provenance(msg["value"])
        if not isinstance(value, Tensor):
            return
        self.devices[msg["name"]] = value.device
        site = site_of(msg)
        if site.kind == "subsample":
            self.records.append(SiteRecord(site=replace(site, value=array_of(value))))
            return
        plates = tuple(sorted(site.plates, key=lambda plate: plate.dim))
        site = replace(site, plates=plates, value=array_of(value), fn=None)
        fn, bare = msg["fn"], cast(Any, unwrapped(msg["fn"]))
        if site.kind == "deterministic":
            signal, density = computed, None
        elif isinstance(bare, Delta):
            density = None if is_silent(fn) else bare.log_density
            site, signal = replace(site, kind="deterministic"), bare.v
        else:
            self.records.append(self._drawn(site, msg))
            return
        self.records.append(SiteRecord(site=site, signal=array_of(signal), **_others(fn, value)))
        if density is not None and (density != 0).any():
            # of a model a factor like any other; of a guide a Jacobian
            factor = replace(site, name=density_of(site.name), kind="factor", event_dim=0)
            self.records.append(SiteRecord(site=factor, signal=array_of(density)))

    def _drawn(self, site: Site, msg: dict) -> SiteRecord:
        """The record of a site that has a density."""
        fn, mute, hidden = msg["fn"], False, False
        try:
            # a scale that is a number depends on nothing, and may make a density too faint to be seen to move
            scale = msg["scale"] if isinstance(msg["scale"], Tensor) else 1.0
            signal = scale_and_mask(fn.log_prob(msg["value"], *msg["args"]), scale, msg["mask"])
            if site.name not in self.hidden:
                self.hidden[site.name] = is_masked_out(site, bool(signal.any()))
            if hidden := self.hidden[site.name]:
                signal = scale_and_mask(unmasked(fn).log_prob(msg["value"], *msg["args"]), scale) + (signal != 0)
        except (KeyError, NotImplementedError, RuntimeError):  # a flow that cannot be inverted
            if site.kind != "latent":
                raise
            signal, mute = _fresh(fn, site.name, self.seed), True
        fresh = None if site.kind == "factor" else lambda: array_of(fn())  # as programs do: a flow may have no `sample`
        if hidden or site.mask is not None:
            site = replace(site, mask=False if hidden else None)
        record = SiteRecord(site=site, signal=array_of(signal), fresh=fresh, mute=mute, **_others(fn, msg["value"]))
        transforms = layers(fn).transforms if site.kind == "latent" and not mute else []
        if not couples(transforms):
            return record
        record = replace(record, base=lambda: array_of(pulled(transforms, msg["value"])))
        if site.name + BASE not in self.held:
            return record
        base = torch.from_numpy(np.array(self.held[site.name + BASE])).to(msg["value"].device)
        volume = np.broadcast_to(array_of(stretch(transforms, base, signal.ndim)), signal.shape)
        return replace(record, signal=record.signal + volume, stretch=volume)


def density_of(name: str) -> str:
    """The name of the factor that the density of a point mass is."""
    return f"{name} (density)"


def is_silent(fn: Any) -> bool:
    """Whether a distribution is masked as a whole, as reparametrized sites are left."""
    return any(mask.kept is False for mask in layers(fn).masks)


def _others(fn: Any, value: Tensor) -> dict[str, Any]:
    """Facts of the values of a distribution that an inspection needs."""
    states = (lambda: _states(fn)) if unwrapped(fn).has_enumerate_support else None
    joint = elementwise(support_of(fn, value)).event_dim > 0
    test = in_support(fn, value)
    contains = None if test is None else lambda array: test(torch.from_numpy(array).to(value.device))
    return {"states": states, "joint": joint, "contains": contains}


def _states(fn: Any) -> np.ndarray | None:
    try:
        return array_of(unwrapped(fn).enumerate_support(expand=False))
    except NotImplementedError:  # of binomials of different numbers of trials
        return None


def _fresh(fn: Any, name: str, seed: int) -> Tensor:
    """A draw whose random numbers depend on the name and the seed alone, not on what was drawn before."""
    state = get_rng_state()
    seed_generators(seed + sum(ord(c) * 31**i for i, c in enumerate(name)) % 2**31)
    value = fn()
    set_rng_state(state)
    return value


def array_of(value: Any) -> np.ndarray:
    value = torch.as_tensor(value).detach()
    return (value.float() if value.dtype in (torch.bfloat16, torch.half) else value).cpu().numpy().copy()
