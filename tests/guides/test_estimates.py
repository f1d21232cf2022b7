"""The estimate from which the base of a self-reflective factor starts: the prior's, or its own."""

import pytest
import torch

from guides import SelfReflective
from ppl_models import SeReVAE
from ppl_models.factorization import compare
from ppl_models.inference import terms

X = torch.eye(6)[:4]


def pair(**how):
    torch.manual_seed(0)
    model = SeReVAE(6, layers=2, latent=2, hidden=8, features="shared")
    return model, SelfReflective(model, X, hidden=8, **how)


@pytest.mark.parametrize("estimate", ["prior", "own"])
def test_the_divergence_moves_the_location_of_a_prior_only_where_the_estimate_is_not_its_own(estimate):
    model, guide = pair(estimate=estimate)
    bias = model.priors[1].bias  # of (mu, raw sigma) of the last layer, whose draw no other divergence reads
    (slope,) = torch.autograd.grad(terms(model, guide, (X,)).kl["z2"].sum(), bias)
    assert (slope[:2].abs() < 1e-6).all() == (estimate == "prior") and (slope[2:] != 0).all()


def test_where_all_numbers_are_zero_it_is_the_prior_or_a_standard_normal():
    for estimate in ("prior", "own"):
        model, guide = pair(estimate=estimate)
        last = guide.factors.q_z1.last
        torch.nn.init.zeros_(last.weight), torch.nn.init.zeros_(last.bias)
        model.priors[0].bias.data = torch.tensor([1.0, -2.0, 0.3, 0.7])
        loc, raw = model.priors[0].bias.detach().chunk(2)
        scale = torch.nn.functional.softplus(raw + 0.5413248546129181) + 1e-3
        price = 0.0 if estimate == "prior" else (scale.log() + (1 + loc**2) / (2 * scale**2) - 0.5).sum()
        torch.testing.assert_close(terms(model, guide, (X,)).kl["z1"], torch.full((1, 4), float(price)))


def test_the_factorization_is_the_same():
    prior, own = (compare(*pair(estimate=estimate), X) for estimate in ("prior", "own"))
    assert str(prior.guide) == str(own.guide) and prior.verdict == own.verdict and prior.faithful


def test_an_unknown_word():
    with pytest.raises(ValueError, match="guide SelfReflective: found estimate='none', want 'prior' or 'own'"):
        pair(estimate="none")
