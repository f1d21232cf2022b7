"""How the nodes of an inspection are called in a report."""

from ppl_models.programs.laboratory import Node

from .probing.probe import alike
from .probing.inspection import Recovered, label


class Names:
    """How the nodes of an inspection are called: as copies, and seen from another node, as sites.

    Args:
        found: by an inspection.
    """

    def __init__(self, found: Recovered) -> None:
        self.found = found
        nodes = [node for seen in found.base for node in seen.nodes]
        self.node: dict[str, Node] = {label(node): node for node in nodes}
        self.latents = [n for site in found.sampled if site not in found.plus for n in found.base[site].nodes]
        own = {n for s in found.base.of("observed") for n in s.nodes if found.alignment.elements(s, n[1])}
        own |= {n for n in nodes if n[0] in found.alignment.mixed}
        self.closed = [label(n) for n in nodes if n[0] in found.observed and n not in own]

    def seen_from(self, here: str, there: str) -> str:
        """z for a node of the same copy or of no plate in common, z[data'] for one in another copy of the plate."""
        a, b = self.node[here], self.node[there]
        if alike(self.found.base, a, b):
            return b[0]
        mine = dict(zip((p.name for p in self.found.base[a[0]].plates), a[1], strict=True))
        plates = zip(self.found.base[b[0]].plates, b[1], strict=True)
        return f"{b[0]}[{','.join(p.name + chr(39) for p, i in plates if mine.get(p.name, i) != i)}]"

    def edge(self, u: str, v: str) -> tuple[str, str]:
        """An undirected edge between sites."""
        return self.node[u][0], self.seen_from(u, v)
