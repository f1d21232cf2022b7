"""The self-reflective VAE without feedback or coupling: densities, posteriors, verdicts, numbers of weights."""

from itertools import product

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.functional import softplus

from guides import BottomUp, Faithful, Ladder, MeanField, SelfReflective
from ppl_models import SeReVAE
from ppl_models.factorization import compare
from ppl_models.parts.likelihoods import bounded_exp

SWITCHES = [{"feedback": f, "coupling": c} for f, c in product((True, False), repeat=2)]
every_switch = pytest.mark.parametrize("switches", SWITCHES, ids=lambda found: "-".join(k for k in found if found[k]))


def built(**options: object) -> tuple[SeReVAE, Tensor]:
    """Three layers in double precision, shaken so that what starts at zero hides nothing; and rows."""
    model = SeReVAE(event=6, layers=3, latent=2, hidden=8, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model, torch.bernoulli(torch.full((4, 6), 0.5, dtype=torch.double))


@every_switch
def test_densities(switches):
    """p(z_l) of constants, where codes are not fed back; block l by its code alone, where blocks are not coupled."""
    model, x = built(**switches)
    trace = poutine.trace(model).get_trace(x)
    trace.compute_log_prob()
    blocks, above = model.cut(x), []
    for i in range(3):
        z = trace.nodes[f"z{i + 1}"]["value"]
        given = above if switches["feedback"] else []
        loc, log_scale = model.priors[i](*given).chunk(2, -1)
        c, d, u = model.bijectors[i].net(*given).chunk(3, -1)
        matrix = torch.diag_embed(softplus(d) + 1e-3) + u[..., None] * u[..., None, :]
        eps = torch.linalg.solve(matrix, (z - c)[..., None]).squeeze(-1)
        expected = dist.Normal(loc, bounded_exp(log_scale)).log_prob(eps).sum(-1)
        expected = expected - torch.linalg.slogdet(matrix).logabsdet
        torch.testing.assert_close(trace.nodes[f"z{i + 1}"]["log_prob"], expected)
        logits = model.estimates[i](z)
        if i and switches["coupling"]:
            logits = logits + model.corrections[i - 1](z, blocks[i - 1])
        expected = dist.Bernoulli(logits=logits).log_prob(blocks[i]).sum(-1)
        torch.testing.assert_close(trace.nodes[f"x{i + 1}"]["log_prob"], expected)
        above = [z]
    assert len(model.corrections) == 2 * switches["coupling"]


@every_switch
def test_the_posterior_is_a_product_of_layers_without_feedback(switches):
    """It is one if and only if no second derivative of log p(x, z) mixes two codes."""
    model, x = built(**switches)

    def density(z: Tensor) -> Tensor:
        codes = {f"z{i + 1}": each[None] for i, each in enumerate(z.chunk(3))}
        return poutine.trace(poutine.condition(model, codes)).get_trace(x[:1]).log_prob_sum()

    mixed = torch.autograd.functional.hessian(density, torch.randn(6, dtype=torch.double))
    mixed = mixed.reshape(3, 2, 3, 2).abs().amax((1, 3))
    for i, j in ((0, 1), (1, 2), (0, 2)):
        tied = switches["feedback"] and j == i + 1
        assert (mixed[i, j] > 1e-6) if tied else (mixed[i, j] == 0)


@every_switch
@pytest.mark.parametrize("guide", [MeanField, BottomUp, Ladder, SelfReflective])
def test_verdicts(switches, guide):
    """Mean field is faithful without feedback, as is every other structure, and there reads data that it does not need;
    with feedback it lacks the code before."""
    model, x = built(**switches)
    report = compare(model, guide(model, x[:3], hidden=8), x[:3])
    lacks = guide is MeanField and switches["feedback"]
    assert report.missing == ({"z2": ("z1",), "z3": ("z2",)} if lacks else {})
    assert report.verdict == ("unfaithful" if lacks else "faithful, not minimal, perfect")
    read = {z: [u for u in given if u[0] == "z"] for z, given in report.guide.items()}
    assert any(read.values()) == (switches["feedback"] and not lacks)


@every_switch
def test_the_faithful_guide_reads_the_blocks_that_it_needs(switches):
    model, x = built(**switches)
    report = compare(model, Faithful(model, x[:3], hidden=8), x[:3])
    assert report.verdict == "faithful, minimal, perfect"
    if not switches["feedback"]:
        apart, coupled = "q(z1 | x1) q(z2 | x2) q(z3 | x3)", "q(z1 | x1) q(z2 | x1, x2) q(z3 | x2, x3)"
        assert str(report.guide) == (coupled if switches["coupling"] else apart)


@pytest.mark.parametrize(("guide", "encoder"), [(MeanField, "shared"), (SelfReflective, "separate")])
def test_wider_encoders_make_up_for_the_weights_of_the_feedback(guide, encoder):
    """256 units in the guide of the model with feedback, 262 without: the sizes of the recipe `feedback`."""
    x = torch.zeros(3, 784)

    def weights(hidden: int, **switches: bool) -> int:
        model = SeReVAE(784, layers=10, latent=10, hidden=256, **switches)
        pair = nn.ModuleList([model, guide(model, x, encoder=encoder, hidden=hidden)])
        return sum(parameter.numel() for parameter in pair.parameters())

    assert weights(262, feedback=False) == pytest.approx(weights(256), rel=0.01)
    assert weights(256, feedback=False) < 0.98 * weights(256)
