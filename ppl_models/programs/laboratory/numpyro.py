"""`NumPyroLaboratory`: controlled runs of NumPyro programs, for an inspection."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import count
from typing import Any, ClassVar
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro.distributions import Unit
from numpyro.infer.autoguide import AutoGuide
from numpyro.ops.provenance import eval_provenance
from numpyro.primitives import Messenger

from ..numpyro import in_support, is_point, kind_of, layers, site_of, unmasked, unwrapped
from ..record import Kind, Plate, is_masked_out
from ..state.jax import Parameters, protected, reachable, speaks as speaks
from ..state.jitter import Jitter
from ..state.reach import named_leaves
from .base_coordinates import BASE, couples, pulled, pushed, stretch
from .experiments import Leaves, Modes, Owners, ProgramRun, SiteRecord, Tags, Values
from .numpyro_scans import compiled, unrolled


class NumPyroLaboratory:
    """See `ppl_models.programs.laboratory.Laboratory`. Double precision, unless a program cannot do with it.

    Programs run eagerly, with random numbers of their own for each site, whatever has been drawn before. A first run
    makes the parameters; all others get the same, as there is no store in NumPyro.

    Args:
        programs: to be run.
        args, kwargs: of the programs.
        double: whether parameters and data are converted to float64, and constants made in it.
    """

    MODES: ClassVar[Modes] = ({"double": True}, {"double": False})
    placed: ClassVar[bool] = False

    def __init__(
        self, programs: Sequence[Callable], args: Sequence[Any], kwargs: Mapping[str, Any], double: bool = True
    ) -> None:
        self._given = tuple(args), dict(sorted(kwargs.items()))  # as JAX sorts the keys of a dict
        self._flat, self._spec = jax.tree.flatten(self._given)
        self._where = [i for i, leaf in enumerate(self._flat) if _is_data(leaf)]
        self.leaves = [_array(self._flat[i], double) for i in self._where]
        self.tolerance = 1e-10 if double else 1e-5
        self.opaque = _opaque(self._flat)
        self.doubts: list[str] = []
        self.runs = 0
        self._programs, self._double, self._parameters = list(programs), double, Parameters(double)
        self._plates: dict[str, tuple[Plate, ...]] = {}
        self._compiled: dict[Any, Callable[..., ProgramRun] | None] = {}
        self._hidden: dict[int, dict[str, bool]] = {}  # of each program, the sites that its first run masks out

    def leaf_names(self, program: Callable) -> list[str]:
        """See `Laboratory.leaf_names`."""
        return named_leaves(program, *self._given, self._where, lambda value: len(jax.tree.leaves(value)))

    @property
    def remarks(self) -> list[str]:
        """See `Laboratory.remarks`."""
        if self._double:
            return []
        return ["run in single precision, as the programs fail in double: faint dependences may be missed"]

    def protected(self) -> AbstractContextManager[None]:
        """Whatever happens inside leaves guides, handlers, random numbers and the precision as they were."""
        for item in reachable(self._programs):
            if isinstance(item, AutoGuide) and "DAIS" in type(item).__name__:
                raise ValueError(
                    f"{type(item).__name__} computes its draws by Hamiltonian dynamics on the model: it has no factors "
                    "to look at; inspect AutoNormal, AutoMultivariateNormal or a guide of your own"
                )
        return protected(self._programs, self._double)

    def settle(self) -> None:
        """See `Laboratory.settle`: parameters are found as they are met."""

    def run(
        self, program: Callable, values: Values, seed: int, jitter: Jitter | int | None, leaves: Leaves | None
    ) -> ProgramRun:
        """See `Experiment.run`. A program that scans is compiled for its runs after the first with such values held."""
        leaves = [np.array(leaf) for leaf in (self.leaves if leaves is None else leaves)]
        shapes = tuple((name, np.shape(value), np.asarray(value).dtype) for name, value in sorted(values.items()))
        key = id(program), shapes
        if again := self._compiled.get(key):
            try:
                return again(values, seed, jitter, leaves)
            except Exception:  # noqa: BLE001 (a program may look at its numbers, or not be the same twice)
                self._compiled[key] = None
        found, scans = self._eagerly(program, values, seed, jitter, leaves)
        held_by_base = any(name.endswith(BASE) for name in values)  # whose volumes are of eager runs
        if scans and values and not held_by_base and key not in self._compiled:
            self._compiled[key] = self._compile(program, found)
        return found

    def _eagerly(
        self, program: Callable, values: Values, seed: int, jitter: Jitter | int | None, leaves: Leaves
    ) -> tuple[ProgramRun, bool]:
        """A run, and whether it scans."""
        look = self._look(program, values, seed, jitter)
        self._call(program, look, leaves)
        records = [look.record(name) for name in look.messages]
        scans = (
            "a program scans over steps that share their sites, so that they cannot be told apart; write the loop "
            "in Python, with a name for each step"
        )
        if look.scans and scans not in self.doubts:
            self.doubts.append(scans)
        return ProgramRun(records), look.scans

    def _compile(self, program: Callable, like: ProgramRun) -> Callable[..., ProgramRun]:
        """A function that runs a program compiled, with records like those of a run."""

        def numbers(values: Values, leaves: Leaves, seed: int) -> dict[str, tuple[Any, Any]]:
            look = _Look(values, seed, self._parameters, self._plates, self._hidden[id(program)], eager=False)
            self._call(program, look, leaves)
            return {name: (msg["value"], look.signal(name)[0]) for name, msg in look.messages.items()}

        def eagerly(*given: Any) -> ProgramRun:
            return self._eagerly(program, *given)[0]

        return compiled(program, numbers, eagerly, self._parameters, like)

    def tags(self, program: Callable, owners: Owners, values: Values, jitter: Jitter | int | None) -> Tags:
        """See `Experiment.tags`: reachability in the jaxpr of the log densities.

        Deterministic sites that are not held pass on what they are computed from.
        """
        run = self.run(program, values, 0, jitter, None)
        inputs = {name: record.value for name, record in run.of("latent", "observed").items() if record.value.size}
        inputs |= {name: s.value for name, s in run.of("deterministic", "subsample").items() if name in values}
        leaves = {f"\0{k}": leaf for k, leaf in enumerate(self.leaves)}

        def signals(**inputs: Any) -> dict[str, Any]:
            look = self._look(program, {k: v for k, v in inputs.items() if k not in leaves}, 0, jitter)
            self._call(program, look, [inputs[k] for k in leaves])
            return {name: look.signal(name)[0] for name in look.messages}

        reached = eval_provenance(signals, **inputs, **leaves)
        data = {key: owners[k] if owners else frozenset() for k, key in enumerate(leaves)}
        return {
            site: frozenset().union(*(data.get(name, {name}) for name in found)) - {site}
            for site, found in reached.items()
            if site in run and run[site].kind != "subsample"
        }

    def density(self, program: Callable, values: Values, places: Mapping, entries: Mapping) -> None:
        """See `Laboratory.density`: without gradients."""

    def _look(self, program: Callable, values: Mapping[str, Any], seed: int, jitter: Jitter | int | None) -> "_Look":
        self._parameters.jitter(jitter)
        np.random.seed(seed % 2**32)  # for programs that draw numbers of their own
        return _Look(values, seed, self._parameters, self._plates, self._hidden.setdefault(id(program), {}))

    def _call(self, program: Callable, look: "_Look", leaves: Sequence[Any]) -> None:
        flat = list(self._flat)
        for i, leaf in zip(self._where, leaves, strict=True):
            flat[i] = leaf if isinstance(self._flat[i], np.ndarray) else jnp.asarray(leaf)
        args, kwargs = jax.tree.unflatten(self._spec, flat)
        with warnings.catch_warnings(), look:
            warnings.simplefilter("ignore")
            program(*args, **kwargs)


class _Look(Messenger):
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
        self.scans = False
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
        site = replace(site, kind=kind, plates=plates, value=_array(msg["value"]), mask=mask, fn=None)
        if msg["type"] != "sample":
            return SiteRecord(site=site, signal=_array(signal))
        fn, fresh = msg["fn"], count()
        draw = None if kind in ("deterministic", "factor") else lambda: _array(fn.sample(self.key(name, next(fresh))))
        states = (lambda: _states(fn)) if fn.has_enumerate_support else None
        test = None if kind == "factor" else in_support(fn, msg["value"])
        contains = None if test is None else lambda array: test(jnp.asarray(array))
        record = SiteRecord(site=site, signal=_array(signal), fresh=draw, states=states, contains=contains, mute=mute)
        transforms = layers(fn).transforms if kind == "latent" and not mute else []
        if not couples(transforms):
            return record
        record = replace(record, base=lambda: _array(pulled(transforms, jnp.asarray(msg["value"]))))
        if name + BASE not in self.held:
            return record
        volume = stretch(transforms, jnp.asarray(self.held[name + BASE]), jnp.ndim(signal))
        volume = np.broadcast_to(_array(volume), record.signal.shape)
        return replace(record, signal=record.signal + volume, stretch=volume)


def _states(fn: Any) -> np.ndarray | None:
    try:
        return _array(unwrapped(fn).enumerate_support(expand=False))
    except NotImplementedError:  # of binomials of different numbers of trials
        return None


def _wide_counts(fn: Any) -> Any:
    """A distribution with its number of trials in 64 bits: with 32, JAX in double precision cannot draw from it."""
    if not hasattr(unwrapped(fn), "total_count"):
        return fn
    return jax.tree.map(lambda leaf: leaf.astype(jnp.int64) if jnp.result_type(leaf) == jnp.int32 else leaf, fn)


def _is_data(leaf: Any) -> bool:
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return False
    return isinstance(leaf, (jax.Array, np.ndarray)) and leaf.dtype.kind in "biufcV"


def _opaque(flat: Sequence[Any]) -> bool:
    """Whether data may hide among the arguments: in objects that hold arrays, or in lists of numbers."""
    others = [leaf for leaf in flat if not callable(leaf) and not isinstance(leaf, (jax.Array, np.ndarray))]
    hidden = any(isinstance(item, (jax.Array, np.ndarray)) for item in reachable(others))
    return hidden or sum(isinstance(leaf, float) for leaf in others) > 2


def _array(value: Any, double: bool = False) -> np.ndarray:
    array = np.array(value)
    if array.dtype.kind == "V":  # bfloat16 and its like
        array = array.astype(np.float32)
    return array.astype(np.float64) if double and array.dtype.kind == "f" else array
