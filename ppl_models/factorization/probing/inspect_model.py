"""`inspect_model`: probe a model, and read its edges from the factors that moved."""

from functools import cache

from ppl_models.programs.laboratory import Experiment, ProgramRun

from .arguments.alignment import Alignment
from .arguments.repeats import find_repeats
from .draws import check_draws
from .inspection import ModelInspection
from .looks.informative_indices import with_informative_indices
from .looks.rare_values import look_for_rare_values
from .looks.second_looks import VANTAGES, look_again
from .probe import Probe, ProbeResult
from .site_roles import determined
from .values.baselines import Baseline, draw_baseline, first_run
from .values.changes import changes

CHANCES = 7  # as often the model is run with other random numbers, to see whether it keeps its sites
REPEATS = 2  # as often where it draws none, and sites were seen to come and go


def inspect_model(
    model: Experiment, guide: Experiment | None = None, jitter: bool = True, repeats: bool = True
) -> ModelInspection:
    """Probe a model in a laboratory. Deterministic sites that the guide has, too, are nodes.

    Args:
        model, guide: the programs; the guide serves to draw where the model cannot.
        jitter: whether parameters are moved a little first, so that a zero hides nothing.
        repeats: whether arguments that repeat the data (of the step before, say) are data where the model reads them.
            Where it reads them before it observes them they are not: no joint density would have it so.

    Raises:
        ValueError: a model that observes nothing, or whose latents come and go; see `check_draws`.
    """
    drawn = ProgramRun() if guide is None else guide.first or guide.run()
    first = model.first or first_run(model, guide)
    model.laboratory.settle()
    latents, once = tuple(first.of("latent")), {} if guide is None else check_draws(model, guide, first, drawn)
    if not first.of("observed", "factor"):
        found = ", ".join(map(repr, latents)) or "no site at all"
        raise ValueError(
            f"the model observed nothing (it drew {found}); pass the data it takes, as in factorization(model, x)"
        )
    computed = drawn.of("deterministic")
    plus = tuple(name for name in first.of("deterministic") if name in computed and name not in latents)
    rows = {name: s.value for name, s in (*drawn.of("subsample").items(), *first.of("subsample").items())}

    @cache
    def baselines(r: int) -> Baseline:
        return draw_baseline(model, guide, r, jitter, plus, rows)

    baseline = baselines(0)
    base = baseline.run(model)
    _check_latents(model, baseline, base, latents, CHANCES if base.drew else 0)
    base, unseen = with_informative_indices(model, base, baseline, latents, VANTAGES[:2] if jitter else ())
    alignment = Alignment(model, baseline, base)
    if repeats:
        find_repeats(alignment, base, range(len(alignment.leaves)))
        repeats = bool((alignment.copied >= 0).any())
    sources = changes(base, [*latents, *plus, *base.of("observed")], alignment)
    targets = [*latents, *plus, *base.of("observed", "factor")]
    given, covariates = alignment.covariates(model.leaf_names, base)
    upper = alignment.tags(model, baseline)
    base = ProgramRun([*given, *base.values()])
    probed = ProbeResult("model", model, base, upper=upper)
    probe = Probe(model, base, baselines, {**sources, **covariates}, targets, upper)
    probe.run()
    if probe.dynamic:  # as values change, or by themselves
        _check_latents(model, baseline, base, latents, REPEATS)
    look_for_rare_values(probe, alignment)
    order, twins = {name: i for i, name in enumerate(base)}, alignment.shared(base)
    if jitter:
        probed.flat, unseen_here = look_again("model", probe, alignment.leaves, lambda u, v: order[u] < order[v])
        probed.doubts += unseen_here
    for source, nodes in probe.moved.items():
        for node in nodes - {source} - twins.get(source, set()):
            if source in covariates:
                probed.add(source, node)
            elif node[0] == source[0]:
                probed.add(*sorted((source, node), key=lambda n: n[1]))
            elif order[node[0]] > order[source[0]]:
                probed.add(source, node)
            elif repeats and base[source[0]].kind == "observed":
                return inspect_model(model, guide, jitter, repeats=False)
            elif base[source[0]].kind == "observed":
                probed.doubts.append(
                    f"the factor of {node[0]!r} reads the data that {source[0]!r} observes after it: the model is no "
                    "joint density of the two"
                )
    probed.doubts[:] = dict.fromkeys(probed.doubts)
    probed.check_hidden(baseline, targets, probe.repeatable(targets))
    names = [record.name for record in given]
    probed.doubts += [*model.laboratory.doubts, *unseen, *probe.complaints("model", but=names)]
    read = {name for name in names if any(probe.moved[node] for node in base[name].nodes)}
    return ModelInspection(
        probed=probed,
        alignment=alignment,
        baselines=baselines,
        jitter=jitter,
        latents=latents,
        given={node: change for node, change in covariates.items() if node[0] in read},
        twins=twins,
        unclear=_unclear(model, alignment),
        determined=determined(probed, baseline, plus),
        once=once,
    )


def _check_latents(
    model: Experiment, baseline: Baseline, base: ProgramRun, latents: tuple[str, ...], runs: int
) -> None:
    """Refuse a model that does not keep its latents when only random numbers change, in so many more runs."""
    seeds = range(1, 1 + runs)
    others = (model.run(baseline.values, seed=seed, jitter=baseline.jitter) for seed in seeds)
    lost = {name for run in (base, *others) for name in {*run.of("latent")} ^ {*latents}}
    if lost:
        raise ValueError(
            f"the model draws {min(lost)!r} in some runs and not in others, though all latents are held: it hangs on "
            "random numbers or parameters outside of its sample statements; draw those in sample statements"
        )


def _unclear(model: Experiment, alignment: Alignment) -> list[str]:
    """Doubts about the arguments that the model observes, and so about the data that a guide reads."""
    doubts: list[str] = []
    if alignment.unread and any((index < 0).any() for index in alignment.index.values()):
        names = model.leaf_names
        read = ", ".join(dict.fromkeys(repr(names[k]) for k in alignment.unread))
        doubts.append(
            f"the model takes no other values for {read} than those it was given: what it observes cannot be told"
        )
    if model.laboratory.opaque and alignment.closed:
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
