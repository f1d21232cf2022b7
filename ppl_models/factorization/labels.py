"""`Labels` of graph nodes in reports: z[3] as a copy, z or z[data'] as a site seen from another node."""

from ppl_models.programs.laboratory import Node

from .probing.inspection import Inspection, label


class Labels:
    """Labels of the nodes of an inspection, and the nodes of labels.

    Args:
        inspection: of a pair.
    """

    def __init__(self, inspection: Inspection) -> None:
        model, self.base = inspection.model, inspection.base
        self.inspection = inspection
        nodes = self.base.nodes(self.base)
        self.node: dict[str, Node] = {label(node): node for node in nodes}
        self.latents = self.base.nodes(inspection.latents)
        own = self.base.nodes(self.base.of("observed"))
        own = {n for n in own if n[0] in model.alignment.mixed or model.alignment.elements(self.base[n[0]], n[1])}
        self.closed = [label(n) for n in nodes if n[0] in model.observed and n not in own]

    def seen_from(self, here: str, there: str) -> str:
        """z for a node of the same copy or of no plate in common, z[data'] for one in another copy of the plate."""
        a, b = self.node[here], self.node[there]
        if self.base.alike(a, b):
            return b[0]
        mine = self.base.indices(a)
        others = [plate for plate, i in self.base.indices(b).items() if mine.get(plate, i) != i]
        return f"{b[0]}[{','.join(plate + chr(39) for plate in others)}]"

    def constant(self, node: Node) -> list[str]:
        """What is a set of numbers to the factor of a latent, read or not.

        It is all data to one that is free, and covariates to one outside of the plates of the data.
        """
        model, inspection = self.inspection.model, self.inspection
        outside = bool(inspection.around) and node[0] not in inspection.local
        names = (
            [*model.observed, *model.covariates] if node in inspection.fixed else model.covariates if outside else ()
        )
        return [label(u) for u in self.base.nodes(names)]

    def taken(self) -> dict[str, tuple[str, ...]]:
        """For latents outside of the plates of the data, not free, covariates that they need and do not read."""
        copies, found = self.inspection.copies(), dict[str, dict[str, None]]()
        for node in self.latents if self.inspection.model.covariates else ():
            if node in self.inspection.fixed or not self.constant(node):
                continue
            earlier = [*copies.parents][: [*copies.parents].index(label(node))]
            need = self.inspection.model.copies().needed_parents(label(node), earlier)
            lacking = {u for u in need if self.node[u][0] in self.inspection.model.covariates} - {
                *copies.parents[label(node)]
            }
            found.setdefault(node[0], {}).update((self.node[u][0], None) for u in need if u in lacking)
        return {site: tuple(names) for site, names in found.items() if names}
