"""What images are made of in JAX: autoregressive networks and pixels, ladders, infused Gaussians; equal to torch's."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("numpyro")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions
import torch
from numpyro import handlers
from torch import Tensor, nn

from guides import infused as torch_infused
from guides.numpyro.infused import InfusedNormal
from ppl_models.numpyro import PixelVAE
from ppl_models.numpyro.parts import likelihoods, pixels
from ppl_models.numpyro.parts.nets import ladder, layers, pixelcnn
from ppl_models.numpyro.parts.program import is_training, named_parameters, training
from ppl_models.numpyro.weights import like_torch
from ppl_models.parts import likelihoods as torch_likelihoods, pixels as torch_pixels
from ppl_models.parts.nets import ladder as torch_ladder, pixelcnn as torch_pixelcnn
from tests.helpers.cases import few
from tests.helpers.precision import jnps, quick

pytestmark = pytest.mark.usefixtures("wide")

KEY = jax.random.key(0)


def call(function: Callable, *inputs: jax.Array) -> jax.Array:
    return function(*inputs)


def close(found, expected: Tensor, rtol: float = 1e-11, atol: float = 1e-12) -> None:
    expected = expected.detach().numpy()
    assert np.shape(found) == expected.shape
    np.testing.assert_allclose(np.asarray(found), expected, rtol=rtol, atol=atol)


def twins(theirs: nn.Module, ours: eqx.Module) -> tuple[nn.Module, eqx.Module]:
    """Both with the same weights, after a look at their names; what starts at zero does not hide a mistake."""
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    shapes = [(n, tuple(p.shape)) for n, p in theirs.named_parameters()]
    assert [(n, p.shape) for n, p in named_parameters(ours).items()] == shapes
    return theirs, like_torch(ours, theirs)


def same_frequencies(found: np.ndarray, probability: np.ndarray, n: int) -> None:
    """Frequencies of n draws within five standard errors of their probabilities."""
    assert (np.abs(found - probability) < 5 * np.sqrt(probability * (1 - probability) / n) + 1e-12).all()


# Networks


def test_a_kernel_may_be_rectangular_and_without_a_bias():
    theirs, ours = twins(
        nn.Conv2d(3, 4, (2, 5), stride=2, padding=1, bias=False),
        layers.Conv(3, 4, (2, 5), stride=2, padding=1, bias=False, key=KEY),
    )
    x = torch.randn(2, 3, 6, 8)
    close(ours(*jnps(x)), theirs(x))


@pytest.mark.parametrize(
    "options",
    few([{"window": 2}, {"radius": 2}, {"radius": 1, "layers": 1}, {"maps": True}], lambda how: "window" in how),
)
def test_the_pixelcnn_is_torchs(options):
    args, options = ((3, 4, 5), 7, 2), {"channels": 3, "layers": 3, **options}
    theirs, ours = twins(torch_pixelcnn.PixelCNN(*args, **options), pixelcnn.PixelCNN(*args, **options, key=KEY))
    x, context = torch.randn(6, 3, 4, 5), torch.randn(6, 40 if "maps" in options else 2)
    assert ours.output == 7
    close(quick(call)(ours, *jnps(x, context)), theirs(x, context))
    # drawn pixel by pixel: each from the very numbers that a full pass over the finished image has there
    image = ours.generate(*jnps(context), lambda key, params: params[:, :3], KEY)
    close(image, theirs.generate(context, lambda params: params[:, :3]))
    np.testing.assert_allclose(
        quick(call)(ours, image, *jnps(context))[..., :3].transpose(0, 3, 1, 2), image, atol=1e-12
    )


def test_an_image_is_drawn_with_a_key_of_its_own_for_every_pixel():
    net = pixelcnn.PixelCNN((1, 3, 3), 1, 2, 2, 2, radius=1, key=KEY)
    drawn = net.generate(jnp.zeros((4, 2)), lambda key, params: jax.random.normal(key, params.shape), KEY)
    assert len(np.unique(drawn)) == 4 * 9
    with pytest.raises(ValueError, match="PixelCNN: found window=0, want an integer of at least 1"):
        pixelcnn.PixelCNN((1, 3, 3), 1, 2, window=0, key=KEY)


@pytest.mark.parametrize(
    ("name", "args", "options", "shapes"),
    [
        ("PyramidEncoder", ((2, 9, 5), 5, 3), {"depth": 2}, [(2, 3, 90)]),
        ("PyramidEncoder", ((1, 15, 3), 5, 2), {"depth": 0}, [(4, 45)]),
        ("LadderNet", ([2, 3], (2, 15, 3)), {"channels": 2}, [(2, 3, 5)]),
        ("LadderNet", ([2], (2, 5, 6), 3), {"channels": 2, "depth": 2}, [(4, 1, 2), (3, 90)]),
    ],
)
def test_ladders_are_torchs(name, args, options, shapes):
    theirs, ours = twins(
        getattr(torch_ladder, name)(*args, **options), getattr(ladder, name)(*args, **options, key=KEY)
    )
    inputs = [torch.randn(shape) for shape in shapes]
    close(quick(call)(ours, *jnps(*inputs)), theirs(*inputs))


# Images and pixels


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian:0.5", "logistic:4"])
@pytest.mark.slow
def test_an_autoregressive_image_is_torchs(likelihood):
    def pair(parts: object, pixel: object, net: object, key: dict):
        made = parts.likelihood(likelihood)
        made = pixel(2, 4, 3) if "logistic" in likelihood else made
        return net((2, 2, 3), getattr(made, "output", 2), 2, 3, 2, 1, **key), made

    theirs, their_pixel = pair(torch_likelihoods, torch_pixels.PixelMixture, torch_pixelcnn.PixelCNN, {})
    ours, pixel = pair(likelihoods, pixels.PixelMixture, pixelcnn.PixelCNN, {"key": KEY})
    theirs, ours = twins(theirs, ours)
    context, x = torch.randn(5, 2), torch.randint(2, (3, 1, 12)).double()
    expected = torch_pixels.AutoregressiveImage(theirs, context, their_pixel)
    found = pixels.AutoregressiveImage(ours, *jnps(context), pixel)
    # a pytree with the network in it, which jit takes and gives, and gradients go through
    log_prob, slope = quick(jax.value_and_grad(lambda q, x: q.log_prob(x).sum(), allow_int=True))(found, *jnps(x))
    total = expected.log_prob(x).sum()
    np.testing.assert_allclose(log_prob, total.item(), rtol=1e-10)
    total.backward()
    for name, parameter in theirs.named_parameters():
        close(named_parameters(slope.net)[name], parameter.grad, rtol=1e-8, atol=1e-10)
    wide = found.expand((3, 5))
    assert found.batch_shape == (5,) and wide.batch_shape == (3, 5) and found.event_shape == (12,)
    close(quick(lambda q, x: q.log_prob(x))(wide, *jnps(x)), expected.log_prob(x))
    assert found.support.event_dim == 1 and found.support.is_discrete == ("gaussian" not in likelihood)
    assert not found.has_rsample


def test_draws_of_an_image_have_its_probabilities():
    _, net = twins(torch_pixelcnn.PixelCNN((1, 2, 2), 1, 2, 3, 2), pixelcnn.PixelCNN((1, 2, 2), 1, 2, 3, 2, key=KEY))
    q = pixels.AutoregressiveImage(net, jnp.ones(2), likelihoods.Bernoulli())
    every = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=4)))
    n = 20_000
    log_prob, drawn, wide = quick(
        lambda q, key: (q.log_prob(every), q.sample(key, (n,)), q.expand((3, 2)).sample(key))
    )(q, KEY)
    probability = np.exp(log_prob)
    np.testing.assert_allclose(probability.sum(), 1, rtol=1e-12)
    assert wide.shape == (3, 2, 4) and drawn.shape == (n, 4) and drawn.dtype == jnp.float64
    same_frequencies((np.asarray(drawn)[:, None] == np.asarray(every)).all(-1).mean(0), probability, n)
    # a draw is no function of the parameters, whatever transformation is around it
    many = quick(jax.vmap(jax.grad(lambda c, key: pixels.AutoregressiveImage(net, c, q.pixel).sample(key).sum())))
    assert (many(jnp.ones((2, 2)), jax.random.split(KEY)) == 0).all()


@pytest.mark.slow
def test_a_mixture_of_logistics_is_torchs():
    params = torch.randn(5, pixels.PixelMixture(3, 6, 2).output, requires_grad=True)
    theirs, ours = torch_pixels.PixelMixture(3, 6, 2), pixels.PixelMixture(3, 6, 2)
    assert ours.output == theirs.output == 2 * (1 + 6 + 3)
    x = torch.randint(6, (4, 5, 3)) / 5.0
    expected = theirs(params).log_prob(x)
    close(ours(*jnps(params)).log_prob(*jnps(x)), expected)
    expected.sum().backward()
    close(quick(jax.grad(lambda p: ours(p).log_prob(*jnps(x)).sum()))(*jnps(params)), params.grad, rtol=1e-8)
    # a scale no smaller than e^-7
    narrow = torch.full((theirs.output,), -20.0)
    close(ours(*jnps(narrow)).scale, theirs(narrow).scale)
    wide = ours(*jnps(params)).expand((4, 5))
    close(wide.log_prob(*jnps(x)), expected)
    assert wide.batch_shape == (4, 5) and jax.jit(lambda q: q)(wide).levels == 6
    assert wide.support.is_discrete and not wide.has_rsample


@pytest.mark.slow
def test_a_mixture_of_logistics_is_a_distribution_with_the_draws_of_it():
    levels, n = 4, 20_000
    params = jax.random.normal(KEY, (2, pixels.PixelMixture(2, levels, 3).output))
    q = pixels.PixelMixture(2, levels, 3)(params)
    every = jnp.asarray(list(itertools.product(np.arange(levels) / (levels - 1), repeat=2)))
    probability = np.exp(q.log_prob(every[:, None]))
    np.testing.assert_allclose(probability.sum(0), 1, rtol=1e-12)
    drawn = np.asarray(quick(lambda key: q.sample(key, (n,)))(KEY))
    assert drawn.shape == (n, 2, 2)
    found = np.isclose(drawn[:, None], np.asarray(every)[:, None]).all(-1).mean(0)
    same_frequencies(found, probability, n)


def test_images_are_drawn_under_numpyros_handlers():
    model = PixelVAE((1, 2, 2), 2, 3, 2, "logistic:4", components=2, radius=1, key=KEY)
    x = quick(jax.vmap(lambda key: handlers.seed(model, key)(n=4)))(jax.random.split(KEY, 3))
    assert x.shape == (3, 4, 4) and np.isin(np.round(3 * x, 6), range(4)).all() and len(np.unique(x[:, 0], axis=0)) == 3

    def masked(x: jax.Array) -> jax.Array:
        with handlers.seed(rng_seed=0), handlers.mask(mask=jnp.arange(4) > 1), handlers.trace() as trace:
            model(x)
        return trace["x"]["fn"].log_prob(x)

    assert ((quick(masked)(x[0]) == 0) == (np.arange(4) <= 1)).all()


# Likelihoods around a mean


@pytest.mark.parametrize("spec", ["bernoulli", "gaussian", "gaussian:0.5", "unit-gaussian:0.5", "logistic:8"])
def test_likelihoods_around_a_mean_are_torchs(spec):
    theirs, ours = torch_likelihoods.likelihood(spec), likelihoods.likelihood(spec)
    h, log_scale = torch.randn(3, 4), torch.randn(())
    close(ours.squash(*jnps(h)), theirs.squash(h))
    for mean in (theirs.squash(h), torch.tensor([[0.0, 1.0, 0.5]])):
        close(ours.around(*jnps(mean, log_scale)), theirs.around(mean, log_scale))
        close(ours.mean(ours.around(*jnps(mean, log_scale))), theirs.mean(theirs.around(mean, log_scale)))


class Bare(eqx.Module):
    count: int = 1

    def __call__(self, params: jax.Array) -> numpyro.distributions.Distribution:
        return numpyro.distributions.Normal(params, 1.0).to_event(1)

    def mean(self, params: jax.Array) -> jax.Array:
        return params

    def check(self, x: jax.Array, name: str = "x") -> None:
        pass


def test_a_likelihood_that_lacks_what_a_model_needs_is_told():
    assert likelihoods.likelihood(Bare()).count == 1
    with pytest.raises(ValueError, match="Model: likelihood: found a Bare, want .* __call__, mean, check and around"):
        likelihoods.likelihood(Bare(), "Model", ("around",))


# Infused Gaussians


@pytest.mark.parametrize(("rate", "channels"), [(0.0, 1), (0.3, 1), (0.3, 2), (0.5, 4)])
def test_an_infused_normal_is_torchs(rate, channels):
    loc, scale, target = torch.randn(3, 4), torch.rand(3, 4) + 0.2, torch.rand(1, 4)
    theirs = torch_infused.InfusedNormal(loc, scale, target, rate, 0.05, channels)
    ours = InfusedNormal(*jnps(loc, scale, target), rate, 0.05, channels)
    z = torch.cat([torch.randn(2, 3, 4), target.expand(1, 3, 4) + 0.01])
    close(ours.log_prob(*jnps(z)), theirs.log_prob(z))
    close(ours.expand((3, 3)).log_prob(*jnps(z)), theirs.log_prob(z))
    close(jax.jit(lambda q, z: q.log_prob(z))(ours, *jnps(z)), theirs.log_prob(z))
    close(ours.mean, theirs.mean)
    assert ours.has_rsample and ours.batch_shape == (3,) and ours.event_shape == (4,)


def test_infused_draws_are_those_of_two_gaussians():
    n, loc, scale, target = 20_000, jnp.array([0.0, 1.0, 2.0, 3.0]), 0.5, 10.0
    q = InfusedNormal(loc, scale, jnp.full(4, target), 0.25, 0.1, channels=2)
    drawn = np.asarray(q.sample(KEY, (n,)))
    near = drawn > 7
    # the channels of a pixel are one choice, and pixels are two
    assert (near[:, :2] == near[:, 2:]).all() and (near[:, 0] != near[:, 1]).any()
    # each moment within five standard errors
    same_frequencies(near[:, :2].mean(0), np.array(0.25), n)
    for chosen, centers, spread in ((near, np.full(4, target), 0.1), (~near, np.asarray(loc), scale)):
        for i in range(4):
            part = drawn[chosen[:, i], i]
            assert abs(part.mean() - centers[i]) < 5 * spread / len(part) ** 0.5
            assert abs(part.std() / spread - 1) < 5 / (2 * len(part)) ** 0.5
    # reparametrized: an entry moves with the Gaussian that it is from
    slope = jax.jacobian(lambda loc: InfusedNormal(loc, scale, jnp.full(4, target), 0.25, 0.1, 2).sample(KEY))(loc)
    np.testing.assert_array_equal(np.diag(slope), np.asarray(q.sample(KEY)) < 7)


# Modes


def test_training_mode_is_that_of_the_block():
    assert not is_training()
    with training(), pytest.raises(KeyError), training():
        assert is_training()
        raise KeyError
    assert not is_training()
    assert training()(is_training)() and not is_training()
