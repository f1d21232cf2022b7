"""`check_calibrated`, `refuse_fixed`: which pairs can be calibrated without a training for each simulation."""

from collections.abc import Iterator
from math import ceil
from typing import NoReturn

from ppl_models.programs.pairs import Pair
from ppl_models.programs.plates import check_local


def check_calibrated(asks: str, pair: Pair) -> None:
    """Raise ValueError for a model without latents, or with one that is none of a single datum."""
    if not pair.model.latents:
        raise ValueError(f"{asks}: found a model that draws no latents, want some whose draws a guide can be judged by")
    why = "a guide of what all data share was fitted to these data, and would have to be trained for each simulation"
    check_local(asks, pair.model.latents.values(), pair.data, why)
    for name, site in pair.model.observed.items():
        if pair.data is None or site.plate(pair.data.name) is None:
            raise ValueError(f"{asks}: found the site {name!r} observed outside the plate of the data, want it inside")


def refuse_fixed(asks: str, reason: str) -> NoReturn:
    """Raise ValueError for a guide that is not right with other rows than those that it was fitted to."""
    raise ValueError(
        f"{asks}: found a guide that is not amortized ({reason}), want one that reads any rows (MeanField, BottomUp): "
        "it is given data that the model draws"
    )


def chunks(simulations: int, rows: int, draws: int) -> Iterator[tuple[int, int]]:
    """(first, how many) of the simulations of each pass, so that a pass has at most so many (datum, draw) rows.

    >>> list(chunks(10, 400, 99))
    [(0, 4), (4, 4), (8, 2)]
    """
    passes = ceil(simulations / max(1, rows // draws))
    size = ceil(simulations / passes)
    for start in range(0, simulations, size):
        yield start, min(size, simulations - start)
