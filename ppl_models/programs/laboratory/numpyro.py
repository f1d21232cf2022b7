"""`NumPyroLaboratory`: controlled runs of NumPyro programs, for an inspection."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.autoguide import AutoGuide
from numpyro.ops.provenance import eval_provenance

from ..record import Plate
from ..state.jax import Parameters, protected, reachable, speaks as speaks, streams
from ..state.jitter import Jitter
from ..state.reach import named_leaves
from .base_coordinates import BASE
from .experiments import Leaves, Modes, Owners, Tags, Values
from .numpyro_look import Look, array_of
from .numpyro_scans import compiled
from .site_records import ProgramRun


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
    resizes: ClassVar[bool] = False

    def __init__(
        self, programs: Sequence[Callable], args: Sequence[Any], kwargs: Mapping[str, Any], double: bool = True
    ) -> None:
        self._given = tuple(args), dict(sorted(kwargs.items()))  # as JAX sorts the keys of a dict
        self._flat, self._spec = jax.tree.flatten(self._given)
        self._where = [i for i, leaf in enumerate(self._flat) if _is_data(leaf)]
        self.leaves = [array_of(self._flat[i], double) for i in self._where]
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
        before = streams()
        self._call(program, look, leaves)
        drew = look.drew or before != streams()
        records = [look.record(name) for name in look.messages]
        scans = (
            "a program scans over steps that share their sites, so that they cannot be told apart; write the loop "
            "in Python, with a name for each step"
        )
        if look.scans and scans not in self.doubts:
            self.doubts.append(scans)
        return ProgramRun(records, drew), look.scans

    def _compile(self, program: Callable, like: ProgramRun) -> Callable[..., ProgramRun]:
        """A function that runs a program compiled, with records like those of a run."""

        def numbers(values: Values, leaves: Leaves, seed: int) -> dict[str, tuple[Any, Any]]:
            look = Look(values, seed, self._parameters, self._plates, self._hidden[id(program)], eager=False)
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

    def _look(self, program: Callable, values: Mapping[str, Any], seed: int, jitter: Jitter | int | None) -> "Look":
        self._parameters.jitter(jitter)
        np.random.seed(seed % 2**32)  # for programs that draw numbers of their own
        return Look(values, seed, self._parameters, self._plates, self._hidden.setdefault(id(program), {}))

    def _call(self, program: Callable, look: "Look", leaves: Sequence[Any]) -> None:
        flat = list(self._flat)
        for i, leaf in zip(self._where, leaves, strict=True):
            flat[i] = leaf if isinstance(self._flat[i], np.ndarray) else jnp.asarray(leaf)
        args, kwargs = jax.tree.unflatten(self._spec, flat)
        with warnings.catch_warnings(), look:
            warnings.simplefilter("ignore")
            program(*args, **kwargs)


def _is_data(leaf: Any) -> bool:
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return False
    return isinstance(leaf, (jax.Array, np.ndarray)) and leaf.dtype.kind in "biufcV"


def _opaque(flat: Sequence[Any]) -> bool:
    """Whether data may hide among the arguments: in objects that hold arrays, or in lists of numbers."""
    others = [leaf for leaf in flat if not callable(leaf) and not isinstance(leaf, (jax.Array, np.ndarray))]
    hidden = any(isinstance(item, (jax.Array, np.ndarray)) for item in reachable(others))
    return hidden or sum(isinstance(leaf, float) for leaf in others) > 2
