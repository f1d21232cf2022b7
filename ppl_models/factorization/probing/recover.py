"""Factorizations recovered from running programs: provenance bounds them from above, interventions from below."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ppl_models.programs import choose
from ppl_models.programs.laboratory import Backend

from ..graph import Factorization
from .inspect_model import inspect_guide, inspect_model
from .inspection import Recovered
from .standalone import inspect_alone

Found = TypeVar("Found")


def factorization(program: Callable, *args: Any, **kwargs: Any) -> Factorization:
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
        warnings.warn(f"factorization: not certain, as {doubt}", stacklevel=2)
    return found


def examine(program: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Factorization, tuple[str, ...]]:
    """The factorization of a program, and why it may not be certain."""
    model = getattr(program, "model", None)
    if callable(model) and _is_guide(program, args, kwargs):
        found = recover(model, program, args, kwargs)
        return found.sites("guide"), found.doubts
    return inspected(lambda backend: inspect_alone(backend, program), [program], args, kwargs)


def provenance(model: Callable, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> Factorization:
    """The factorization of a model by provenance alone: one run, no probing.

    Quick, and for most code no edge too few; what a value computes but does not depend on is an edge, too.

    Raises:
        Exception: whatever a program does with a tensor that carries tags.
    """

    def work(backend: Backend) -> Factorization:
        found = backend.run(model, backend.leaves, {})
        tags = backend.tags(model, [frozenset()] * len(backend.leaves))
        order = [seen.name for seen in found.of("latent", "observed", "factor")]
        earlier = {site: order[:i] for i, site in enumerate(order)}
        parents = {site: tuple(u for u in earlier[site] if u in tags.get(site, ())) for site in order}
        return Factorization(parents, tuple(seen.name for seen in found.of("observed", "factor")))

    return inspected(work, [model], args, kwargs or {})


def _is_guide(program: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a program with a `model` is that model's guide: one that observes nothing, or runs the model itself."""
    if hasattr(program, "get_posterior"):
        return True

    def observes(backend: Backend) -> bool:
        return bool(backend.run(program, backend.leaves, {}).of("observed", "factor"))

    return not inspected(observes, [program], args, kwargs)


def recover(
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    jitter: bool = True,
    then: Callable[[Recovered], Found] = lambda found: found,
) -> Found:
    """All that inspecting a model and its guide finds, at the level of sites and their copies.

    Args:
        model, guide: the programs.
        args, kwargs: of both.
        jitter: whether parameters are moved a little first, so that a zero hides nothing.
        then: what to make of it while the programs can still be run; the finding itself by default.

    Raises:
        TypeError: not a program.
        ValueError: a model that observes nothing, or a guide that draws too little or too much.
    """

    def work(backend: Backend) -> Found:
        found = inspect_model(backend, model, jitter, guide)
        inspect_guide(found, guide)
        return then(found)

    return inspected(work, [model, guide], args, kwargs)


def inspected(
    work: Callable[[Backend], Found], programs: Sequence[Callable], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Found:
    """Work on programs that are left as they were, in double precision where they run in it.

    Raises:
        TypeError: not a program.
    """
    words = ("model", "guide") if len(programs) > 1 else ("program",)
    for what, program in zip(words, programs, strict=True):
        if not callable(program):
            raise TypeError(f"found the {what} {program!r}, want a program: a function or a module that samples")
    Language = choose(programs, args, kwargs)
    for mode in Language.MODES[:-1]:
        backend = Language(args, kwargs, **mode)
        with backend.protected(programs):
            if all(_runs(backend, program) for program in programs):
                return work(backend)
    backend = Language(args, kwargs, **Language.MODES[-1])  # the programs' own precision, with their own errors
    with backend.protected(programs):
        return work(backend)


def _runs(backend: Backend, program: Callable) -> bool:
    try:
        backend.run(program, backend.leaves, {})
    except NotImplementedError:  # a site that has a density but cannot be drawn
        return True
    except Exception:  # noqa: BLE001 (constants in single precision where we could not see them, mostly)
        return False
    return True
