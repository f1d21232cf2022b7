"""`Run`, `Evaluation`, `Difference`: results of trainings and evaluations, in either language; no torch, no JAX."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import hypot, nan
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ppl_models.parts.arguments.checked import told
from ppl_models.programs.arguments import takes
from ppl_models.programs.legible import legible

from .diagnostics import threshold


@dataclass
class Run:
    """The result of a training.

    Attributes:
        history: one record an epoch (or every `every` steps): step; means over the steps since the record before of
            loss, negative_elbo (of `importance_weighted` minus that bound), grad_norm (before it is clipped) and, with
            `record_kl`, the divergence "kl.<site>" of each latent, in nats per datum; valid, the bound on validation
            data if there are any; skipped, the steps not taken, with `skip`; seconds since the start; and what
            callbacks added.
        folder: where the checkpoint and the history were written, or None.
        seconds: wall-clock time of the whole training.
        notes: what one should know: why steps ran uncompiled, that the training ended early.
        model, guide: the pair with its (averaged) parameters: the modules or functions that Pyro has trained in place;
            of NumPyro new `Program`s, or functions with their params substituted.
        params: of NumPyro, these parameters by the names of their `numpyro.param`s, for `handlers.substitute` and
            `Predictive`.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    folder: Path | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    model: Callable | None = field(default=None, repr=False)
    guide: Callable | None = field(default=None, repr=False)
    params: dict[str, Any] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        """A line with its end: the records are in `history`."""
        from .display.notebook import run_words

        return f"Run({run_words(self)})"

    def _repr_html_(self) -> str:
        """The learning curve, as a notebook shows it."""
        from .display.notebook import run_html

        return run_html(self)


class Callback(Protocol):
    """Called with every record, while the programs hold their averages, in evaluation mode; True ends the training."""

    def __call__(self, run: Run) -> bool | None:
        """`run.history[-1]` is the record; numbers added to it are kept."""


