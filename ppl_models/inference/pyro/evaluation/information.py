"""Mutual information of data and codes under a guide, bracketed from both sides."""

from dataclasses import dataclass
from math import isfinite, log, sqrt
from typing import Any

import torch
from torch import Tensor

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyProgram, Count, Seed

from ...display.progress import Bar
from ...objectives.finite import counted, refuse
from ..feeding.columns import Columns
from .densities import Densities, device_of, looking


@dataclass(frozen=True)
class MutualInformation:
    """Bounds on I_q(x; z) = E_q(x, z) [log q(z | x) - log q(z)], in nats.

    Attributes:
        lower: mean of an estimator whose mean is at most I and which is itself at most `ceiling`.
        upper: the smaller of two upper bounds, `leave_one_out` and `rate`. The choice is made on the other half of the
            data, so that the number stays a bound.
        ceiling: log n. A lower bound close to it says that I is at least that, and not how much more.
        leave_one_out: the estimator without the datum itself in q(z).
        rate: mean of KL(q(z | x) || p(z)) = I + KL(q(z) || p(z)).
        lower_error, upper_error: standard errors, of terms taken for independent.
        n: number of data.
        notes: what one should know of these numbers.
    """

    lower: float
    upper: float
    ceiling: float
    leave_one_out: float
    rate: float
    lower_error: float
    upper_error: float
    n: int
    notes: tuple[str, ...] = ()

    @property
    def marginal(self) -> tuple[float, float]:
        """Bounds on KL(q(z) || p(z)) = rate - I, in nats: what separates codes of data from those of the prior."""
        return max(self.rate - self.upper, 0.0), max(self.rate - self.lower, 0.0)

    def __str__(self) -> str:
        reached = ", reached" if self.lower > self.ceiling - 0.05 else ""
        errors = f"+- {self.lower_error:.3f}, {self.upper_error:.3f}"
        rows = (
            f"I(x; z)   {self.lower:8.3f} to {self.upper:.3f} nats ({errors})",
            f"ceiling   {self.ceiling:8.3f} of the lower bound, log n of n = {self.n}{reached}",
            f"rate      {self.rate:8.3f} = I + KL(q(z) || p(z))",
        )
        return "\n".join([*rows, *self.notes])


@checked
def mutual_information(
    model: AnyProgram,
    guide: AnyProgram,
    data: Any,
    *,
    rows: Count | None = 10_000,
    seed: Seed | None = 0,
    progress: bool = False,
) -> MutualInformation:
    """Bracket the mutual information of data and codes, with one code a datum, z_i ~ q(z | x_i).

        lower          mean_i log q(z_i | x_i) - log 1/n     sum_j     q(z_i | x_j)       <= log n
        leave-one-out  mean_i log q(z_i | x_i) - log 1/(n-1) sum_{j/=i} q(z_i | x_j)
        rate           mean_i KL(q(z | x_i) || p(z))

    For data drawn independently from a population, mean lower <= I <= mean leave-one-out, and I <= rate (all three in
    the mean: an estimate may cross the truth by its error). The lower bound is the estimator of Zhao et al.; it cannot
    exceed log n. If the data are the whole population, it is an unbiased estimate of their I itself. All is computed
    in the log domain: n^2 densities, and memory of a block of them. Where a factor reads other latents its network, and
    those of the model up to its last latent, run n^2 times, too: take fewer rows.

    Args:
        model, guide: any Pyro programs whose latents are in the plate of the data; discrete ones, too.
        data: rows, as for `evaluate`; a transform's noise is drawn once.
        rows: at most so many of the first are taken; None takes all.
        seed: of the codes and the transform; the global generator is as before afterwards. None continues it.
        progress: show a bar.

    Raises:
        ValueError: fewer than two data; numbers that are not finite, with the first site whose densities are not; see
            `Densities`.

    Source: the lower bound by Zhao, Song, Ermon 2017 (arXiv 1702.08658), where it is computed without logarithms;
    leave-one-out by Poole et al. 2019 (arXiv 1905.06922), eq. 13; the rate by Hoffman and Johnson 2016.

    >>> import torch, pyro, pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(x, 0.5))
    >>> x = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    >>> found = mutual_information(model, guide, x)  # 0.5 log(1 + 1 / 0.25) = 0.805
    >>> print(f"{found.lower:.2f} {found.upper:.2f}")
    0.82 0.82
    """
    data = Columns(data, "mutual_information: data", model, guide)
    count = data.size if rows is None else min(data.size, rows)
    if count < 2:
        raise ValueError(f"mutual_information: found {count} datum, want at least 2")
    with looking(model, guide, seed, *data.places), Bar("mutual information", progress) as bar:
        batch = data.rows(slice(0, count), device_of(model, guide))
        table = Densities(model, guide, batch, "mutual_information")
        codes, rates = table.draw()
        own = torch.empty(count, dtype=torch.double, device=rates.device)
        others = torch.full_like(own, float("-inf"))
        for i, j, log_q in table.blocks(codes, bar):
            log_q = log_q.double()
            low, high = max(i.start, j.start), min(i.stop, j.stop)
            if low < high:  # the block holds codes with their own data
                same = torch.arange(low, high, device=log_q.device)
                own[low:high] = log_q[same - i.start, same - j.start]
                log_q = log_q.index_put((same - i.start, same - j.start), log_q.new_tensor(float("-inf")))
            others[i] = torch.logaddexp(others[i], torch.logsumexp(log_q, 1))
        lower = own - torch.logaddexp(own, others) + log(count)
        without = own - others + log(count - 1)
        upper = _smaller(without, rates.double())
        numbers = {"lower": lower, "upper": upper, "leave_one_out": without, "rate": rates.double()}
        mean = {name: values.mean().item() for name, values in numbers.items()}
        if not all(map(isfinite, mean.values())):
            refuse("mutual_information", mean, counted(table.infinite(codes)), count)
        errors = [(values.std() / sqrt(count)).item() for values in (lower, upper)]
    notes = tuple(
        f"the flow of {name!r} did not draw the codes of other data: each density takes {calls} calls of its networks"
        for name, calls in table.slow.items()
    )
    return MutualInformation(
        **mean, ceiling=log(count), lower_error=errors[0], upper_error=errors[1], n=count, notes=notes
    )


def _smaller(one: Tensor, other: Tensor) -> Tensor:
    """Of two bounds, (n,) each, on every half of the data the one whose mean is smaller on the other half."""
    parts = []
    for half in (slice(0, None, 2), slice(1, None, 2)):
        rest = slice(1 - half.start, None, 2)
        parts.append((one if one[rest].mean() <= other[rest].mean() else other)[half])
    return torch.cat(parts)
