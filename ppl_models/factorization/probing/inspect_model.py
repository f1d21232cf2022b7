"""Inspecting a model and a guide: every run of the two, and what the moved factors mean."""

from collections.abc import Callable, Mapping

from ppl_models.programs.laboratory import Backend, Trial

from .alignment import Alignment
from .alternatives import another
from .auxiliary import Contraction
from .baselines import check_hidden, draw_point, first_runs, trace_tags
from .informative_indices import telling
from .probe import Point, Probed, Troubles, changes, probe
from .rare_values import look_for_rarities
from .inspection import Recovered
from .site_roles import agrees, constants, determined

CHANCES = 8  # as often the model is run with other random numbers, to see whether it keeps its sites


def inspect_model(backend: Backend, model: Callable, jitter: bool, guide: Callable | None = None) -> Recovered:
    """Probe a model, inside `backend.protected`. Deterministic sites that the guide has, too, are nodes.

    Raises:
        ValueError: a model that observes nothing, or draws nothing.
    """
    leaves = backend.leaves
    first, drawn = first_runs(backend, model, guide)
    backend.settle()
    rows = {s.name: s.value for s in (*drawn.of("subsample"), *first.of("subsample"))}  # the same at every point
    cache: dict[int, Point] = {}

    def points(r: int) -> Point:
        if r not in cache:
            cache[r] = draw_point(backend, model, guide, r, jitter, plus, rows)
        return cache[r]

    latents = tuple(seen.name for seen in first.of("latent"))
    if not first.of("observed", "factor"):
        found = ", ".join(map(repr, latents)) or "no site at all"
        raise ValueError(
            f"the model observed nothing (it drew {found}); pass the data it takes, as in factorization(model, x)"
        )
    plus: tuple[str, ...] = ()
    if guide is not None:
        theirs = {seen.name for seen in drawn.of("determined")}
        plus = tuple(s.name for s in first.of("determined") if s.name in theirs and s.name not in latents)
    point = points(0)
    backend.jitter(point.jitter)
    base = backend.run(model, leaves, point.values, point.seed)
    others = [backend.run(model, leaves, point.values, seed) for seed in range(1, CHANCES)]
    lost = {name for trial in (base, *others) for name in {s.name for s in trial.of("latent")} ^ {*latents}}
    if lost:
        raise ValueError(
            f"the model draws {min(lost)!r} in some runs and not in others, though all latents are held: it hangs on "
            "random numbers or parameters outside of its sample statements; draw those in sample statements"
        )
    base, unseen = telling(backend, model, base, point, leaves, latents)
    alignment = Alignment(lambda changed: backend.run(model, changed, point.values, point.seed), leaves, base)
    probed = Probed(base, upper=trace_tags(backend, model, alignment))
    sources = changes(base, [*latents, *plus, *(s.name for s in base.of("observed"))], leaves, alignment)
    targets = [*latents, *plus, *(s.name for s in base.of("observed", "factor"))]
    given, covariates = alignment.covariates(backend.names_for(model), base)
    base = probed.base = Trial({**given, **base.sites})
    troubles = Troubles()
    every = {**sources, **covariates}
    moved = probe(backend, model, base, points, every, targets, leaves, probed.upper, troubles)
    look_for_rarities(backend, model, base, points, every, targets, moved, probed.upper, troubles, alignment)
    order, twins = {s.name: i for i, s in enumerate(base)}, alignment.shared(base)
    for source, nodes in moved.items():
        for node in nodes - {source} - twins.get(source, set()):
            if source in covariates:
                probed.add(source, node)
            elif node[0] == source[0]:
                probed.add(*sorted((source, node), key=lambda n: n[1]))
            elif order[node[0]] > order[source[0]]:
                probed.add(source, node)
            elif base[source[0]].kind == "observed":
                probed.doubts.append(
                    f"the factor of {node[0]!r} reads the data that {source[0]!r} observes after it: the model is no "
                    "joint density of the two"
                )
    probed.doubts[:] = dict.fromkeys(probed.doubts)
    check_hidden(backend, model, base, point, targets, probed, "model")
    probed.doubts += backend.doubts
    probed.doubts += unseen
    probed.doubts += troubles.told("model", but={name for name, _ in covariates})
    read = {name for name in given if any(moved[node] for node in given[name].nodes)}
    known = {node: change for node, change in covariates.items() if node[0] in read}
    found = Recovered(probed, alignment, latents, backend, model, points, known, twins)
    found.unclear = _unclear(backend, model, alignment)
    found.determined = determined(found, plus)
    return found


def _unclear(backend: Backend, model: Callable, alignment: Alignment) -> list[str]:
    """Why it is not clear which of the arguments the model observes, and so which data a guide reads."""
    doubts: list[str] = []
    if alignment.unread and any((index < 0).any() for index in alignment.index.values()):
        names = backend.names_for(model)
        read = ", ".join(dict.fromkeys(repr(names[k]) for k in alignment.unread))
        doubts.append(
            f"the model takes no other values for {read} than those it was given: what it observes cannot be told"
        )
    if backend.opaque and alignment.closed:
        doubts.append(
            f"the data of {alignment.closed[0]!r} are in no tensor or array among the arguments, but may be inside of "
            "an object or a list; pass tensors"
        )
    for name in alignment.mixed:
        doubts.append(
            f"the values observed at {name!r} combine several elements of the arguments, so that which data a guide "
            "reads cannot be told; pass the data as they are observed"
        )
    return doubts


