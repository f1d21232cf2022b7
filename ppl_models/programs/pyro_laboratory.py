"""Runs of Pyro programs for an inspection."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.ops.provenance import detach_provenance, get_provenance, track_provenance
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor
from torch.distributions import constraints
from torch.utils._pytree import tree_flatten, tree_unflatten

from . import leaf_names
from .laboratory import Plate, Seen, Trial, Values
from .torch_reach import reachable
from .torch_state import Kept

NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")


class PyroBackend:
    """See `ppl_models.programs.laboratory.Backend`. Double precision, unless a program cannot do with it.

    Args:
        args, kwargs: of the programs.
        double: whether parameters, constants and data are converted to float64.
        grad: whether gradients are recorded, for programs that take them.
    """

    MODES = ({"double": True}, {"double": True, "grad": True}, {"double": False})

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any], double: bool = True, grad: bool = False) -> None:
        flat, self._spec = tree_flatten((tuple(args), dict(kwargs)))
        self._foreign = {i for i, leaf in enumerate(flat) if _numeric(leaf)}
        flat = [torch.from_numpy(leaf) if i in self._foreign else leaf for i, leaf in enumerate(flat)]
        self._flat = [_copied(leaf, double) for leaf in flat]
        self._where = [i for i, leaf in enumerate(self._flat) if isinstance(leaf, Tensor)]
        self.leaves = [_array(self._flat[i]) for i in self._where]
        self.tolerance = 1e-10 if double else 1e-5
        self.opaque = _opaque(flat)
        self._grad = grad
        self.doubts: list[str] = []
        self._double, self._devices = double, {}
        self._kept: Kept | None = None

    def names_for(self, program: Callable) -> list[str]:
        """A name for each leaf: the parameter of the program that it is passed as, or is part of."""
        args, kwargs = tree_unflatten([*range(len(self._flat))], self._spec)
        return leaf_names(program, args, kwargs, self._where, lambda value: tree_flatten(value)[0])

    @property
    def remarks(self) -> list[str]:
        """What a reader should know of how the programs were run."""
        found = sorted(set(self._kept.training)) if self._kept else []
        remarks = [f"{name} is in training mode, where it couples rows; judged as in eval()" for name in found]
        if not self._double:
            remarks.append("run in single precision, as the programs fail in double: faint dependences may be missed")
        return remarks

    @contextmanager
    def protected(self, programs: Sequence[Callable]) -> Iterator[None]:
        """Whatever happens inside leaves parameters, stores, random numbers and modes as they were."""
        others = [leaf for leaf in self._flat if not isinstance(leaf, Tensor)]
        self._kept = Kept([*programs, *others], self._double, self._grad)
        with self._kept.held():
            yield

    def settle(self) -> None:
        """To be called after first runs, which may make parameters."""
        self._kept.settle()

    def jitter(self, seed: int | None) -> None:
        """Move all parameters a little, so that none is zero; the same seed moves them alike, None moves none."""
        self._kept.jitter(seed)

    def run(self, program: Callable, leaves: Sequence[np.ndarray], held: Values, seed: int = 0) -> Trial:
        """See `Backend.run`."""
        pyro.set_rng_seed(seed)
        with _Look(held, seed, self._devices) as look:
            self._call(program, [torch.from_numpy(np.array(leaf)) for leaf in leaves])
        return Trial(look.sites)

    def tags(self, program: Callable, names: Sequence[frozenset[str]], seed: int = 0) -> dict[str, frozenset[str]]:
        """See `Backend.tags`."""
        pyro.set_rng_seed(seed)
        leaves = [torch.from_numpy(np.array(leaf)) for leaf in self.leaves]
        with _Tags() as look:
            self._call(program, leaves, names)
        return look.found

    def density(self, program: Callable, values: Values, places: Mapping[Any, tuple]) -> Callable[[Tensor], Tensor]:
        """log p of all sites as a function of one vector, whose parts are put in places of the sites' values.

        Args:
            program: to be run.
            values: of all sites.
            places: (site, copy) -> index in the value of the site, in the order of the vector.
        """
        whole = {name: torch.from_numpy(np.array(value)) for name, value in values.items()}

        def log_density(v: Tensor) -> Tensor:
            held, start = dict(whole), 0
            for (name, _), at in places.items():
                part = whole[name][at]
                held[name] = held[name].clone()
                held[name][at] = v[start : start + part.numel()].to(part).reshape(part.shape)
                start += part.numel()
            pyro.set_rng_seed(0)
            with _Sum(held) as sum_:
                self._call(program, [torch.from_numpy(np.array(leaf)) for leaf in self.leaves])
            return sum_.total.to(v)

        return log_density

    def _call(self, program: Callable, leaves: Sequence[Tensor], names: Sequence[frozenset[str]] = ()) -> None:
        flat = list(self._flat)
        for k, (i, leaf) in enumerate(zip(self._where, leaves, strict=True)):
            leaf = leaf.to(self._flat[i].device)
            leaf = leaf.numpy() if i in self._foreign else leaf
            flat[i] = track_provenance(leaf, names[k]) if names and names[k] and isinstance(leaf, Tensor) else leaf
        args, kwargs = tree_unflatten(flat, self._spec)
        program(*args, **kwargs)


class _Look(Messenger):
    """Hold values and take down every site."""

    def __init__(self, held: Values, seed: int, devices: dict[str, torch.device]) -> None:
        super().__init__()
        self.held, self.seed, self.devices = held, seed, devices
        self.sites: dict[str, Seen] = {}

    def _pyro_sample(self, msg: dict) -> None:
        name = msg["name"]
        msg["infer"] = {**(msg["infer"] or {}), "_computed": msg["value"]}
        if name in self.held:
            value = torch.from_numpy(np.array(self.held[name]))
            msg["value"], msg["done"] = value.to(self.devices.get(name, "cpu")), True

    def _pyro_post_sample(self, msg: dict) -> None:
        name, fn, infer = msg["name"], msg["fn"], msg["infer"]
        computed = infer.pop("_computed", None)
        value = detach_provenance(msg["value"])
        if not isinstance(value, Tensor):
            return
        self.devices[name] = value.device
        frames = sorted((f for f in msg["cond_indep_stack"] if f.vectorized), key=lambda f: f.dim)
        plates = tuple(Plate(f.name, f.dim, f.size) for f in frames)
        if site_is_subsample(msg):
            self.sites[name] = Seen(name, "subsample", _array(value), np.zeros(()))
            return
        bare = fn
        while isinstance(bare, (MaskedDistribution, torch.distributions.Independent)):
            bare = bare.base_dist
        event_dim, mute = fn.event_dim, False
        silent = isinstance(fn, MaskedDistribution) and fn._mask is False  # as reparametrized sites are left
        if infer.get("_deterministic") or (isinstance(bare, Delta) and (silent or not msg["is_observed"])):
            kind, signal = "determined", computed if infer.get("_deterministic") else bare.v
            if infer.get("_deterministic"):  # its event dims are not known: the leftmost are those of the plates
                event_dim = value.dim() - max((-plate.dim for plate in plates), default=0)
        else:
            kind = "factor" if site_is_factor(msg) else "observed" if msg["is_observed"] else "latent"
            try:
                # a scale that is a number depends on nothing, and may make a density too faint to be seen to move
                scale = msg["scale"] if isinstance(msg["scale"], Tensor) else 1.0
                signal = scale_and_mask(fn.log_prob(value, *msg["args"]), scale, msg["mask"])
            except (KeyError, NotImplementedError, RuntimeError) as error:  # a flow that cannot be inverted
                if kind != "latent":
                    raise error
                signal, mute = _drawn(fn, name, self.seed), True
        self.sites[name] = Seen(
            name,
            kind,
            _array(value),
            _array(signal if isinstance(signal, Tensor) else torch.as_tensor(float(signal))),
            plates,
            max(event_dim, 0),
            None if kind in ("determined", "factor") else lambda: _array(fn.sample()),
            type(bare).__name__,
            bool(infer.get("is_auxiliary")),
            infer.get("enumerate") is not None,
            mute,
            (lambda: _array(bare.enumerate_support(expand=False))) if bare.has_enumerate_support else None,
            _is_joint(fn),
        )
        if kind == "determined" and not infer.get("_deterministic") and (bare.log_density != 0).any():
            density = Seen(f"{name} (density)", "factor", _array(value), _array(bare.log_density), plates)
            self.sites[density.name] = density  # of a model a factor like any other; of a guide a Jacobian


class _Sum(Messenger):
    """Hold tensors, gradients and all, and add up the log densities of all sites."""

    def __init__(self, held: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.held, self.total = held, torch.zeros(())

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.held:
            msg["value"], msg["done"] = self.held[msg["name"]], True

    def _pyro_post_sample(self, msg: dict) -> None:
        if not site_is_subsample(msg):
            density = scale_and_mask(msg["fn"].log_prob(msg["value"], *msg["args"]), msg["scale"], msg["mask"])
            self.total = self.total + density.sum()


class _Tags(Messenger):
    """Follow provenance from site to site: direct dependences only, as each value is tagged anew."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, frozenset[str]] = {}

    def _pyro_post_sample(self, msg: dict) -> None:
        if site_is_subsample(msg):
            return
        name, fn, infer = msg["name"], msg["fn"], msg["infer"] or {}
        tags = get_provenance(msg["value"]) if not msg["is_observed"] or infer.get("_deterministic") else frozenset()
        for read in (lambda: fn.log_prob(msg["value"]), lambda: msg["mask"], lambda: msg["scale"], lambda: vars(fn)):
            try:
                tags |= get_provenance(read())
            except Exception:  # noqa: BLE001, S110 (a density that cannot be had; the value has told already)
                pass
        self.found[name] = tags - {name}
        value, own = detach_provenance(msg["value"]), frozenset({name})
        if infer.get("_deterministic") or getattr(fn, "_mask", None) is False:  # what it is computed from counts, too
            own |= get_provenance(msg["value"])
        msg["value"] = track_provenance(value, own) if value.numel() else value


