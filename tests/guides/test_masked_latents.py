"""Masks of latents, of whole events and of single entries: guides that run the model count what it counts."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from guides import BottomUp, Faithful, Infused, Ladder, MeanField, SelfReflective
from ppl_models.inference import terms
from tests.helpers.cases import few

THERE = torch.tensor([[True, True], [True, False], [False, True]])
ROWS = torch.tensor([True, False, True])
EXP = torch.distributions.ExpTransform()
X = torch.tensor([[0.5, -1.0], [2.0, 0.0], [0.0, 0.3]])
NORMAL = dist.Normal(torch.zeros(3, 2), 1.0)
PRIORS = {
    "inside": (lambda: NORMAL.mask(THERE).to_event(1), THERE),
    "outside": (lambda: NORMAL.to_event(1).mask(ROWS), ROWS[:, None]),
    "both": (lambda: NORMAL.mask(THERE).to_event(1).mask(ROWS), THERE & ROWS[:, None]),
    "expanded": (lambda: dist.Normal(0.0, 1.0).expand([3, 2]).mask(THERE).to_event(1), THERE),
    "log normal": (lambda: dist.LogNormal(torch.zeros(3, 2), 1.0).mask(THERE).to_event(1), THERE),
    "transformed": (lambda: dist.TransformedDistribution(NORMAL, [EXP]).to_event(1).mask(ROWS), ROWS[:, None]),
    "within": (lambda: dist.TransformedDistribution(NORMAL.mask(THERE).to_event(1), [EXP]), THERE),
    "gamma": (lambda: dist.Gamma(torch.full((3, 2), 2.0), 1.0).mask(THERE).to_event(1), THERE),
}
POSITIVE = ("log normal", "transformed", "within", "gamma")


def model_of(name: str):
    prior, kept = PRIORS[name]

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            z = z.log() if name in POSITIVE else z
            pyro.sample("x", dist.Normal(z, 0.5).mask(kept.expand(3, 2)).to_event(1), obs=x)

    return model


TOP_DOWN = (MeanField, SelfReflective, Ladder)


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("make", few(TOP_DOWN, lambda make: make is not Ladder))
def test_what_is_masked_out_counts_in_neither(make, name, double):
    """With 4,000 weights of an untrained guide the evidence of what is there, within five standard errors."""
    model, kept = model_of(name), PRIORS[name][1].expand(3, 2)
    x = X.double()
    if (make, name) == (Ladder, "gamma"):
        with pytest.raises(ValueError, match="site 'z' has a Gamma prior"):
            make(model, x)
        return
    guide = make(model, x, hidden=4)
    with torch.no_grad():
        found = terms(model, guide, (x,), particles=4000, nesting=1)
        if name not in ("gamma", "within"):  # whose evidence is another
            weights = found.log_w.exp()
            exact = (dist.Normal(0.0, 1.25**0.5).log_prob(x) * kept).sum(-1).exp()
            assert ((weights.mean(0) - exact).abs() < 5 * weights.std(0) / 4000**0.5 + 1e-12).all()
        ratio = found.log_q["z"] - found.log_p["z"]
        error = ratio.std(0) / 4000**0.5 + 1e-12
        assert ((found.kl["z"].mean(0) - ratio.mean(0)).abs() < 5 * error).all()
    assert (found.kl["z"][:, ~kept.any(-1)] == 0).all()
    if name not in (POSITIVE if make is MeanField else ("gamma",)):  # in closed form, with particles, too
        torch.testing.assert_close(found.kl["z"][0], found.kl["z"][1], rtol=0, atol=0)


@pytest.mark.parametrize("family", ["full", "rank-one", "flow"])
def test_factors_that_couple_entries_want_masks_of_events(family):
    guide = MeanField(model_of("inside"), X, hidden=4, family=family)
    with pytest.raises(ValueError, match="guide MeanField: site 'z' has a mask of single entries .*family='diagonal'"):
        guide(X)
    model = model_of("outside")
    found = terms(model, MeanField(model, X, hidden=4, family=family), (X,))
    assert found.log_q["z"][0, 1] == 0 != found.log_q["z"][0, 0]


@pytest.mark.parametrize("make", [BottomUp, Faithful])
def test_guides_in_an_order_of_their_own_refuse_masks_of_entries(make):
    with pytest.raises(ValueError, match="site 'z' has a mask in the model, which a guide with an order of its own"):
        make(model_of("inside"), X)


def test_infused_latents_with_a_mask():
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", NORMAL.to_event(1).mask(ROWS))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    found = terms(model, Infused(model, X, rate=0.1), (X,))
    assert math.isfinite(found.log_q["z"].sum()) and found.log_q["z"][0, 1] == 0
