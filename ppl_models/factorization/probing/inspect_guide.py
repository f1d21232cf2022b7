"""`inspect_pair`, `inspect_guide`: probe a guide after its model, and hold its sites against the model's."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

from ppl_models.programs.laboratory import Experiment, Node, ProgramRun, SiteRecord

from .arguments.repeats import find_repeats
from .auxiliary import Contraction
from .inspect_model import inspect_model
from .inspection import HIDDEN, Inspection, ModelInspection
from .looks.rare_values import look_for_rare_values
from .looks.second_looks import look_again
from .probe import Probe, ProbeResult
from .site_roles import agrees, constants
from .values.alternatives import another
from .values.baselines import Baseline, Change
from .values.changes import changes


def inspect_pair(model: Experiment, guide: Experiment, jitter: bool = True) -> Inspection:
    """Probe a model and then its guide, in one laboratory: see `inspect_model`, `inspect_guide`."""
    return inspect_guide(inspect_model(model, guide, jitter), guide)


def inspect_guide(model: ModelInspection, guide: Experiment) -> Inspection:
    """Probe a guide in the laboratory of its model.

    Raises:
        ValueError: a site that the model lacks, or a latent that the guide does not draw.
    """
    baseline = model.baselines(0)
    base = baseline.run(guide)
    drawn = [name for name in base.of("latent") if name not in model.base]
    computed = [name for name in base.of("deterministic") if name in model.latents]
    direct = [name for name in base.of("latent") if name in model.latents]
    _check_sites(model, base, drawn, direct, computed)
    arguments, unknown = _unknown(model, guide)
    upper = model.alignment.tags(guide, baseline)
    if upper is not None:  # of what is computed from auxiliary draws, provenance would speak of those
        upper = {name: tags for name, tags in upper.items() if name in direct}
    probed = ProbeResult("guide", guide, base, upper=upper)
    probed.doubts += _joined_plates(model, base, direct)
    plus = [name for name in model.plus if name in base and agrees(model, probed, name)]
    sampled = tuple(name for name in base if name in {*direct, *computed, *plus})
    data = changes(model.base, model.base.of("observed"), model.alignment)
    data = {node: change for node, change in data.items() if model.alignment.elements(model.base[node[0]], node[1])}
    data |= model.given
    drawn_here = changes(model.base, [name for name in sampled if name not in computed])
    sources = {**data, **unknown, **drawn_here}
    probe = Probe(
        guide, ProgramRun([*arguments, *model.base.values()]), model.baselines, sources, [*direct, *plus], upper
    )
    probe.run()
    look_for_rare_values(probe, model.alignment)
    place = {name: i for i, name in enumerate(sampled)}
    untold = {name for name, _ in unknown}
    known = {name for name, _ in (*data, *unknown)}
    if model.jitter:
        probed.flat, unseen = look_again(
            "guide", probe, model.alignment.leaves, lambda u, v: u in known or place[u] < place[v]
        )
        probed.doubts += unseen
    probed.doubts += probe.complaints("guide", but=untold)
    probed.doubts += _hidden_data(model, probe)
    # where data are seen among arguments, those that may hide in others are asked for only where something lacks
    hidden = {HIDDEN} if guide.laboratory.opaque and not model.alignment.closed else set()
    reads: dict[str, set[str]] = {name: hidden | (untold & probe.failed) for name in sampled}
    for source, children in probe.moved.items():
        for node in children - {source}:
            if source in unknown:
                reads.setdefault(node[0], set()).add(source[0])
            elif node[0] == source[0]:
                probed.add(*sorted((source, node), key=lambda n: n[1]))
            elif source in data or place[source[0]] < place[node[0]]:
                probed.add(source, node)
    if computed:
        moved_by = _contract(model, probed, computed, drawn, data)
        for source, change in unknown.items():
            for node in () if source[0] in probe.failed else moved_by(change):
                reads.setdefault(node[0], set()).add(source[0])
    elif drawn:
        probed.doubts.append(
            f"the guide draws the auxiliary site {drawn[0]!r}: what summing it out leaves of the structure cannot "
            "be told from a graph"
        )
    probed.check_hidden(baseline, direct, probe.repeatable(direct))
    probed.doubts += guide.laboratory.doubts
    inspection = Inspection(
        model=model, guide=probed, sampled=sampled, untold={k: tuple(sorted(v)) for k, v in reads.items() if v}
    )
    inspection.fixed = constants(inspection, data.keys(), computed)
    return inspection


def _check_sites(
    model: ModelInspection, base: ProgramRun, drawn: Sequence[str], direct: Sequence[str], computed: Sequence[str]
) -> None:
    """Refuse a guide that draws other sites than its model's latents, or not all of them."""
    for name in drawn:
        if not base[name].site.auxiliary and not computed:
            raise ValueError(
                f"the guide draws the site {name!r}, which the model lacks (its latents: "
                f"{', '.join(model.latents)}); rename it, or mark it infer={{'is_auxiliary': True}}"
            )
    for name in base.of("latent"):
        if name in model.observed:
            raise ValueError(f"the guide draws {name!r}, which the model observes; a guide draws latents alone")
    for name in model.latents:
        if name not in (*direct, *computed) and not model.base[name].site.enumerated:
            cure = "draw it there, or mark it in the model as summed out by infer={'enumerate': 'parallel'}"
            if not drawn:  # as the guide None, which there is where none was given
                cure = f"give a guide, MeanField(model, x), on a command line by its name: mean-field; or {cure}"
            raise ValueError(f"the guide never draws {name!r}, a latent of the model; {cure}")


