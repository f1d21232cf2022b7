"""Parameters beside what an optimizer, a moving average and an objective keep from step to step."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...resuming.training_record import checked


class OptimizerState:
    """The trainable tensors of a pair by name, each with the moments of Adam and, if wanted, its moving average.

    The tensors may be moved to other memory (`compiled.py` lays small ones side by side): everything here goes through
    the lists, and `parameters` hold their values wherever they lie.

    Args:
        named: name -> trainable tensor; each tensor once.
        average: whether to keep a moving average of each.
        objective: name -> array of the state of an objective that has one (`objectives.stateful`).
    """

    def __init__(
        self, named: Mapping[str, Tensor], average: bool, objective: Mapping[str, Tensor] | None = None
    ) -> None:
        self.names, self.parameters = list(named), list(named.values())
        self.exp_avg = [torch.zeros_like(p, memory_format=torch.preserve_format) for p in self.parameters]
        self.exp_avg_sq = [torch.zeros_like(p, memory_format=torch.preserve_format) for p in self.parameters]
        self.averages = [p.detach().clone() for p in self.parameters] if average else []
        self.objective = dict(objective or {})
        self.swapped_in = False

    def lists(self) -> dict[str, list[Tensor]]:
        """The lists by name, those that there are."""
        found = {"parameter": self.parameters, "exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}
        return found | ({"average": self.averages} if self.averages else {})

    def state(self) -> dict[str, Tensor]:
        """Every tensor as "list.name", sharing memory, whether parameters and averages are exchanged or not."""
        other = {"parameter": "average", "average": "parameter"} if self.swapped_in and self.averages else {}
        lists = {other.get(kind, kind): each for kind, each in self.lists().items()}
        found = {f"{k}.{n}": t.detach() for k, each in lists.items() for n, t in zip(self.names, each, strict=True)}
        return found | {f"objective.{name}": t for name, t in self.objective.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Copy back, in place, what `state` gave.

        Raises:
            ValueError: a tensor that is missing or of another shape or dtype; nothing is copied then.
        """
        own = self.state()
        for key, tensor in own.items():
            checked(key, state.get(key), tensor)
        for key, tensor in own.items():
            tensor.copy_(state[key])

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange parameters and averages, if there are any."""
        for p, average in zip(self.parameters, self.averages, strict=False):
            kept = p.clone()
            p.copy_(average)
            average.copy_(kept)
        self.swapped_in = not self.swapped_in

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the parameters hold their moving averages, if there are any; outside, their own values again."""
        self.swap()
        try:
            yield
        finally:
            self.swap()


def trainable(saved: Mapping[str, nn.Module | Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Every trainable tensor of what a checkpoint keeps (`checkpoint.contents`) once, by its name there.

    Raises:
        ValueError: there is none.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for label, held in saved.items():
        tensors: Any = held.named_parameters() if isinstance(held, nn.Module) else held.items()
        for name, tensor in tensors:
            if tensor.requires_grad and id(tensor) not in seen:
                seen.add(id(tensor))
                found[f"{label}.{name}"] = tensor
    if not found:
        raise ValueError("fit: model and guide have no trainable parameter; is everything frozen?")
    return found
