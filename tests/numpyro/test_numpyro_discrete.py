"""Guides of NumPyro's models with discrete latents: equal to torch's for the same weights, trained, refused."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

pytest.importorskip("numpyro")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pyro
import pyro.distributions as pyro_dist
import torch
from numpyro import handlers

import guides as torch_guides
import guides.numpyro as guides
import ppl_models as torch_models
import ppl_models.numpyro as models
from ppl_models.inference import elbo as torch_elbo
from ppl_models.inference.numpyro import elbo, evaluate, fit, importance_weighted, semi_supervised, terms
from ppl_models.inference.objectives.labelled import semi_supervised as torch_semi_supervised
from ppl_models.inference.pyro.passes.messengers import Substitute
from ppl_models.inference.pyro.passes.terms import terms as torch_terms
from ppl_models.numpyro.parts.program import named_parameters
from ppl_models.numpyro.weights import like_torch
from tests.guides import test_discrete as torch_side
from tests.helpers.cases import few
from tests.helpers.precision import quick, shaken

KEY = jax.random.key(0)
WEIGHTS, STEP, SEEN = (np.asarray(each) for each in (torch_side.WEIGHTS, torch_side.STEP, torch_side.SEEN))
LINE = np.asarray(torch_side.line())


def mixture(x: jax.Array) -> None:
    with numpyro.plate("data", len(x)):
        k = numpyro.sample("k", dist.Categorical(jnp.asarray(WEIGHTS, x.dtype)))
        numpyro.sample("x", dist.Normal(2.0 * k, 1.0), obs=x)


def chain(x: jax.Array) -> None:
    state = 0
    with numpyro.plate("data", len(x)):
        for t in range(3):
            state = numpyro.sample(f"s{t}", dist.Categorical(jnp.asarray(STEP, x.dtype)[state]))
            numpyro.sample(f"x{t}", dist.Bernoulli(jnp.asarray(SEEN, x.dtype)[state]), obs=x[:, t])


def bits(x: jax.Array, p: Callable = dist.Bernoulli) -> None:
    with numpyro.plate("data", len(x)):
        b = numpyro.sample("b", p(jnp.asarray([0.3, 0.6], x.dtype)).to_event(1))
        mean = (b * jnp.resize(jnp.asarray([1.0, 2.0], x.dtype), b.shape[-1])).sum(-1)
        numpyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def torch_bits(x: torch.Tensor) -> None:
    with pyro.plate("data", len(x)):
        b = pyro.sample("b", pyro_dist.Bernoulli(torch.tensor([0.3, 0.6]).to(x)).to_event(1))
        mean = (b * torch.tensor([1.0, 2.0]).to(x)).sum(-1)
        pyro.sample("x", pyro_dist.Normal(mean, 1.0), obs=x)


CASES = {
    "mixture": (torch_side.mixture, mixture, LINE),
    "chain": (torch_side.chain, chain, np.asarray(torch_side.SEQUENCES.double())),
    "bits": (torch_bits, bits, LINE),
}
GUIDES = ["Faithful", "SelfReflective", "MeanField", "BottomUp", "Bidirectional"]
OFTEN = [("mixture", "MeanField")]


@pytest.mark.parametrize(
    ("name", "guide"), few([(n, g) for n in CASES for g in GUIDES], lambda name, guide: (name, guide) in OFTEN)
)
def test_terms_and_gradients_over_all_states_are_torchs(name, guide, wide):
    theirs, model, x = CASES[name]
    q = shaken(getattr(torch_guides, guide)(theirs, torch.tensor(x), hidden=4))
    port = like_torch(getattr(guides, guide)(model, jnp.asarray(x), hidden=4, key=KEY), q)
    want = torch_terms(theirs, q, (torch.tensor(x),), nesting=1, states=True)
    found = terms(model, port, (jnp.asarray(x),), states=True, key=KEY)
    assert found.enumerated == want.enumerated == frozenset(want.kl)
    for what in ("log_likelihood", "log_p", "log_q", "kl"):
        for site, value in getattr(want, what).items():
            np.testing.assert_allclose(getattr(found, what)[site], value.detach(), rtol=1e-10, atol=1e-12)
    torch_elbo(want).backward()
    own, fixed = eqx.partition(port.own(), eqx.is_inexact_array)
    bound = lambda own: elbo(  # noqa: E731
        terms(model, port.restored(eqx.combine(own, fixed)), (jnp.asarray(x),), states=True, key=KEY)
    )
    slopes = {name: p.grad.numpy() for name, p in q.named_parameters()}
    for name, gradient in named_parameters(quick(jax.grad(bound))(own)).items():
        np.testing.assert_allclose(gradient, slopes[name], rtol=1e-8, atol=1e-10, err_msg=name)


@pytest.mark.slow
def test_the_semi_supervised_pair_is_torchs(wide):
    """One draw of the code a class: with its noise held, all numbers are equal."""
    x = np.asarray(torch.bernoulli(torch.full((5, 6), 0.5)).double())
    labels = np.array([0, 2, -1, -1, 1])
    theirs = shaken(torch_models.SemiSupervisedVAE(6, 2, 3, hidden=4))
    args = torch.tensor(x), torch.tensor(labels)
    q = shaken(torch_guides.SelfReflective(theirs, *args, evidence=("x",), hidden=4))
    model = like_torch(models.SemiSupervisedVAE(6, 2, 3, hidden=4, key=KEY), theirs)
    given = jnp.asarray(x), jnp.asarray(labels)
    port = like_torch(guides.SelfReflective(model, *given, evidence=("x",), hidden=4, key=KEY), q)
    assert port.layout.latents["y"].facts.limited and q.layout.latents["y"].facts.limited
    # at the same draws of the code for each class
    torch.manual_seed(0)
    drawn = torch.randn(3, 1, 5, 2, dtype=torch.double)
    with Substitute({"z1": drawn.reshape(3, 1, 5, 2)}):
        want = torch_terms(theirs, q, args, nesting=1, states=True)
    held = jnp.asarray(drawn.numpy()).reshape(3, *[1] * 10, 5, 2)
    with handlers.substitute(data={"z1": held}):
        found = terms(model, port, given, states=True, key=KEY)
    assert found.enumerated == want.enumerated == {"y"}
    for what in ("log_likelihood", "log_p", "log_q", "log_support"):
        for site, value in getattr(want, what).items():
            np.testing.assert_allclose(getattr(found, what)[site], value.detach(), rtol=1e-10, atol=1e-12)
    objective = partial(semi_supervised, alpha=2.0), partial(torch_semi_supervised, alpha=2.0)
    assert float(objective[0](found)) == pytest.approx(objective[1](want).item(), rel=1e-10)


@pytest.mark.slow
def test_fit_reaches_the_evidence():
    x = jnp.asarray(LINE, jnp.float32)
    q = guides.Faithful(mixture, x, hidden=16, key=KEY)
    run = fit(mixture, q, x, steps=300, lr=2e-2, ema=None, progress=False, seed=0)
    assert run.notes == []
    bound = float(elbo(terms(mixture, run.guide, (x,), states=True, key=KEY)))
    evidence = torch_side.evidence(torch_side.mixture, torch.tensor(LINE), {"k": 3})
    assert abs(bound - evidence) < 1e-3
    found = evaluate(run.model or mixture, run.guide, x, particles=50, progress=False)
    assert found.nll == pytest.approx(-evidence, abs=1e-2)


@pytest.mark.slow
def test_relaxed_draws_are_zeros_and_ones_with_a_gradient():
    x = jnp.asarray(LINE, jnp.float32)
    q = guides.MeanField(bits, x, hidden=4, discrete="relax", key=KEY)
    found = terms(bits, q, (x,), particles=50, key=KEY)
    assert {*np.unique(found.drawn["b"]).tolist()} == {0.0, 1.0}
    run = fit(bits, q, x, steps=20, progress=False, seed=0)
    before, after = named_parameters(q), named_parameters(run.guide)
    assert all((before[name] != after[name]).any() for name in before if "last" in name)


def poisson(x: jax.Array) -> None:
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(numpyro.sample("k", dist.Poisson(2.0)) * 1.0, 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "guide", "options", "text"),
    [
        (poisson, "MeanField", {}, r"site 'k' is discrete \(Poisson\), want a Categorical"),
        (mixture, "Ladder", {}, "want continuous latents; try SelfReflective"),
        (mixture, "MeanField", {"discrete": "relax"}, "no gradient goes through its whole numbers"),
        (
            partial(bits, p=lambda p: dist.Bernoulli(jnp.full((20,), 0.5))),
            "Faithful",
            {},
            r"2\^20 states, want at most",
        ),
    ],
)
def test_discrete_sites_without_a_factor_are_refused(model, guide, options, text):
    with pytest.raises(ValueError, match=f"guide {guide}: .*{text}"):
        getattr(guides, guide)(model, jnp.asarray(LINE, jnp.float32), **options, key=KEY)


@pytest.mark.slow
def test_weights_of_draws_and_wrong_programs_are_refused():
    x = jnp.asarray(LINE, jnp.float32)
    q = guides.MeanField(mixture, x, hidden=4, key=KEY)
    with pytest.raises(ValueError, match="importance_weighted: found the sites 'k' enumerated"):
        fit(mixture, q, x, steps=1, progress=False, objective=importance_weighted)

    def flat(x: jax.Array) -> None:
        with numpyro.plate("data", len(x)):
            k = numpyro.sample("k", dist.Categorical(jnp.ones(3) / 3)).flatten()
            numpyro.sample("x", dist.Normal(1.0 * k, 1.0), obs=x)

    with pytest.raises(ValueError, match="fit: found the sites 'k' enumerated by the guide, but "):
        fit(flat, guides.MeanField(flat, x, hidden=4, key=KEY), x, steps=1, progress=False)
