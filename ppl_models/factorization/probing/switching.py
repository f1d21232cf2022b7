"""`Switching`: relations that hold at some values of discrete sites and not at others, as by `mean[k]` in a mixture."""

from collections import Counter
from collections.abc import Mapping, Sequence

from ppl_models.programs.laboratory import Node, ProgramRun, Tags


class Switching:
    """Looks at the same changes at several baselines, whose discrete sites have other values.

    A copy of x that is moved by one copy of z at one baseline and not at another, and that a discrete site may choose
    for, is taken to depend on every copy of z that it could be paired with: some value chooses each of them.

    Args:
        base: says which copies there are, and which sites are discrete.
        sources: what is changed.
        upper: by provenance, the sites that each site's factor may depend on; None where it is not known.
    """

    def __init__(self, base: ProgramRun, sources: Sequence[Node], upper: Tags | None) -> None:
        self.base = base
        self.looked = Counter[Node]()
        self.seen = {source: Counter[Node]() for source in sources}  # how often it has moved which nodes
        discrete = {name for name, record in base.items() if record.states is not None and record.kind == "latent"}
        self.chosen_for = {name for name in base if discrete & ({*base} if upper is None else upper.get(name, set()))}

    def look(self, now: Mapping[Node, set[Node]], moved: Mapping[Node, set[Node]]) -> None:
        """Take down what each change has moved at a baseline, and add it to what was moved at any."""
        for source, nodes in now.items():
            self.looked[source] += 1
            self.seen[source].update(nodes)
            moved[source].update(nodes)

    def partly(self, site: str) -> bool:
        """Whether a copy of the site has moved some of the copies that it could be paired with and not others."""
        mine = {source: nodes for source, nodes in self.seen.items() if source[0] == site} if self.chosen_for else {}
        return any(
            {*self._paired(source, target)} - nodes.keys()
            for source, nodes in mine.items()
            for target in {node[0] for node in nodes} & self.chosen_for
        )

    def complete(self, moved: Mapping[Node, set[Node]]) -> None:
        """Add every pair of copies of two sites of which one such pair was seen to switch."""
        pairs = {
            (source[0], node[0])
            for source, nodes in self.seen.items()
            for node, times in nodes.items()
            if times < self.looked[source] and node[0] in self.chosen_for
        }
        for source in self.seen:
            for target in {target for site, target in pairs if site == source[0]}:
                moved[source].update(self._paired(source, target))

    def _paired(self, source: Node, target: str) -> list[Node]:
        """The copies of a site that a source could be paired with."""
        return [node for node in self.base[target].nodes if self.base.alike(source, node)]