def _joined_plates(model: ModelInspection, base: ProgramRun, direct: Sequence[str]) -> list[str]:
    """Doubts about latents that the guide draws at once for a whole plate of the model."""
    doubts = []
    for name in direct:
        mine = base[name]
        for plate in model.base[name].plates:
            axis = mine.signal.ndim + plate.dim - mine.signal_dim
            if plate.size > 1 and (axis < 0 or mine.signal.shape[axis] != plate.size):
                doubts.append(
                    f"the guide draws {name!r} as one event over the plate {plate.name!r} of the model: its copies "
                    "cannot be told apart; draw it inside that plate"
                )
    return doubts


def _hidden_data(model: ModelInspection, probe: Probe) -> list[str]:
    """Doubts about data that are masked out in all rows, where a guide may pass over them."""
    read = {source[0] for source, nodes in probe.moved.items() if nodes}
    return [
        f"{name!r} is masked out in every row, so that one cannot tell whether the guide reads it where it counts; "
        "pass rows in which it is observed"
        for name, record in model.base.of("observed").items()
        if record.site.mask is False and name not in read
    ]


def _unknown(model: ModelInspection, guide: Experiment) -> tuple[list[SiteRecord], dict[Node, Change]]:
    """Arguments, or parts, that the model neither observes nor reads, no copies of such either; and changes of them."""
    alignment = model.alignment
    unread = {k for name, k in alignment.free.items() if name not in model.covariates}
    if not unread:
        return [], {}
    sites = ProgramRun(record for record in model.base.values() if record.kind != "covariate")
    find_repeats(alignment, sites, unread)
    return alignment.covariates(guide.leaf_names, sites, unread)


def _contract(
    model: ModelInspection,
    guide: ProbeResult,
    computed: Sequence[str],
    drawn: Sequence[str],
    data: Mapping[Node, Change],
) -> Callable[[Change], set[Node]]:
    """Add the parents of latents that the guide computes from auxiliary draws; gives those that a change moves."""

    @cache
    def baselines(r: int) -> Baseline:
        baseline = model.baselines(r)
        kept = {k: v for k, v in baseline.values.items() if k not in computed}
        run = guide.experiment.run(kept, seed=r, jitter=baseline.jitter)
        values = {**kept, **{name: run[name].value for name in drawn}}
        others = {**baseline.others, **{name: another(run[name]) for name in drawn}}
        return Baseline(values, others, r, baseline.jitter)

    contraction = Contraction(guide, baselines, computed, drawn)
    probed = contraction.probe()
    # AutoStructured says what its shears connect; a probe of its draws sees the closure of that
    program = guide.experiment.program
    stated = getattr(program, "dependencies", None) if hasattr(program, "conditionals") else None
    for parent, child in probed.edges():
        if isinstance(stated, Mapping) and parent[0] != child[0] and parent[0] not in stated.get(child[0], ()):
            continue
        guide.add(parent, child)
    guide.doubts += probed.doubts
    for node, change in data.items():
        for latent in contraction.reads(change, baselines(0)):
            guide.add(node, latent)
    return lambda change: contraction.reads(change, baselines(0))
