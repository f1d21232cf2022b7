"""`Panel`: one graph of a picture, and how wide its texts are."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

STYLES = ("plain", "missing", "superfluous")
HEIGHT = 30.0  # of a node
CLEAR = 5  # how near an edge may come to a node that it passes


class Witness(NamedTuple):
    """A path of the model along which a dependence runs that a guide lacks.

    Args:
        path: its nodes.
        text: the same in words.
    """

    path: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Panel:
    """One graph of a picture.

    Args:
        title: what the graph is, "model" say.
        caption: its formula, wrapped to the width of the panel; may be empty.
        nodes: the names, in the order they are drawn from.
        edges: (from, to, style) with the style one of "plain", "missing" and "superfluous"; (u, u, style) is a loop,
            the coupling between the copies of u in a plate.
        directed: whether edges have arrows.
        observed: the nodes to fill.
        plates: name of a plate -> its nodes; plates may nest or overlap, and hold nodes that the panel lacks.
        labels: (from, to) -> a small text on that edge.
        about: node -> what is known of it.
        why: (from, to) -> what shows that a missing edge is needed.

    Raises:
        ValueError: a node twice, an edge to or from no node, or an unknown style.
    """

    title: str
    caption: str
    nodes: tuple[str, ...]
    edges: tuple[tuple[str, str, str], ...]
    directed: bool = True
    observed: frozenset[str] = frozenset()
    plates: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[tuple[str, str], str] = field(default_factory=lambda: MappingProxyType({}))
    about: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    why: Mapping[tuple[str, str], Witness] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if len(set(self.nodes)) < len(self.nodes):
            raise ValueError(f"panel {self.title!r}: found a node twice in {self.nodes}, want each once")
        for u, v, style in self.edges:
            if style not in STYLES:
                raise ValueError(f"panel {self.title!r}: edge {u!r} -> {v!r} has style {style!r}, want one of {STYLES}")
            for node in (u, v):
                if node not in self.nodes:
                    raise ValueError(f"panel {self.title!r}: edge {u!r} -> {v!r} meets {node!r}, none of {self.nodes}")

    def held(self) -> dict[str, frozenset[str]]:
        """The nodes of this panel in each of its plates, without the plates that hold none of them."""
        held = {plate: frozenset(members) & set(self.nodes) for plate, members in self.plates.items()}
        return {plate: members for plate, members in held.items() if members}


def text_width(text: str, size: float) -> float:
    """An upper estimate of the width of a text in most fonts, in the unit of `size`."""
    wide = {"narrow": 0.36, "wide": 0.95, "plain": 0.62}
    kinds = ("narrow" if c in "iljtf.,:;'|![]() " else "wide" if c in "mwMW@%" else "plain" for c in text)
    east = {"W": 1.05, "F": 1.05}
    flat = (0.0 if unicodedata.combining(c) else east.get(unicodedata.east_asian_width(c)) for c in text)
    return size * sum(wide[kind] if width is None else width for kind, width in zip(kinds, flat, strict=True))


def node_width(name: str) -> float:
    """Width of a node that holds its name: a circle for a symbol, longer for a word."""
    symbol = len(name) < 3 or re.fullmatch(r"[^\W\d_]\d{2}", name)
    return HEIGHT if symbol and text_width(name, 13) < HEIGHT - 5 else max(HEIGHT, round(text_width(name, 13) + 18, 1))
