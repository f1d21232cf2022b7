"""The two-level PixelVAE: who sees whom in its map, densities, draws, maps as contexts, and what its guides can be."""

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

from guides import BottomUp, MeanField
from ppl_models import HierarchicalPixelVAE, LinearGaussian
from ppl_models.factorization import compare
from ppl_models.inference import evaluate, fit
from ppl_models.parts.flows.densities import FlowDensity
from ppl_models.parts.flows.raster import RasterFlow
from ppl_models.parts.nets import MapNet, PixelCNN


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """In double precision, so that what starts at zero hides nothing."""
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def built(**options: object) -> tuple[HierarchicalPixelVAE, Tensor]:
    """A model of a map (2, 2, 2), and rows."""
    sizes = {"event": (1, 6, 5), "latent": (3, 2), "hidden": 4, "depth": 3, "radius": 1, **options}
    return shaken(HierarchicalPixelVAE(**sizes)), torch.bernoulli(torch.full((4, 30), 0.5, dtype=torch.double))


# The prior of the map


@pytest.mark.parametrize("image", [(1, 3, 4), (2, 4, 3), (3, 1, 5)])
def test_a_position_reads_those_before_it_and_all_of_the_context(image):
    """The Jacobians of the numbers: zero but for earlier positions, whatever the channel, and for the context."""
    channels, height, width = image
    flow = shaken(RasterFlow(image, 2, 6, 4, 2))
    z, c = torch.randn(channels * height * width, dtype=torch.double), torch.randn(2, dtype=torch.double)
    slope, by_context = torch.autograd.functional.jacobian(flow, (z, c))
    reads = (slope != 0).any(1).reshape(channels, height * width, channels, height * width)
    before = torch.ones(height * width, height * width).tril(-1).bool()[None, :, None, :]
    assert torch.equal(reads, before.expand_as(reads))
    assert (by_context != 0).all()


def test_the_density_of_a_map_is_the_product_of_its_conditionals():
    """Each position scored with what comes after it replaced."""
    model, _ = built()
    assert model.map == (2, 2, 2)
    size, z1, z2 = 4, torch.randn(5, 3, dtype=torch.double), torch.randn(5, 8, dtype=torch.double)
    total = torch.zeros(5, dtype=torch.double)
    for i in range(size):
        later = z2.clone().reshape(5, 2, size)
        own = later[:, :, i].clone()
        later[:, :, i:] = 7.0
        m, a = model.prior.flow(later.reshape(5, -1), z1).reshape(5, 2, size, 2)[:, :, i].unbind(-1)
        scale = (-3 * torch.tanh(a / 3)).exp()
        total = total + pyro.distributions.Normal(-m * scale, scale).log_prob(own).sum(-1)
    torch.testing.assert_close(model.prior(z1).log_prob(z2), total)


def test_the_density_of_a_map_integrates_to_one():
    prior = FlowDensity(2, shaken(RasterFlow((1, 1, 2), 1, 4, 2, 1)))
    grid = torch.linspace(-15, 15, 241, dtype=torch.double)
    q = prior(torch.tensor([0.7], dtype=torch.double))
    mass = q.log_prob(torch.cartesian_prod(grid, grid)).exp().sum() * (grid[1] - grid[0]) ** 2
    torch.testing.assert_close(mass, torch.ones((), dtype=torch.double), rtol=0, atol=1e-6)


def test_a_map_is_drawn_position_by_position():
    """A draw is what a loop over positions makes of the same noise, and is differentiable."""
    flow = shaken(RasterFlow((2, 2, 3), 3, 4, 3, 1))
    c, eps = torch.randn(4, 3, dtype=torch.double), torch.randn(4, 12, dtype=torch.double)
    drawn = flow.transforms(c)[0].inv(eps)
    z = torch.zeros(4, 2, 6, dtype=torch.double)
    for i in range(6):
        m, a = flow(z.reshape(4, -1), c).reshape(4, 2, 6, 2)[:, :, i].unbind(-1)
        z[:, :, i] = (eps.reshape(4, 2, 6)[:, :, i] - m) * (-3 * torch.tanh(a / 3)).exp()
    torch.testing.assert_close(drawn, z.reshape(4, -1))
    assert FlowDensity(12, flow).double()(c).has_rsample


def test_it_starts_near_the_standard_normal():
    flow = RasterFlow((4, 3, 3), 8, 16, 4, 1)
    numbers = flow(torch.randn(50, 36), torch.randn(50, 8))
    assert numbers.abs().max() < 0.2


# The decoder


@pytest.mark.parametrize("window", [None, 1])
def test_a_map_of_contexts_is_read_where_it_is_and_an_image_drawn_by_it(window):
    image = (2, 4, 3)
    net = shaken(PixelCNN(image, 4, 5, channels=6, layers=3, radius=1, window=window, maps=True))
    context = torch.randn(3, 60, dtype=torch.double, requires_grad=True)
    x = net.generate(context, lambda params: params[:, :2].tanh())
    again = net(x, context)
    torch.testing.assert_close(again[..., :2].tanh().permute(0, 3, 1, 2), x, rtol=1e-12, atol=1e-12)
    for r, c in ((0, 0), (1, 2), (3, 1)):
        slope = torch.autograd.grad(again[:, r, c].sum(), context, retain_graph=True)[0].reshape(3, 5, 12)
        assert (slope[..., 3 * r + c] != 0).all() and (slope[..., 3 * r + 3 :] == 0).all()
    # a map that is the same everywhere is a vector
    plain = PixelCNN(image, 4, 5, channels=6, layers=3, radius=1, window=window).double()
    plain.load_state_dict({k: v.reshape(plain.state_dict()[k].shape) for k, v in net.state_dict().items()})
    vector = torch.randn(3, 5, dtype=torch.double)
    torch.testing.assert_close(net(x, vector[..., None].expand(3, 5, 12).flatten(1)), plain(x, vector))


