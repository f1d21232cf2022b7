"""`Terms` cost what is read of them, and the short ways to densities give the numbers of the long ones."""

import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from guides import Ladder
from ppl_models import HierarchicalVAE
from ppl_models.inference.objectives.bounds import elbo
from ppl_models.inference.pyro.passes.lazy import Late
from ppl_models.inference.pyro.passes.terms import plate_nesting, terms
from ppl_models.inference.pyro.sites.divergences import divergence, log_density
from ppl_models.parts.bijectors import RankOneAffine
from ppl_models.parts.distributions import diagonal_normal


def numbers(*shape: int, grad: bool, repeated: bool) -> torch.Tensor:
    found = torch.randn(shape).requires_grad_(grad)
    return found.expand(7, *shape) if repeated else found


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("repeated", [False, True])
def test_densities_are_those_of_the_distributions(grad, repeated):
    torch.manual_seed(0)
    loc, scale, logits = (numbers(5, 3, grad=grad, repeated=repeated) for _ in range(3))
    with pyro.validation_enabled(False):
        normal = dist.Normal(loc, scale.exp()).to_event(1)
        for fn in (
            normal,
            dist.Normal(loc, scale.exp()),
            dist.Normal(loc, scale.exp()).to_event(2),
            dist.Bernoulli(logits=logits).to_event(1),
            dist.Bernoulli(probs=logits.sigmoid()).to_event(1),
            dist.TransformedDistribution(normal, [RankOneAffine(loc, scale.exp(), logits)]),
        ):
            value = fn.sample()
            assert torch.equal(log_density(fn, value), fn.log_prob(value))
            rows = value[0] if repeated else value
            assert torch.equal(log_density(fn, rows), fn.log_prob(rows))  # one value for all particles
            many = value.expand(2, *value.shape)
            assert torch.equal(log_density(fn, many), fn.log_prob(many))


def test_a_validated_density_still_checks_its_value():
    fn = dist.Bernoulli(logits=torch.zeros(2, 3), validate_args=True).to_event(1)
    with pytest.raises(ValueError, match="within the support"):
        log_density(fn, torch.full((2, 3), 0.5))


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("repeated", [False, True])
def test_divergences_are_those_of_torch(grad, repeated):
    torch.manual_seed(0)
    q, p = (
        dist.Normal(*(numbers(5, 3, grad=grad, repeated=repeated).sigmoid() for _ in range(2))).to_event(1)
        for _ in "qp"
    )
    standard = dist.Normal(torch.zeros(3), torch.ones(3)).expand([5, 3]).to_event(1)
    shared = RankOneAffine(torch.zeros(3), torch.ones(3), torch.ones(3))
    over = [dist.TransformedDistribution(base, [shared]) for base in (q, p)]
    for a, b in ((q, p), (q, standard), over):
        sites = ({"fn": fn, "scale": 1.0, "mask": None} for fn in (a, b))
        found = divergence(*sites)
        assert torch.equal(found, kl_divergence(a, b))


@pytest.mark.parametrize("validate", [False, True])
def test_a_diagonal_normal_is_a_normal(validate):
    with pyro.validation_enabled(validate):
        loc, scale = torch.randn(5, 3), torch.rand(5, 3) + 1
        short, long = diagonal_normal(loc, scale), dist.Normal(loc, scale).to_event(1)
        assert (short.batch_shape, short.event_shape) == (long.batch_shape, long.event_shape)
        assert isinstance(short, type(long)) and short._validate_args is long._validate_args is validate
        assert torch.equal(short.log_prob(loc), long.log_prob(loc))
        assert short.expand([2, 5]).batch_shape == (2, 5) and short.expand([5]).batch_shape == (5,)
        assert diagonal_normal(loc, torch.ones(3)).base_dist.scale.shape == (5, 3)
        if validate:
            with pytest.raises(ValueError, match="scale"):
                diagonal_normal(loc, -scale)


def test_late_tensors_are_computed_once_and_as_at_the_start():
    asked, weight = [], torch.ones(2, requires_grad=True)

    def made():
        asked.append(1)
        return 2 * weight

    with torch.no_grad():
        late = Late({"z": made})
    assert list(late) == ["z"] and len(late) == 1 and "z" in late and not asked
    assert late["z"] is late["z"] and len(asked) == 1 and not late["z"].requires_grad


def test_an_objective_of_closed_forms_asks_for_no_density_of_a_latent(monkeypatch):
    asked = []

    def counted(fn, value):
        asked.append(fn)
        return log_density(fn, value)

    monkeypatch.setattr(sys.modules[terms.__module__], "log_density", counted)
    x = torch.rand(5, 4).round()
    model = HierarchicalVAE(4, (2, 2), hidden=8)
    guide = Ladder(model, x, hidden=8)
    found = terms(model, guide, (x,))
    elbo(found)
    assert len(asked) == 1  # x alone
    assert found.log_w.shape == (1, 5) and len(asked) == 5


@pytest.mark.parametrize("asks", [terms, plate_nesting])
def test_arguments_that_a_program_does_not_take_are_named(asks):
    def model(x):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    for guide, args, kwargs, words in (
        (model, range(3), {}, "found 3 columns, want one for each argument of the model model: x;"),
        (model, (torch.ones(()),), {"a": 1}, "found 1 column, and a, want one for each argument of the model"),
        (lambda: None, (torch.ones(()),), {}, "want one for each argument of the guide <lambda>: none"),
    ):
        with pytest.raises(ValueError, match=f"{asks.__name__}: .*{words}"):
            asks(model, guide, args, kwargs)
