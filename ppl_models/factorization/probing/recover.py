"""`factorization` of one running program, recovered by probing it; `provenance` of a model, by tags alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyProgram
from ppl_models.programs.laboratory import Experiment, Leaves, ProgramRun, SiteRecord, experiments
from ppl_models.programs.legible import warn
from ppl_models.programs.noise import structure_of
from ppl_models.programs.record import Site

from ..graph import Factorization
from .arguments.alignment import Alignment
from .inspect_guide import inspect_pair
from .inspect_model import inspect_model
from .looks.second_looks import look_again
from .probe import Probe
from .values.alternatives import another
from .values.baselines import Baseline, Change, draw_baseline, first_run
from .values.changes import changes


@checked
def factorization(program: AnyProgram, *args: Any, **kwargs: Any) -> Factorization:
    """The factorization of a Pyro or NumPyro program, recovered by running it.

    A program that observes something is a model: p over its sites. Another is a guide: q over its latents given the
    sites that its model observes, where it knows its model (those of this collection and Pyro's own do), else given
    those of its arguments that it reads, by their names.

        >>> import pyro, pyro.distributions as dist, torch
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        ...         pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)
        >>> print(factorization(model, torch.zeros(3)))
        p(z) p(x | z)

    The copies in a plate are not told apart here; `compare` does that. Pass about three data points.

    Args:
        program: a model or a guide. Parameters, stores, random numbers and modes are left as they were.
        args, kwargs: its arguments, the data among them.

    Raises:
        TypeError: not a program.
        ValueError: a program without sample sites.

    Warns:
        UserWarning: the factorization is not certain, and why: sites that come and go, say.
    """
    found, doubts = examine(program, args, kwargs)
    for doubt in doubts:
        warn(f"factorization: not certain, as {doubt}", stacklevel=2)
    return found


def examine(program: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Factorization, tuple[str, ...]]:
    """The factorization of a program, and why it may not be certain."""
    program = structure_of(program)
    model = getattr(program, "model", None)
    if callable(model) and _is_guide(program, args, kwargs):
        with experiments([model, program], args, kwargs) as (p, q):
            inspection = inspect_pair(p, q)
            return inspection.sites(), inspection.doubts
    with experiments([program], args, kwargs) as (experiment,):
        first = experiment.first or experiment.run()
        if _measured(first):
            found = inspect_model(experiment)
            return found.sites(), tuple(dict.fromkeys(found.probed.doubts))
        return _alone(experiment, first)


def provenance(
    model: Callable, args: Sequence[Any], given: Mapping[str, str] | None = None, free: Sequence[str] = ()
) -> Factorization:
    """The factorization of a model by provenance: one run, and no probing but for arguments that nothing observes.

    Quick, and for most code no edge too few; what a value computes but does not depend on is an edge, too.

    Args:
        model, args: the program and its arguments.
        given: what sites may be drawn given among the arguments: the name of a parameter -> what it is called.
        free: those of them that nothing observes: each is changed once, as tags are lost where values are written in
            place.

    Raises:
        Exception: whatever a program does with a tensor that carries tags.
    """
    given = given or {}
    with experiments([model], args, {}) as (experiment,):
        run, names = experiment.first or experiment.run(), experiment.leaf_names
        tags = {**experiment.tags([frozenset({given[n]} if n in given else ()) for n in names])}
        leaves = {given[name]: k for k, name in enumerate(names) if name in free}
        for site, name in _moved_by(experiment, run, leaves) if leaves else ():
            tags[site] = tags.get(site, frozenset()) | {name}
    order, read = [*run.of("latent", "observed", "factor")], {tag for found in tags.values() for tag in found}
    known = [name for name in given.values() if name in read]
    parents = {s: tuple(u for u in (*order[:i], *known) if u in tags.get(s, ())) for i, s in enumerate(order)}
    return Factorization(parents, tuple(run.of("observed", "factor")), tuple(known))


def _moved_by(experiment: Experiment, run: ProgramRun, leaves: Mapping[str, int]) -> list[tuple[str, str]]:
    """(site, name): the factors that move where one of the leaves is changed, and all that is drawn is held."""
    experiment.laboratory.settle()
    held, found = {name: record.value for name, record in run.of("latent", "subsample").items()}, []
    baseline = Baseline(held, {}, 0, 0)
    base = baseline.run(experiment)
    for name, k in leaves.items():
        try:
            other = _reordered(experiment.laboratory.leaves, k)(baseline).run(experiment)
        except Exception:  # noqa: BLE001, S112 (a program may take no other values)
            continue
        tolerance = experiment.laboratory.tolerance
        known = base.of("latent", "observed", "factor").items()
        found += [(s, name) for s, r in known if s in other and r.moved(r, other[s], tolerance)]
    return found


def unobserved(model: Callable, args: Sequence[Any]) -> dict[str, np.ndarray]:
    """For arrays among the arguments of a model, by name, the elements that no observed value is made of.

    Arrays of which that cannot be told are left out.
    """
    with experiments([model], args, {}) as (experiment,):
        first = experiment.first or first_run(experiment, None)
        experiment.laboratory.settle()
        rows = {name: record.value for name, record in first.of("subsample").items()}
        baseline = draw_baseline(experiment, None, 0, jitter=True, plus=(), rows=rows)
        alignment = Alignment(experiment, baseline, baseline.run(experiment))
        if alignment.mixed:
            return {}
        found = dict(zip(experiment.leaf_names, alignment.unobserved(), strict=True))
        return {name: free for k, (name, free) in enumerate(found.items()) if k not in alignment.unread}


def _is_guide(program: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a program with a `model` is that model's guide: one that observes nothing, or runs the model itself."""
    if hasattr(program, "get_posterior"):
        return True
    with experiments([program], args, kwargs) as (experiment,):
        return not _measured(experiment.first or experiment.run())


