"""`listed`, `formula`, `stretches`, `abridged`: names that count on, z1..z20, are told as one where they are alike."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from ppl_models.programs.legible import legible

from ..graph import Factorization
from .panel import Panel, Witness

LEAST = 5  # fewer are told one by one


class Number(NamedTuple):
    """A name as its stem, its number, and the plates in which it is another copy's: z3[data'] is z, 3, [data']."""

    stem: str
    index: int
    copies: str


class Alike(NamedTuple):
    """What of a name is to be alike in a stretch: names that it is related to, by kinds of relation, and the rest."""

    related: tuple[frozenset[str], ...]
    rest: object = None


def number(name: str) -> Number | None:
    """A name with a running number at its end; None for any other."""
    found = re.fullmatch(r"(.*?)(0|[1-9]\d{0,5})(\[[^\d]*\])?", name, re.DOTALL)
    return Number(found[1], int(found[2]), found[3] or "") if found else None


def listed(names: Iterable[str]) -> str:
    """Names with commas, those that count on from each other as z1..z20.

    >>> listed(["g", "z1", "z2", "z3", "z4", "z5", "x"])
    'g, z1..z5, x'
    """
    groups: list[list[str]] = []
    for name in names:
        if groups and _follows(groups[-1], name):
            groups[-1].append(name)
        else:
            groups.append([name])
    whole = [[f"{group[0]}..{group[-1]}"] if len(group) >= LEAST else group for group in groups]
    return ", ".join(name for group in whole for name in group)


def by_stem(names: Sequence[str]) -> list[str]:
    """Names with those of one stem together, in the order in which stems first come."""
    stems = [found.stem if (found := number(name)) else name for name in names]
    return [name for _, name in sorted(zip(stems, names, strict=True), key=lambda pair: stems.index(pair[0]))]


def formula(factorization: Factorization) -> str:
    """A factorization as a formula, of factors that are alike in a row only the first and the last.

    >>> print(formula(Factorization({f"z{i}": (f"z{i - 1}",) if i else () for i in range(20)})))
    p(z0) p(z1 | z0) ... p(z19 | z18)
    """
    parents = dict(factorization.items())
    alike = {site: Alike((frozenset(found),)) for site, found in parents.items()}
    inner = {site for stretch in stretches(alike) for site in stretch[1:-1]}
    written, skipped = [], False
    for site, found in parents.items():
        if site in inner:
            skipped = True
            continue
        written += ["..."] if skipped else []
        written.append(f"{factorization.letter}({f'{site} | {listed(found)}' if found else site})")
        skipped = False
    return legible(" ".join(written))


def stretches(alike: Mapping[str, Alike]) -> list[list[str]]:
    """The stretches of at least `LEAST` names of one stem, counting up or down, that are alike.

    Two sets of names are alike if they are the same, or the same as seen from their owner: z4 is to z5 what z8 is to
    z9, and x5..x20 to z5 what x9..x20 is to z9.
    """
    ends: dict[str, tuple[int, int]] = {}
    for name in {u for kinds in alike.values() for names in kinds.related for u in names} | {*alike}:
        if found := number(name):
            least, most = ends.get(found.stem, (found.index, found.index))
            ends[found.stem] = min(least, found.index), max(most, found.index)
    groups: dict[tuple[str, str], list[str]] = {}
    for name in alike:
        if found := number(name):
            groups.setdefault((found.stem, found.copies), []).append(name)
    found_runs: list[list[str]] = []
    for names in groups.values():
        run, ways = [names[0]], [{"same", "seen"} for _ in alike[names[0]].related]
        for a, b in pairwise(names):
            both = zip(ways, alike[a].related, alike[b].related, strict=True)
            left = [way & _ways(u, a, v, b, ends) for way, u, v in both]
            if _follows(run, b) and alike[a].rest == alike[b].rest and all(left):
                run, ways = [*run, b], left
            else:
                found_runs.append(run)
                run, ways = [b], [{"same", "seen"} for _ in left]
        found_runs.append(run)
    return [run for run in found_runs if len(run) >= LEAST]


def _ways(u: Collection[str], a: str, v: Collection[str], b: str, ends: Mapping[str, tuple[int, int]]) -> set[str]:
    """How names seen from a are like names seen from b."""
    same = {"same"} if u == v else set()
    return same | ({"seen"} if _seen(u, _index(a), ends) == _seen(v, _index(b), ends) else set())


def abridged(panels: Sequence[Panel]) -> tuple[Panel, ...]:
    """The panels with one node for each stretch of nodes that are alike in all of them, as z2 … z19."""
    nodes = dict.fromkeys(node for panel in panels for node in panel.nodes)
    alike = {node: _relations(node, panels) for node in sorted(nodes, key=_index)}
    longest: dict[str, list[str]] = {}
    for stretch in stretches(alike):
        stem = stretch[0].rstrip("0123456789")
        longest[stem] = max(longest.get(stem, []), stretch, key=len)
    first = max((_index(stretch[0]) for stretch in longest.values()), default=0)
    final = min((_index(stretch[-1]) for stretch in longest.values()), default=-1)
    if final - first + 1 < LEAST:
        return tuple(panels)
    group: dict[str, str] = {}
    for stretch in longest.values():
        inner = [node for node in stretch if first <= _index(node) <= final]
        group |= dict.fromkeys(inner, f"{inner[0]} \u2026 {inner[-1]}")
    return tuple(_merged(panel, group) for panel in panels)


def _merged(panel: Panel, group: Mapping[str, str]) -> Panel:
    def one(node: str) -> str:
        return group.get(node, node)

    edges: dict[tuple[str, str, str], None] = {}
    for u, v, style in panel.edges:
        turned = not panel.directed and (one(v), one(u), style) in edges
        if (u == v or one(u) != one(v)) and not turned:
            edges[one(u), one(v), style] = None
    labels: dict[tuple[str, str], dict[str, None]] = {}
    for (u, v), text in panel.labels.items():
        labels.setdefault((one(u), one(v)), {})[text] = None
    about: dict[str, str] = {}
    for node, text in panel.about.items():
        like = f"{sum(g == one(node) for g in group.values())} sites like {node}: " if node in group else ""
        about.setdefault(one(node), like + text)
    why: dict[tuple[str, str], Witness] = {}
    for (u, v), witness in panel.why.items():
        path = tuple(dict.fromkeys(map(one, witness.path)))
        more = "; and so on" if u in group or v in group else ""
        why.setdefault((one(u), one(v)), Witness(path, witness.text + more))
    return replace(
        panel,
        nodes=tuple(dict.fromkeys(map(one, panel.nodes))),
        edges=tuple(edges),
        observed=frozenset(map(one, panel.observed)),
        plates={plate: tuple(dict.fromkeys(map(one, members))) for plate, members in panel.plates.items()},
        labels={edge: _range([*texts]) for edge, texts in labels.items()},
        about=about,
        why=why,
    )


def _range(texts: Sequence[str]) -> str:
    """One text for several: the same, or from the least to the largest number of nats."""
    if len(texts) == 1:
        return texts[0]
    parts = [text.rpartition(", ") for text in texts]
    nats = sorted(float(part[2].removesuffix(" nats")) for part in parts if part[2].endswith(" nats"))
    plates = dict.fromkeys(part[0] or ("" if part[2].endswith(" nats") else part[2]) for part in parts)
    between = f"{nats[0]:.2f} to {nats[-1]:.2f} nats" if nats else ""
    return ", ".join(filter(None, (*plates, between)))


def _relations(node: str, panels: Sequence[Panel]) -> Alike:
    related, rest = [], []
    for panel in panels:
        rest += [node in panel.nodes, node in panel.observed, *(node in members for members in panel.plates.values())]
        for style in ("plain", "missing", "superfluous"):
            into = frozenset(u for u, v, s in panel.edges if v == node and s == style)
            out = frozenset(v for u, v, s in panel.edges if u == node and s == style)
            related += [into, out] if panel.directed else [into | out]
    return Alike(tuple(related), tuple(rest))


def _index(name: str) -> int:
    found = number(name)
    return found.index if found else -1


def _follows(group: Sequence[str], name: str) -> bool:
    """Whether a name counts on from a group of names, up or down."""
    a, b = number(group[-1]), number(name)
    step = b.index - a.index if a and b and (a.stem, a.copies) == (b.stem, b.copies) else 0
    return abs(step) == 1 and (len(group) < 2 or _index(group[-2]) == _index(group[-1]) - step)


def _seen(names: Collection[str], here: int, ends: Mapping[str, tuple[int, int]]) -> frozenset[object]:
    """Names as seen from a number: how far runs of them begin and end from it, or that they go from first to last."""
    found: set[object] = {name for name in names if number(name) is None}
    stems: dict[tuple[str, str], list[int]] = {}
    for there in filter(None, map(number, names)):
        stems.setdefault((there.stem, there.copies), []).append(there.index)
    for stem, indices in stems.items():
        runs: list[list[int]] = []
        for i in sorted(indices):
            if runs and runs[-1][-1] == i - 1:
                runs[-1].append(i)
            else:
                runs.append([i])
        least, most = ends[stem[0]]
        for run in runs:
            start = "first" if len(run) > 1 and run[0] == least else run[0] - here
            end = "last" if len(run) > 1 and run[-1] == most else run[-1] - here
            found.add((stem, start, end))
    return frozenset(found)
