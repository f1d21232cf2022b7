"""`mismatches`, `weighed`: the reasons why log p - log q of a pair is no log weight, so that numbers bound nothing."""

from collections.abc import Callable, Iterable

import numpy as np

from .pairs import DENSE, Pair
from .plates import is_scaled
from .record import Run, Site


def mismatches(pair: Pair, again: Callable[[], Run]) -> list[str]:
    """The reasons why log p - log q of the draws is no log weight, so that what is made of it bounds nothing.

    Args:
        pair: the record of one run.
        again: runs the guide on other random numbers. It is asked for, twice, only where the guide has a point mass
            and auxiliary draws, as autoguides do: a point that moves is the image of a draw.
    """
    both = [(pair.model[name], site) for name, site in pair.guide.latents.items() if name in pair.model.latents]
    points = [q.name for p, q in both if q.family == "Delta" and p.family != "Delta" and not _is_discrete(p)]
    if points and any(site.auxiliary for site in pair.guide.latents.values()):
        one, other = again(), again()
        points = [name for name in points if _is_still(one, other, name)]
    masks = [q.name for p, q in both if not _masked_alike(pair, p, q)]
    told = []
    if points:
        told.append(
            f"the guide draws {_listed(points)} from a point mass (Delta), which has no density to hold against "
            "the prior's: ELBO, NLL and KL are those of a MAP estimate and bound nothing"
        )
    if masks:
        told.append(
            f"the mask of {_listed(masks)} in the model is not the guide's, so that log p and log q are not of the "
            "same draws: ELBO, NLL and KL bound nothing; give the site one mask in both"
        )
    return told


def weighed(pair: Pair) -> list[str]:
    """The reason, if there is one, why log p and log q are those of no density: a program weighs them."""
    names = {
        site.name: None
        for run in (pair.model, pair.guide)
        for site in run.of(*DENSE).values()
        if is_scaled(site, run.to_numpy)
    }
    if not names:
        return []
    return [
        f"a scale in the programs weighs {_listed(names)}: ELBO, NLL and KL are those of the weighted log "
        "densities and bound nothing; evaluate the programs without it"
    ]


def _masked_alike(pair: Pair, p: Site, q: Site) -> bool:
    one, other = (
        np.asarray(site.mask is None) if site.mask is None or site.mask is False else run.to_numpy(site.mask)
        for run, site in ((pair.model, p), (pair.guide, q))
    )
    if one is None or other is None:  # not to be read
        return (p.mask is None) == (q.mask is None)
    return bool((one == other).all())


def _is_still(one: Run, other: Run, name: str) -> bool:
    """Whether two runs give a site one value."""
    first, second = (run.to_numpy(run[name].value) for run in (one, other))
    return first is not None and second is not None and np.array_equal(first, second)


def _is_discrete(site: Site) -> bool:
    try:
        return bool(site.fn.support.is_discrete)
    except (AttributeError, NotImplementedError):  # a distribution of one's own may lack it
        return False


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
