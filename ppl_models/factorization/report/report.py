"""`Report` of a comparison of a guide with the exact posterior, as text, picture, page and data."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..graph import Factorization
from ..verdict import Verdict
from . import Panel, dot, page, svg
from .text import as_html, as_text


@dataclass(frozen=True)
class SiteRow:
    """One factor of a guide beside that of the exact posterior, over all copies of its site.

    Names are those of sites; `z[data']` is z in another copy of the plate "data".

    Args:
        site: the latent.
        have: what the guide's factor is given.
        need: what the exact factor in the guide's order is given.
        missing: of `need`, what the guide's factor lacks, each with a path that shows the dependence.
        superfluous: of `have`, what can go without loss.
        nats: for linear-Gaussian models, what each missing name alone would gain the factor.
        price: and all of them together.
    """

    site: str
    have: tuple[str, ...]
    need: tuple[str, ...]
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    superfluous: tuple[str, ...] = ()
    nats: Mapping[str, float] = field(default_factory=dict)
    price: float | None = None


@dataclass(frozen=True)
class Gap:
    """Cost of the structure of a guide on a linear-Gaussian model, in nats.

    Args:
        forward: min_q E_x KL(p(z | x) || q(z | x)), the information that the structure throws away.
        elbo: min_q E_x KL(q(z | x) || p(z | x)), the gap of the ELBO at its best guide.
        per: "datum", or "batch": the copies that were looked at, where they touch each other.
    """

    forward: float
    elbo: float
    per: str = "datum"


@dataclass(frozen=True)
class Report:
    """A guide's factorization beside that of the exact posterior, factor by factor, and the verdict on it.

    Print it, show it in a notebook, or ask it.

    Args:
        level: "site" or "element".
        judgement: of the copies; None: nothing can be certified, `reasons` say why.
        rows: one for each latent, in the order of the guide.
        model, guide: the factorizations that were recovered.
        posterior: the edges of the exact posterior's Markov graph.
        observed: the observed sites.
        plates: the sites in each plate.
        programs: what model and guide are called.
        reasons: why there is no verdict.
        notes: what a reader should know.
        gap: for linear-Gaussian models, what the structure costs.
    """

    level: str
    judgement: Verdict | None
    rows: tuple[SiteRow, ...]
    model: Factorization
    guide: Factorization
    posterior: tuple[tuple[str, str], ...] = ()
    observed: tuple[str, ...] = ()
    plates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    programs: tuple[str, str] = ("model", "guide")
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    gap: Gap | None = None

    @property
    def faithful(self) -> bool | None:
        """No factor lacks what the exact one needs, so that the guide can equal the posterior if its families can."""
        return None if self.judgement is None else self.judgement.faithful

    @property
    def minimal(self) -> bool | None:
        """Faithful, and no edge of the guide can go."""
        return None if self.judgement is None else self.judgement.minimal

    @property
    def perfect(self) -> bool | None:
        """Faithful, and the guide asserts every independence between latents that the exact posterior has."""
        return None if self.judgement is None else self.judgement.perfect

    @property
    def missing(self) -> dict[str, tuple[str, ...]]:
        """For each site that lacks something, what it lacks."""
        return {row.site: tuple(row.missing) for row in self.rows if row.missing}

    @property
    def superfluous(self) -> dict[str, tuple[str, ...]]:
        """For each site that is given too much, what can go."""
        return {row.site: row.superfluous for row in self.rows if row.superfluous}

    def __str__(self) -> str:
        return as_text(self)

    def __repr__(self) -> str:
        return f"<Report: {self.verdict}>"

    @property
    def verdict(self) -> str:
        """In words: "faithful, minimal, not perfect" for example, "unfaithful" or "cannot certify"."""
        if self.faithful is None:
            return "cannot certify"
        if not self.faithful:
            return "unfaithful"
        rest = {"minimal": self.minimal, "perfect": self.perfect}
        return ", ".join(["faithful", *(word if holds else f"not {word}" for word, holds in rest.items())])

    def panels(self) -> tuple[Panel, Panel, Panel]:
        """The three graphs of the picture: model, posterior, guide."""
        inside = {plate: tuple(sites) for plate, sites in self.plates.items()}
        seen = frozenset([*self.observed, *self.model.observed])
        sites = (*self.model.given, *self.model.parents)
        seen |= {*self.model.given}
        latents = tuple(row.site for row in self.rows)
        model = [(u, s, "plain") for s, parents in self.model.items() for u in parents]
        posterior, primed = [], {}
        for u, v in self.posterior:
            site, _, plates = v.partition("[") if v not in latents else (v, "", "")
            posterior.append((u, site, "plain"))
            if plates:
                primed[u, site] = plates.rstrip("]")
        guide, labels = [], {}
        known = {*latents, *self.observed, *self.model.given}
        given = (*self.model.given, *self.observed)
        for row in self.rows:
            for style, names in (("plain", row.have), ("missing", row.missing)):
                for name in names:
                    site, _, plates = name.partition("[") if name not in known else (name, "", "")
                    if site in known:
                        guide.append((site, row.site, "superfluous" if name in row.superfluous else style))
                        text = [plates.rstrip("]")] if plates else []
                        text += [f"{row.nats[name]:.2f} nats"] if name in row.nats else []
                        if text:
                            labels[site, row.site] = ", ".join(text)
        words = ("model", str(self.model)), ("exact posterior", ""), ("guide", str(self.guide))
        return (
            Panel(*words[0], sites, tuple(dict.fromkeys(model)), True, seen, inside),
            Panel(*words[1], latents, tuple(dict.fromkeys(posterior)), False, frozenset(), inside, primed),
            Panel(*words[2], (*given, *latents), tuple(dict.fromkeys(guide)), True, seen, inside, labels),
        )

    def svg(self) -> str:
        """The picture: model, exact posterior and guide side by side; missing edges red, superfluous ones grey."""
        return svg(self.panels(), f"{self.programs[1]} for {self.programs[0]}: {self.verdict}")

    def to_dot(self) -> str:
        """The same for Graphviz."""
        return dot(self.panels())

    def to_dict(self) -> dict[str, Any]:
        """All of it in lists, dicts, strings and numbers."""
        rows = [
            {**vars(row), "missing": {u: list(path) for u, path in row.missing.items()}, "nats": dict(row.nats)}
            for row in self.rows
        ]
        judged = {"faithful": self.faithful, "minimal": self.minimal, "perfect": self.perfect}
        whole = {"level": self.level, **judged, **vars(self), "rows": rows, "gap": vars(self.gap) if self.gap else None}
        del whole["judgement"]
        return {**whole, "model": self.model.to_dict(), "guide": self.guide.to_dict(), "verdict": self.verdict}

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2, default=list)

    def to_html(self) -> str:
        """A page of its own."""
        return page(f"{self.programs[1]} for {self.programs[0]}", svg(self.panels()), as_html(self))

    def _repr_html_(self) -> str:
        return f"<div>{svg(self.panels())}{as_html(self)}</div>"
