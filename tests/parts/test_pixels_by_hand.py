"""Pixels against numbers worked out by hand: mixtures of logistics, and a whole PixelVAE without its own modules."""

import math

import pytest
import torch
from pyro import poutine
from torch import Tensor

from ppl_models import PixelVAE
from ppl_models.parts.pixels import LogisticMixture, PixelMixture
from tests.helpers.pixels_by_hand import FLOORED, GRID, LOC, LOGITS, MIXING, SCALE, log_mass, numbers, sigmoid

pytestmark = pytest.mark.usefixtures("double")


def test_a_mixture_of_two_channels_by_hand():
    mixing = torch.full((2, 2, 2), 9.0)  # of which the strictly lower part alone is read
    mixing[:, 1, 0] = torch.tensor(MIXING)
    q = LogisticMixture(*(torch.tensor(t) for t in (LOGITS, LOC, SCALE)), mixing, levels=3)
    expected = torch.tensor([log_mass(*x) for x in GRID])
    torch.testing.assert_close(q.log_prob(torch.tensor(GRID)), expected, rtol=1e-12, atol=0)
    assert expected.exp().sum().item() == pytest.approx(1.0)


def test_the_numbers_of_a_mixture_by_hand():
    pixel = PixelMixture(2, levels=3, components=2)
    assert pixel.output == len(numbers()) == 2 * (1 + 4 + 1)
    found = pixel(torch.tensor(numbers())).log_prob(torch.tensor(GRID))
    torch.testing.assert_close(found, torch.tensor([log_mass(*x) for x in GRID]), rtol=1e-12, atol=0)


def test_scales_have_their_floor_at_e_to_the_minus_seven():
    pixel = PixelMixture(1, levels=256, components=1)
    for raw, log_scale in FLOORED.items():
        assert pixel(torch.tensor([0.0, 0.1, raw])).scale.item() == pytest.approx(math.exp(log_scale), rel=1e-12)


def test_three_channels_are_mixed_row_by_row():
    """a_21, a_31, a_32 of each component, one after another."""
    pixel = PixelMixture(3, levels=4, components=2)
    raw = torch.zeros(pixel.output)
    raw[-6:] = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    mixing = pixel(raw).mixing
    for k, first in ((0, 0.1), (1, 0.4)):
        expected = torch.zeros(3, 3)
        expected[1, 0], expected[2, 0], expected[2, 1] = (math.tanh(first + 0.1 * i) for i in range(3))
        torch.testing.assert_close(mixing[k], expected)


def test_draws_of_a_mixture_have_its_probabilities():
    q = PixelMixture(2, levels=3, components=2)(torch.tensor(numbers()))
    draws = q.sample((4000,))
    for x in GRID:
        share, exact = (draws == torch.tensor(x)).all(-1).double().mean().item(), math.exp(log_mass(*x))
        assert abs(share - exact) < 5 * (exact * (1 - exact) / 4000) ** 0.5, x  # five standard errors


def dead(model: PixelVAE) -> None:
    """A decoder without weights, whose numbers are the biases of its last layer."""
    for parameter in model.decoder.parameters():
        torch.nn.init.zeros_(parameter)


def observed(model: PixelVAE, x: Tensor) -> Tensor:
    trace = poutine.trace(model).get_trace(x)
    trace.compute_log_prob()
    return trace.nodes["x"]["log_prob"]


def test_a_pixel_vae_of_given_numbers_by_hand():
    """Two pixels of two channels; a row has all of the first channel before the second one."""
    model = PixelVAE((2, 1, 2), 1, 2, 1, likelihood="logistic:3", components=2)
    dead(model)
    model.decoder.last.bias.data = torch.tensor(numbers())
    x = torch.tensor([[0.0, 0.5, 1.0, 0.5], [1.0, 1.0, 0.0, 0.5]])
    expected = [log_mass(0.0, 1.0) + log_mass(0.5, 0.5), log_mass(1.0, 0.0) + log_mass(1.0, 0.5)]
    torch.testing.assert_close(observed(model, x), torch.tensor(expected), rtol=1e-12, atol=0)
    model = PixelVAE((2, 1, 2), 1, 2, 1, likelihood="gaussian:0.5")
    dead(model)
    model.decoder.last.bias.data = torch.tensor([1.0, 3.0])  # means of the channels
    squares = ((1.0**2 + 0.5**2) + (2.0**2 + 2.5**2)) / (2 * 0.25), (0 + 0 + 3.0**2 + 2.5**2) / (2 * 0.25)
    constant = 4 * math.log(0.5 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(observed(model, x), torch.tensor([-s - constant for s in squares]))


def test_a_pixel_vae_reads_what_is_left_above_and_the_latent_by_hand():
    """One layer of one map and radius 1: h = 2 tanh(b) sigmoid(c), b and c of what is left, of a and of z."""
    model = PixelVAE((1, 2, 2), 1, 1, 1, likelihood="bernoulli", radius=1)
    dead(model)
    (layer,) = model.decoder.layers
    layer.vertical.weight.data[:] = 0.5  # a: half of what is above, left and right of it
    layer.horizontal.weight.data[:] = 0.4
    layer.down.weight.data[:, :, 0, 0] = torch.tensor([[0.3, 0.0], [0.0, 0.6]])
    layer.bias.weight.data[:] = torch.tensor([[0.1], [0.1], [0.2], [0.2]])  # of a, and of b
    layer.out.weight.data[:], layer.out.bias.data[:] = 2.0, 0.05
    model.decoder.inner.weight.data[:], model.decoder.inner.bias.data[:] = 1.5, 0.25
    model.decoder.last.weight.data[:], model.decoder.last.bias.data[:] = -1.0, 0.5
    x = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0]])
    with poutine.trace() as capture:
        model(x)
    nodes = capture.trace.nodes
    expected = []
    for (p, q, r, s), z in zip(x.tolist(), nodes["z1"]["value"][:, 0].tolist(), strict=True):
        left, above, value = (0.0, p, 0.0, r), (0.0, 0.0, p + q, p + q), (p, q, r, s)
        total = 0.0
        for i in range(4):
            a = 0.5 * above[i] + 0.1 * z
            b, c = (0.4 * left[i] + weight * a + 0.2 * z for weight in (0.3, 0.6))
            h = 2 * math.tanh(b) * sigmoid(c) + 0.05
            logit = -max(1.5 * max(h, 0.0) + 0.25, 0.0) + 0.5
            total += math.log(sigmoid(logit if value[i] else -logit))
        expected.append(total)
    found = nodes["x"]["fn"].log_prob(x)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-12, atol=1e-12)
