"""Many small parameters side by side in a few arrays, so that what is done to each entry is done in a few operations."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

SMALL = 2**14  # elements: larger arrays stay as they are, as to copy them at each step would cost more than it spares


class Packing:
    """How the arrays of a tree lie in a few: the small ones of a type one after the other, each large one alone.

    With hundreds of parameters, an optimizer that goes through them one by one takes longer to compile than the
    programs, and a good part of the time of a small step.

    Args:
        tree: of arrays.

    >>> tree = {"a": jnp.ones((2, 2)), "b": jnp.zeros(3)}
    >>> packing = Packing(tree)
    >>> [each.shape for each in packing.packed(tree)]
    [(7,)]
    >>> jax.tree.map(jnp.shape, packing.unpacked(packing.packed(tree)))
    {'a': (2, 2), 'b': (3,)}
    """

    def __init__(self, tree: Any) -> None:
        leaves, self._structure = jax.tree.flatten(tree)
        self._shapes = [leaf.shape for leaf in leaves]
        groups: dict[Any, list[int]] = {}
        for i, leaf in enumerate(leaves):
            groups.setdefault(leaf.dtype if leaf.size < SMALL else i, []).append(i)
        self._groups = list(groups.values())

    def packed(self, tree: Any) -> tuple[Array, ...]:
        """The few arrays of a tree."""
        leaves = jax.tree.leaves(tree)
        return tuple(
            leaves[group[0]] if len(group) == 1 else jnp.concatenate([leaves[i].ravel() for i in group])
            for group in self._groups
        )

    def unpacked(self, arrays: Sequence[Array]) -> Any:
        """The tree of the few arrays."""
        leaves: list[Any] = [None] * len(self._shapes)
        for group, array in zip(self._groups, arrays, strict=True):
            ends = list(accumulate(math.prod(self._shapes[i]) for i in group))
            parts = jnp.split(array, ends[:-1]) if len(group) > 1 else [array]
            for i, part in zip(group, parts, strict=True):
                leaves[i] = part.reshape(self._shapes[i])
        return jax.tree.unflatten(self._structure, leaves)