def test_a_map_becomes_features_of_every_pixel():
    net = shaken(MapNet((2, 2, 1), 3, [(2, 1), (3, 2), (6, 4)], 4))
    z = torch.randn(5, 2, 4, dtype=torch.double, requires_grad=True)
    out = net(z)
    assert out.shape == (5, 2, 3 * 6 * 4)
    torch.testing.assert_close(out[3, 1], net(z[3, 1]))
    (slope,) = torch.autograd.grad(out[0, 0].reshape(3, 6, 4)[:, 0, 0].sum(), z)
    assert (slope[0, 0] != 0).all() and (slope[1:] == 0).all()


# The model


@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic:8", "gaussian"])
def test_densities(likelihood):
    model, _ = built(event=(3, 3, 5), likelihood=likelihood, components=2)
    x = model(n=4)
    trace = poutine.trace(model).get_trace(x)
    trace.compute_log_prob()
    z1, z2 = (trace.nodes[name]["value"] for name in ("z1", "z2"))
    assert z1.shape == (4, 3) and z2.shape == (4, 2 * 1 * 2) and model.map == (2, 1, 2)
    expected = pyro.distributions.Normal(0.0, 1.0).log_prob(z1).sum(-1)
    torch.testing.assert_close(trace.nodes["z1"]["log_prob"], expected)
    torch.testing.assert_close(trace.nodes["z2"]["log_prob"], model.prior(z1).log_prob(z2))
    images = x.reshape(4, 3, 3, 5)
    pixels = model.pixel(model.decoder(images, model.features(z2)))
    expected = pixels.log_prob(images.permute(0, 2, 3, 1)).sum((1, 2))
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], expected)


@pytest.mark.parametrize(("event", "map"), [((1, 28, 28), (64, 7, 7)), ((3, 32, 32), (64, 8, 8))])
def test_the_sizes_of_the_paper(event, map):
    model = HierarchicalPixelVAE(event, hidden=4, depth=1)
    assert model.map == map and model.top.loc.shape == (512,)


def test_the_published_guide_lacks_an_edge_and_the_faithful_one_does_not():
    """The edge between the two latents, which the linear model of the same graph prices."""
    model, x = built()
    how = {"encoder": "conv", "image": (1, 6, 5), "hidden": 8}
    published = compare(model, MeanField(model, x[:3], **how), x[:3])
    assert published.missing == {"z2": ("z1",)} and published.verdict == "unfaithful"
    assert compare(model, BottomUp(model, x[:3], **how), x[:3]).missing == {}
    torch.manual_seed(0)
    twin = LinearGaussian(event=3, latent=(2, 2))
    assert str(compare(twin, MeanField(twin, torch.randn(3, 3)), torch.randn(3, 3)).model) == str(published.model)
    assert 0.69 < twin.gap("mean-field") < 0.7 and twin.gap("bottom-up") < 1e-5


@pytest.mark.slow
def test_a_diagonal_factor_lacks_what_ties_the_positions_of_the_map():
    """By element; a full one has it."""
    model, x = HierarchicalPixelVAE((1, 5, 5), (1, 1), hidden=4, depth=2), torch.bernoulli(torch.full((3, 25), 0.5))
    found = [compare(model, BottomUp(model, x, hidden=8, family=f), x, level="element") for f in ("diagonal", "full")]
    assert [report.missing.keys() for report in found] == [{"z2.1", "z2.2", "z2.3"}, set()]


def test_it_trains_evaluates_and_generates_in_the_support():
    pyro.set_rng_seed(0)
    x = torch.bernoulli(torch.rand(64, 1).expand(64, 16))
    model = HierarchicalPixelVAE((1, 4, 4), (2, 2), 8, 1, radius=1)
    guide = BottomUp(model, x[:3], encoder="conv", image=(1, 4, 4), hidden=16)
    before = evaluate(model, guide, x, particles=1, progress=False).elbo
    fit(model, guide, x, steps=40, batch_size=32, lr=1e-2, seed=0, progress=False, compile=False)
    assert evaluate(model, guide, x, particles=1, progress=False).elbo > before + 1
    drawn = model(n=7)
    assert drawn.shape == (7, 16) and ((drawn == 0) | (drawn == 1)).all()


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"event": 784}, r"found event=784, want event \(channels, height, width\)"),
        ({"latent": 5}, r"found latent=\(5,\), want two sizes; try \(512, 64\)"),
        ({"latent": (5, 2, 2)}, r"found latent=\(5, 2, 2\), want two sizes"),
        ({"depth": 0}, "found depth=0, want an integer of at least 1"),
    ],
)
def test_wrong_sizes_are_refused(sizes, words):
    with pytest.raises(ValueError, match=f"HierarchicalPixelVAE: {words}"):
        HierarchicalPixelVAE(**sizes)
