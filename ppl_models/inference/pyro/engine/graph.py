"""One captured step: a graph of all that it does to tensors, compiled, and replayed on batches of one shape."""

from collections.abc import Iterable, Sequence
from math import sqrt
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .flat_parameters import Buffers
from .function import Compile, Function
from .recorder import Miscompiled, NotCapturable
from .step import BETAS, EPS, Eager, StepInputs, negative, outcome


class GraphInputs(NamedTuple):
    """All that a captured function reads. It travels as one flat list of tensors, in this order (`Function`).

    Attributes:
        lists: parameters, moments and averages, where they lie (`Buffers`); the parameters come first.
        scalars: learning rate, beta and the rest of `StepInputs` as one vector, see `Graph.__call__`.
        halted: whether a step was not finite.
        objective: the state of an objective that has one, where it lies.
        given: what is handed over anew at every call: a batch, or what batches say.
    """

    lists: dict[str, list[Tensor]]
    scalars: Tensor
    halted: Tensor
    objective: dict[str, Tensor]
    given: Any


class Gradients(NamedTuple):
    """What a batch says of a step: what is told, gradients of the buffers, and the state that the objective leaves."""

    told: Tensor
    gradients: list[Tensor]
    state: dict[str, Tensor]


class Graph:
    """The step of `Eager` on batches of one shape, as one compiled function of tensors.

    What it reads is in `GraphInputs`; parameters, moments and averages are written where they lie. With a group of
    processes, or several batches a step, there are two functions, of the gradient and of the update.

    Args:
        eager: the step, whose programs are captured.
        buffers: its parameters.
        batch: of the step that is due.
        compile: see `Function`.
        whole: one function, or two.

    Raises:
        NotCapturable: the programs cannot be captured or compiled, or an argument of theirs is no tensor.
    """

    def __init__(
        self,
        eager: Eager,
        buffers: Buffers,
        batch: Sequence[Any],
        compile: Compile,
        whole: bool = True,
    ) -> None:
        for i, x in enumerate(batch, 1):
            if not isinstance(x, Tensor):
                raise NotCapturable(f"argument {i} of the programs is no tensor but {type(x).__name__}")
        self.eager, self.buffers, self.whole = eager, buffers, whole
        self.device = eager.slots.parameters[0].device
        wide = any(p.dtype == torch.float64 for p in eager.slots.parameters)
        self.dtype = torch.float64 if wide else torch.float32
        self.scalars = torch.zeros(5, dtype=self.dtype, device=self.device)
        self.batch = [x.clone() for x in batch] if self.device.type == "cuda" else list(batch)
        inputs = GraphInputs(buffers.lists, self.scalars, eager.halted, eager.slots.objective, self.batch)
        with pyro.validation_enabled(False):
            if whole:
                step = lambda now: self._update(now._replace(given=self._gradient(now)))  # noqa: E731
                self.functions = [Function(step, inputs, buffers, compile, whole)]
            else:  # the state of the objective goes from batch to batch
                state = {name: t.clone() for name, t in inputs.objective.items()}
                given = inputs._replace(objective={}, given=(state, self.batch))
                found = Function(self._gradient, given, buffers, compile, whole)
                told = torch.zeros(2 + len(eager.config.kl_of), dtype=self.dtype, device=self.device)
                zeros = [torch.zeros_like(t) for t in buffers.lists["parameter"]]
                inputs = inputs._replace(given=Gradients(told, zeros, state))
                self.functions = [found, Function(self._update, inputs, buffers, compile, whole)]

    def __call__(self, batches: Sequence[Sequence[Any]], now: StepInputs) -> Tensor:
        """Take the step; as `Eager.__call__`."""
        self._set(now)
        if self.whole:
            return self.functions[0](batches[0])[0]
        said = tree_leaves(self._said(batches))
        if self.eager.group is not None:
            self.eager.group.average_(said)
        found = self.functions[1](said)[0]
        self.settle()  # the gradient reads what the update has written
        return found

    @property
    def room(self) -> int:
        """Steps that may yet wait to be taken in one call; 0 where none may."""
        return self.functions[0].run.room if self.whole else 0

    def add(self, batch: Sequence[Any], now: StepInputs) -> None:
        """Let a step wait; what it draws is drawn now."""
        self._set(now)
        self.functions[0].run.add(self.functions[0].inputs(batch))

    def flush(self, batch: Sequence[Any]) -> list[Tensor]:
        """Take the steps that wait; what each tells. `batch` is one of theirs."""
        return [told for (told,) in self.functions[0].run.flush(self.functions[0].inputs(batch))]

    def _set(self, now: StepInputs) -> None:
        fit, taken, (first, second) = self.eager.config.fit, now.step + 1, BETAS
        scale = now.lr / (1 - first**taken)
        root, weight = 1 / sqrt(1 - second**taken), fit.average_weight(now.step)
        values = [now.beta, now.lr * fit.weight_decay, scale, root, weight]
        self.scalars.copy_(torch.tensor(values, dtype=self.dtype), non_blocking=True)

    def settle(self) -> None:
        """Let parameters, moments and averages be what the steps have made of them."""
        for function in self.functions:
            function.settle()

    def _said(self, batches: Sequence[Sequence[Any]]) -> Gradients:
        """What batches say together: means, and the state that the last one leaves."""
        function, state = self.functions[0], self.eager.slots.objective
        sums: list[Tensor] = []
        for batch in batches:
            each = function.named(function([*state.values(), *batch]))
            state, found = each.state, [each.told, *each.gradients]
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else [t.clone() for t in found]
        for total in sums if len(batches) > 1 else ():
            total /= len(batches)
        return Gradients(sums[0], sums[1:], state)

    def check(self, batch: Sequence[Any], now: StepInputs) -> None:
        """Try the step, and leave no trace of it.

        Raises:
            Miscompiled: it fails, or its loss is not that of the eager step from the same state of the generators.
            NotCapturable: neither is that of the eager step at a second time.
        """
        eager, cuda = self.eager, [self.device] if self.device.type == "cuda" else []
        with torch.no_grad():
            before = [t.clone() for t in self._touched()]

        @torch.no_grad()
        def loss() -> Tensor:
            with torch.random.fork_rng(cuda), pyro.validation_enabled(False):
                state = eager.slots.objective
                found = negative(eager.config, eager.model, eager.guide, batch, now.beta, state).value
            _put_back(self._touched(), before)
            return found

        expected = loss()
        with torch.no_grad():
            with torch.random.fork_rng(cuda):
                group, eager.group = eager.group, None
                try:
                    found, _, _, taken = self([batch], now)[:4].unbind()
                    waits = bool(cuda) and self._waits(batch, now)
                except Exception as error:  # noqa: BLE001 (what a compiler has overlooked: eager steps will tell)
                    raise Miscompiled(f"the compiled step fails ({type(error).__name__}: {error})"[:200]) from error
                finally:
                    eager.group = group
                    for function in self.functions:
                        function.run.forget()
            _put_back(self._touched(), before)
        rough = 2e-2 if eager.config.fit.precision != "float32" else 1e-3
        close = torch.isclose(found, expected.to(found), rtol=rough, atol=rough)
        left_out = taken == 0 if eager.config.fit.skip is not None else torch.zeros_like(close)  # which tells no loss
        if not bool(close | left_out | ~torch.isfinite(expected)):
            told = f"the compiled step has the loss {found.item():.6g} where the eager one has {expected.item():.6g}"
            if torch.isclose(loss(), expected, rtol=rough, atol=rough):
                raise Miscompiled(told)
            raise NotCapturable(f"{told}; the programs do something else at every run")
        for function in self.functions if cuda and not waits else ():
            function.record(self.device)

    def _touched(self) -> list[Tensor]:
        """All that a step may write, each tensor once, where it lies now."""
        return [*{id(t): t for function in self.functions for t in function.fixed}.values()]

    def _waits(self, batch: Sequence[Any], now: StepInputs) -> bool:
        """Whether a step waits for the device (a copy from the host, a check of a Cholesky factor), which a recording
        may not: one that fails would leave the generator in the middle of it. It then runs compiled, unrecorded."""
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            self([batch], now)
        except RuntimeError:
            return True
        finally:
            torch.cuda.set_sync_debug_mode(mode)
        return False

    def _gradient(self, inputs: GraphInputs) -> Gradients:
        """Loss and gradients as a function of all that changes."""
        eager, parameters = self.eager, self.eager.slots.parameters
        state, batch = (inputs.objective, inputs.given) if self.whole else inputs.given
        beta = inputs.scalars[0] if eager.beta is None else eager.beta
        with torch.enable_grad():
            found = negative(eager.config, eager.model, eager.guide, batch, beta, state)
            gradients = torch.autograd.grad(found.value, parameters, allow_unused=True)
        self.used = [g is not None for g in gradients]
        whole = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        joined = [self.buffers.joined(whole, group) for group in self.buffers.groups]
        return Gradients(found.told.to(self.dtype), joined, found.state)

    def _update(self, inputs: GraphInputs) -> list[Tensor]:
        """AdamW and the moving average, written in place where the step is good; returns the outcome of the step."""
        config, lists, halted = self.eager.config, inputs.lists, inputs.halted
        told, gradients, after = inputs.given
        _, decay, scale, root, weight = inputs.scalars.unbind()
        norm = told.new_zeros(())
        if config.measures:
            norm = sum(g.square().sum().to(told.dtype) for g in gradients).sqrt()
        good = torch.isfinite(told[0] + norm) & ~halted
        if config.fit.skip is None:
            halted.copy_(halted | ~good)
        else:
            good = good & (norm <= config.fit.skip)
        shrink = None
        if config.fit.clip not in (None, float("inf")):
            shrink = (config.fit.clip / (norm + 1e-6)).clamp(max=1)
        # A step that is not good changes nothing, by weights of 0, and by gradients of 0 where they may be infinite. So
        # each tensor is read entry by entry and for itself alone, and a compiler may write it in its place.
        first, second = (torch.where(good, torch.full_like(scale, 1 - b), 0.0) for b in BETAS)
        kept = torch.where(good, torch.full_like(scale, BETAS[1]), 1.0)
        decay, scale, weight = (torch.where(good, x, 0.0) for x in (decay, scale, weight))
        for k, gradient in enumerate(gradients):
            used = [self.used[i] for i in self.buffers.groups[k]]
            if not any(used):  # as in the eager step, whose optimizer leaves out what has no gradient
                continue
            p, m, v = lists["parameter"][k], lists["exp_avg"][k], lists["exp_avg_sq"][k]
            g = gradient if shrink is None else gradient * shrink.to(gradient.dtype)
            g = torch.where(good, g, 0.0)
            m_new = m + first * (g - m)
            v_new = kept * v + second * g * g
            shrunk = decay if all(used) else decay * self.buffers.marks(self.buffers.groups[k], used, p)
            p_new = p - shrunk * p if config.fit.weight_decay else p
            p_new = p_new - scale * m_new / (v_new.sqrt() * root + EPS)
            m.copy_(m_new)
            v.copy_(v_new)
            if "average" in lists:
                average = lists["average"][k]
                average.copy_(average + weight * (p_new - average))
            p.copy_(p_new)
        for name, old in inputs.objective.items():
            old.copy_(torch.where(good, after[name], old))
        return [torch.where(good, outcome(told, norm), 0.0)]


@torch.no_grad()
def _put_back(tensors: Iterable[Tensor], before: Sequence[Tensor]) -> None:
    """Give tensors their values of before; those that have them, among them views that no one can write, stay alone."""
    for tensor, kept in zip(tensors, before, strict=True):
        if not torch.equal(tensor, kept):
            tensor.copy_(kept)
