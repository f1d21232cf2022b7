"""`Laboratory`, `Experiment`: controlled runs of programs, for an inspection.

A laboratory runs programs of one language on one set of arguments; an experiment is one of them there.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from ..arguments import check_count
from ..state.jitter import Jitter
from .density import Density
from .site_records import Node, ProgramRun

Modes = tuple[dict[str, bool], ...]
Values = Mapping[str, np.ndarray]
Leaves = Sequence[np.ndarray]
Owners = Sequence[frozenset[str]]  # names of the data in each of the leaves
Tags = Mapping[str, frozenset[str]]


class Laboratory(Protocol):
    """Runner of the programs of a language: one for Pyro, one for NumPyro.

    Attributes:
        MODES: further arguments of the constructor, in turn.
        placed: whether the language wants each dim of a batch to be that of a plate.
        resizes: whether a run on more rows takes no longer than for its rows: nothing is compiled for them.
        tolerance: of signals: what moves by less, relative to 1 + its size, has not moved.
        leaves, opaque: the arrays among the arguments; whether data may hide in others.
        doubts, runs: why a verdict would not be certain; how many runs there were.
    """

    MODES: ClassVar[Modes]
    placed: ClassVar[bool]
    resizes: ClassVar[bool]
    tolerance: float
    leaves: list[np.ndarray]
    opaque: bool
    doubts: list[str]
    runs: int

    def __init__(
        self, programs: Sequence[Callable], args: Sequence[Any], kwargs: Mapping[str, Any], **mode: bool
    ) -> None: ...

    @property
    def remarks(self) -> list[str]:
        """Notes for a reader on how the programs were run."""

    def leaf_names(self, program: Callable) -> list[str]:
        """A name for each leaf: the parameter of the program that it is passed as, or is part of."""

    def protected(self) -> AbstractContextManager[None]:
        """Whatever happens inside leaves parameters, random numbers and modes of the programs as they were."""

    def settle(self) -> None:
        """To be called after first runs, which may make parameters."""

    def run(
        self, program: Callable, values: Values, seed: int, jitter: Jitter | int | None, leaves: Leaves | None
    ) -> ProgramRun:
        """See `Experiment.run`."""

    def tags(self, program: Callable, owners: Owners, values: Values, jitter: Jitter | int | None) -> Tags:
        """See `Experiment.tags`."""

    def density(
        self, program: Callable, values: Values, places: Mapping[Node, tuple], entries: Mapping[Node, np.ndarray]
    ) -> Density | None:
        """log p of all sites by one vector; None without gradients. Of `places` and `entries` see `placing`."""


@dataclass(frozen=True)
class Experiment:
    """One program in a laboratory: run again and again on its arguments, or on others.

    Args:
        laboratory: where.
        program: which.
        first: its first run, with nothing held; None where it failed, or where there was none.
    """

    laboratory: Laboratory
    program: Callable
    first: ProgramRun | None = None

    def run(
        self,
        values: Values | None = None,
        *,
        seed: int = 0,
        jitter: Jitter | int | None = None,
        leaves: Leaves | None = None,
    ) -> ProgramRun:
        """A run.

        Args:
            values: to hold at some sites: a held latent stays latent, a held observation is replaced, a held
                deterministic site is overridden once it has been computed; a name that ends in `BASE` holds the base.
            jitter: how all parameters are moved, a little and so that none is zero; None: they are as they are.
            seed, leaves: of the random numbers; other arrays for those among the arguments.
        """
        self.laboratory.runs += 1
        return self.laboratory.run(self.program, values or {}, seed, jitter, leaves)

    def tags(self, owners: Owners, values: Values | None = None, jitter: Jitter | int | None = None) -> Tags:
        """By provenance, the sites and data that each site may depend on: for most code never too few."""
        self.laboratory.runs += 1
        return self.laboratory.tags(self.program, owners, values or {}, jitter)

    @property
    def leaf_names(self) -> list[str]:
        """A name for each leaf: the parameter of the program that it is passed as, or is part of."""
        return self.laboratory.leaf_names(self.program)


@contextmanager
def experiments(
    programs: Sequence[Callable], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[list[Experiment]]:
    """An experiment with each program, in one laboratory that leaves them as they were, in double if they can.

    Raises:
        TypeError: what is no program.
        ValueError: a program that cannot be called with these arguments.
    """
    for what, program in zip(("model", "guide") if len(programs) > 1 else ("program",), programs, strict=True):
        if not callable(program):
            raise TypeError(f"found the {what} {program!r}, want a program: a function or a module that samples")
        check_count(len(args), "inspection", program, what, kwargs, "argument")
    kind = choose(programs, args, kwargs)
    for mode in kind.MODES:
        laboratory = kind(programs, args, kwargs, **mode)
        found = [Experiment(laboratory, program) for program in programs]
        with laboratory.protected():
            tried = found if mode is kind.MODES[-1] else [*map(_tried, found)]  # the last is their own precision
            if all(tried):
                yield [experiment for experiment in tried if experiment]
                return


def _tried(experiment: Experiment) -> Experiment | None:
    """An experiment after its first run; None where that fails."""
    try:
        return replace(experiment, first=experiment.run())
    except NotImplementedError:  # a site that has a density but cannot be drawn
        return experiment
    except Exception:  # noqa: BLE001 (constants in single precision where we could not see them, mostly)
        return None


def choose(programs: Sequence[Callable], args: Sequence[Any], kwargs: Mapping[str, Any]) -> type[Laboratory]:
    """The laboratory for some programs: NumPyro's if it is loaded and one of them is written in it, else Pyro's."""
    if "numpyro" in sys.modules:
        from .numpyro import NumPyroLaboratory, speaks

        if speaks(programs, args, kwargs):
            return NumPyroLaboratory
    from .pyro import PyroLaboratory

    return PyroLaboratory
