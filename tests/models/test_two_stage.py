"""The two-stage VAE: its composite, and what its first stage finds in data of a rank."""

import pytest
import torch
from pyro import poutine

from guides import BottomUp, MeanField
from ppl_models import VAE, HierarchicalVAE
from ppl_models.data import Data, Redrawn
from ppl_models.factorization import compare
from ppl_models.inference import elbo, fit
from ppl_models.inference.pyro.passes.terms import terms
from ppl_models.parts import Composite


def test_the_density_is_that_of_both():
    """log p(u) + log p(z | u) + log p(x | z), each as the model of its stage has it; the first prior plays no part."""
    first = HierarchicalVAE(event=4, latent=(2, 3), hidden=8, likelihood="gaussian").double()
    second = HierarchicalVAE(event=5, latent=(3, 2), hidden=8, likelihood="shared-gaussian").double()
    second.likelihood.log_scale.data.fill_(-0.4)
    two, x = Composite(first, second), torch.randn(6, 4, dtype=torch.double)
    nodes = poutine.trace(two).get_trace(x).nodes
    assert [n for n in nodes if nodes[n]["type"] == "sample" and n != "data"] == ["u1", "u2", "z", "x"]
    u1, u2, z = (nodes[name]["value"] for name in ("u1", "u2", "z"))
    below = poutine.trace(poutine.condition(second, {"z1": u1, "z2": u2})).get_trace(z)
    above = poutine.trace(poutine.condition(first, {"z1": z[:, :2], "z2": z[:, 2:]})).get_trace(x)
    for trace in (below, above):
        trace.compute_log_prob()
    found = poutine.trace(poutine.condition(two, {"u1": u1, "u2": u2, "z": z})).get_trace(x)
    found.compute_log_prob()
    for name, trace, site in (("u1", below, "z1"), ("u2", below, "z2"), ("z", below, "x"), ("x", above, "x")):
        torch.testing.assert_close(found.nodes[name]["log_prob"], trace.nodes[site]["log_prob"])


def test_it_is_a_model_like_any_other():
    """A guide for it, particles, and gradients for all parameters but those of the prior that it leaves out."""
    two = Composite(VAE(event=4, latent=2, hidden=8), VAE(event=2, latent=3, hidden=8, likelihood="shared-gaussian"))
    x = torch.eye(4)[:3]
    guide = BottomUp(two, x, hidden=8)
    assert compare(two, guide, x).verdict == "faithful, not minimal, perfect"
    found = terms(two, guide, (x,), particles=5, nesting=1)
    sum(t.sum() for t in (*found.kl.values(), *found.log_likelihood.values())).backward()
    assert not [n for m in (two, guide) for n, p in m.named_parameters() if p.grad is None]
    assert two(n=7).shape == (7, 4)


@pytest.mark.parametrize(("event", "wanted"), [(1, "more"), (3, "fewer")])
def test_rows_that_are_no_codes_are_refused(event, wanted):
    two = Composite(VAE(event=4, latent=2, hidden=8), VAE(event=event, latent=2, hidden=8, likelihood="gaussian"))
    with pytest.raises(ValueError, match=f"Composite: found {event} values in a row .*, want {wanted}: as many"):
        two(n=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (5, TypeError, "site 'x': found a int, want a float tensor"),
        (torch.zeros(0, 4), ValueError, r"site 'x': the batch is empty \(shape \(0, 4\)\)"),
        (torch.zeros(4), ValueError, r"site 'x': found shape \(4,\), want \(n, 4\)"),
        (torch.zeros(2, 3), ValueError, r"site 'x': found shape \(2, 3\), want \(n, 4\)"),
    ],
)
def test_data_that_are_no_rows_are_refused(x, error, message):
    two = Composite(VAE(event=4, latent=2, hidden=8), VAE(event=2, latent=2, hidden=8, likelihood="gaussian"))
    with pytest.raises(error, match=message):
        two(x)


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_the_first_stage_finds_noise_and_rank_of_linear_data(noise):
    """gamma is the residual deviation of probabilistic PCA, and as many units are active as the data have rank.

    The data have the covariance W W^T + noise^2 I exactly, with W of rank 2, so that of 4 latents PPCA (Tipping &
    Bishop 1999) uses 2 and leaves the noise.
    """
    torch.manual_seed(0)
    n, d, rank, k = 4000, 8, 2, 4
    white = torch.randn(n, d).double()
    white = white - white.mean(0)
    white = white @ torch.linalg.cholesky(torch.linalg.inv(white.T @ white / n))
    w = torch.randn(d, rank).double()
    x = (white @ torch.linalg.cholesky(w @ w.T + noise**2 * torch.eye(d)).T).float()
    model = VAE(event=d, latent=k, hidden=8, depth=0, likelihood="shared-gaussian")
    guide = MeanField(model, x[:3], encoder="linear", hidden=8, depth=0)
    fit(model, guide, x, steps=3000, batch_size=400, lr=1e-2, warmup=0, progress=False, seed=0)
    assert model.likelihood.log_scale.exp().item() == pytest.approx(noise, rel=0.02)
    with torch.no_grad():
        guide(x)
        means = guide.trace.nodes["z1"]["fn"].base_dist.loc
    # 1 - noise^2 / eigenvalue at the optimum; a unit that is left over goes to zero, where the bound is flat, slowly
    assert (means.var(0) > 0.9).sum() == rank and (means.var(0) < 0.05).sum() == k - rank


@pytest.mark.slow
def test_the_second_stage_has_nothing_to_add_to_gaussian_codes():
    """Of codes that are standard normal its bound is their entropy: the rate has no excess over what it gains.

    The same draws are scored by both, so that the difference is nearly free of their noise: 0.02 nats is for training.
    """
    torch.manual_seed(0)
    moments = torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]).repeat(2000, 1)
    codes = Data(moments, (3,), None, Redrawn(), "codes")
    model = VAE(event=3, latent=3, hidden=8, depth=0, likelihood="shared-gaussian")
    guide = MeanField(model, codes[:3], encoder="linear", hidden=8, depth=0)
    fit(model, guide, codes, steps=2000, batch_size=200, lr=1e-2, warmup=0, progress=False, seed=0)
    z = codes[:]
    bound = elbo(terms(model, guide, (z,), particles=50, nesting=1)).item()
    assert abs(bound - torch.distributions.Normal(0, 1).log_prob(z).sum(-1).mean().item()) < 0.02
