"""`ordered`: says that an input is read before it is written, so that XLA may write it in its place."""

from collections.abc import Mapping

import jax.numpy as jnp
import torch
from jax import Array
from torch.fx import Node

# what reads an input without looking at its values
VIEWS = {"aten.slice.Tensor", "aten.squeeze.dim", "aten.transpose.int", "aten.select.int"} | {
    f"aten.{name}.default" for name in ("t", "view", "unsqueeze", "alias", "detach", "permute", "expand")
}


def last_reader(node: Node, order: Mapping[Node, int]) -> Node | None:
    """The last operation that reads an input as a whole (a product), not entry by entry; None where there is none.

    Those before it are operations of the forward pass, without which no update is known.
    """
    found = [
        reader
        for user in node.users
        if str(user.target) != "aten.copy_.default"
        for reader in [last_reader(user, order) if str(user.target) in VIEWS else user]
        if reader is not None and torch.Tag.pointwise not in getattr(reader.target, "tags", ())
    ]
    return max((n for n in found if isinstance(n.meta.get("val"), torch.Tensor)), key=order.__getitem__, default=None)


def ordered(new: Array, old: Array, read: Array | None) -> Array:
    """`new`, which is to be written over `old`, as what needs `read` first.

    XLA copies what is written before all is read, unless one depends on the other; a barrier is gone by then. No entry
    is above infinity, which XLA does not look into. What is computed of `new` must be computed of this one: XLA would
    compute the other a second time, from `old`.
    """
    like = (new.shape, new.dtype) == (old.shape, old.dtype)
    if read is None or not like or not read.size or not jnp.issubdtype(read.dtype, jnp.floating):
        return new
    return jnp.where(read[(0,) * read.ndim] > jnp.inf, old, new)