def inspect_guide(found: Recovered, guide: Callable) -> None:
    """Probe a guide after its model.

    Raises:
        ValueError: a site that the model lacks, or a latent that the guide does not draw.
    """
    backend, leaves, point = found.backend, found.backend.leaves, found.points(0)
    backend.jitter(point.jitter)
    base = backend.run(guide, leaves, point.values, point.seed)
    drawn = [s for s in base if s.kind == "latent" and s.name not in found.base.sites]
    computed = [s.name for s in base.of("determined") if s.name in found.latents]
    direct = [s.name for s in base.of("latent") if s.name in found.latents]
    for seen in drawn:
        if not seen.auxiliary and not computed:
            raise ValueError(
                f"the guide draws the site {seen.name!r}, which the model lacks (its latents: "
                f"{', '.join(found.latents)}); rename it, or mark it infer={{'is_auxiliary': True}}"
            )
    for seen in base.of("latent"):
        if seen.name in found.observed:
            raise ValueError(f"the guide draws {seen.name!r}, which the model observes; a guide draws latents alone")
    for name in found.latents:
        if name not in (*direct, *computed) and not found.base[name].marginal:
            raise ValueError(
                f"the guide never draws {name!r}, a latent of the model; draw it there, or mark it in the model as "
                "summed out by infer={'enumerate': 'parallel'}"
            )
    probed = found.guide = Probed(base, upper=trace_tags(backend, guide, found.alignment))
    for name in direct:
        mine = base[name]
        for plate in found.base[name].plates:
            axis = mine.signal.ndim + plate.dim - mine.signal_dim
            if plate.size > 1 and (axis < 0 or mine.signal.shape[axis] != plate.size):
                probed.doubts.append(
                    f"the guide draws {name!r} as one event over the plate {plate.name!r} of the model: its copies "
                    "cannot be told apart; draw it inside that plate"
                )
    plus = [name for name in found.plus if name in base.sites and agrees(found, guide, name)]
    nodes = {*direct, *computed, *plus}
    if probed.upper is not None:  # of what is computed from auxiliary draws, provenance would speak of those
        probed.upper = {name: tags for name, tags in probed.upper.items() if name in direct}
    found.sampled = tuple(s.name for s in base if s.name in nodes)
    data = changes(found.base, [s.name for s in found.base.of("observed")], leaves, found.alignment)
    data = {node: change for node, change in data.items() if found.alignment.elements(found.base[node[0]], node[1])}
    data |= found.given
    sources = {**data, **changes(found.base, [n for n in found.sampled if n not in computed], leaves)}
    troubles, targets = Troubles(), [*direct, *plus]
    arguments = guide, found.base, found.points, sources, targets
    moved = probe(backend, *arguments, leaves, probed.upper, troubles)
    look_for_rarities(backend, *arguments, moved, probed.upper, troubles, found.alignment)
    probed.doubts += troubles.told("guide")
    place = {name: i for i, name in enumerate(found.sampled)}
    for source, children in moved.items():
        for node in children - {source}:
            if node[0] == source[0]:
                probed.add(*sorted((source, node), key=lambda n: n[1]))
            elif source in data or place[source[0]] < place[node[0]]:
                probed.add(source, node)
    if computed:
        _contract(found, guide, base, computed, [s.name for s in drawn], data)
    elif drawn:
        probed.doubts.append(
            f"the guide draws the auxiliary site {drawn[0].name!r}: what summing it out leaves of the structure cannot "
            "be told from a graph"
        )
    check_hidden(backend, guide, base, point, direct, probed, "guide")
    probed.doubts += backend.doubts
    found.fixed = constants(found, guide, data, computed)


def _contract(
    found: Recovered, guide: Callable, base: Trial, computed: list[str], drawn: list[str], data: Mapping
) -> None:
    """Add the parents of latents that the guide computes from auxiliary draws."""
    backend, cache = found.backend, {}

    def points(r: int) -> Point:
        if r not in cache:
            point = found.points(r)
            backend.jitter(point.jitter)
            kept = {k: v for k, v in point.values.items() if k not in computed}
            trial = backend.run(guide, backend.leaves, kept, r)
            values = {**kept, **{name: trial[name].value for name in drawn}}
            others = {**point.others, **{name: another(trial[name]) for name in drawn}}
            cache[r] = Point(point.jitter, r, values, others)
        return cache[r]

    contraction = Contraction(backend, guide, base, points, computed, drawn, backend.leaves)
    probed = contraction.probe()
    # AutoStructured says what its shears connect; a probe of its draws sees the closure of that
    stated = guide.dependencies if hasattr(guide, "conditionals") and hasattr(guide, "dependencies") else None
    for child, parents in probed.parents.items():
        for parent in parents:
            if isinstance(stated, Mapping) and parent[0] != child[0] and parent[0] not in stated.get(child[0], ()):
                continue
            found.guide.add(parent, child)
    found.guide.doubts += probed.doubts
    for node, change in data.items():
        for latent in contraction.reads(change, points(0)):
            found.guide.add(node, latent)
