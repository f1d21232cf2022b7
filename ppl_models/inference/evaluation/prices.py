"""`Prices`, `EdgePrice`: what the edges that a guide lacks are worth, by training; `measured`, in either language."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np

from ppl_models.factorization.report.report import Report
from ppl_models.parts.arguments.checked import told
from ppl_models.parts.arguments.kinds import Is
from ppl_models.programs.arguments import takes
from ppl_models.programs.legible import legible

from ..results import Difference

Chosen = Mapping[str, tuple[str, ...]]
Pair = Annotated[Callable[[Any], Any], Is("a function of the parents, that makes (model, guide)", partial(takes, 1))]


@dataclass(frozen=True)
class EdgePrice:
    """The worth of edges: by how many nats the bound of a guide is higher with them, both trained alike.

    Attributes:
        edges: (parent, site) of each edge that was mended.
        gain: the bound with them minus that without, in nats per datum, datum by datum, with its standard errors.
        verdict: on the mended guide.
    """

    edges: tuple[tuple[str, str], ...]
    gain: Difference
    verdict: str

    @property
    def nats(self) -> float:
        """The gain in nats per datum."""
        return self.gain.nll

    @property
    def error(self) -> float:
        """Its standard error, over the data and (of several) over the trainings."""
        return self.gain.total_error


@dataclass(frozen=True)
class Prices:
    """Result of `price_edges`.

    Attributes:
        parents: latent -> the latents that the guide gives it, as the inspector recovers them.
        verdict: on the guide.
        elbo: its bound on test data, sampled, in nats per datum; the mean over the trainings.
        edges: the price of each latent edge that it lacks, mended alone.
        together: that of all of them; None where there is but one, or none.
        notes: what one should know, as what else it lacks.
    """

    parents: Chosen
    verdict: str
    elbo: float
    edges: tuple[EdgePrice, ...]
    together: EdgePrice | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        priced = [*self.edges, *((self.together,) if self.together else ())]
        rows = [{"edges": each.edges, **each.gain.to_dict(), "verdict": each.verdict} for each in priced]
        for row in rows:
            row["nats"] = row.pop("nll")
        about = {"parents": dict(self.parents), "verdict": self.verdict, "elbo": self.elbo}
        return {**about, "prices": rows, "notes": list(self.notes)}

    def __str__(self) -> str:
        lines = [f"{self.verdict}, ELBO {self.elbo:.3f} nats per datum"]
        priced = [*self.edges, *((self.together,) if self.together else ())]
        for each in priced:
            edges = "all of them" if each is self.together else " -> ".join(each.edges[0])
            lines.append(f"{edges}: {each.nats:+.4f} +- {each.error:.4f} nats; with it the guide is {each.verdict}")
        if priced:
            n, seeds = priced[0].gain.n, priced[0].gain.seeds
            lines.append(f"paired over {n} data and {seeds} trainings" if seeds > 1 else f"paired over {n} data")
        return legible("\n".join([*lines, *self.notes]))


def measured(
    look: Callable[[Any], Report], train: Callable[[Any, int], np.ndarray], parents: Any, seeds: range
) -> Prices:
    """Train a guide, the guide with each latent edge that it lacks, and with all of them; subtract the bounds.

    Args:
        look: parents -> the report on the guide that has them.
        train: (parents, seed) -> the bound of each test datum, (n,), of the pair trained by that seed.
        parents: those of the guide.
        seeds: of the trainings.

    Raises:
        ValueError: a guide that nothing can be certified of, or to which an edge that it is given makes no difference.
    """
    report = look(parents)
    if report.faithful is None:
        raise ValueError(f"price_edges: found a pair without a verdict, want one; {report.reasons[0]}")
    latents = [row.site for row in report.rows]
    known = {row.site: tuple(u for u in row.have if u in latents) for row in report.rows}
    lacking, notes = [], []
    for i, row in enumerate(report.rows):
        mine = [u for u in row.missing if u in latents[:i]]
        lacking += [(u, row.site) for u in mine]
        if others := [u for u in row.missing if u not in mine]:
            notes.append(f"{row.site} lacks {', '.join(others)}, too, which is no latent that it can be given")
        notes += [f"{row.site} is one draw for all copies of {', '.join(row.once)}"] if row.once else []
    sets = [(edge,) for edge in lacking]
    sets += [tuple(lacking)] if len(lacking) > 1 else []
    chosen = [{z: (*have, *(u for u, site in edges if site == z)) for z, have in known.items()} for edges in sets]
    mended = [look(each) for each in chosen]
    for edges, found in zip(sets, mended, strict=True):
        if still := [(u, z) for u, z in edges if u in found.missing.get(z, ())]:
            raise ValueError(
                f"price_edges: found {still[0][1]} without {still[0][0]}, of which the pair was made with "
                f"parents={told({still[0][1]: (still[0][0],)})}, want a guide that reads what it is given"
            )
    bounds = [np.stack([train(each, seed) for seed in seeds]) for each in (parents, *chosen)]
    rows = [
        EdgePrice(edges, Difference.of(bound, bounds[0]), found.verdict)
        for edges, bound, found in zip(sets, bounds[1:], mended, strict=True)
    ]
    together = rows.pop() if len(lacking) > 1 else None
    return Prices(known, report.verdict, float(bounds[0].mean()), tuple(rows), together, tuple(notes))


def check_pair(found: Any) -> tuple[Any, Any]:
    """What a maker of pairs gave; TypeError where it is no pair."""
    if not isinstance(found, tuple) or len(found) != 2 or not callable(found[0]) or isinstance(found[0], type):
        raise TypeError(f"price_edges: pair gave {told(found)}, want a tuple (model, guide) of programs")
    return found


def check_fresh(trained: bool) -> None:
    """Raise ValueError for a pair some of whose weights an earlier one had, and has trained."""
    if trained:
        raise ValueError(
            "price_edges: pair gave weights that the training before has trained, want new ones each time; make model "
            "and guide inside of it, or hold the model's weights by requires_grad_(False)"
        )


def of_each(elbos: np.ndarray | None) -> np.ndarray:
    """The bounds of the data of an evaluation; ValueError where these count as one."""
    if elbos is None:
        raise ValueError("price_edges: found all data as one datum, want bounds of each; try a model with their plate")
    return elbos
