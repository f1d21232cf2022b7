"""`spelled`: which element of an argument each of some values is that a program makes of it, told by few runs."""

from collections.abc import Callable, Mapping
from math import ceil, log2
from typing import NamedTuple

import numpy as np

MANY = 32  # elements from which on two runs are fewer than one for each binary digit

Values = Mapping[str, np.ndarray]
Run = Callable[[np.ndarray], Values | None]


class Told(NamedTuple):
    """Origin of the entries of a value.

    Attributes:
        places: of the elements that they are, where `one`.
        one: whether an entry is, or is a function of, one element.
        many: whether it hangs on the argument in any other way.
    """

    places: np.ndarray
    one: np.ndarray
    many: np.ndarray


def spelled(run: Run, leaf: np.ndarray, low: float, high: float) -> dict[str, Told] | None:
    """The elements of an argument that values are; None where the program cannot run on such arguments.

    It is fed arguments that spell out the position of each element in binary, with two of its own values for zero and
    one: they stay in the support of a likelihood, and arithmetic on single elements does no harm. Real numbers that
    are observed as they are, which most are, are told in two runs by numbers of which no two are alike; where all
    values are, these are the only ones.

        >>> x = np.linspace(0.0, 1.0, 50)
        >>> told = spelled(lambda x: {"ends": x[[0, -1]], "mean": x.mean()[None]}, x, 0.0, 1.0)
        >>> told["ends"].places.tolist(), told["mean"].many.tolist()
        ([0, 49], [True])

    Args:
        run: of the program on another argument (leaf.size,): values by name; None where it fails.
        leaf: the argument as it was given.
        low, high: two values that its elements may have.
    """

    def binary(bits: np.ndarray) -> Values | None:
        return run(np.where(bits, high, low).astype(leaf.dtype))

    numbered = _by_numbers(run, leaf, low, high)
    if numbered and all(one.all() for _, one in numbered.values()):  # whatever else is fed to the program
        return {name: Told(places, one, ~one) for name, (places, one) in numbered.items()}
    zeros, ones = binary(np.zeros(leaf.size, bool)), binary(np.ones(leaf.size, bool))
    if zeros is None or ones is None:
        return None
    sensitive = {name: ~same(zero, ones[name]) for name, zero in zeros.items()}
    if not any(where.any() for where in sensitive.values()):
        return {}
    if numbered and all(numbered[name][1][where].all() for name, where in sensitive.items()):
        return {name: Told(numbered[name][0], where, np.zeros_like(where)) for name, where in sensitive.items()}
    found = _by_bits(binary, leaf.size, zeros, ones, sensitive)
    return None if found is None else {name: Told(*told) for name, told in found.items()}


def _by_numbers(run: Run, leaf: np.ndarray, low: float, high: float) -> dict[str, tuple[np.ndarray, np.ndarray]] | None:
    """(places, whether an entry is the element there, both times); None where this takes no fewer runs, or fails."""
    if leaf.dtype.kind != "f" or leaf.size < MANY:
        return None
    told, rng = [], np.random.default_rng(0)
    for _ in range(2):
        # numbers that stay apart where a program has them in single precision
        numbers = (low + (high - low) * rng.random(leaf.size)).astype(np.float32).astype(leaf.dtype)
        order = np.argsort(numbers)
        ranked = numbers[order]
        found = run(numbers) if (np.diff(ranked) > 0).all() else None
        if found is None:
            return None
        rank = {name: np.searchsorted(ranked, value).clip(max=leaf.size - 1) for name, value in found.items()}
        told.append({name: (order[at], ranked[at] == found[name]) for name, at in rank.items()})
        if not any(equal.any() for _, equal in told[-1].values()):
            return None
    first, second = told
    return {n: (places, equal & second[n][1] & (places == second[n][0])) for n, (places, equal) in first.items()}


def _by_bits(run: Run, size: int, zeros: Values, ones: Values, sensitive: Values) -> dict[str, tuple] | None:
    code = {name: np.zeros(z.shape, int) for name, z in zeros.items()}
    torn = {name: np.zeros(z.shape, bool) for name, z in zeros.items()}
    position, check = np.arange(size), np.random.default_rng(0).random(size) < 0.5
    width = ceil(log2(size)) if size > 1 else 0
    for bit in range(width + 1):
        found = run(check if bit == width else (position >> bit & 1).astype(bool))
        if found is None:
            return None
        for name, value in found.items():
            up, down = same(value, ones[name]), same(value, zeros[name])
            torn[name] |= ~up & ~down
            if bit == width:
                torn[name] |= (up != check[np.minimum(code[name], size - 1)]) | (code[name] >= size)
            else:
                code[name] |= (up & ~down).astype(int) << bit
    return {name: (code[name], where & ~torn[name], where & torn[name]) for name, where in sensitive.items()}


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two arrays are equal, or neither is a number."""
    return (a == b) | ((a != a) & (b != b))
