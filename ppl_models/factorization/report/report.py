"""`Report` of a comparison of a guide with the exact posterior, as text, picture, page and data."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..graph import Factorization
from ..verdict import Verdict
from . import Panel, dot, page, svg
from .panel import Witness
from .series import abridged, formula
from .text import as_html, as_text, said_of


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
        unsure: of `need`, what it may lack: nothing is known of an argument that it is given.
        once: plates of the model in which the guide draws the site once for all copies; so it is never exact.
        nats: for linear-Gaussian models, what each missing name alone would gain the factor.
        price: and all of them together.
    """

    site: str
    have: tuple[str, ...]
    need: tuple[str, ...]
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    superfluous: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()
    once: tuple[str, ...] = ()
    nats: Mapping[str, float] = field(default_factory=dict)
    price: float | None = None


@dataclass(frozen=True)
class SiteFacts:
    """A site as the two programs show it.

    Args:
        model: name of its distribution in the model; "" for an argument.
        guide: in the guide; "" where it does not draw the site.
        shape: of one event.
        plates: around it, outermost first.
    """

    model: str
    guide: str
    shape: tuple[int, ...]
    plates: tuple[str, ...]

    def __str__(self) -> str:
        drawn = f"{self.model or 'an argument'}{f' in the model, {self.guide} in the guide' if self.guide else ''}"
        shape = f"shape {self.shape}" if self.shape else "one number"
        return ", ".join(filter(None, (drawn, shape, f"in {', '.join(self.plates)}" if self.plates else "")))


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
        facts: of the sites, distributions, shapes and plates.
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
    facts: Mapping[str, SiteFacts] = field(default_factory=dict)

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
        given, latents = (*self.model.given, *self.observed), tuple(row.site for row in self.rows)
        filled, sites = frozenset([*given, *self.model.observed]), (*self.model.given, *self.model.parents)
        model = [(u, site, "plain") for site, parents in self.model.items() for u in parents]
        posterior: dict[tuple[str, str, str], None] = {}
        guide: dict[tuple[str, str, str], None] = {}
        primes: dict[tuple[str, str], str] = {}
        labels: dict[tuple[str, str], str] = {}
        why: dict[tuple[str, str], Witness] = {}
        for u, v in self.posterior:
            site, plates = _unprimed(v, latents)
            posterior[u, site, "plain"] = None
            primes |= {(u, site): plates} if plates else {}
        for row in self.rows:
            for style, names in (("plain", row.have), ("missing", row.missing)):
                for name in names:
                    site, plates = _unprimed(name, {*latents, *given})
                    if site in {*latents, *given}:
                        guide[site, row.site, "superfluous" if name in row.superfluous else style] = None
                        nats = f"{row.nats[name]:.2f} nats" if name in row.nats else ""
                        text = ", ".join(filter(None, (plates, nats)))
                        labels |= {(site, row.site): text} if text else {}
            for name, path in row.missing.items():
                nodes = tuple(_unprimed(node, {*latents, *given})[0] for node in path)
                (said, *_) = said_of(replace(row, missing={name: path}, once=()))
                why[_unprimed(name, {*latents, *given})[0], row.site] = Witness(nodes, f"{row.site} {said}")
        words = ("model", formula(self.model)), ("exact posterior", ""), ("guide", formula(self.guide))
        about = {node: text for node in {*sites, *given, *latents} if (text := self._about(node))}
        return (
            Panel(*words[0], sites, tuple(dict.fromkeys(model)), True, filled, self.plates, {}, about),
            Panel(*words[1], latents, tuple(posterior), False, frozenset(), self.plates, primes, about),
            Panel(*words[2], (*given, *latents), tuple(guide), True, filled, self.plates, labels, about, why),
        )

    def _about(self, node: str) -> str:
        """The facts of a node: of its site, or of that whose element it is."""
        facts = self.facts.get(node) or self.facts.get(node.rpartition(".")[0])
        return str(facts) if facts else ""

    def svg(self) -> str:
        """The picture: model, exact posterior and guide side by side; missing edges dashed, superfluous ones dotted.

        Nodes z2..z19 that are alike are one. A missing edge shows its path when it is touched or focused.
        """
        return svg(abridged(self.panels()), f"{self.programs[1]} for {self.programs[0]}: {self.verdict}")

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
        whole["facts"] = {site: vars(facts) for site, facts in self.facts.items()}
        del whole["judgement"]
        return {**whole, "model": self.model.to_dict(), "guide": self.guide.to_dict(), "verdict": self.verdict}

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2, default=list)

    def to_html(self) -> str:
        """A page of its own."""
        return page(f"{self.programs[1]} for {self.programs[0]}", svg(abridged(self.panels())), as_html(self))

    def _repr_html_(self) -> str:
        return f"<div>{svg(abridged(self.panels()))}{as_html(self)}</div>"


def _unprimed(name: str, known: Collection[str]) -> tuple[str, str]:
    """A name as its site and the plates in which it is another copy's: z[data'] is z, data'."""
    site, _, plates = (name, "", "") if name in known else name.partition("[")
    return site, plates.rstrip("]")
