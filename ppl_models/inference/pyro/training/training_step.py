"""`training_step`: one optimizer step of a pair, for a training loop of your own."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram, Count, NotNegative, Positive

from ...config import Compiler, Decay, FitConfig, Gradient, Objective, Precision
from ...objectives.bounds import elbo
from ...objectives.nested import inner_draws
from ...training.weighing import Weighing
from ..engine.compiled import Compiled
from ..engine.optimizer_state import OptimizerState, trainable
from ..engine.step import Eager, StepConfig, StepInputs
from ..passes.checks import check_enumeration, check_loss
from ..passes.indices import Indices
from ..passes.pair_info import pair_info
from .checkpoint import kept
from .diagnosis import diagnosis


class TrainingStep:
    """Calls take one step each: draw, loss, gradient, AdamW (see `training_step`).

    Attributes:
        lr: the learning rate, to be set between steps.
        steps: how many were taken.
        slots: parameters, moments and averages by name, and the state of an objective that has one.
        notes: why steps run uncompiled, or by another compiler, if they do.
    """

    def __init__(self, eager: Eager, compile: Compiler | bool, lr: float) -> None:
        self.eager, self.slots, self.lr, self.steps = eager, eager.slots, lr, 0
        self.notes: list[str] = []
        compiler = compile if isinstance(compile, str) else None
        self._step: Eager | Compiled = Compiled(eager, self.notes.append, compiler=compiler) if compile else eager

    def __call__(self, *args: Any) -> Tensor:
        """Take a step on a batch, the arguments of the programs; returns its loss, nats per datum, not waited for.

        A step that is not finite is not taken, nor is any after it, and its loss is 0; `check` says so.
        """
        outcome = self._step([args], StepInputs(self.steps, self.lr, self.eager.beta))
        self.steps += 1
        self._last = args
        if isinstance(self._step, Compiled):
            self._step.settle()
        return outcome[0].clone()  # on a GPU the next step of the graph writes to the same place

    def many(self, batches: Iterable[Sequence[Any]]) -> Tensor:
        """Take a step on each of some batches, short captured ones together; returns their losses, (batches,).

        The numbers are those of the steps one by one; what gives the batches does not see the parameters between them.
        """
        told: list[Tensor] = []
        try:
            for args in batches:
                batch, now = [tuple(args)], StepInputs(self.steps, self.lr, self.eager.beta)
                if isinstance(self._step, Eager):
                    told.append(self._step(batch, now))
                elif not self._step.queue(batch, now):
                    told += [each.clone() for each in self._step.flush()]
                self.steps += 1
                self._last = batch[0]
        finally:  # whatever the batches raise, the steps before are taken
            if isinstance(self._step, Compiled):
                told += self._step.flush()
                self._step.settle()
        return torch.stack([each[0] for each in told]) if told else torch.zeros(0)

    def check(self) -> None:
        """Raise ValueError if a step was not finite, with the site that was not. On a GPU it waits for the steps."""
        if bool(self.eager.halted):
            raise ValueError(diagnosis(self.eager, StepInputs(self.steps - 1, self.lr, self.eager.beta), self._last))

    def close(self) -> None:
        """Give every parameter memory of its own again and let the graphs go; the step may be used again."""
        if isinstance(self._step, Compiled):
            self._step.release()


@checked
def training_step(
    model: AnyProgram,
    guide: AnyGuide,
    args: Sequence[Any],
    *,
    compile: Compiler | bool = False,
    lr: Positive = 1e-3,
    weight_decay: NotNegative = 0.0,
    clip: Positive | None = None,
    ema: Decay | None = None,
    particles: Count = 1,
    analytic: bool = True,
    beta: NotNegative = 1.0,
    objective: Objective = elbo,
    gradient: Gradient = "reparametrized",
    loss: Any = None,
    data_size: Count | None = None,
    precision: Precision = "float32",
) -> TrainingStep:
    """The step that `fit` takes, for a training loop of your own.

        step = training_step(model, guide, (x[:64],), compile=True)
        for batch in batches:
            step(batch)

    Args:
        model, guide: the pair, in the mode that it is to be trained in. A captured step is that of the numbers which
            the programs held in Python at its first call.
        args: an example batch, run once to see what there is.
        compile: capture the step at its first call, and replay it compiled; "xla" and "inductor" ask for a compiler.
        data_size: number of data of which a batch is a part, for programs with global latents; the batch by default.
        lr, weight_decay, clip, ema, particles, analytic, beta, objective, gradient, loss, precision: as for `fit`;
            without clip the norm of the gradient is not computed.

    Raises:
        ValueError: as `fit`.

    >>> import torch
    >>> from guides import MeanField
    >>> from ppl_models import VAE
    >>> model, x = VAE(event=4, latent=2, hidden=8), torch.eye(4)
    >>> step = training_step(model, MeanField(model, x, hidden=8), (x,), lr=1e-2)
    >>> losses = [step(x).item() for _ in range(100)]
    >>> sum(losses[-10:]) < sum(losses[:10])
    True
    """
    if loss is not None:
        check_loss(loss)
        check_enumeration(loss, guide)
    args = tuple(args)
    ours = loss is None
    draws = {"particles": particles, "inner": inner_draws(objective)}
    info = pair_info("training_step", model, guide, args, **draws, paired=ours, reparametrized=ours)
    options = FitConfig(
        objective=objective,
        gradient=gradient,
        particles=particles,
        analytic=analytic,
        loss=loss,
        weight_decay=weight_decay,
        clip=clip,
        ema=ema,
        precision=precision,
    )
    weighing = Weighing.of(info.pair, data_size)
    indices = Indices.of(info.pair, model, guide, args, None)
    config = StepConfig(options, **info.how, data_size=weighing.size, weighing=weighing, indices=indices, norm=False)
    slots = OptimizerState(trainable(kept(model, guide, info.params, info.ran)), average=ema is not None)
    eager = Eager(model, guide, slots, config, beta)
    eager.begin(args)
    return TrainingStep(eager, compile, lr)
