"""Draws of a (model, guide) pair as plain arrays: what programs of either language give, before ArviZ sees them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ppl_models.inference.diagnostics import Smoothed
from ppl_models.programs.record import Plate, Site

Arrays = dict[str, np.ndarray]
SAMPLED = ("posterior", "posterior_predictive", "log_likelihood", "prior", "prior_predictive")
UNDRAWN = "to_arviz left the predictive groups out", "give it one for predictions"
# of a site whose value is wider than its distribution in a way that no draw has
NARROW = "to_arviz left the predictive groups out: the site {!r} observes {} by a distribution of {}; expand that to it"
PREDICTIVE = ("posterior_predictive", "prior", "prior_predictive")  # what needs runs of the model of its own


@dataclass(frozen=True)
class Dims:
    """The dims of a site: those of its plates from left to right, then those of its event.

    Attributes:
        shape: of one value as a program gives it.
        full: of one value with all its plates, and with a 1 for each dim in between.
        kept: (size, name) of each dim that an array of draws has; the name is that of a plate, None for others.
    """

    shape: tuple[int, ...]
    full: tuple[int, ...]
    kept: tuple[tuple[int, str | None], ...]

    @classmethod
    def of(cls, site: Site) -> "Dims":
        """The dims of a site. What is computed has plates only where its leftmost dims are of their sizes."""
        shape, plates = site.shape, {plate.dim: plate for plate in site.plates}
        batch, event = shape[: len(shape) - site.event_dim], site.event_shape
        fits = len(batch) >= site.rank and all(batch[plate.dim] == plate.size for plate in site.plates)
        if site.kind == "deterministic" and not fits:
            batch, event, plates = (), shape, {}
        rank = max(len(batch), max((-dim for dim in plates), default=0))
        batch = (1,) * (rank - len(batch)) + batch
        sizes = [plates[i - rank].size if i - rank in plates else size for i, size in enumerate(batch)]
        names = [plates[i - rank].name if i - rank in plates else None for i in range(rank)]
        kept = [(size, name) for size, name in zip(sizes, names, strict=True) if size != 1 or name is not None]
        return cls(shape, (*sizes, *event), (*kept, *((size, None) for size in event)))

    def arrange(self, values: np.ndarray) -> np.ndarray:
        """(draws, *shape) to (draws, *sizes of kept)."""
        count = len(values)
        missing = len(self.full) - len(self.shape)
        values = values.reshape(count, *(1,) * missing, *self.shape)
        return np.broadcast_to(values, (count, *self.full)).reshape(count, *(size for size, _ in self.kept))


@dataclass(frozen=True)
class Draws:
    """Sites that a pair draws.

    Attributes:
        groups: of `SAMPLED`: group -> variable -> (draws, *dims).
        log_p, log_q: log p(x, z) and log q(z | x), (draws, n) with all latents in the data plate, else (draws,).
        observed: site -> value.
        constant: argument -> value, of those that the model does not observe.
        dims: of the sites.
        plate: the data plate, None where there is none.
        library: name and version of what the programs are written in.
        notes: what one should know of them.
        doubts: the reasons why log p - log q is no log weight, `programs.doubts`.
    """

    groups: dict[str, Arrays]
    log_p: np.ndarray
    log_q: np.ndarray
    observed: Arrays
    constant: Arrays
    dims: Mapping[str, Dims]
    plate: Plate | None
    library: tuple[str, str]
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    @property
    def log_w(self) -> np.ndarray:
        """log p(x, z) - log q(z | x), in double precision."""
        return self.log_p.astype(np.float64) - self.log_q

    def resampled(self, weights: Smoothed, generator: np.random.Generator) -> "Draws":
        """As many draws of the posterior, taken with replacement by their weights, each datum's by its own.

        Raises:
            ValueError: no weights (`doubts`), a datum of which all weights are zero, or a computed site that is not in
                the data plate, so that it cannot follow the draws of each datum.
        """
        for doubt in self.doubts:
            raise ValueError(f"to_arviz: importance='psis' wants weights of draws, found none: {doubt}")
        if np.isneginf(weights.log_weights).all(0).any():
            raise ValueError("to_arviz: importance='psis' finds no draw of the guide that the model gives a density to")
        log_w = weights.log_weights.reshape(len(self.log_p), -1)
        chosen = np.stack([_systematic(np.exp(column), generator) for column in log_w.T], -1)
        moved = {
            group: {name: self._take(group, name, values, chosen) for name, values in arrays.items()}
            if group in ("posterior", "posterior_predictive", "log_likelihood")
            else arrays
            for group, arrays in self.groups.items()
        }
        take = chosen[:, 0] if self.log_p.ndim == 1 else None
        log_p, log_q = (
            v[take] if take is not None else np.take_along_axis(v, chosen, 0) for v in (self.log_p, self.log_q)
        )
        return replace(self, groups=moved, log_p=log_p, log_q=log_q)

    def _take(self, group: str, name: str, values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        if self.log_p.ndim == 1:
            return values[chosen[:, 0]]
        names = [self.plate.name] if group == "log_likelihood" else [n for _, n in self.dims[name].kept]
        if self.plate.name not in names:
            raise ValueError(
                f"to_arviz: the site {name!r} is not in the plate {self.plate.name!r}, each datum of which importance="
                "'psis' resamples by itself; put it into the plate, or leave importance=None"
            )
        shape = [1] * values.ndim
        shape[0], shape[1 + names.index(self.plate.name)] = chosen.shape
        return np.take_along_axis(values, chosen.reshape(shape), 0)


def _systematic(weights: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Indices of as many draws as there are weights, in random order; each comes within one of its expected count."""
    count = len(weights)
    points = (np.arange(count) + generator.uniform()) / count
    found = np.searchsorted(np.cumsum(weights) / weights.sum(), points)
    return generator.permutation(np.minimum(found, count - 1))


