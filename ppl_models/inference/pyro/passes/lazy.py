"""`Late`: a dict whose tensors are computed at their first access and kept."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor


class Late(Mapping):
    """Tensors by name, each computed when it is first asked for, with gradients if there were any at the start.

    Args:
        made: name -> what computes the tensor.
    """

    def __init__(self, made: Mapping[str, Callable[[], Tensor]]) -> None:
        self._made, self._known, self._grad = made, {}, torch.is_grad_enabled()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._known:
            with torch.set_grad_enabled(self._grad):
                self._known[name] = self._made[name]()
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._made  # where a Mapping would ask for the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)
