"""Discrete latents that a guide leaves out: summed out by `evaluate`, or one line that says who does."""

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from guides import BottomUp
from ppl_models.inference import evaluate, fit, mutual_information, terms
from ppl_models.views import to_arviz

WEIGHTS = torch.tensor([0.2, 0.3, 0.5], dtype=torch.double)
TRANSITION = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.double)


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)


def quiet(model: Callable, guide: Callable, x: Tensor, **how):
    return evaluate(model, guide, x, progress=False, **{"particles": 3, **how})


def unit(x: Tensor) -> None:
    """A latent of no consequence in the plate of the data."""
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))


# ---- exact evidences: with all that matters discrete, every draw has the same weight


@config_enumerate
def mixture(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        k = pyro.sample("k", dist.Categorical(WEIGHTS))
        pyro.sample("x", dist.Normal(2.0 * k, 1.0), obs=x)


@config_enumerate
def markov(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        state = 0
        for t in pyro.markov(range(x.shape[1])):
            state = pyro.sample(f"s{t}", dist.Categorical(TRANSITION[state]))
            pyro.sample(f"x{t}", dist.Normal(2.0 * state, 1.0), obs=x[:, t])


@config_enumerate
def in_columns(x: Tensor) -> None:
    """One state a row, read by all its columns; the mask takes some of them out."""
    with pyro.plate("data", len(x), dim=-2):
        pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        k = pyro.sample("k", dist.Categorical(WEIGHTS))
        with pyro.plate("columns", x.shape[1], dim=-1), poutine.mask(mask=x > -1):
            pyro.sample("x", dist.Normal(2.0 * k, 1.0), obs=x)


@config_enumerate
def of_all(x: Tensor) -> None:
    """One state of all the data."""
    k = pyro.sample("k", dist.Categorical(WEIGHTS))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(2.0 * k, 1.0), obs=x)


def columns_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x), dim=-2):
        pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))


def of_states(x: Tensor) -> Tensor:
    """log p(x | k), (3, *x)."""
    return dist.Normal(2.0 * torch.arange(3.0, dtype=torch.double).reshape(3, *[1] * x.dim()), 1.0).log_prob(x)


def forward(x: Tensor) -> Tensor:
    """log p(x) of the chains, by the forward algorithm."""
    alpha = TRANSITION[0].log().expand(len(x), 2)
    for t in range(x.shape[1]):
        alpha = torch.logsumexp(alpha[:, :, None] + TRANSITION.log(), 1) if t else alpha
        alpha = alpha + of_states(x[:, t])[:2].T
    return torch.logsumexp(alpha, 1)


def summed(log_likelihood: Tensor) -> Tensor:
    return torch.logsumexp(WEIGHTS.log().reshape(3, *[1] * (log_likelihood.dim() - 1)) + log_likelihood, 0)


CASES = {
    "mixture": (mixture, unit, rows(6), lambda x: summed(of_states(x)).mean()),
    "markov": (markov, unit, rows(4, 5), lambda x: forward(x).mean()),
    "columns": (in_columns, columns_guide, rows(5, 4), lambda x: summed((of_states(x) * (x > -1)).sum(-1)).mean()),
    "of all": (of_all, unit, rows(6), lambda x: summed(of_states(x).sum(1)) / len(x)),
}


@pytest.mark.parametrize("how", [{}, {"vectorize": False}, {"rows": 2}])
@pytest.mark.parametrize("name", CASES)
def test_discrete_sites_are_summed_out_exactly(name, how):
    model, guide, x, evidence = CASES[name]
    found = quiet(model, guide, x, **how)
    assert found.nll == pytest.approx(-evidence(x).item(), rel=1e-9)
    assert found.elbo == pytest.approx(-found.nll, rel=1e-9) and found.kl == {"z": 0.0}
    assert all(note.startswith("latents or data outside") for note in found.notes)


