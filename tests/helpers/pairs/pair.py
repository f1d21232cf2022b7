"""`Pair`: a model and a guide with what theory says of them, and the words for it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ppl_models.factorization import Factorization

ANY = "any"  # theory has no word on it, or none that a report must repeat
SURE = (True, True, True)
WRONG = (False, False, False)
LOOSE = (True, False, True)  # faithful, with an edge from the data too many
UNKNOWN = (None, None, None)


def parse(formula: str, observed: tuple[str, ...] = (), given: tuple[str, ...] = ()) -> Factorization:
    """The `Factorization` that prints as `formula`."""
    parents = {}
    for site, behind in re.findall(r"[pq]\((\w+)(?: \| ([^)]*))?\)", formula):
        parents[site] = tuple(re.findall(r"\w+", behind))
    return Factorization(parents, observed, given, letter=formula[0])


@dataclass(frozen=True)
class Pair:
    """A model and a guide with their verdict.

    `build` gives (model, guide, args). `model` and `guide` are the factorizations of sites, as formulas. `constant`
    maps a site whose factor has numbers of its own for these data to the data; `determined` is that of `judge`.
    `printed` is False where a report may name nodes in another way than the formulas do.
    """

    build: Callable[[], tuple]
    model: str
    guide: str
    verdict: tuple
    missing: Mapping[str, set[str]] = field(default_factory=dict)
    superfluous: Mapping[str, set[str]] = field(default_factory=dict)
    observed: tuple[str, ...] = ()
    constant: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    determined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    level: str = "site"
    printed: bool = True
    says: tuple[str, ...] = ()

    def factorizations(self) -> tuple[Factorization, Factorization]:
        """Both, hand-written."""
        names = re.findall(r"p\((\w+)", self.model)
        observed = self.observed or tuple(n for n in names if n[0] == "x")
        return parse(self.model, observed), parse(self.guide, given=observed)


PAIRS: dict[str, Pair] = {}


def pair(model: str, guide: str, verdict: tuple, **options: Any) -> Callable:
    """Register what a function builds under its name."""

    def register(build: Callable) -> Callable:
        add(build.__name__, build, model, guide, verdict, **options)
        return build

    return register


def add(name: str, build: Callable, model: str, guide: str, verdict: tuple, **options: Any) -> None:
    assert name not in PAIRS, name
    PAIRS[name] = Pair(build, model, guide, verdict, **options)
