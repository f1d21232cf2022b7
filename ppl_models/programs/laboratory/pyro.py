"""`PyroLaboratory`: controlled runs of Pyro programs, for an inspection."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from pyro.ops.provenance import detach_provenance, get_provenance
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..plates import sized
from ..pyro import (
    as_tensors,
    is_point,
    kind_of,
    unmasked,
    unwrapped,
)
from ..record import COMPUTED
from ..state.jitter import Jitter
from ..state.reach import named_leaves
from ..state.torch import ProgramSnapshot, reachable, seed_generators, streams
from .experiments import Leaves, Modes, Owners, Tags, Values
from .provenance import tagged
from .pyro_look import Look, array_of, density_of, is_silent
from .site_records import Node, ProgramRun
from .torch_density import Summed, TorchDensity, placing

NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
DOUBLE = {"double": True}


class PyroLaboratory:
    """See `ppl_models.programs.laboratory.Laboratory`. Double precision, unless a program cannot do with it.

    Args:
        programs: to be run.
        args, kwargs: of the programs.
        double: whether parameters, constants and data are converted to float64.
        grad: whether gradients are recorded, for programs that take them.
        tensors: whether arrays and data frames among the arguments are made tensors, for programs that take no others.
    """

    MODES: ClassVar[Modes] = (DOUBLE, DOUBLE | {"grad": True}, DOUBLE | {"tensors": True}, {"double": False})
    placed: ClassVar[bool] = True
    resizes: ClassVar[bool] = True

    def __init__(
        self,
        programs: Sequence[Callable],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        double: bool = True,
        grad: bool = False,
        tensors: bool = False,
    ) -> None:
        args = as_tensors(args, "inspection", programs[0]) if tensors else args
        self._given = tuple(args), dict(kwargs)
        flat, self._spec = tree_flatten(self._given)
        numeric = {i for i, leaf in enumerate(flat) if isinstance(leaf, np.ndarray) and leaf.dtype.name in NUMBERS}
        self._foreign = numeric  # arrays that torch takes
        flat = [torch.from_numpy(leaf) if i in self._foreign else leaf for i, leaf in enumerate(flat)]
        self._flat = [_copied(leaf, double) for leaf in flat]
        self._where = [i for i, leaf in enumerate(self._flat) if isinstance(leaf, Tensor)]
        self.leaves = [array_of(self._flat[i]) for i in self._where]
        self.tolerance = 1e-10 if double else 1e-5
        self.opaque = _opaque(flat)
        self.doubts: list[str] = []
        self.runs = 0
        others = [leaf for leaf in self._flat if not isinstance(leaf, Tensor)]
        self._snapshot = ProgramSnapshot([*programs, *others], double, grad)
        self._devices: dict[str, torch.device] = {}
        self._seeded: dict[int, Any] = {}  # what `streams` gives after a seed
        self._hidden: dict[int, dict[str, bool]] = {}  # of each program, the sites that its first run masks out

    def leaf_names(self, program: Callable) -> list[str]:
        """See `Laboratory.leaf_names`."""
        return named_leaves(program, *self._given, self._where, lambda value: len(tree_flatten(value)[0]))

    @property
    def remarks(self) -> list[str]:
        """See `Laboratory.remarks`."""
        found = sorted(set(self._snapshot.training))
        remarks = [f"{name} is in training mode, where it couples rows; judged as in eval()" for name in found]
        if not self._snapshot.double:
            remarks.append("run in single precision, as the programs fail in double: faint dependences may be missed")
        return remarks

    def protected(self) -> AbstractContextManager[None]:
        """Whatever happens inside leaves parameters, stores, random numbers and modes as they were."""
        return self._snapshot.held()

    def settle(self) -> None:
        """See `Laboratory.settle`."""
        self._snapshot.settle()

    def run(
        self, program: Callable, values: Values, seed: int, jitter: Jitter | int | None, leaves: Leaves | None
    ) -> ProgramRun:
        """See `Experiment.run`."""
        with Look(values, seed, self._devices, self._hidden.setdefault(id(program), {})) as look:
            drew = self._call(program, seed, jitter, leaves)
        sites = sized(record.site for record in look.records)
        records = (r if r.site is s else replace(r, site=s) for r, s in zip(look.records, sites, strict=True))
        return ProgramRun(records, drew)

    def tags(self, program: Callable, owners: Owners, values: Values, jitter: Jitter | int | None) -> Tags:
        """See `Experiment.tags`. Nothing is held."""
        with _Tags(frozenset().union(*owners)) as look:
            self._call(program, jitter=jitter, owners=owners)
        return look.found

    def density(
        self, program: Callable, values: Values, places: Mapping[Node, tuple], entries: Mapping[Node, np.ndarray]
    ) -> TorchDensity | None:
        """See `Laboratory.density`."""
        if entries and self._foreign:
            return None  # NumPy's arrays carry no gradients
        placed = placing(values, places, entries, self.leaves)

        def log_density(v: Tensor) -> Tensor:
            held, leaves = placed(v)
            with Summed(held) as sum_:
                self._call(program, leaves=leaves)
            return sum_.total.to(v)

        return TorchDensity(log_density)

    def _call(
        self,
        program: Callable,
        seed: int = 0,
        jitter: Jitter | int | None = None,
        leaves: Sequence[np.ndarray | Tensor] | None = None,
        owners: Owners = (),
    ) -> bool:
        """Run a program, and tell whether it may have drawn random numbers."""
        self._snapshot.jitter(jitter)
        if seed not in self._seeded:
            seed_generators(seed)
            self._seeded[seed] = streams()
        seed_generators(seed)
        flat = list(self._flat)
        for k, (i, array) in enumerate(zip(self._where, self.leaves if leaves is None else leaves, strict=True)):
            leaf = array if isinstance(array, Tensor) else torch.from_numpy(np.array(array))
            leaf = leaf.to(self._flat[i].device)
            leaf = leaf.numpy() if i in self._foreign else leaf
            flat[i] = tagged(leaf, owners[k]) if owners and owners[k] and isinstance(leaf, Tensor) else leaf
        args, kwargs = tree_unflatten(flat, self._spec)
        before = None if self._snapshot.generators else self._seeded[seed]
        program(*args, **kwargs)
        return before is None or before != streams()  # of an accelerator nothing is known


class _Tags(Messenger):
    """Provenance from site to site, each value tagged anew; to observe one of the `arguments` is no dependence."""

    def __init__(self, arguments: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.arguments, self.found = arguments, dict[str, frozenset[str]]()

    def _pyro_post_sample(self, msg: dict) -> None:
        kind, name, fn = kind_of(msg), msg["name"], msg["fn"]
        if kind == "subsample":
            return
        tags = get_provenance(msg["value"]) if kind in ("latent", *COMPUTED) else frozenset()
        # a mask may hide for now what counts later, of all but latents
        densities = (fn.log_prob, unmasked(fn).log_prob) if kind in ("observed", "factor") else (fn.log_prob,)
        value = msg["value"]
        if kind == "observed" and self.arguments & get_provenance(value):
            value = tagged(detach_provenance(value), get_provenance(value) - self.arguments)
        reads = [partial(density, value) for density in densities]
        for read in (*reads, lambda: msg["mask"], lambda: msg["scale"], lambda: vars(fn)):
            try:
                tags |= get_provenance(read())
            except Exception:  # noqa: BLE001, S110 (a density that cannot be had; the value has told already)
                pass
        self.found[name] = tags - {name}
        bare: Any = unwrapped(fn)
        if is_point(fn):
            self.found[density_of(name)] = get_provenance(bare.log_density) - {name}
        value, own = detach_provenance(msg["value"]), frozenset({name})
        if kind in COMPUTED or is_silent(fn):  # what it is computed from counts, too
            own |= get_provenance(msg["value"])
        msg["value"] = tagged(value, own) if value.numel() else value


def _opaque(flat: Sequence[Any]) -> bool:
    """Whether data may hide among the arguments: in objects that hold tensors, or in lists of numbers."""
    others = [leaf for leaf in flat if not isinstance(leaf, Tensor)]
    hidden = any(reachable([leaf])[1] for leaf in others if not callable(leaf))
    return hidden or sum(isinstance(leaf, float) for leaf in others) > 2


def _copied(leaf: Any, double: bool) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.detach().to(torch.double) if double and leaf.is_floating_point() else leaf.detach()
