"""Checks of a model and a guide that are to be a pair: each message about a pair that does not fit, once.

`check_sites` is asked at every step, and takes names; all others take the records of a run.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn

from .plates import subsampled
from .record import Run


def called(program: Any) -> str:
    """A name of a program for messages."""
    return getattr(program, "__name__", type(program).__name__)


def addressed(program: Any) -> str:
    """A name of a program for messages, with the address that tells two instances apart."""
    return f"{called(program)} at {id(program):#x}"


def check_sites(needed: Sequence[str], given: Sequence[str], auxiliary: Collection[str] = ()) -> None:
    """Raise ValueError unless a guide draws what its model draws.

    Args:
        needed: the latents of the model.
        given: those of the guide.
        auxiliary: those of them that the guide says are none of the model's.
    """
    for name in given:
        if name not in needed and name not in auxiliary:
            raise ValueError(
                f"the guide samples the site {name!r}, which the model does not draw (latents: {', '.join(needed)}); "
                "build the guide on this model, and pass it the data it was built with"
            )
    for name in needed:
        if name not in given:
            raise ValueError(
                f"the guide has no factor for the site {name!r} of the model (the guide samples: {', '.join(given)}); "
                "build the guide on this model"
            )


def check_order(guide: Callable, observed: Iterable[str], language: str) -> None:
    """Raise ValueError for a guide that observes something: then it may be the model.

    Args:
        guide: the guide.
        observed: the sites that it observes.
        language: of the programs, "pyro" or "numpyro".
    """
    for name in observed:
        raise ValueError(
            f"the guide, {addressed(guide)}, observes the site {name!r}; are model and guide in this order? A guide "
            f"draws every latent and observes nothing but a {language}.factor"
        )


def refuse_model(guide: Callable, own: Any, model: Callable) -> NoReturn:
    """Raise ValueError for a guide that runs a model of its own, `own`, and not the one that it is paired with."""
    raise ValueError(
        f"the guide {type(guide).__name__} runs its own model, {addressed(own)}, which is not the "
        f"{addressed(model)} it is paired with; build the guide on this model"
    )


def check_observes(asks: str, model: Callable, run: Run) -> None:
    """Raise ValueError for a model that observes nothing, not even a factor: it may be the guide.

    Args:
        asks: the function that asks, "fit".
        model: the model.
        run: of it.
    """
    if not run.of("observed", "factor"):
        drawn = ", ".join(map(repr, run.latents)) or "nothing"
        raise ValueError(
            f"{asks}: the model {called(model)} observes nothing (it draws {drawn}); are model and guide in this "
            "order? If so, pass it the data that it observes"
        )


def check_reparametrized(asks: str, guide: Run, instead: str) -> None:
    """Raise ValueError for a guide with a draw that no gradient goes through.

    Args:
        asks: the function that asks, "fit".
        guide: a run of the guide.
        instead: to be tried.
    """
    for name, site in guide.latents.items():
        if not site.reparametrized:
            raise ValueError(
                f"{asks}: the guide draws the site {name!r} from a {site.family}, not reparametrized, so that no "
                f"gradient goes through the draw; {instead}"
            )


def check_whole(asks: str, run: Run, instead: str) -> None:
    """Raise ValueError for a model that saw some of its data only: its weights, raised to N / B, bound nothing.

    Args:
        asks: the function that asks, "evaluate".
        run: of the model.
        instead: to be tried, "evaluate a model of the same parameters whose plate does not subsample".
    """
    for plate in subsampled(run):
        raise ValueError(
            f"{asks}: the plate {plate.name!r} draws {plate.size} of {plate.full_size} data, want every datum; "
            f"{instead}"
        )
