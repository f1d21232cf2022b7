"""`Lent`: the memory of a JAX array as torch reads and writes it, without a hold on the array."""

import jax
import numpy as np
import torch
from torch import Tensor


class Lent:
    """An array whose memory torch uses, and which may yet be given away to a call that writes there in its place.

    A tensor made by DLPack would keep the call from it. Whatever tensor uses the memory keeps this object, hence the
    array, alive.

    Attributes:
        array: that owns the memory now.
        at: its address.
    """

    def __init__(self, array: jax.Array) -> None:
        self.array, self.at = array, array.block_until_ready().unsafe_buffer_pointer()
        self.__array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (self.at, False),
            "version": 3,
        }

    def tensor(self) -> Tensor:
        """The tensor of that memory, when it is written."""
        self.array.block_until_ready()
        return torch.from_numpy(np.asarray(self))

    def is_of(self, tensor: Tensor) -> bool:
        """Whether a tensor is just this memory."""
        same = tensor.data_ptr() == self.at and tuple(tensor.shape) == self.array.shape
        return same and tensor.is_contiguous()

    def holds(self, array: jax.Array) -> bool:
        """Whether the array owns this memory, once it is written; by its address, whatever the call did with it."""
        return self.array is array and array.block_until_ready().unsafe_buffer_pointer() == self.at

    def went_to(self, array: jax.Array) -> None:
        """A call has written `array`; in this memory, where it was given this one."""
        if self.array.is_deleted():
            self.array = array


def lendable(array: jax.Array) -> bool:
    """Whether NumPy, which stands between, knows the numbers of an array, and there are any."""
    return array.size > 0 and array.dtype.kind in "biufc"
