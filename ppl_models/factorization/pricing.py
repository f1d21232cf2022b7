"""`priced`: what the missing edges of a report cost, in nats, where the model turns out to be linear and Gaussian."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ppl_models.programs.laboratory import FEW, Node

from .bases import base_value
from .elements import Elements
from .graph import Factorization
from .labels import Labels
from .probing.inspection import Inspection, label
from .report.report import Gap, SiteRow
from .verdict import Verdict

if TYPE_CHECKING:
    from .nats.gaussian import GaussianJoint

GAUSSIAN = (
    *("Normal", "MultivariateNormal", "LowRankMultivariateNormal", "RankOneNormal"),
    "TransformedDistribution",  # by an affine map, perhaps
)
MAX_COORDINATES, WITHOUT_GRADIENTS = 96, 24


def priced(
    inspection: Inspection, rows: tuple[SiteRow, ...], verdict: Verdict, labels: Labels
) -> tuple[tuple[SiteRow, ...], Gap | None]:
    """The rows with the prices of what they miss, and the gap; unchanged and None for any other model.

    The model is taken with its parameters as they are. Where no copy touches another, one datum is priced, else all.
    """
    nodes = _nodes(inspection)
    joint = _joint(inspection, nodes, any(row.missing for row in rows))
    if joint is None:
        return rows, None
    from .nats.gaussian import price  # scipy, for those who need it

    kept = {label(node) for node in nodes}
    data = tuple(label(node) for node in nodes if node[0] in inspection.model.observed)
    fixed = {label(node) for node in inspection.fixed}
    parents = {
        z: tuple(dict.fromkeys([*(u for u in have if u in kept), *(data if z in fixed else ())]))
        for z, have in inspection.copies().items()
        if z in kept
    }
    missing = {row.site: tuple(row.missing) for row in verdict.rows if row.site in kept}
    if any(u not in kept for us in missing.values() for u in us):
        return rows, None  # a covariate is missing, which has no distribution to price it by
    cost = price(joint, Factorization(parents, given=data, letter="q"), missing)
    told = []
    for row in rows:
        here = next(name for name in parents if labels.node[name][0] == row.site)
        nats = {labels.seen_from(here, u): value for (z, u), value in cost.edges.items() if z == here}
        told.append(replace(row, nats=nats, price=cost.sites[here]) if row.missing else row)
    most = max(sum(site == name for site, _ in nodes) for name, _ in nodes)
    return tuple(told), Gap(cost.forward, cost.elbo, "datum" if most == 1 else f"batch of {most}")


def priced_elements(
    inspection: Inspection,
    elements: Elements,
    rows: list[SiteRow],
    guide: Factorization,
    fixed: Mapping[str, Collection[str]],
) -> tuple[list[SiteRow], Gap | None]:
    """The same at the level of elements, in the coordinates of `elements`; for models whose copies do not touch.

    Args:
        fixed: for an element of a latent the data that are constants to its factor.
    """
    nodes = _nodes(inspection)
    joint = _joint(inspection, nodes, False) if len({name for name, _ in nodes}) == len(nodes) else None
    joint = joint if joint is None or not elements.bases else _in_bases(inspection, elements, nodes, joint)
    if joint is None:
        return rows, None
    from .nats.gaussian import GaussianJoint, price

    named: dict[str, list[str]] = {}
    for element in (*elements.latents, *elements.data):
        named.setdefault(element[0], []).append(elements.name(element))
    blocks, start = {}, 0
    for name, span in ((node[0], joint.blocks[label(node)]) for node in nodes):
        size = span.stop - span.start
        names = named[name]
        width = size // len(names)
        blocks |= {u: slice(start + i * width, start + (i + 1) * width) for i, u in enumerate(names)}
        start += size
    data = tuple(map(elements.name, elements.data))
    parents = {z: (*have, *(u for u in data if u in fixed[z] and u not in have)) for z, have in guide.items()}
    missing = {row.site: tuple(u for u in row.missing if u in blocks) for row in rows}
    cost = price(GaussianJoint(joint.covariance, blocks, data), Factorization(parents, given=data, letter="q"), missing)
    told = []
    for row in rows:
        nats = {u: value for (z, u), value in cost.edges.items() if z == row.site}
        told.append(replace(row, nats=nats, price=cost.sites[row.site]) if row.missing else row)
    return told, Gap(cost.forward, cost.elbo)


def _in_bases(
    inspection: Inspection, elements: Elements, nodes: list[Node], joint: "GaussianJoint"
) -> "GaussianJoint | None":
    """A Gaussian of values as one of the bases that some are made of; None where these are not linear in the values."""
    from .nats.gaussian import GaussianJoint

    base, experiment, held = inspection.base, inspection.model.probed.experiment, inspection.model.baselines(0).values
    places = {name: base[name].at(base[name].value, copy) for name, copy in nodes}

    def bases(v: np.ndarray) -> np.ndarray:
        values, parts = {name: np.array(value) for name, value in held.items()}, []
        for node in nodes:
            part, name = v[joint.blocks[label(node)]], node[0]
            if name in values:
                values[name][places[name]] = part.reshape(values[name][places[name]].shape)
            parts.append(part)
        run = experiment.run(values)
        found = [
            base_value(run[n])[places[n]].reshape(-1) if n in elements.bases else p
            for (n, _), p in zip(nodes, parts, strict=True)
        ]
        return np.concatenate(found)

    size = len(joint.covariance)
    zero, unit = bases(np.zeros(size)), np.eye(size)
    slopes = np.stack([bases(e) - zero for e in unit], -1)
    for v in np.random.default_rng(0).standard_normal((2, size)) * [[1.0], [10.0]]:
        if not np.allclose(bases(v), zero + slopes @ v, rtol=1e-8, atol=1e-8):
            return None
    covariance = slopes @ joint.covariance @ slopes.T
    return GaussianJoint((covariance + covariance.T) / 2, joint.blocks, joint.observed)


def _nodes(inspection: Inspection) -> list[Node]:
    """The nodes of one datum, if no copy touches another in model or guide, else all of them, if all were looked at."""
    model, base = inspection.model, inspection.base
    around = {n: {plate.name for plate in base[n].plates} for n in base if n in {*model.latents, *model.observed}}
    edges = [*model.probed.edges(), *inspection.guide.edges()]
    edges = [(u, v) for u, v in edges if u[0] in around and v[0] in around]
    if all(base.alike(u, v) and around[u[0]] == around[v[0]] for u, v in edges):
        return [base[name].nodes[0] for name in around]
    if any(len(base[name].indices(plate)) < plate.size for name in around for plate in base[name].plates):
        return []
    return base.nodes(around)


def _joint(inspection: Inspection, nodes: list[Node], missing: bool) -> "GaussianJoint | None":
    """The Gaussian of these nodes, or None."""
    model, base, experiment = inspection.model, inspection.base, inspection.model.probed.experiment
    if (
        model.plus
        or base.of("factor")
        or any(r.site.family not in GAUSSIAN for r in base.of("latent", "observed").values())
    ):
        return None

    def unknown(why: str) -> None:
        inspection.guide.notes.extend([f"no price in nats: {why}"] if missing else [])

    if not nodes:
        return unknown(f"if the model is linear-Gaussian, prices need plates of at most {FEW} copies")
    records = {name: base[name] for name, _ in nodes}
    entries = _entries(inspection, nodes)
    if entries is None:
        return unknown(
            "data depend on data that are no plain elements of the arguments; pass them as they are observed"
        )
    from .nats.quadratic import joint_by_differences, linear_gaussian

    places: dict[Node, tuple] = {node: records[node[0]].at(records[node[0]].value, node[1]) for node in nodes}
    sizes: Mapping[str, int] = {label(node): records[node[0]].value[at].size for node, at in places.items()}
    held = {**model.baselines(0).values, **{name: record.value for name, record in records.items()}}
    for name, _ in entries:
        held.pop(name, None)  # read from the arguments, as by all that depends on them
    density = experiment.laboratory.density(experiment.program, held, places, entries)
    most = WITHOUT_GRADIENTS if density is None else MAX_COORDINATES
    if sum(sizes.values()) > most or any(not size for size in sizes.values()):
        return unknown(f"there are {sum(sizes.values())} numbers in a datum, want at most {most}")
    observed = [label(node) for node in nodes if node[0] in model.observed]
    # where units saturate a model may pass for linear with the weights that it has
    if density is not None:
        joint = None if model.probed.flat else linear_gaussian(density, sizes, observed)
        return unknown("the model is not linear and Gaussian") if joint is None else joint

    def summed(v: np.ndarray) -> float:
        values, start = {name: np.array(value) for name, value in held.items()}, 0
        flat = model.alignment.flat()
        for node, at in places.items():
            part, start = v[start : start + sizes[label(node)]], start + sizes[label(node)]
            if node in entries:
                flat[entries[node]] = part
            else:
                values[node[0]][at] = part.reshape(values[node[0]][at].shape)
        run = experiment.run(values, leaves=model.alignment.leaves_of(flat))
        return float(sum(record.signal.sum() for record in run.of("latent", "observed").values()))

    joint = None if model.probed.flat else joint_by_differences(summed, sizes, observed)
    return unknown("the model is not linear and Gaussian") if joint is None else joint


def _entries(inspection: Inspection, nodes: list[Node]) -> dict[Node, np.ndarray] | None:
    """For the observed sites whose data others read from the arguments, which elements of these they are; else None."""
    model, found = inspection.model, {}
    for name in dict.fromkeys(name for name, _ in nodes if name in model.observed):
        mine = [node for node in nodes if node[0] == name]
        if any(_read_elsewhere(inspection, node) for node in mine):
            for node in mine:
                found[node] = model.alignment.entries(model.base[name], node[1])
                if found[node] is None or node in model.twins:
                    return None
    return found


def _read_elsewhere(inspection: Inspection, node: Node) -> bool:
    """Whether a factor of the model reads the data of an observed node from the arguments, past the node itself."""
    model, record = inspection.model, inspection.base[node[0]]
    if not model.alignment.elements(record, node[1]):
        return any(u == node for u, _ in model.probed.edges())
    held = model.baselines(0).holding(node[0], record.value)
    other = replace(
        held, leaves=model.alignment.changed(record, node[1], np.broadcast_to(held.others[node[0]], record.value.shape))
    )
    before, after = (baseline.run(model.probed.experiment) for baseline in (held, other))
    tolerance = model.probed.experiment.laboratory.tolerance
    return any(before[name].moved(before[name], after[name], tolerance) for name in (*model.latents, *model.observed))