def numbers(record: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    """(step, numbers by name) of a record, without what else callbacks added.

    >>> numbers({"step": 3, "loss": 1.5, "why": "a text", "best": True})
    (3, {'loss': 1.5})
    """
    found = {k: float(v) for k, v in record.items() if k != "step" and isinstance(v, Real) and type(v) is not bool}
    return int(record["step"]), found


def as_records(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """The records of a file under their names of today: version 0.1 called "nll" what is "negative_elbo".

    Files have null for a number that is not finite; here it is NaN.

    >>> as_records([{"step": 1, "nll": 2.0}])
    [{'step': 1, 'negative_elbo': 2.0}]
    """
    if wrong := [record for record in history if not isinstance(record, Mapping)]:
        raise TypeError(f"history: found the record {told(wrong[0])}, want mappings, as in Run.history")
    old = [{} if "negative_elbo" in record else {"nll": "negative_elbo"} for record in history]
    return [
        {own.get(k, k): nan if v is None else v for k, v in record.items()}
        for own, record in zip(old, history, strict=True)
    ]


def as_sequence(callbacks: Callback | Sequence[Callback] | None) -> list[Callback]:
    """Callbacks as a list: none, one or several.

    Raises:
        TypeError: one that cannot be called.
    """
    several = isinstance(callbacks, Sequence) and not isinstance(callbacks, str | bytes)
    found: list[Any] = [] if callbacks is None else [*callbacks] if several else [callbacks]
    for callback in found:
        if not takes(1, callback) or isinstance(callback, type):
            raise TypeError(
                f"fit: found the callback {told(callback)}, want a function of the Run, or several in a list"
            )
    return found


@dataclass
class Evaluation:
    """Result of `evaluate`: means over the data, in nats per datum.

    Attributes:
        elbo: evidence lower bound.
        nll: bound on -log p(x) by `particles` importance samples; it falls to -log p(x) as they grow.
        nll_error: standard error of `nll` over the data (over the particles where all data count as one).
        kl: latent site -> divergence of its factor from its prior.
        bits_per_dim: of nll, None where it has no meaning; an upper bound where the levels were `dequantized`.
        particles: importance samples a datum; 1 where there are no latents, and nothing to sample: nll is exact.
        n: number of data.
        notes: what one should know of these numbers.
        nlls: that of each datum, (n,), in the order of the data; None where all data count as one.
        elbos: the bound of each datum, (n,), likewise: the mean of its log weights, with no divergence in closed form.
        refined: Hamiltonian steps that were added to the guide's draws for this evaluation alone.
        sampling_error: standard error of `nll` over the importance samples, by the delta method; 0 where it is exact.
        convergence: k -> the bound by k of the particles, 1, 10, 100, ...; it has converged where it stands still.
        khats: Pareto k-hat of the weights of each datum, (n,), or (1,) where all data count as one; nan of too few.
        dequantized: whether uniform noise was added to the levels whose bits are told.

    Two evaluations of the same data have a difference, `this - other`.
    """

    elbo: float
    nll: float
    nll_error: float
    kl: dict[str, float]
    bits_per_dim: float | None
    particles: int
    n: int
    notes: list[str] = field(default_factory=list)
    nlls: np.ndarray | None = field(default=None, repr=False, compare=False)
    refined: int = 0
    sampling_error: float = 0.0
    convergence: dict[int, float] = field(default_factory=dict)
    khats: np.ndarray | None = field(default=None, repr=False, compare=False)
    dequantized: bool = False
    elbos: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def reconstruction(self) -> float:
        """Mean of -log p(x | z) under the guide, in nats per datum: what of -elbo is no divergence."""
        return -self.elbo - sum(self.kl.values())

    def to_dict(self) -> dict[str, Any]:
        """All of it but the numbers of each datum, ready for JSON; of k-hats the median and how many are too large."""
        found = {name: value for name, value in asdict(self).items() if name not in ("nlls", "elbos", "khats")}
        return found | {"reconstruction": self.reconstruction, "khat": self._khat()}

    def _khat(self) -> dict[str, float] | None:
        """Median of the k-hats, the largest that so many particles allow, how many are above, of how many; or None."""
        if self.khats is None or not len(known := self.khats[~np.isnan(self.khats)]):
            return None
        most = threshold(self.particles)
        return {
            "median": float(np.median(known)),
            "threshold": most,
            "above": int((known > most).sum()),
            "of": len(known),
        }

    def __sub__(self, other: "Evaluation") -> "Difference":
        """The difference of the NLLs over the same data, datum by datum; negative where this one is better.

        Raises:
            ValueError: numbers of data that differ, or an evaluation of all data as one.
        """
        if self.nlls is None or other.nlls is None:
            raise ValueError(
                "Evaluation: found one of all data as one datum, want the NLL of each; try models with a plate of data"
            )
        return Difference.of(self.nlls, other.nlls)

    def rows(self) -> list[tuple[str, str, str]]:
        """(name, value, unit) of each number, as they are printed."""
        how = f"{self.particles} importance samples" if self.kl else "exact: there are no latents"
        if self.sampling_error >= 0.0005 and self.nlls is not None:
            how += f", which add +- {self.sampling_error:.3f}"
        rows = [
            ("ELBO", f"{self.elbo:.3f}", "nats per datum"),
            ("NLL", f"{self.nll:.3f} +- {self.nll_error:.3f}", f"nats per datum, {how}"),
        ]
        if self.convergence:
            told = ", ".join(f"{value:.3f} by {k}" for k, value in self.convergence.items())
            rows.append(("", "", f"the bound was {told}"))
        if self.bits_per_dim is not None:
            unit = "an upper bound: the levels were dequantized by uniform noise" if self.dequantized else ""
            rows.append(("bits/dim", f"{self.bits_per_dim:.4f}", unit))
        if self.kl:
            rows.append(("distortion", f"{self.reconstruction:.3f}", "nats, the reconstruction: mean of -log p(x | z)"))
        rows += [(f"KL {site}", f"{value:.3f}", "nats") for site, value in self.kl.items()]
        if khat := self._khat():
            unit = f"median; {khat['above']} of {khat['of']} above {khat['threshold']:.2f}, where weights mislead"
            rows.append(("k-hat", f"{khat['median']:.2f}", unit))
        return [*rows, ("data", str(self.n), "")]

    def __str__(self) -> str:
        text = "\n".join(f"{name:<10}{value:>18}  {unit}".rstrip() for name, value, unit in self.rows())
        return legible("\n".join([text, *self.notes]))

    def _repr_html_(self) -> str:
        """The same as a table, as a notebook shows it."""
        from .display.notebook import evaluation_html

        return evaluation_html(self)


@dataclass(frozen=True)
class Difference:
    """The mean difference of two NLLs (or bounds) over the same data, in nats per datum.

    Attributes:
        nll: the first minus the second; negative where the first is better.
        error: its standard error over the data: that of differences, not of the two numbers.
        n: number of data.
        seeds: how many trainings of either it is the mean of.
        seed_error: its standard error over these, of one and the same data; NaN of a single one.
    """

    nll: float
    error: float
    n: int
    seeds: int = 1
    seed_error: float = nan

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> "Difference":
        """Of the NLLs of each datum, (n,) each, or of several trainings, (seeds, n) each.

        Raises:
            ValueError: not as many data, or trainings.
        """
        if (found := np.shape(first)[::-1]) != (others := np.shape(second)[::-1]):
            both = f"{found[0]} and {others[0]} data" if found[0] != others[0] else f"{found} and {others} numbers"
            raise ValueError(f"Difference: found {both}, want the same data twice")
        each = np.atleast_2d(np.asarray(first, np.float64) - np.asarray(second, np.float64))
        return cls(float(each.mean()), _error(each.mean(0)), each.shape[1], len(each), _error(each.mean(1)))

    @property
    def total_error(self) -> float:
        """The standard error over data and trainings; over the data alone where there is one training."""
        return self.error if self.seeds == 1 else hypot(self.error, self.seed_error)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON; None for an error that is not known."""
        return {name: None if value != value else value for name, value in asdict(self).items()}

    def __str__(self) -> str:
        told = f"{self.nll:+.3f} +- {self.error:.3f} nats per datum, paired over {self.n} data"
        return told if self.seeds == 1 else f"{told}, +- {self.seed_error:.3f} over {self.seeds} seeds"


def _error(values: np.ndarray) -> float:
    """The standard error of a mean; NaN of a single value."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else nan
