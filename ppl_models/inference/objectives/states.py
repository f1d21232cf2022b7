"""`refuse_copies` and others: what cannot be where the states of a discrete site are summed over."""

from collections.abc import Iterable
from typing import NoReturn


def refuse_copies(name: str, state: str, plate: str) -> NoReturn:
    """Raise ValueError for a site that depends on all copies of a discrete one, which are enumerated one by one."""
    raise ValueError(
        f"the site {name!r} depends on all copies of {state!r} in the plate {plate!r}, which are enumerated one by "
        "one; want it in that plate; try discrete='relax', or make the copies one event by .to_event"
    )


def refuse_draws(names: Iterable[str], asks: str = "the objective") -> NoReturn:
    """Raise ValueError where draws, or weights of draws, are asked for of a pass over all states of these sites."""
    raise ValueError(
        f"{asks}: found the sites {', '.join(map(repr, sorted(names)))} enumerated, which has no draws to weigh or "
        "compare, want an objective of means; try elbo, or a guide with discrete='relax'"
    )


def refuse_trial(asks: str, names: Iterable[str], reason: str) -> NoReturn:
    """Raise ValueError for programs that are not right when all states of these sites are side by side."""
    raise ValueError(
        f"{asks}: found the sites {', '.join(map(repr, sorted(names)))} enumerated by the guide, but {reason}; want "
        "programs that take states in dims left of all plates; try pyro.ops.indexing.Vindex for an index, or "
        "discrete='relax'"
    )