def gather(run: Callable[[int], Mapping[str, Arrays]], draws: int, at_once: int) -> dict[str, Arrays]:
    """Run until there are enough draws, at most `at_once` each time, and put what each run gives in one.

    Args:
        run: a count of draws to group -> variable -> (count, ...).
    """
    parts = [run(min(at_once, draws - k)) for k in range(0, draws, at_once)]
    return {
        group: {name: np.concatenate([part[group][name] for part in parts]) for name in variables}
        for group, variables in parts[0].items()
    }


def constants(arguments: Mapping[str, Any], observed: Arrays) -> Arrays:
    """Those array arguments that are not the observed values.

    Args:
        arguments: name -> value; what is no array is left out.
        observed: site -> value.
    """
    values = [np.sort(np.concatenate([v.ravel() for v in observed.values()]))] if len(observed) > 1 else []

    def seen(array: np.ndarray) -> bool:
        alone = any(np.array_equal(array.ravel(), v.ravel()) for v in observed.values())
        return alone or any(np.array_equal(np.sort(array.ravel()), v) for v in values)

    arrays = {k: v for k, v in arguments.items() if isinstance(v, np.ndarray) and v.dtype.kind in "biuf"}
    return {k: v for k, v in arrays.items() if not seen(v)}


def named_arguments(program: Callable, args: Sequence[Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    """The arguments of a program by the names of its parameters, converted; several of `*args` are numbered."""
    from inspect import Parameter, signature

    target = getattr(program, "forward", program)
    names: list[str] = []
    try:
        parameters = list(signature(target).parameters.values())
    except (TypeError, ValueError):  # no signature to be had
        parameters = []
    for parameter in parameters[: len(args)]:
        if parameter.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    names += [f"arg{i}" for i in range(len(names), len(args))]
    return {name: convert(arg) for name, arg in zip(names, args, strict=True)}
