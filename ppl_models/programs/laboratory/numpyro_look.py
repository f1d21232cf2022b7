"""`Look`: a handler that holds some sites of a run of a NumPyro program and records all of them."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro.distributions import Unit
from numpyro.primitives import Messenger

from ..numpyro import in_support, is_point, kind_of, layers, site_of, unmasked, unwrapped
from ..record import Kind, Plate, is_masked_out
from ..state.jax import Parameters, speaks as speaks
from .base_coordinates import BASE, couples, pulled, pushed, stretch
from .numpyro_scans import unrolled
from .site_records import SiteRecord


class Look(Messenger):
    """Hold values, give out random keys and parameters, and take down every site."""

    def __init__(
        self,
        held: Mapping[str, Any],
        seed: int,
        parameters: Parameters,
        plates: dict[str, tuple[Plate, ...]],
        hidden: dict[str, bool],
        eager: bool = True,
    ) -> None:
        super().__init__()
        self.eager = eager  # no run of JAX's tracers
        self.held, self.seed, self.parameters, self.plates, self.hidden = held, seed, parameters, plates, hidden
        self.messages: dict[str, dict] = {}
        self.scans = self.drew = False
        self._count = count()

    def process_message(self, msg: dict) -> None:
        kind, name = msg["type"], msg.get("name", "")
        if kind == "control_flow":
            if msg["fn"].__name__ != "cond_wrapper":
                self.scans, msg["fn"] = True, unrolled(msg["fn"]) if self.eager else msg["fn"]
            msg["kwargs"]["substitute_stack"].append(("substitute", {k: jnp.asarray(v) for k, v in self.held.items()}))
        elif kind == "sample":
            msg["infer"] = dict(msg["infer"])
            msg["fn"] = _wide_counts(msg["fn"]) if self.parameters.double else msg["fn"]
            if name in self.held:
                msg["value"] = jnp.asarray(self.held[name])
            elif name + BASE in self.held:
                msg["value"] = pushed(layers(msg["fn"]).transforms, jnp.asarray(self.held[name + BASE]))
        elif kind == "plate" and name in self.held and msg["value"] is None:
            msg["value"] = jnp.asarray(self.held[name])
        elif kind == "deterministic":
            msg["computed"] = msg["value"]
            if name in self.held:
                msg["value"] = jnp.asarray(self.held[name])
        elif kind == "param" and name in self.parameters:
            msg["value"] = self.parameters[name]
        elif kind == "mutable" and self.parameters.state(name) is not None:
            msg["value"] = self.parameters.state(name)
        keyed = "rng_key" in msg.get("kwargs", ()) and msg["kwargs"]["rng_key"] is None
        if keyed and msg.get("value") is None:
            self.drew = True
            msg["kwargs"]["rng_key"] = self.key(name or f"\0{next(self._count)}")

    def postprocess_message(self, msg: dict) -> None:
        kind, name, value = msg["type"], msg.get("name", ""), msg.get("value")
        if kind == "param" and value is not None and name not in self.parameters:
            self.parameters.keep(name, value, msg["kwargs"].get("constraint"))
            msg["value"] = self.parameters[name]
        elif kind == "mutable" and value is not None and self.parameters.state(name) is None:
            self.parameters.keep_state(name, value)
            msg["value"] = self.parameters.state(name)
        elif kind in ("sample", "deterministic", "plate") and kind_of(msg):
            if kind != "plate" or name not in self.messages:
                self.messages[name] = msg.copy()
            if kind_of(msg) == "point":
                self._add_density(msg)

    def _add_density(self, msg: dict) -> None:
        """A point mass that has a density: of a model a factor like any other."""
        delta: Any = unwrapped(msg["fn"])
        density = delta.log_density
        if not isinstance(density, Tracer) and not np.any(density):
            return
        unit = Unit(jnp.broadcast_to(density, msg["fn"].batch_shape))
        name = f"{msg['name']} (density)"
        self.messages[name] = {**msg, "name": name, "fn": unit, "value": unit.sample(None)}

    def key(self, *what: Any) -> jax.Array:
        """A random key for a site, which no other site has."""
        return jax.random.fold_in(jax.random.key(self.seed), crc32(repr(what).encode()))

    def kind(self, name: str) -> Kind | None:
        """See `SiteRecord`."""
        msg = self.messages[name]
        return "deterministic" if msg["type"] == "sample" and is_point(msg["fn"]) else kind_of(msg)

    def signal(self, name: str) -> tuple[Any, bool]:
        """The log density of a site, or what it is computed as, and whether it is mute."""
        msg, kind = self.messages[name], self.kind(name)
        if kind == "subsample":
            return jnp.zeros(()), False
        if kind == "deterministic":
            if msg["type"] == "deterministic":
                return jnp.asarray(msg["computed"]), False
            delta: Any = unwrapped(msg["fn"])
            return jnp.broadcast_to(delta.v, jnp.shape(msg["value"])), False
        fn, value = msg["fn"], jnp.asarray(msg["value"])
        try:
            signal = fn.log_prob(value)
            if name not in self.hidden:
                self.hidden[name] = is_masked_out(site_of(msg), bool(jnp.any(signal)))
            if self.hidden[name]:
                signal = unmasked(fn).log_prob(value) + (signal != 0)
        except (KeyError, NotImplementedError, RuntimeError, ValueError):  # a flow that cannot be inverted
            if kind != "latent":
                raise
            return msg["fn"].sample(self.key(name)), True
        return signal if msg["scale"] is None else signal * msg["scale"], False

    def record(self, name: str) -> SiteRecord:
        """The record of a site of a run."""
        msg, kind, (signal, mute) = self.messages[name], self.kind(name), self.signal(name)
        site = site_of(msg)
        plates = tuple(sorted(site.plates, key=lambda plate: plate.dim))
        if plates:
            self.plates.setdefault(name, plates)
        elif kind == "deterministic" and msg["type"] == "sample":
            plates = self.plates.get(name, ())  # autoguides compute sites outside of the plates of the model's
        mask = False if self.hidden.get(name) else None
        site = replace(site, kind=kind, plates=plates, value=array_of(msg["value"]), mask=mask, fn=None)
        if msg["type"] != "sample":
            return SiteRecord(site=site, signal=array_of(signal))
        fn, fresh = msg["fn"], count()
        draw = None if kind in ("deterministic", "factor") else lambda: array_of(fn.sample(self.key(name, next(fresh))))
        states = (lambda: _states(fn)) if fn.has_enumerate_support else None
        test = None if kind == "factor" else in_support(fn, msg["value"])
        contains = None if test is None else lambda array: test(jnp.asarray(array))
        record = SiteRecord(site=site, signal=array_of(signal), fresh=draw, states=states, contains=contains, mute=mute)
        transforms = layers(fn).transforms if kind == "latent" and not mute else []
        if not couples(transforms):
            return record
        record = replace(record, base=lambda: array_of(pulled(transforms, jnp.asarray(msg["value"]))))
        if name + BASE not in self.held:
            return record
        volume = stretch(transforms, jnp.asarray(self.held[name + BASE]), jnp.ndim(signal))
        volume = np.broadcast_to(array_of(volume), record.signal.shape)
        return replace(record, signal=record.signal + volume, stretch=volume)


def _states(fn: Any) -> np.ndarray | None:
    try:
        return array_of(unwrapped(fn).enumerate_support(expand=False))
    except NotImplementedError:  # of binomials of different numbers of trials
        return None


def _wide_counts(fn: Any) -> Any:
    """A distribution with its number of trials in 64 bits: with 32, JAX in double precision cannot draw from it."""
    if not hasattr(unwrapped(fn), "total_count"):
        return fn
    return jax.tree.map(lambda leaf: leaf.astype(jnp.int64) if jnp.result_type(leaf) == jnp.int32 else leaf, fn)


def array_of(value: Any, double: bool = False) -> np.ndarray:
    array = np.array(value)
    if array.dtype.kind == "V":  # bfloat16 and its like
        array = array.astype(np.float32)
    return array.astype(np.float64) if double and array.dtype.kind == "f" else array
