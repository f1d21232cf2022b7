"""Experiment "discrete": four statements about criteria on joints of a few data and codes, both sides exact sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_models.inference import Terms, mutual_information, terms
from ppl_models.inference.objectives.bounds import elbo
from ppl_models.inference.objectives.criteria import unregularized
from ppl_models.inference.pyro.evaluation.discrete import Joint, coupled
from ppl_models.inference.pyro.passes.messengers import Substitute

from ...folders.loaded import LoadedRun
from . import at_least

OPTIONS = {"data": 6, "codes": 4, "draws": 4000}
TRAINS = False


def check(runs: Mapping[str, Any], analysis: Mapping[str, Any]) -> None:
    """Raise ValueError unless there are data and codes to choose from, and draws to compare."""
    at_least(2, analysis, *OPTIONS)


class Table(nn.Module):
    """p(z) p(x | z) with a table of logits for p(x | z): a decoder of unlimited capacity.

        p(x, z) = p(z) p(x | z)

    Args:
        prior: (codes,).
        data: how many data there are.
    """

    def __init__(self, prior: Tensor, data: int) -> None:
        super().__init__()
        self.register_buffer("prior", prior)
        self.logits = nn.Parameter(torch.zeros(len(prior), data, dtype=prior.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Observe x, (n,), numbers of data."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(self.prior))
            return pyro.sample("x", dist.Categorical(logits=self.logits[z]), obs=x)


def encoder_of(joint: Joint) -> Callable[[Tensor], None]:
    """The guide q(z | x) of a joint."""

    def encoder(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(joint.encoder[x.long()]))

    return encoder


def exactly(criterion: Callable[..., Tensor], model: nn.Module, joint: Joint) -> Tensor:
    """A criterion of `Terms` with the expectation over q(x, z) taken in full, in nats."""
    x, total = torch.arange(len(joint.data)), 0.0
    for z in range(len(joint.codes)):
        with Substitute({"z": torch.full_like(x, z)}):
            found = terms(model, encoder_of(joint), (x,), analytic=False)
        for i in x[joint.table[:, z] > 0]:
            likelihood, log_p, log_q, kl = (
                {name: values[:, i : i + 1] for name, values in part.items()}
                for part in (found.log_likelihood, found.log_p, found.log_q, found.kl)
            )
            total = total + joint.table[i, z] * criterion(Terms(likelihood, log_p, log_q, kl, found.shared))
    return total


def largest(criterion: Callable[..., Tensor], model: nn.Module, joint: Joint) -> float:
    """The largest value of a criterion over decoders, by L-BFGS from where the model is."""
    parameters = list(model.parameters())
    steps = {"max_iter": 500, "history_size": 50, "tolerance_grad": 1e-13, "tolerance_change": 0.0}
    optimizer = torch.optim.LBFGS(parameters, line_search_fn="strong_wolfe", **steps)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -exactly(criterion, model, joint)
        loss.backward()
        return loss

    optimizer.step(closure)
    return -closure().item()


def analyse(
    runs: Mapping[str, LoadedRun], analysis: Mapping[str, Any], folder: Path, seed: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """Each statement: what the programs give, the closed form, and the difference."""
    n, m = analysis["data"], analysis["codes"]
    generator = torch.Generator().manual_seed(seed)
    table = torch.rand(n, m, generator=generator, dtype=torch.double).pow(3)
    joint = Joint(table / table.sum())
    values = torch.randn(n, 3, generator=generator, dtype=torch.double)
    uniform = torch.full((m,), 1 / m, dtype=torch.double)
    rows: dict[str, dict[str, float]] = {}

    def state(name: str, found: float, exact: float) -> None:
        rows[name] = {"found": found, "exact": exact, "error": abs(found - exact)}
        report(f"{name:<58} {found:+.9f}  {exact:+.9f}  {abs(found - exact):.1e}")

    model = Table(uniform, n)
    state("sup of the unregularized = I - H", largest(unregularized, model, joint), joint.information - joint.entropy)
    decoder = model.logits.detach().softmax(-1)
    state("... at p(x | z) = q(x | z): largest difference", (decoder - joint.decoder).abs().max().item(), 0.0)
    moved = joint.data @ (joint.encoder @ decoder)
    state("the chain leaves p_data as it is: largest change", (moved - joint.data).abs().max().item(), 0.0)
    bound = -joint.entropy - joint.divergence(uniform)
    state("sup of the ELBO = -H - KL(q(z) || p(z))", largest(elbo, Table(uniform, n), joint), bound)
    for strength in (0.0, 0.5, 1.0):
        other = coupled(joint.data, uniform, strength)
        told = f"... with q(z) = p(z) and I = {abs(other.information):.3f}: -H, whatever I"
        state(told, largest(elbo, Table(uniform, n), other), -joint.entropy)
    means = nn.Parameter(torch.zeros(m, 3, dtype=torch.double))
    squares = (values[:, None] - means).square().sum(-1)
    slope = torch.autograd.grad((joint.table * squares).sum(), means)[0]
    best = -slope / (2 * joint.codes[:, None])  # one Newton step: the error is quadratic in the decoder's means
    error = (joint.table * (values[:, None] - best).square().sum(-1)).sum().item()
    state("least squared error = E sum_i Var(x_i | z)", error, (joint.codes @ joint.variance(values)).item())
    state("... at the means E(x | z): largest difference", (best - joint.decoder @ values).abs().max().item(), 0.0)
    everyone = torch.multinomial(joint.data, analysis["draws"], True, generator=generator)
    bracket = mutual_information(model, encoder_of(joint), everyone, seed=seed)
    told = {"lower": bracket.lower, "upper": bracket.upper, "exact": joint.information}
    rows["bracket of I from draws"] = told | {"standard error": bracket.lower_error}
    found = f"{bracket.lower:.4f} to {bracket.upper:.4f} (+- {bracket.lower_error:.4f})"
    report(f"I from {bracket.n} draws: {found}, exactly {joint.information:.4f}")
    return rows
