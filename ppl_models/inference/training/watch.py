"""`Watch`: tells, once and in one line each, of latents that fell silent and of a loss that jumped."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

SILENT, HEARD = 1e-3, 0.1  # nats a datum: of each latent at most; of all together at least, before they fell silent
JUMP = 10.0  # times the lowest loss, or nats where that is smaller than one
HUGE = 1e8  # nats a datum, of a loss that had no chance to jump
LEAST = 1000  # steps of a training whose latents might have said something by its end


@dataclass
class Watch:
    """What the records of a training show of its health; numbers that were read for the records are all it takes.

    Every divergence at zero means that the guide is the prior: codes say nothing of the data, and mostly never again.
    A loss that is ten times what it was has had a step, or many, that threw parameters far away.

    Attributes:
        loudest: the largest sum of the divergences, in nats per datum, in any record so far.
        loss, bound: the lowest mean loss and negative ELBO of any record so far.
        silent, jumped: whether each was told; a loss that is huge from the first record on has jumped, too.
    """

    loudest: float = 0.0
    loss: float | None = None
    bound: float | None = None
    silent: bool = False
    jumped: bool = False

    def __call__(self, record: Mapping[str, float], kl: Sequence[float], steps: int, last: bool) -> Iterator[str]:
        """The lines that a record gives rise to.

        Args:
            record: step, loss, negative_elbo and grad_norm.
            kl: the mean divergence of each latent of the data plate; none of them where a step does not tell it.
            steps: those that the means are over.
            last: whether the training is over.
        """
        loss, bound = record["loss"], record["negative_elbo"]
        when = f"in the {steps} steps up to step {record['step']}"
        if not self.silent and kl and max(map(abs, kl)) < SILENT:
            if self.loudest > HEARD or (last and record["step"] >= LEAST):
                self.silent = True
                was = f" ({self.loudest:.3g} nats a datum before)" if self.loudest > HEARD else ""
                yield (
                    f"every KL is 0.000 {when}{was}: the latents say nothing of the data; try a smaller lr, a warmup, "
                    "a smaller clip, or an objective with free bits"
                )
        if not self.jumped and _jumps(loss, self.loss) and _jumps(bound, self.bound):
            self.jumped = True
            yield (
                f"the loss jumped to {loss:.5g} {when}, from {self.loss:.5g}; the mean norm of the gradient there is "
                f"{record['grad_norm']:.3g}; try a smaller lr, or a clip or skip below that"
            )
        elif not self.jumped and self.loss is None and max(loss, bound) > HUGE:
            self.jumped = True
            yield (
                f"the loss is {loss:.5g} nats a datum {when}, so that the training has diverged, or the data are on "
                f"another scale than the likelihood; the mean norm of the gradient is {record['grad_norm']:.3g}; try a "
                "smaller lr, a clip or skip below that, or standardize the data"
            )
        self.loudest = max(self.loudest, sum(kl))
        self.loss = loss if self.loss is None else min(loss, self.loss)
        self.bound = bound if self.bound is None else min(bound, self.bound)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON, for a checkpoint."""
        return asdict(self)


def _jumps(now: float, best: float | None) -> bool:
    return best is not None and now - best > JUMP * max(abs(best), 1.0)
