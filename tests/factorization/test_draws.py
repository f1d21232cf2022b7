"""What a guide draws must have the shape and the support that its model gives it: `compare` refuses what Pyro does."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms as T
from pyro.infer import Trace_ELBO

from ppl_models.factorization import compare, factorization

X = torch.tensor([0.3, -1.0, 2.0])


def gaussian(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)


def both(x):
    return torch.stack([x, x.tanh()], -1)


def in_plate(make, **options):
    def guide(x):
        with pyro.plate("data", len(x), **options):
            pyro.sample("z", make(x))

    return guide


def without(make):
    return lambda x: pyro.sample("z", make(x))


SHAPES = {
    "as the model": (in_plate(lambda x: dist.Normal(both(x), 1.0).to_event(1)), ""),
    "by broadcasting": (in_plate(lambda x: dist.Normal(both(x)[None], 1.0).to_event(1)), ""),
    "another event": (
        in_plate(lambda x: dist.Normal(x[:, None].expand(-1, 3), 1.0).to_event(1)),
        r"'z' with the event shape \(3,\), want \(2,\)",
    ),
    "no event": (
        in_plate(lambda x: dist.Normal(both(x)[:, None], 1.0), dim=-2),
        r"'z' with the event shape \(\), want \(2,\).*to_event\(1\)",
    ),
    "another dim": (
        in_plate(lambda x: dist.Normal(both(x)[:, None], 1.0).to_event(1), dim=-2),
        r"'z' with the batch shape \(3, 1\), want \(3,\).*'data' at dim -1",
    ),
    "no plate": (
        without(lambda x: dist.Normal(both(x), 1.0).to_event(1)),
        r"'z' as a batch of shape \(3,\) in no plate at dim -1, want the plate 'data'",
    ),
}


def refused(model, guide, x) -> bool:
    """Whether Pyro refuses a pair, in one of many losses."""
    with pyro.get_param_store().scope(), pyro.validation_enabled(True):
        try:
            Trace_ELBO(num_particles=64).loss(model, guide, x)
        except ValueError:
            return True
    return False


@pytest.mark.parametrize("name", SHAPES)
def test_another_shape_is_refused_where_pyro_refuses_it(name):
    guide, words = SHAPES[name]
    assert refused(gaussian, guide, X) == bool(words)
    if not words:
        assert compare(gaussian, guide, X).faithful is True
        return
    with pytest.raises(ValueError, match=words):
        compare(gaussian, guide, X)
    guide.model = gaussian
    with pytest.raises(ValueError, match=words):
        factorization(guide, X)


@pytest.mark.parametrize("level", ["site", "element"])
def test_one_draw_for_all_copies_is_never_exact(level):
    guide = without(lambda x: dist.Normal(both(x).sum(0), 1.0).to_event(1))
    report = compare(gaussian, guide, X, level=level)
    assert (report.faithful, report.minimal, report.perfect) == (False, False, False), str(report)
    if level == "site":
        assert report.rows[0].once == ("data",)
        assert "z" in str(report) and "drawn once for all copies in the plate 'data'" in str(report)


def test_one_draw_of_a_latent_that_no_data_inform():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    assert compare(model, without(lambda x: dist.Normal(torch.zeros(2), 1.0).to_event(1)), X).faithful is False


def scaled_beta(x):
    return dist.TransformedDistribution(dist.Beta(x.exp(), 1.0), [T.AffineTransform(0, 5)])


def positive(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Gamma(2.0, 2.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def counted(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.ones(3)))
        pyro.sample("x", dist.Normal(z.to(x.dtype), 1.0), obs=x)


def below(x):
    """The support of z is that of another draw."""
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Gamma(2.0, 2.0))
        z = pyro.sample("z", dist.Uniform(0.0 * a, a))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def half(share):
    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.LogNormal(x + 3.0, 1.0))
            pyro.sample("z", dist.Uniform(0.0 * a, share * a * x.sigmoid()))

    return guide


def logits(x, states):
    return x[:, None] * torch.arange(states)


SUPPORTS = {
    "a log-normal for a gamma": (positive, in_plate(lambda x: dist.LogNormal(x, 1.0)), True),
    "a beta for a gamma": (positive, in_plate(lambda x: dist.Beta(x.exp(), 1.0)), True),
    "a logistic transform for a gamma": (
        *(positive, in_plate(lambda x: dist.TransformedDistribution(dist.Normal(x, 1.0), [T.SigmoidTransform()]))),
        True,
    ),
    "a scaled beta for a gamma": (positive, in_plate(scaled_beta), True),
    "a point for a gamma": (positive, in_plate(lambda x: dist.Delta(x.exp())), None),
    "a normal for a gamma": (positive, in_plate(lambda x: dist.Normal(x, 1.0)), False),
    "a negative point for a gamma": (positive, in_plate(lambda x: dist.Delta(-x.exp())), False),
    "a Bernoulli for three states": (counted, in_plate(lambda x: dist.Bernoulli(logits=x)), True),
    "five states for three": (counted, in_plate(lambda x: dist.Categorical(logits=logits(x, 5))), False),
    "a normal for three states": (counted, in_plate(lambda x: dist.Normal(x, 3.0)), False),
    "a support that hangs on a draw": (below, half(1.0), True),
    "and one that is left": (below, half(5.0), False),
}


@pytest.mark.parametrize("name", SUPPORTS)
def test_draws_outside_of_the_support_are_refused_where_pyro_refuses_them(name):
    model, guide, verdict = SUPPORTS[name]
    assert refused(model, guide, X) is (verdict is False)
    if verdict is not False:
        assert compare(model, guide, X).faithful is verdict
        return
    with pytest.raises(
        ValueError, match="the guide draws the site 'z' from a .* outside of the support of the model's"
    ):
        compare(model, guide, X)


@pytest.mark.parametrize("family", [lambda x: dist.HalfNormal(x.exp()), lambda x: dist.Uniform(x - 1.0, x + 1.0)])
def test_a_guide_on_a_part_of_the_line(family):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    assert not refused(model, in_plate(family), X)
    assert compare(model, in_plate(family), X).faithful is True


def test_a_guide_of_another_model_is_told_apart():
    from guides import MeanField
    from ppl_models import VAE

    x = torch.eye(4)[:3]
    small, large = VAE(4, latent=2, hidden=4), VAE(4, latent=3, hidden=4)
    with pytest.raises(ValueError, match=r"'z1' with the event shape \(3,\), want \(2,\), as in the model; build"):
        compare(small, MeanField(large, x, hidden=4), x)
