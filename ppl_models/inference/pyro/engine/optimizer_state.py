"""Parameters beside what an optimizer, a moving average and an objective keep from step to step."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from ...resuming.training_record import checked

ADAM: dict[str, Any] = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False, "maximize": False}


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
        alike: dict[tuple, list[int]] = {}
        for i, p in enumerate(self.parameters):
            alike.setdefault((p.device, p.dtype), []).append(i)
        self.alike = [*alike.values()]  # what one kernel may update together
        self.fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in self.parameters)

    def without_gradients(self) -> None:
        """Let the gradients of all parameters go."""
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def update(self, steps: int, lr: float, weight_decay: float, missed: Tensor | None = None) -> None:
        """The AdamW update after which `steps` were taken, of the parameters that have a gradient.

        Torch's own kernel is called without `torch.optim.AdamW` around it, which walks over the state of every
        parameter and counts its steps: on a pair of many small layers that is a sixth of a step.

        Args:
            steps: counted from 1; one number for all parameters, as in captured and resumed runs.
            lr, weight_decay: of this step.
            missed: of a GPU that decides for itself: 1 leaves the update out, 0 takes it.

        Raises:
            ValueError: a sparse gradient.
        """
        options = {**ADAM, "lr": lr, "weight_decay": weight_decay}
        for group in self.alike:
            found = [(i, gradient) for i in group if (gradient := self.parameters[i].grad) is not None]
            if not found:
                continue
            if sparse := [self.names[i] for i, gradient in found if gradient.is_sparse]:
                raise ValueError(f"fit: the gradient of {sparse[0]!r} is sparse, want a dense one; try sparse=False")
            taken, gradients = zip(*found, strict=True)
            parameters, *moments = (
                [each[i] for i in taken] for each in (self.parameters, self.exp_avg, self.exp_avg_sq)
            )
            lists = parameters, gradients, *moments, []
            if self.fused:
                device = parameters[0].device
                counts = [torch.full((), float(steps), device=device)] * len(taken)
                skipped = None if missed is None else missed.to(device)
                torch._fused_adamw_(*lists, counts, **options, grad_scale=None, found_inf=skipped)
            else:
                adamw(*lists, [torch.tensor(steps - 1.0) for _ in taken], **options)

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
