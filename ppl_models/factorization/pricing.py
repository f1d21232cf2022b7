"""What the missing edges of a report cost, in nats, where the model turns out to be linear and Gaussian."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ppl_models.programs.laboratory import FEW, Node

from .graph import Factorization
from .labels import Names
from .probing.probe import alike
from .probing.inspection import Recovered, label
from .report.report import Gap, SiteRow
from .verdict import Verdict

GAUSSIAN = ("Normal", "MultivariateNormal", "LowRankMultivariateNormal", "RankOneNormal")
MOST, FEWER = 96, 24  # coordinates; without gradients


def priced(
    found: Recovered, rows: tuple[SiteRow, ...], verdict: Verdict, names: Names
) -> tuple[tuple[SiteRow, ...], Gap | None]:
    """The rows with the prices of what they miss, and the gap; unchanged and None for any other model.

    The model is taken with its parameters as they are. Where no copy touches another, one datum is priced, else all.
    """
    nodes = _nodes(found)
    joint = _joint(found, nodes, any(row.missing for row in rows))
    if joint is None:
        return rows, None
    from .nats.gaussian import price  # scipy, for those who need it

    kept = {label(node) for node in nodes}
    data = tuple(label(node) for node in nodes if node[0] in found.observed)
    guide = found.copies("guide")
    fixed = {label(node) for node in found.fixed}
    parents = {
        z: tuple(dict.fromkeys([*(u for u in have if u in kept), *(data if z in fixed else ())]))
        for z, have in guide.items()
        if z in kept
    }
    missing = {row.site: tuple(row.missing) for row in verdict.rows if row.site in kept}
    if any(u not in kept for us in missing.values() for u in us):
        return rows, None  # a covariate is missing, which has no distribution to price it by
    cost = price(joint, Factorization(parents, given=data, letter="q"), missing)
    told = []
    for row in rows:
        here = next(name for name in parents if names.node[name][0] == row.site)
        nats = {names.seen_from(here, u): value for (z, u), value in cost.edges.items() if z == here}
        told.append(replace(row, nats=nats, price=cost.sites[here]) if row.missing else row)
    most = max(sum(site == name for site, _ in nodes) for name, _ in nodes)
    return tuple(told), Gap(cost.forward, cost.elbo, "datum" if most == 1 else f"batch of {most}")


def _nodes(found: Recovered) -> list[Node]:
    """The nodes of one datum, if no copy touches another in model or guide, else all of them, if all were looked at."""
    sites = [s for s in found.base if s.name in {*found.latents, *found.observed}]
    edges = [(u, v) for p in (found.model, found.guide) for v, parents in p.parents.items() for u in parents]
    around = {seen.name: {plate.name for plate in seen.plates} for seen in sites}
    edges = [(u, v) for u, v in edges if u[0] in around and v[0] in around]
    apart = all(alike(found.base, u, v) and around[u[0]] == around[v[0]] for u, v in edges)
    if apart:
        return [seen.nodes[0] for seen in sites]
    if any(len(plate.indices) < plate.size for seen in sites for plate in seen.plates):
        return []
    return [node for seen in sites for node in seen.nodes]


def _joint(found: Recovered, nodes: list[Node], missing: bool) -> Any:
    """The Gaussian of these nodes, or None."""
    base, density = found.base, getattr(found.backend, "density", None)  # with gradients, where there are any
    sites = {name: base[name] for name, _ in nodes}
    if not nodes:
        if missing and all(seen.family in GAUSSIAN for seen in base.of("latent", "observed")):
            found.guide.notes.append(f"if the model is linear-Gaussian: prices need plates of at most {FEW} copies")
        return None
    if found.plus or base.of("factor") or any(s.family not in GAUSSIAN for s in sites.values()):
        return None
    if any(u[0] in found.observed for v, us in found.model.parents.items() for u in us):
        return None  # data that later data read, perhaps from the arguments: out of reach of held values
    from .nats.gaussian import linear_gaussian
    from .nats.quadratic import joint_by_differences

    places: dict[Node, tuple] = {(n, c): sites[n].at(sites[n].value, c, sites[n].event_dim) for n, c in nodes}
    sizes: Mapping[str, int] = {label(node): sites[node[0]].value[at].size for node, at in places.items()}
    if sum(sizes.values()) > (FEWER if density is None else MOST) or any(not size for size in sizes.values()):
        return None
    point = found.points(0)
    found.backend.jitter(None)
    held = {**point.values, **{name: seen.value for name, seen in sites.items()}}
    observed = [label(node) for node in nodes if node[0] in found.observed]
    if density is not None:
        return linear_gaussian(density(found.program, held, places), sizes, observed)

    def summed(v: np.ndarray) -> float:
        values, start = {name: np.array(value) for name, value in held.items()}, 0
        for (name, _), at in places.items():
            part = values[name][at]
            values[name][at] = v[start : start + part.size].reshape(part.shape)
            start += part.size
        trial = found.backend.run(found.program, found.backend.leaves, values)
        return float(sum(seen.signal.sum() for seen in trial.of("latent", "observed")))

    return joint_by_differences(summed, sizes, observed)
