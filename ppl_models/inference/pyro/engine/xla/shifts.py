"""Operations that read or fill a part of a tensor, with its place as a number that is handed over.

They are the same for every layer or time step then, which are at other places of one tensor.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from torch.fx import Node

from .aten.rows import dtype_of

READS = {"aten.select.int", "aten.slice.Tensor"}
FILLS = {"aten.select_backward.default", "aten.slice_backward.default"}  # a tensor of zeros


def place(node: Node) -> int | None:
    """Where the part begins along its dim; None for another operation."""
    name = str(node.target)
    if name not in READS | FILLS:
        return None
    _, *rest = node.args
    shape = rest.pop(0) if name in FILLS else node.args[0].meta["val"].shape
    if name in ("aten.select.int", "aten.select_backward.default"):
        dim, at = rest
        return at % shape[dim] if isinstance(at, int) else None
    dim, start, _, step = (*rest, *(0, None, None, 1)[len(rest) :])
    if step != 1 or not isinstance(start, int | None):
        return None
    start = start or 0
    return min(max(start + shape[dim] if start < 0 else start, 0), shape[dim])


def dim_of(node: Node) -> int:
    """Along which dim."""
    rest = node.args[2 if str(node.target) in FILLS else 1 :]
    return rest[0] if rest else 0


def shifted(node: Node, source: Array, at: Array) -> Array:
    """What the operation gives of its source, with the part at this place."""
    name, like, dim = str(node.target), node.meta["val"], dim_of(node)
    whole: Any = node.args[0].meta["val"] if name in READS else like
    dim %= whole.dim()
    if name == "aten.select.int":
        return lax.dynamic_index_in_dim(source, at, dim, keepdims=False)
    if name == "aten.slice.Tensor":
        return lax.dynamic_slice_in_dim(source, at, like.shape[dim], dim)
    zeros = jnp.zeros(like.shape, dtype_of(like.dtype))
    if name == "aten.select_backward.default":
        return lax.dynamic_update_index_in_dim(zeros, source, at, dim)
    return lax.dynamic_update_slice_in_dim(zeros, source, at, dim)
