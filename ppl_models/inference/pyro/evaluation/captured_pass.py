"""`Passes`: the passes of an evaluation, of which those of one shape are captured and compiled where there are many."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...training.interrupts import abandoned
from ..engine.capture import capture
from ..engine.compiled import shape_of
from ..engine.compilers import Compiler, compiled, has_xla
from ..engine.python_state import Attributes
from ..engine.recorder import NotCapturable

OFTEN = 40  # passes from which a compilation by XLA pays: it takes seconds, and saves a third of a pass


class Passes:
    """A function of a batch, run as it is, or compiled after its first run where many runs are to come.

    Compiled, it draws what it would draw, and gives the same numbers up to rounding; where it does not, or cannot be
    captured, it goes on as it is.

    Args:
        function: (batch, particles) -> tensors, of programs and of nothing that changes.
        programs: model and guide.
        total: how many runs are to come.
    """

    def __init__(
        self, function: Callable[[Sequence[Any], int], list[Tensor]], programs: Sequence[Callable], total: int
    ) -> None:
        self.function, self.programs = function, programs
        self.wanted = total >= OFTEN and has_xla()
        self.shape: Any = None
        self.run: Compiler | None = None
        self.held: list[Tensor] = []

    def __call__(self, batch: Sequence[Any], particles: int) -> list[Tensor]:
        """The function's tensors."""
        shape = (particles, *map(shape_of, batch))
        if self.run is not None and shape == self.shape:
            return list(self.run([*batch, *self.held]))
        before = torch.get_rng_state()
        found = self.function(batch, particles)
        if self.wanted and all(isinstance(x, Tensor) and x.device.type == "cpu" for x in batch):
            self.wanted, self.shape = False, shape
            self._compile(batch, particles, found, before)
        return found

    def _compile(self, batch: Sequence[Tensor], particles: int, found: Sequence[Tensor], before: Tensor) -> None:
        """Compile the function for batches like this one, of which it has `found` what it gives."""
        now, attributes = torch.get_rng_state(), Attributes(*self.programs)
        try:
            with abandoned():
                graph, self.held = capture(lambda *given: self.function(given, particles), batch)
                if (carried := attributes.restore(self.held)) is not None:
                    raise NotCapturable(carried)
                run = compiled(graph, [*batch, *self.held], 0, (), "xla", lambda line: None)
                torch.set_rng_state(before)
                again = run([*batch, *self.held])
                near = [torch.allclose(a, b, 1e-3, 1e-3, equal_nan=True) for a, b in zip(again, found, strict=True)]
                if all(near) and torch.equal(torch.get_rng_state(), now):
                    self.run = run
        except NotCapturable:
            pass
        finally:
            attributes.restore()
            torch.set_rng_state(now)