def test_the_bound_is_that_of_the_elbo_of_pyro():
    """On the same draws; the prior of z reads the discrete site, whose sum is in its divergence too."""

    @config_enumerate
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(WEIGHTS))
            z = pyro.sample("z", dist.Normal(2.0 * k, 1.0))
            pyro.sample("x", dist.Normal(z + k, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    x = rows(6)
    torch.manual_seed(0)
    found = terms(model, guide, (x,), particles=5, nesting=1, sums=True)
    torch.manual_seed(0)
    z = torch.distributions.Normal(x / 2, 0.7).sample((5,))
    prior = summed(torch.distributions.Normal(2.0 * torch.arange(3.0).double()[:, None, None], 1.0).log_prob(z))
    torch.testing.assert_close(found.log_p["z"], prior)
    torch.testing.assert_close(found.kl["z"], found.log_q["z"] - prior)
    torch.manual_seed(0)
    loss = TraceEnum_ELBO(max_plate_nesting=1, num_particles=5, vectorize_particles=True).loss(model, guide, x)
    assert -loss == pytest.approx(found.log_w.sum().item() / 5, rel=1e-9)


def test_what_was_trained_is_evaluated():
    """Two clusters under a global weight, whose evidence is an integral on a line."""

    @config_enumerate
    def clusters(x: Tensor) -> None:
        weight = pyro.sample("weight", dist.Beta(x.new_ones(()), 1.0))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(weight))
            pyro.sample("x", dist.Normal(6 * k - 3, 1.0), obs=x)

    x = torch.cat([rows(10) - 3, rows(5) + 3])
    grid = torch.linspace(0, 1, 4001, dtype=torch.double)[1:-1, None]
    one, other = (dist.Normal(loc, 1.0).log_prob(x) for loc in (3.0, -3.0))
    of_weight = torch.logaddexp(grid.log() + one, (1 - grid).log() + other).sum(1)
    evidence = torch.logsumexp(of_weight, 0) - math.log(4000)
    for guide in (BottomUp(clusters, x, hidden=4), AutoNormal(poutine.block(clusters, hide=["k"]))):
        how = {"loss": TraceEnum_ELBO(max_plate_nesting=1), "lr": 0.05, "batch_size": len(x), "progress": False}
        fit(clusters, guide, x, steps=60, seed=0, **how)
        found = quiet(clusters, guide, x, particles=2000)
        assert found.nll == pytest.approx(-evidence.item() / len(x), abs=5 * found.nll_error + 1e-6)
        assert found.nll_error < 0.01 and "k" not in found.kl


def test_a_site_that_the_guide_draws_is_not_summed_out():
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("k", dist.Categorical(logits=WEIGHTS.log() + of_states(x).T))

    found = quiet(mixture, guide, rows(6))
    assert found.nll == pytest.approx(-summed(of_states(rows(6))).mean().item(), rel=1e-9)
    assert set(found.kl) == {"z", "k"}


# ---- what is not summed out says who does it


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda x: fit(mixture, unit, x, steps=1, progress=False), "^fit: .*pass loss=pyro.infer.TraceEnum_ELBO"),
        (lambda x: to_arviz(mixture, unit, x, draws=2), "^to_arviz: .*evaluate do so; for to_arviz draw it in"),
        (lambda x: mutual_information(mixture, unit, x), "^mutual_information: .*and evaluate do so"),
    ],
)
def test_others_name_the_site_and_who_sums_it_out(ask, told):
    with pytest.raises(ValueError, match=told) as caught:
        ask(rows(6))
    assert "the guide leaves out the site 'k', which the model enumerates" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_discrete_site_without_a_mark_is_told_to_be_marked():
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(WEIGHTS))
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(2.0 * k, 1.0), obs=x)

    with pytest.raises(ValueError, match=r"site 'k', a discrete one \(Categorical\).*'enumerate': 'parallel'"):
        quiet(model, unit, rows(6))
    x = rows(6)
    found = quiet(config_enumerate(model), unit, x)  # the cure
    assert found.nll == pytest.approx(-summed(of_states(x)).mean().item(), rel=1e-9)


def test_what_has_no_exact_sum_is_refused():
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer={"enumerate": "parallel", "num_samples": 5})
            pyro.sample("x", dist.Normal(2.0 * k, 1.0), obs=x)

    with pytest.raises(ValueError, match="site 'k': found infer={'num_samples': 5}, want all states for an exact sum"):
        quiet(model, unit, rows(6))

    @config_enumerate
    def scaled(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            k = pyro.sample("k", dist.Categorical(WEIGHTS))
            with poutine.scale(scale=2.0):
                pyro.sample("x", dist.Normal(2.0 * k, 1.0), obs=x)

    with pytest.raises(ValueError, match=r"found different scales .*'k' has 1, 'x' has 2.*want one for all of them"):
        quiet(scaled, unit, rows(6))
