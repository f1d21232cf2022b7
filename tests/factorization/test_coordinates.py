"""Verdicts by element: in the coordinates of the sites, and of the bases that priors push through a transform."""

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from torch import Tensor, nn

from guides import SelfReflective
from ppl_models import SeReVAE
from ppl_models.factorization import compare

MIX = torch.tensor([[1.0, 0.0], [-0.6, 0.8]])
WEIGHT = torch.tensor([[0.7, -0.4], [0.2, 1.1], [0.5, 0.5]])
SHARED = T.LowerCholeskyAffine(torch.tensor([0.3, -0.2]), MIX)


def linear(x: Tensor) -> None:
    """z = MIX e + c, x around WEIGHT z."""
    with pyro.plate("data", len(x)):
        base = dist.Normal(torch.zeros(2), torch.tensor([1.0, 1.5])).to_event(1)
        z = pyro.sample("z", dist.TransformedDistribution(base, [SHARED]))
        pyro.sample("x", dist.Normal(z @ WEIGHT.to(z).mT, 1.0).to_event(1), obs=x)


def posterior(mix: Tensor) -> Tensor:
    """The covariance of what `mix` makes z of, given x."""
    to_base = torch.linalg.inv(MIX)
    precision = to_base.mT @ torch.tensor([1.0, 1.5]).pow(-2).diag() @ to_base + WEIGHT.mT @ WEIGHT
    return torch.linalg.inv(mix.mT @ precision @ mix)


def lost(covariance: Tensor) -> float:
    """What a diagonal guide loses, min E KL(p || q)."""
    return float(covariance.diagonal().log().sum() - covariance.logdet()) / 2


def guide_of(family: str, shares: bool):
    encoder, below = nn.Linear(3, 4), nn.Linear(3, 1)

    def guide(x: Tensor) -> None:
        loc, log_scale = encoder(x).chunk(2, -1)
        q = dist.Normal(loc, log_scale.exp()).to_event(1)
        if family == "full":
            lower = torch.tensor([[0.0, 0.0], [1.0, 0.0]]).to(loc)
            q = dist.MultivariateNormal(loc, scale_tril=log_scale.exp().diag_embed() + below(x)[..., None] * lower)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(q, [SHARED]) if shares else q)

    return guide


@pytest.mark.parametrize(
    ("family", "shares", "missing", "price"),
    [
        ("diagonal", True, {"base(z).1": ("base(z).0",)}, lost(posterior(MIX))),
        ("diagonal", False, {"z.1": ("z.0",)}, lost(posterior(torch.eye(2)))),
        ("full", True, {}, 0.0),
        ("full", False, {}, 0.0),
    ],
)
def test_the_base_of_a_shared_transform_is_judged_and_priced(family, shares, missing, price):
    report = compare(linear, guide_of(family, shares), torch.randn(3, 3), level="element")
    text = str(report)
    assert report.missing == missing, text
    assert (report.faithful, report.minimal, report.perfect) == (not missing,) * 3, text
    assert report.gap.forward == pytest.approx(price, abs=1e-6)
    assert [row.price for row in report.rows if row.missing] == ([pytest.approx(price, abs=1e-6)] if missing else [])
    assert {row.site for row in report.rows} == {"z.0", "z.1", "base(z).0", "base(z).1"}
    assert "the priors of z push a base through a transform" in text


def test_the_price_of_elements_is_that_of_a_diagonal_family():
    """Without transforms the entries are those of the sites, and the report says so."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ WEIGHT.to(z).mT, 1.0).to_event(1), obs=x)

    report = compare(model, guide_of("diagonal", False), torch.randn(3, 3), level="element")
    covariance = torch.linalg.inv(torch.eye(2) + WEIGHT.mT @ WEIGHT)
    assert report.gap.forward == pytest.approx(lost(covariance), abs=1e-6)
    assert report.missing == {"z.1": ("z.0",)} and "entries are those of the sites' values" in str(report)


@pytest.mark.parametrize("family", ["diagonal", "full"])
def test_the_self_reflective_guide_asserts_what_its_base_asserts(family):
    torch.manual_seed(3)  # a seed whose small networks have dead units
    model, x = SeReVAE(event=4, layers=2, latent=2, hidden=8), torch.eye(4)[:3]
    report = compare(model, SelfReflective(model, x, hidden=8, family=family), x, level="element")
    if family == "full":
        assert (report.faithful, report.minimal, report.perfect) == (True, True, True), str(report)
    else:
        assert report.perfect is False and report.faithful is False, str(report)
        assert report.missing == {f"base(z{i}).1": (f"base(z{i}).0",) for i in (1, 2)}
    assert report.to_json() and report.svg()


def test_a_transform_of_single_entries_leaves_the_coordinates():
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal(x, 1.0).to_event(1))

    report = compare(model, guide, torch.randn(3, 2), level="element")
    assert [row.site for row in report.rows] == ["z.0", "z.1"] and report.perfect, str(report)
