"""The semi-supervised VAE: its density by hand, labels of some rows, and the objective that they add to."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

from guides import Faithful, MeanField, SelfReflective
from ppl_models import VAE, SemiSupervisedVAE
from ppl_models.inference import elbo, evaluate, fit, semi_supervised, terms
from ppl_models.inference.pyro.passes.messengers import Substitute, UntilDrawn

SIZES = {"event": 6, "latent": 2, "classes": 3, "hidden": 8}
LABELS = torch.tensor([0, 2, -1, -1])


def rows(n: int = 4) -> Tensor:
    return torch.bernoulli(torch.full((n, 6), 0.5))


def built(structure: type = SelfReflective, **options: object) -> tuple:
    model, x = SemiSupervisedVAE(**SIZES), rows()
    return model, structure(model, x, LABELS, evidence=("x",), hidden=8, **options), x


def test_density(double):
    """Of a row with a label log p(x, z | y), of one without log p(x, y, z) with p(y) = 1/3."""
    model, x = SemiSupervisedVAE(**SIZES), rows().double()
    y, z = torch.tensor([0, 2, 1, 0]), torch.randn(4, 2)
    with Substitute({"y": y, "z1": z}):
        found = terms(model, MeanField(model, x, hidden=4), (x, LABELS))
    logits = model.decoder(z, torch.eye(3)[y])
    torch.testing.assert_close(found.log_likelihood["x"][0], Bernoulli(logits=logits).log_prob(x).sum(-1))
    torch.testing.assert_close(found.log_p["z1"][0], Normal(0.0, 1.0).log_prob(z).sum(-1))
    expected = torch.tensor([1.0, 1.0, 1 / 3, 1 / 3]).log()
    torch.testing.assert_close(found.log_p["y"][0], expected, atol=1e-9, rtol=0)


def test_labels_are_taken_for_known_and_never_read(double):
    model, q, x = built()
    x = x.double()
    nodes = UntilDrawn(["y"]).run(q, (x, LABELS))
    masses = nodes["y"]["fn"].probs
    torch.testing.assert_close(masses[:2], torch.eye(3)[LABELS[:2]])
    free = UntilDrawn(["y"]).run(q, (x, torch.full_like(LABELS, -1)))["y"]["fn"]
    torch.testing.assert_close(masses[2:], free.probs[2:])
    found = terms(model, q, (x, LABELS), nesting=1, states=True)
    log_support = found.log_support["y"][0]
    torch.testing.assert_close(log_support[:2], free.logits[[0, 1], LABELS[:2]])
    assert (log_support[2:] == 0).all()
    bound = semi_supervised(found, alpha=3.0)
    torch.testing.assert_close(bound, elbo(found) + 3.0 * log_support.sum() / 4)
    trained = torch.autograd.grad(found.log_support["y"].sum(), [*q.factors.q_y.parameters()], retain_graph=True)
    assert any(slope.abs().sum() > 0 for slope in trained)


def test_few_labels_name_the_clusters():
    """Three clusters, one label of each: the labels spread to the others."""
    torch.manual_seed(0)
    centres = torch.tensor([[1.0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]])
    y = torch.arange(60) % 3
    x = torch.bernoulli(0.9 * centres[y] + 0.05)
    labels = torch.where(torch.arange(60) < 6, y, -1)
    model = SemiSupervisedVAE(**SIZES)
    q = SelfReflective(model, x, labels, evidence=("x",), hidden=8)
    fit(
        model, q, (x, labels), steps=150, lr=1e-2, objective=partial(semi_supervised, alpha=2.0), progress=False, seed=0
    )
    factor = UntilDrawn(["y"]).run(q, (x, torch.full_like(labels, -1)))["y"]["fn"]
    assert (factor.logits.argmax(-1) != y).float().mean() < 0.15
    found = evaluate(model, q, (x, torch.full_like(labels, -1)), particles=20, progress=False)
    assert found.nll < 4.2  # of coins log 2 each, 6 log 2 = 4.16


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        (torch.tensor([0, 1, 3, 0]), ValueError, "labels: found 3, want 0 to 2, or -1"),
        (torch.tensor([0, 1, -2, 0]), ValueError, "labels: found -2, want 0 to 2"),
        (torch.tensor([0, 1]), ValueError, r"labels: found shape \(2,\), want \(4,\)"),
        (torch.zeros(4), TypeError, "labels: found dtype torch.float32, want whole numbers"),
        ([0, 1, 2, 0], TypeError, "labels: found a list, want a tensor of whole numbers"),
    ],
)
def test_other_labels_are_refused(labels, error, text):
    with pytest.raises(error, match=text):
        SemiSupervisedVAE(**SIZES)(rows(), labels)


def test_the_objective_wants_states_that_are_left_out():
    x = rows()
    for model, q in (built(Faithful)[:2], (VAE(6, 2, 4), None)):
        q = MeanField(model, x, hidden=4) if q is None else q
        with pytest.raises(ValueError, match="semi_supervised: found no discrete latent whose prior leaves states out"):
            semi_supervised(terms(model, q, (x,)), alpha=1.0)