def _measured(run: ProgramRun) -> list[str]:
    """The sites that a run observes or weighs; the Jacobian of a value that it computes, as autoguides do, is none."""
    computed = {f"{name} (density)" for name in run.of("deterministic")}
    return [name for name in run.of("observed", "factor") if name not in computed]


def _argument(name: str, leaf: np.ndarray) -> SiteRecord:
    """An argument as a site, of one copy."""
    return SiteRecord(site=Site(name=name, kind="covariate", shape=leaf.shape, event_dim=leaf.ndim, value=leaf))


def _alone(experiment: Experiment, first: ProgramRun) -> tuple[Factorization, tuple[str, ...]]:
    """q of the latents of a program that observes nothing, given the arguments that it reads. And doubts."""
    if not first.of("latent", "deterministic"):
        raise ValueError("the program drew nothing and observed nothing; is it a Pyro or NumPyro program?")
    experiment.laboratory.settle()
    latents, names = [*first.of("latent")], experiment.leaf_names

    @cache
    def baselines(r: int) -> Baseline:
        run = experiment.run(seed=r, jitter=r)
        held = {name: record.value for name, record in run.of("latent", "subsample").items()}
        return Baseline(held, {name: another(run[name]) for name in latents}, r, r)

    leaves = experiment.laboratory.leaves
    arguments = {(name, ()): _reordered(leaves, k) for k, name in enumerate(names) if leaves[k].size}
    baseline = baselines(0)
    try:
        upper = experiment.tags([frozenset({name}) for name in names], baseline.values, baseline.jitter)
    except Exception:  # noqa: BLE001 (tensors that carry tags are more than some code can take)
        upper = None
    given = [_argument(name, leaf) for name, leaf in zip(names, leaves, strict=True) if leaf.size]
    base = ProgramRun([*given, *first.values()])
    probe = Probe(experiment, base, baselines, {**changes(first, latents), **arguments}, latents, upper)
    probe.run()
    rank = {name: i for i, name in enumerate(latents)}
    _, doubts = look_again("program", probe, leaves, lambda u, v: rank.get(u, -1) < rank[v])
    parents: dict[str, set[str]] = {name: set() for name in latents}
    for (source, _), nodes in probe.moved.items():
        for name, _ in nodes:
            if source not in latents or latents.index(source) < latents.index(name):
                parents[name].add(source)
    read = [name for name in names if any(name in found for found in parents.values())]
    order = [*latents, *read]
    ordered = {name: tuple(sorted(found, key=order.index)) for name, found in parents.items()}
    found = Factorization(ordered, given=tuple(read), letter="q" if read else "p")
    return found, (*doubts, *probe.complaints("program", but=names))


def _reordered(leaves: Leaves, k: int) -> Change:
    """A change of one of the leaves: to its own values in another order, or moved where they are all alike."""

    def change(baseline: Baseline) -> Baseline:
        rng, leaf = np.random.default_rng(baseline.seed), leaves[k]
        other = rng.permutation(leaf.reshape(-1)).reshape(leaf.shape)
        if np.array_equal(other, leaf) and leaf.dtype.kind == "f":
            other = leaf + rng.standard_normal(leaf.shape).astype(leaf.dtype)
        return replace(baseline, leaves=[*leaves[:k], other, *leaves[k + 1 :]])

    return change
