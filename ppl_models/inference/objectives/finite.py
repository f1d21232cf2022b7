"""`infinite_terms`: the data whose terms are not finite, by the part of the bound; `refuse`: the error that says so."""

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from array_api_compat import array_namespace

from .terms import Array, Terms


def infinite_terms(terms: Terms) -> dict[str, Array]:
    """Part of a bound -> whether it is not finite for each datum, (n,); (1,) for what all data share.

    A mask and no number is made, so that it may be a part of a compiled pass.
    """
    parts = {f"divergence of the site {name!r}": value for name, value in terms.kl.items()}
    parts |= {f"log p of the observed site {name!r}": value for name, value in terms.log_likelihood.items()}
    parts |= {f"log q of the site {name!r}": value for name, value in terms.log_q.items()}
    parts |= {f"log p of the site {name!r}": value for name, value in terms.log_p.items()}
    found = {}
    for name, value in parts.items():
        xp = array_namespace(value)
        found[name] = xp.any(~xp.isfinite(value), axis=0)
    return found


def counted(masks: Mapping[str, Any], before: Mapping[str, int] | None = None) -> dict[str, int]:
    """The number of data of each part whose mask is true, added to those of batches before."""
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    return {name: count + (before or {}).get(name, 0) for name, count in counts.items()}


def refuse(asks: str, numbers: Mapping[str, float], counts: Mapping[str, int], n: int) -> NoReturn:
    """Raise ValueError for numbers of a pair of which some are not finite.

    Args:
        asks: the function that asks.
        numbers: what was to be told.
        counts: of `counted`, in the order of the parts; the first that is not 0 is named.
        n: the number of data.
    """
    told = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items() if not np.isfinite(value))
    part, count = next(((name, count) for name, count in counts.items() if count), ("", 0))
    where = f"; the {part} is not finite for {count} of {n} data" if part else ""
    raise ValueError(
        f"{asks}: found {told or 'numbers that are not finite'}{where}, want finite numbers; look at the data, and at "
        "the parameters of the pair: has its training diverged?"
    )
