"""One step of a training, run as it stands: loss, gradient, guard, AdamW and moving average."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode

from ...config import FitConfig
from ...objectives.bounds import elbo, importance_weighted, mean_kl
from ...objectives.stateful import Carried
from ...training.weighing import Weighing
from ..feeding.distributed import Group
from ..passes.indices import Indices
from ..passes.losses import estimate, initial_state
from ..passes.messengers import Weighed
from ..passes.terms import Terms, concatenated
from .optimizer_state import ADAM, OptimizerState

BETAS, EPS = (ADAM["beta1"], ADAM["beta2"]), ADAM["eps"]
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}  # of matrix products and convolutions, by `FitConfig.precision`


@dataclass(frozen=True)
class StepConfig:
    """Options of a step, but for what changes from step to step (`StepInputs`).

    Attributes:
        fit: the options of the training; `particles` of them are `passes` times those below.
        particles, passes, nesting, plate, states: see `losses.estimate`.
        data_size: number of data of which a step sees a batch.
        weighing: who weighs that batch.
        indices: which data it holds, where a guide must be told.
        kl_of: the latents whose mean divergence a step tells.
        norm: whether the norm of the gradient is computed though neither clip nor skip asks for it.
    """

    fit: FitConfig
    particles: int = 1
    passes: int = 1
    nesting: int | None = None
    plate: str | None = None
    states: bool = False
    data_size: int | None = None
    weighing: Weighing = Weighing()
    indices: Indices = Indices()
    kl_of: tuple[str, ...] = ()
    norm: bool = True

    @property
    def measures(self) -> bool:
        """Whether the norm of the gradient is computed."""
        return self.norm or self.fit.clip is not None or self.fit.skip is not None


@dataclass(frozen=True)
class StepInputs:
    """Inputs of one step: its number, counted from 0, the learning rate and the weight of divergences."""

    step: int
    lr: float
    beta: float | Tensor = 1.0


class LowPrecision(TorchFunctionMode):
    """Matrix products and convolutions in `dtype`, their results in single precision again.

    So that densities, sums and divergences are never computed in half precision, whatever the program does with the
    results: `torch.autocast` alone would hand bfloat16 logits to the likelihood.
    """

    _products = frozenset(
        {
            *(torch.nn.functional.linear, torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm),
            *(Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.mm, Tensor.bmm, torch.einsum),
            *(torch.conv1d, torch.conv2d, torch.conv3d, torch.nn.functional.bilinear),
            *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
        }
    )

    def __init__(self, dtype: torch.dtype, device_type: str) -> None:
        super().__init__()
        # no cache of casts: within a captured step they are part of the graph
        self.autocast = torch.autocast(device_type, dtype, cache_enabled=False)

    def __torch_function__(self, func: Callable, types: Sequence[type], args: Any = (), kwargs: Any = None) -> Any:
        if func not in self._products:
            return func(*args, **(kwargs or {}))
        with self.autocast:
            result = func(*args, **(kwargs or {}))
        return result.float() if result.dtype in (torch.bfloat16, torch.float16) else result


class Measured(NamedTuple):
    """A loss and what a step tells of it, in nats per datum.

    Attributes:
        value: what is minimized.
        told: (2 + kl_of,): the same, the negative ELBO, and the mean divergence of each latent of `kl_of`; detached.
        found: the terms of all.
        state: of the objective, after it; empty where it has none.
    """

    value: Tensor
    told: Tensor
    found: list[Terms]
    state: dict[str, Tensor]


def negative(
    config: StepConfig,
    model: Callable,
    guide: Callable,
    batch: Sequence[Any],
    beta: float | Tensor,
    state: Mapping[str, Tensor],
) -> Measured:
    """What a step minimizes and tells, on one batch, with an objective in this state."""
    objective = Carried(config.fit.objective, state) if state else config.fit.objective
    weighed = Weighed(config.weighing, len(batch[0]), config.fit.loss)
    around, batch = config.indices.around(model, batch), config.indices.arguments(batch)
    if (loss := config.fit.loss) is not None:
        with weighed, around:
            value = loss.differentiable_loss(model, guide, *batch) / config.weighing.counted(loss, len(batch[0]))
        return Measured(value, torch.stack([value, value]).detach(), [], {})
    device = next((x.device.type for x in batch if isinstance(x, Tensor)), "cpu")
    with ExitStack() as stack:
        stack.enter_context(around)
        if config.weighing.scales:
            stack.enter_context(weighed)
        if config.fit.precision != "float32":
            stack.enter_context(LowPrecision(DTYPES[config.fit.precision], device))
        value, found = estimate(
            objective,
            model,
            guide,
            batch,
            beta=beta,
            data_size=config.data_size,
            particles=config.particles,
            passes=config.passes,
            nesting=config.nesting,
            analytic=config.fit.analytic,
            gradient=config.fit.gradient,
            plate=config.plate,
            states=config.states,
        )
        whole = isinstance(beta, float | int) and beta == 1
        bound = value
        if not (whole and objective in (elbo, importance_weighted)):
            plain = importance_weighted if objective is importance_weighted else elbo
            bound = -plain(concatenated(found), 1.0, config.data_size)
        told = [value, bound]
        if config.kl_of:
            told += mean_kl(concatenated(found), config.kl_of, config.data_size)
        after = {name: t.detach().clone() for name, t in objective.after.items()} if state else {}
        return Measured(value, torch.stack([t.detach() for t in told]), found, after)


def outcome(told: Tensor, norm: Tensor) -> Tensor:
    """The numbers that a step that is taken adds to a tally (`Eager.__call__`)."""
    both, rest = (told[:2], [told[2:]]) if len(told) > 2 else (told, [])
    return torch.cat([both, norm[None].to(told), torch.ones_like(told[:1]), *rest])


class Eager:
    """Steps run by Python, operation by operation.

    Args:
        model, guide: the pair.
        slots: its parameters.
        config: what a step does.
        beta: the weight of divergences where it never changes, None where `StepInputs` says it.
        group: of the processes that train together, None for one.

    Attributes:
        halted: set by the first step that was not finite, after which none is taken; a GPU is not asked at each step.
        met: whether one of Pyro's losses has seen the pair, at which it looks when it first meets it.
    """

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        slots: OptimizerState,
        config: StepConfig,
        beta: float | None = 1.0,
        group: Group | None = None,
    ) -> None:
        self.model, self.guide, self.slots, self.config = model, guide, slots, config
        self.beta, self.group = beta, group
        self.halted = torch.zeros((), dtype=torch.bool, device=slots.parameters[0].device)  # by what is not finite
        self.met = config.fit.loss is None
        # of the last batch, its terms, and how many steps there were with it, for the message of an error
        self.value: Tensor | None = None
        self.found: list[Terms] = []
        self.steps = 0

    def __call__(self, batches: Sequence[Sequence[Any]], now: StepInputs) -> Tensor:
        """Take one step on batches, whose gradients are averaged.

        Returns:
            (4 + kl_of,): loss, negative ELBO, norm of the gradient (0 where it is not computed), 1, and the mean
            divergence of each latent of `StepConfig.kl_of`; all 0 if the step was not taken.
        """
        slots, config = self.slots, self.config
        slots.without_gradients()
        # what the last step held is let go before this one needs its own
        tellings, state, self.found = [], slots.objective, []
        with pyro.validation_enabled(False):
            for batch in batches:
                value, told, self.found, state = negative(config, self.model, self.guide, batch, now.beta, state)
                if not value.requires_grad:
                    raise ValueError("fit: the loss depends on no trainable parameter; is all that it reads frozen?")
                (value / len(batches) if len(batches) > 1 else value).backward()
                self.value = value.detach()
                tellings.append(told)
        self.met, self.steps, told = True, now.step + 1, sum(tellings) / len(batches)
        if self.group is not None:
            gradients = [p.grad for p in slots.parameters if p.grad is not None]
            self.group.average_([*gradients, told, *state.values()])
        norm = told.new_zeros(())
        if config.measures:
            norm = nn.utils.clip_grad_norm_(slots.parameters, inf if config.fit.clip is None else config.fit.clip)
        good = torch.isfinite(told[0] + norm) & ~self.halted
        if config.fit.skip is None:
            self.halted |= ~good
        else:
            good = good & (norm <= config.fit.skip)
        for name, old in slots.objective.items():
            old.copy_(torch.where(good, state[name], old))
        moved, weight = self.update(good, now), config.fit.average_weight(now.step)
        # a GPU has not said whether they moved
        if moved and config.fit.skip is not None and good.device.type == "cuda":
            for average, p in zip(slots.averages, slots.parameters, strict=False):
                average.lerp_(p.detach(), (weight * good).to(p.dtype))
        elif moved and slots.averages:
            average = get_ema_multi_avg_fn(1 - weight)
            average(slots.averages, [p.detach() for p in slots.parameters], now.step)
        return torch.where(good, outcome(told, norm), 0.0)

    def begin(self, batch: Sequence[Any]) -> None:
        """Give an objective with state its first one, of a pass over a batch; nothing for others."""
        config = self.config
        found = initial_state(
            config.fit.objective,
            self.model,
            self.guide,
            config.indices.arguments(batch),
            data_size=config.data_size,
            particles=config.particles,
            passes=config.passes,
            nesting=config.nesting,
            plate=config.plate,
            states=config.states,
            analytic=config.fit.analytic,
            around=Weighed(config.weighing, len(batch[0])),
        )
        self.slots.objective.update(found)
        if self.group is not None:
            self.group.broadcast_([*found.values()])

    def update(self, good: Tensor, now: StepInputs) -> bool:
        """One AdamW update where `good`; whether the parameters may have moved. A GPU decides for itself."""
        slots, decay, missed = self.slots, self.config.fit.weight_decay, None
        if good.device.type == "cuda" and slots.fused:
            missed = (~good).float()
        elif not good:
            return False
        slots.update(now.step + 1, now.lr, decay, missed)  # steps that were left out count
        return True
