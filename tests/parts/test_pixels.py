"""Autoregressive images: who sees whom, densities, draws one pixel at a time, mixtures of logistics."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

from guides import MeanField
from ppl_models import PixelVAE
from ppl_models.inference import evaluate, fit
from ppl_models.inference.pyro.feeding.columns import Columns
from ppl_models.inference.pyro.passes.checks import check_values
from ppl_models.parts.distributions import DiscretizedLogistic
from ppl_models.parts.likelihoods import Bernoulli
from ppl_models.parts.nets import PixelCNN
from ppl_models.parts.pixels import AutoregressiveImage, PixelMixture

IMAGES = ((1, 5, 4), (3, 4, 5), (2, 1, 6), (1, 6, 1))


def seen_by(net: PixelCNN, image: tuple[int, int, int]) -> Tensor:
    """(height, width, height, width): whether the output at the first pixel depends on the second one, by autograd."""
    x = torch.randn(2, *image, dtype=torch.double, requires_grad=True)
    y = net(x, torch.randn(2, 3, dtype=torch.double))
    rows = [torch.autograd.grad(y[:, r, c].square().sum(), x, retain_graph=True)[0] for r, c in places(image)]
    return torch.stack([(g.abs().sum((0, 1)) > 0) for g in rows]).reshape(*image[1:], *image[1:])


def places(image: tuple[int, int, int]) -> list[tuple[int, int]]:
    return [(r, c) for r in range(image[1]) for c in range(image[2])]


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize(("layers", "radius"), [(1, 1), (4, 2), (3, 3)])
def test_a_pixel_sees_all_before_it_within_reach_and_nothing_else(image, layers, radius):
    """No blind spot: radius + layers - 1 rows up and columns to either side, but for what is in between on the way."""
    net = PixelCNN(image, 2, 3, channels=6, layers=layers, radius=radius).double()
    seen = seen_by(net, image)
    reach = radius + layers - 1
    for r, c in places(image):
        for i, j in places(image):
            before = (i, j) < (r, c)
            near = r - i <= reach and abs(j - c) <= reach
            assert bool(seen[r, c, i, j]) == (before and near), ((r, c), (i, j))


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("image", IMAGES)
def test_a_window_bounds_what_a_pixel_sees_however_deep(image, window):
    net = PixelCNN(image, 2, 3, channels=6, layers=5, window=window).double()
    seen = seen_by(net, image)
    for r, c in places(image):
        for i, j in places(image):
            near = (i < r and r - i <= window and abs(j - c) <= window) or (i == r and 0 < c - j <= window)
            assert bool(seen[r, c, i, j]) == near


def test_the_context_reaches_every_convolution():
    net = PixelCNN((1, 4, 4), 1, 3, channels=4, layers=3).double()
    context = torch.randn(2, 3, dtype=torch.double)
    net(torch.randn(2, 1, 4, 4, dtype=torch.double), context).square().sum().backward()
    # the last layer's vertical stack is read by its horizontal one alone, before the gate
    assert all(layer.bias.weight.grad.abs().sum(1).bool().any() for layer in net.layers)
    horizontal = [layer.bias.weight.grad[8:] for layer in net.layers]
    assert all(grad.abs().sum(1).bool().all() for grad in horizontal)
    vertical = [layer.bias.weight.grad[:8] for layer in net.layers]
    assert all(grad.abs().sum(1).bool().all() for grad in vertical)


@pytest.mark.parametrize("window", [None, 1])
@pytest.mark.parametrize("image", IMAGES)
def test_an_image_drawn_pixel_by_pixel_is_what_full_passes_would_draw(image, window):
    net = PixelCNN(image, 5, 3, channels=6, layers=4, radius=2, window=window).double()
    context, met = torch.randn(3, 3, dtype=torch.double), []

    def draw(params: Tensor) -> Tensor:
        met.append(params)
        return params[:, : image[0]].tanh()  # a deterministic "draw": every pixel depends on all before it

    x = net.generate(context, draw)
    again = net(x, context)
    torch.testing.assert_close(torch.stack(met, 1).reshape(again.shape), again, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(again[..., : image[0]].tanh().permute(0, 3, 1, 2), x, rtol=1e-12, atol=1e-12)


def test_sizes_that_are_none_are_refused():
    for sizes in ({"radius": 0}, {"window": 0}, {"layers": 0}):
        with pytest.raises(ValueError, match=f"PixelCNN: found {next(iter(sizes))}=0, want an integer of at least 1"):
            PixelCNN((1, 4, 4), 1, 3, **sizes)


# The distribution of an image


def every_image(pixels: int) -> Tensor:
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.double)] * pixels)


def test_probabilities_of_all_images_sum_to_one_and_draws_have_them():
    net = PixelCNN((1, 2, 3), 1, 2, channels=8, layers=3, radius=1).double()
    for parameter in net.parameters():
        parameter.data.mul_(2)  # far from uniform
    p = AutoregressiveImage(net, torch.randn(2, dtype=torch.double), Bernoulli())
    images = every_image(6)
    probability = p.log_prob(images).exp()
    torch.testing.assert_close(probability.sum(), torch.ones((), dtype=torch.double))
    assert probability.max() > 3 / 64
    draws = p.sample((20_000,))
    index = (draws @ 2.0 ** torch.arange(5, -1, -1, dtype=torch.double)).long()
    found = torch.bincount(index, minlength=64) / 20_000
    error = (probability * (1 - probability) / 20_000).sqrt()
    assert ((found - probability).abs() <= 4.5 * error + 1e-9).all()  # 64 numbers at 4.5 standard errors


def test_batches_particles_and_expansion():
    net = PixelCNN((1, 2, 3), 1, 2, channels=4, layers=2).double()
    context = torch.randn(4, 3, 2, dtype=torch.double)
    p = AutoregressiveImage(net, context, Bernoulli())
    assert (p.batch_shape, p.event_shape, p.sample().shape, p.sample((5,)).shape) == (
        (4, 3),
        (6,),
        (4, 3, 6),
        (5, 4, 3, 6),
    )
    x = torch.bernoulli(torch.full((3, 6), 0.5, dtype=torch.double))
    each = torch.stack([AutoregressiveImage(net, c, Bernoulli()).log_prob(x) for c in context])
    torch.testing.assert_close(p.log_prob(x), each)
    wide = AutoregressiveImage(net, context[0, 0], Bernoulli()).expand((3,))
    torch.testing.assert_close(wide.log_prob(x), AutoregressiveImage(net, context[0, 0], Bernoulli()).log_prob(x))
    assert p.support.is_discrete


def test_every_row_is_looked_at_before_a_training_but_not_scored(monkeypatch):
    model = PixelVAE((1, 2, 3), 2, 4, 2)
    x = torch.bernoulli(torch.full((50, 6), 0.5))
    guide = MeanField(model, x[:3], hidden=4)
    passes = []
    monkeypatch.setattr(PixelCNN, "forward", lambda self, *a: passes.append(a))
    check_values(model, guide, Columns(x, "data"), 10, None)
    assert not passes
    x[-1, 2] = 0.5
    with pytest.raises(ValueError, match="found the value 0.5, a Bernoulli likelihood wants 0 or 1"):
        check_values(model, guide, Columns(x, "data"), 10, None)


# Mixtures of logistics


@pytest.mark.parametrize(("channels", "levels"), [(1, 4), (2, 3), (3, 2)])
def test_levels_of_a_pixel_have_probabilities_that_sum_to_one(channels, levels):
    pixel = PixelMixture(channels, levels, components=3).double()
    params = 2 * torch.randn(5, pixel.output, dtype=torch.double)
    p = pixel(params)
    grid = torch.cartesian_prod(*[torch.arange(levels, dtype=torch.double) / (levels - 1)] * channels)
    grid = grid.reshape(-1, channels)
    probability = p.log_prob(grid[:, None].expand(-1, 5, channels)).exp()
    torch.testing.assert_close(probability.sum(0), torch.ones(5, dtype=torch.double))
    draws = p.sample((20_000,))
    for value, exact in zip(grid, probability, strict=True):
        found = (draws == value).all(-1).double().mean(0)
        assert ((found - exact).abs() <= 4.5 * (exact * (1 - exact) / 20_000).sqrt() + 1e-9).all()


def test_one_component_and_channel_is_a_discretized_logistic():
    pixel = PixelMixture(1, 256, components=1).double()
    params = torch.tensor([[0.0, 0.2, -1.0]], dtype=torch.double)  # logit, location, log scale, of [-1, 1]
    x = torch.tensor([[37 / 255]], dtype=torch.double)
    alone = DiscretizedLogistic(torch.tensor(0.6).double(), torch.tensor(0.5 * math.exp(-1)).double(), 256)
    torch.testing.assert_close(pixel(params).log_prob(x), alone.log_prob(x[0]))


def test_a_channel_depends_on_those_before_it_alone():
    pixel = PixelMixture(3, 8, components=2).double()
    params = torch.randn(pixel.output, dtype=torch.double)
    x = torch.tensor([2 / 7, 5 / 7, 3 / 7], dtype=torch.double, requires_grad=True)
    loc = pixel(params)._channels(x).loc
    for c in range(3):
        (slope,) = torch.autograd.grad(loc[:, c].sum(), x, retain_graph=True, allow_unused=True)
        assert (slope[:c] != 0).all() and (slope[c:] == 0).all()


# PixelVAE


def built(likelihood: str, **sizes) -> tuple[PixelVAE, Tensor]:
    torch.manual_seed(0)
    image = (3, 2, 3) if likelihood != "bernoulli" else (1, 3, 4)
    model = PixelVAE(image, 2, 6, 3, likelihood=likelihood, components=2, **sizes).double()
    u = torch.rand(5, math.prod(image), dtype=torch.double)
    x = (u > 0.5).double() if likelihood == "bernoulli" else (u * 7).round() / 7
    return model, x


@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic:8", "gaussian", "gaussian:0.3"])
def test_density_of_a_pixel_vae(likelihood):
    model, x = built(likelihood)
    trace = poutine.trace(model).get_trace(x)
    trace.compute_log_prob()
    z = trace.nodes["z1"]["value"]
    params = model.decoder(x.reshape(-1, *model.image), z)
    pixels = x.reshape(-1, *model.image).permute(0, 2, 3, 1)
    by_hand = model.pixel(params).log_prob(pixels).sum((1, 2))
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], by_hand)
    assert model(n=4).shape == (4, x.shape[1])


def test_a_window_leaves_what_is_far_to_the_latent():
    model, x = built("bernoulli", window=1)
    y = x.clone()
    y[:, 0] = 1 - y[:, 0]  # the first pixel, which the last one cannot see
    z = torch.zeros(5, 2, dtype=torch.double)
    shape = (-1, *model.image)
    a, b = (model.decoder(v.reshape(shape), z)[:, -1, -1] for v in (x, y))
    torch.testing.assert_close(a, b)


def test_a_pixel_vae_trains_evaluates_and_generates_in_the_support():
    pyro.set_rng_seed(0)
    x = torch.bernoulli(torch.rand(64, 1).expand(64, 16))
    model = PixelVAE((1, 4, 4), 2, 8, 2)
    guide = MeanField(model, x[:3], encoder="conv", image=(1, 4, 4), hidden=16)
    before = evaluate(model, guide, x, particles=1, progress=False).elbo
    fit(model, guide, x, steps=60, batch_size=32, lr=1e-2, seed=0, progress=False)
    assert evaluate(model, guide, x, particles=1, progress=False).elbo > before + 1
    drawn = model(n=7)
    assert ((drawn == 0) | (drawn == 1)).all()


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match=r"PixelVAE: found event=784, want event \(channels, height, width\)"):
        PixelVAE(784)
    with pytest.raises(ValueError, match="PixelVAE: found window=0, want an integer of at least 1"):
        PixelVAE((1, 4, 4), window=0)
