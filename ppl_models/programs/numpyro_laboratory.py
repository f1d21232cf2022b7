"""Runs of NumPyro programs for an inspection."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Delta, ExpandedDistribution, Independent, MaskedDistribution, Unit
from numpyro.infer.autoguide import AutoGuide
from numpyro.ops.provenance import eval_provenance
from numpyro.primitives import Messenger

from . import leaf_names
from .jax_state import Parameters, kept, reachable, speaks as speaks
from .laboratory import Plate, Seen, Trial, Values


class NumPyroBackend:
    """See `ppl_models.programs.laboratory.Backend`. Double precision, unless a program cannot do with it.

    Programs run eagerly, with random numbers of their own for each site, whatever has been drawn before. A first run
    makes the parameters; all others get the same, as there is no store in NumPyro.

    Args:
        args, kwargs: of the programs.
        double: whether parameters and data are converted to float64, and constants made in it.
    """

    MODES = ({"double": True}, {"double": False})
    opaque = False  # lists of numbers are data here, and objects that hold arrays are not taken

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any], double: bool = True) -> None:
        flat, self._spec = jax.tree.flatten((tuple(args), dict(kwargs)))
        self._where = [i for i, leaf in enumerate(flat) if _is_data(leaf)]
        self._flat = flat
        self.leaves = [_array(flat[i], double) for i in self._where]
        self.tolerance = 1e-10 if double else 1e-5
        self.doubts: list[str] = []
        self._double, self._parameters = double, Parameters(double)
        self._plates: dict[str, tuple[Plate, ...]] = {}
        self._held: Values = {}

    def names_for(self, program: Callable) -> list[str]:
        """A name for each leaf: the parameter of the program that it is passed as, or is part of."""
        args, kwargs = jax.tree.unflatten(self._spec, range(len(self._flat)))
        return leaf_names(program, args, kwargs, self._where, jax.tree.leaves)

    @property
    def remarks(self) -> list[str]:
        """What a reader should know of how the programs were run."""
        if self._double:
            return []
        return ["run in single precision, as the programs fail in double: faint dependences may be missed"]

    @contextmanager
    def protected(self, programs: Sequence[Callable]) -> Iterator[None]:
        """Whatever happens inside leaves guides, handlers, random numbers and the precision as they were."""
        for item in reachable(programs):
            if isinstance(item, AutoGuide) and "DAIS" in type(item).__name__:
                raise ValueError(
                    f"{type(item).__name__} computes its draws by Hamiltonian dynamics on the model: it has no factors "
                    "to look at; inspect AutoNormal, AutoMultivariateNormal or a guide of your own"
                )
        with kept(programs, self._double):
            yield

    def settle(self) -> None:
        """To be called after first runs, which may make parameters: they are found as they are met."""

    def jitter(self, seed: int | None) -> None:
        """Move all parameters a little, so that none is zero; the same seed moves them alike, None moves none."""
        self._parameters.jitter(seed)

    def run(self, program: Callable, leaves: Sequence[np.ndarray], held: Values, seed: int = 0) -> Trial:
        """See `Backend.run`."""
        self._held = held
        look = _Look(held, seed, self._parameters, self._plates)
        self._call(program, look, [np.array(leaf) for leaf in leaves])
        sites = {name: look.seen(name) for name in look.messages}
        if look.scans:
            self._doubt(
                "a program scans over steps that share their sites, so that they cannot be told apart; write the loop "
                "in Python, with a name for each step"
            )
        return Trial(sites)

    def tags(self, program: Callable, names: Sequence[frozenset[str]], seed: int = 0) -> dict[str, frozenset[str]]:
        """See `Backend.tags`. Reachability in the jaxpr of the log densities, with the sites of the last run held.

        Deterministic sites that were not held pass on what they are computed from.
        """
        held, parameters = dict(self._held), self._parameters
        trial = self.run(program, self.leaves, held, seed)
        values = {s.name: s.value for s in trial.of("latent", "observed") if s.value.size}
        values |= {s.name: s.value for s in trial.of("determined", "subsample") if s.name in held}
        leaves = {f"\0{k}": leaf for k, leaf in enumerate(self.leaves)}

        def signals(**inputs: Any) -> dict[str, Any]:
            given = {k: v for k, v in inputs.items() if k not in leaves}
            look = _Look(given, seed, parameters, self._plates)
            self._call(program, look, [inputs[k] for k in leaves])
            return {name: look.signal(name)[0] for name in look.messages}

        reached = eval_provenance(signals, **values, **leaves)
        data = {key: names[k] if names else frozenset() for k, key in enumerate(leaves)}
        return {
            site: frozenset().union(*(data.get(name, {name}) for name in found)) - {site}
            for site, found in reached.items()
            if trial[site].kind != "subsample"
        }

    def _call(self, program: Callable, look: "_Look", leaves: Sequence[Any]) -> None:
        flat = list(self._flat)
        for i, leaf in zip(self._where, leaves, strict=True):
            flat[i] = leaf if isinstance(self._flat[i], np.ndarray) else jnp.asarray(leaf)
        args, kwargs = jax.tree.unflatten(self._spec, flat)
        np.random.seed(look.seed % 2**32)  # for programs that draw numbers of their own
        with warnings.catch_warnings(), look:
            warnings.simplefilter("ignore")
            program(*args, **kwargs)

    def _doubt(self, text: str) -> None:
        if text not in self.doubts:
            self.doubts.append(text)


class _Look(Messenger):
    """Hold values, give out random keys and parameters, and take down every site."""

    def __init__(self, held: Values, seed: int, parameters: Parameters, plates: dict[str, tuple[Plate, ...]]) -> None:
        super().__init__()
        self.held, self.seed, self.parameters, self.plates = held, seed, parameters, plates
        self.messages: dict[str, dict] = {}
        self.scans = False
        self._count = count()

    def process_message(self, msg: dict) -> None:
        kind, name = msg["type"], msg.get("name")
        if kind == "control_flow":
            self.scans |= msg["fn"].__name__ != "cond_wrapper"
            msg["kwargs"]["substitute_stack"].append(("substitute", {k: jnp.asarray(v) for k, v in self.held.items()}))
        elif kind == "sample":
            msg["infer"] = dict(msg["infer"])
            if name in self.held:
                msg["value"] = jnp.asarray(self.held[name])
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
        kind, name, value = msg["type"], msg.get("name"), msg.get("value")
        if kind == "param" and value is not None and name not in self.parameters:
            self.parameters.keep(name, value, msg["kwargs"].get("constraint"))
            msg["value"] = self.parameters[name]
        elif kind == "mutable" and value is not None and self.parameters.state(name) is None:
            self.parameters.keep_state(name, value)
            msg["value"] = self.parameters.state(name)
        elif kind in ("sample", "deterministic") and _is_array(value):
            self.messages[name] = msg.copy()
        elif kind == "plate" and len(value) != msg["args"][0] and name not in self.messages:
            self.messages[name] = msg.copy()

    def key(self, *what: Any) -> jax.Array:
        """A random key for a site, which no other site has."""
        return jax.random.fold_in(jax.random.key(self.seed), crc32(repr(what).encode()))

    def kind(self, name: str) -> str:
        """See `Seen`."""
        msg = self.messages[name]
        if msg["type"] == "plate":
            return "subsample"
        if msg["type"] == "deterministic":
            return "determined"
        if msg["is_observed"]:
            return "factor" if isinstance(_bare(msg["fn"]), Unit) else "observed"
        return "determined" if isinstance(_bare(msg["fn"]), Delta) else "latent"

    def signal(self, name: str) -> tuple[Any, bool]:
        """The log density of a site, or what it is computed as, and whether it is mute."""
        msg, kind = self.messages[name], self.kind(name)
        if kind == "subsample":
            return jnp.zeros(()), False
        if kind == "determined":
            if msg["type"] == "deterministic":
                return jnp.asarray(msg["computed"]), False
            return jnp.broadcast_to(_bare(msg["fn"]).v, jnp.shape(msg["value"])), False
        try:
            signal = msg["fn"].log_prob(jnp.asarray(msg["value"]))
        except (KeyError, NotImplementedError, RuntimeError, ValueError) as error:  # a flow that cannot be inverted
            if kind != "latent":
                raise error
            return msg["fn"].sample(self.key(name)), True
        return signal if msg["scale"] is None else signal * msg["scale"], False

    def seen(self, name: str) -> Seen:
        """What a run shows of a site."""
        msg, kind, (signal, mute) = self.messages[name], self.kind(name), self.signal(name)
        value = _array(msg["value"])
        if kind == "subsample":
            return Seen(name, kind, value, _array(signal))
        frames = sorted(msg["cond_indep_stack"], key=lambda frame: frame.dim)
        plates = tuple(Plate(frame.name, frame.dim, frame.size) for frame in frames)
        if plates:
            self.plates.setdefault(name, plates)
        if msg["type"] == "deterministic":  # the leftmost dims are those of the plates
            plain = Seen(name, kind, value, _array(signal), plates)
            event_dim = value.ndim - max((-plate.dim for plate in plates), default=0)
            return plain if event_dim <= 0 else Seen(name, kind, value, _array(signal), plates, event_dim)
        fn, infer, fresh = msg["fn"], msg["infer"], count()
        if kind == "determined":  # autoguides compute sites outside of the plates that the model has them in
            plates = plates or self.plates.get(name, ())
        draw = None if kind in ("determined", "factor") else lambda: _array(fn.sample(self.key(name, next(fresh))))
        return Seen(
            name,
            kind,
            value,
            _array(signal),
            plates,
            fn.event_dim,
            draw,
            type(_bare(fn)).__name__,
            bool(infer.get("is_auxiliary")),
            infer.get("enumerate") is not None,
            mute,
            (lambda: _array(_bare(fn).enumerate_support(expand=False))) if fn.has_enumerate_support else None,
        )


def _bare(fn: Any) -> Any:
    while isinstance(fn, (MaskedDistribution, Independent, ExpandedDistribution)):
        fn = fn.base_dist
    return fn


def _is_array(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray, np.generic, float, int)) and not _is_key(value)


def _is_key(value: Any) -> bool:
    return isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)


def _is_data(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray)) and not _is_key(leaf) and leaf.dtype.kind in "biufcV"


def _array(value: Any, double: bool = False) -> np.ndarray:
    array = np.array(value)
    if array.dtype.kind == "V":  # bfloat16 and its like
        array = array.astype(np.float32)
    return array.astype(np.float64) if double and array.dtype.kind == "f" else array