def _drawn(fn: Any, name: str, seed: int) -> Tensor:
    """A draw whose random numbers depend on the name and the seed alone, not on what was drawn before."""
    state = torch.get_rng_state()
    torch.manual_seed(seed + sum(ord(c) * 31**i for i, c in enumerate(name)) % 2**31)
    value = fn.sample()
    torch.set_rng_state(state)
    return value


def _numeric(leaf: Any) -> bool:
    """Whether it is an array that torch takes."""
    return isinstance(leaf, np.ndarray) and leaf.dtype.name in NUMBERS


def _is_joint(fn: Any) -> bool:
    """Whether the entries of an event are bound to each other, as those of a simplex are."""
    support = fn.support
    while isinstance(support, type(constraints.real_vector)):
        support = support.base_constraint
    return support.event_dim > 0


def _opaque(flat: Sequence[Any]) -> bool:
    """Whether data may hide among the arguments: in objects that hold tensors, or in lists of numbers."""
    others = [leaf for leaf in flat if not isinstance(leaf, Tensor)]
    hidden = any(reachable([leaf])[1] for leaf in others if not callable(leaf))
    return hidden or sum(isinstance(leaf, float) for leaf in others) > 2


def _copied(leaf: Any, double: bool) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.detach().to(torch.double) if double and leaf.is_floating_point() else leaf.detach()


def _array(value: Tensor) -> np.ndarray:
    value = value.detach()
    if value.dtype in (torch.bfloat16, torch.half):
        value = value.float()
    return value.cpu().numpy().copy()
