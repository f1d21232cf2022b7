"""Distributions and likelihoods: closed forms, sums that must be one, and the errors for data of the wrong kind."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from ppl_models.parts import DiscretizedLogistic, RankOneNormal, check_data, likelihood
from ppl_models.parts.distributions import StandardNormal, diagonal_moments
from ppl_models.parts.likelihoods import bounded_exp, check_count


def rank_one(seed: int, n: int = 4, batch: tuple[int, ...] = (3,), size: float = 1.0) -> RankOneNormal:
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.double}
    return RankOneNormal(
        torch.randn(*batch, n, **draw), 0.2 + 3 * torch.rand(*batch, n, **draw), size * torch.randn(*batch, n, **draw)
    )


def full(q: RankOneNormal) -> MultivariateNormal:
    """The same Gaussian from its precision, without either lemma."""
    return MultivariateNormal(
        q.loc, precision_matrix=torch.diag_embed(q.diagonal) + q.vector.unsqueeze(-1) * q.vector.unsqueeze(-2)
    )


def diagonal(seed: int, n: int = 4, batch: tuple[int, ...] = (3,)) -> Independent:
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.double}
    return Independent(Normal(torch.randn(*batch, n, **draw), 0.2 + torch.rand(*batch, n, **draw)), 1)


def double_of(q: RankOneNormal) -> RankOneNormal:
    return RankOneNormal(q.loc, 2 * q.diagonal, q.vector)


def monte_carlo(q, p, draws: int = 40_000) -> tuple[Tensor, Tensor]:
    """KL(q || p) from samples, and its standard error."""
    z = q.sample((draws,))
    ratio = q.log_prob(z) - p.log_prob(z)
    return ratio.mean(0), ratio.std(0) / math.sqrt(draws)


def test_standard_normal_follows_its_module():
    prior = StandardNormal(3)
    assert isinstance(prior(), dist.Independent) and prior().event_shape == (3,) and prior().batch_shape == ()
    x = torch.randn(5, 3)
    torch.testing.assert_close(prior().log_prob(x), -0.5 * (x.square() + math.log(2 * math.pi)).sum(-1))
    assert prior.double()().sample().dtype == torch.double
    assert not prior.state_dict() and not list(prior.parameters())
    with pyro.validation_enabled(False):
        assert prior.to("meta")().mean.device.type == "meta"


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 7), size=st.sampled_from([0.0, 1e-6, 0.3, 1.0, 10.0, 100.0]))
def test_rank_one_normal_is_the_multivariate_normal_of_its_precision(seed, n, size):
    q = rank_one(seed, n, size=size)
    exact = full(q)
    z = exact.mean + torch.randn(3, n, dtype=torch.double, generator=torch.Generator().manual_seed(seed))
    precision = {"rtol": 1e-9, "atol": 1e-9 * (1 + size**2)}
    torch.testing.assert_close(q.log_prob(z), exact.log_prob(z), **precision)
    torch.testing.assert_close(q.entropy(), exact.entropy(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(q.covariance_matrix, exact.covariance_matrix, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(q.variance, exact.variance, rtol=1e-8, atol=1e-12)
    assert torch.equal(q.mean, q.loc) and (q.variance > 0).all()


@pytest.mark.parametrize("size", [0.0, 0.5, 1.0, 30.0])
def test_rank_one_draws_have_the_covariance(size):
    """R R^T = C exactly, with R read off the draws as a linear map of the noise."""
    q = rank_one(1, 4, (), size)
    torch.manual_seed(0)
    noise = torch.randn(50, 4, dtype=torch.double)
    torch.manual_seed(0)
    draws = q.rsample((50,)) - q.loc
    root = torch.linalg.lstsq(noise, draws).solution.mT
    torch.testing.assert_close(root @ noise.mT, draws.mT)
    torch.testing.assert_close(root @ root.mT, full(q).covariance_matrix, rtol=1e-9, atol=1e-12)


def test_rank_one_expand_and_broadcast():
    q = rank_one(2)
    wide = q.expand((5, 3))
    assert wide.batch_shape == (5, 3) and wide.event_shape == (4,)
    assert wide.rsample().shape == (5, 3, 4) and wide.rsample((2,)).shape == (2, 5, 3, 4)
    z = torch.randn(5, 3, 4, dtype=torch.double)
    assert torch.equal(wide.log_prob(z), q.log_prob(z))
    assert torch.equal(wide.entropy(), q.entropy().expand(5, 3))
    # one vector for a batch of means
    shared = RankOneNormal(torch.zeros(6, 4), torch.ones(4), torch.ones(4))
    assert shared.batch_shape == (6,) and shared.sample().shape == (6, 4)
    # in a plate, with validation on
    with pyro.plate("data", 6), pyro.plate("particles", 2, dim=-2):
        assert pyro.sample("z", RankOneNormal(torch.zeros(4), torch.ones(4), torch.ones(4))).shape == (2, 6, 4)
    with pytest.raises(ValueError, match="diagonal"):
        RankOneNormal(torch.zeros(4), -torch.ones(4), torch.ones(4), validate_args=True)
    with pytest.raises(ValueError, match="support"):
        q.log_prob(torch.full((3, 4), math.nan).double())


def test_rank_one_gradients_are_finite_at_zero_and_right_elsewhere():
    loc, d, u = torch.zeros(3, 4), torch.ones(3, 4), torch.zeros(3, 4)
    for parameter in (loc, d, u):
        parameter.requires_grad_()
    q = RankOneNormal(loc, d, u)
    z = q.rsample((5,))
    prior = Independent(Normal(torch.zeros(4), torch.ones(4)), 1)
    (q.log_prob(z).sum() + z.square().sum() + q.entropy().sum() + kl_divergence(q, prior).sum()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in (loc, d, u))

    p = rank_one(4, 3, (2,))

    def everything(loc, d, u):
        q = RankOneNormal(loc, d, u, validate_args=False)
        torch.manual_seed(0)
        return q.rsample(), q.log_prob(torch.ones(2, 3).double()), q.entropy(), q.variance, kl_divergence(q, p)

    q = rank_one(3, 3, (2,))
    assert torch.autograd.gradcheck(everything, [t.requires_grad_() for t in (q.loc, q.diagonal, q.vector)])


@pytest.mark.parametrize("size", [1.0, 1e3, 1e5])
def test_rank_one_in_float32_survives_a_large_vector(size):
    """The direction u has the variance 1 / (d + u^2): a difference of nearly equal numbers, if written naively."""
    for n in (1, 4):
        exact = rank_one(5, n, size=size)
        q = RankOneNormal(exact.loc.float(), exact.diagonal.float(), exact.vector.float())
        assert (q.variance > 0).all() and torch.isfinite(q.entropy()).all()
        torch.testing.assert_close(q.entropy().double(), exact.entropy(), rtol=1e-4, atol=1e-4)
        value = kl_divergence(q, double_of(q))
        assert torch.isfinite(value).all() and (value > -0.05).all()  # true values: 0.1 to 0.6
        torch.testing.assert_close(value.double(), kl_divergence(exact, double_of(exact)), rtol=0, atol=0.05)
        torch.testing.assert_close(kl_divergence(q, q), torch.zeros(3), rtol=0, atol=0.05)
        draws = q.rsample((2000,))
        assert torch.isfinite(draws).all() and torch.isfinite(q.log_prob(draws)).all()
    one = RankOneNormal(torch.zeros(1), torch.ones(1), torch.full((1,), size))
    torch.testing.assert_close(one.variance, torch.tensor([1 / (1 + size**2)]))


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 6), size=st.sampled_from([0.0, 0.5, 3.0, 30.0]))
def test_divergences_equal_those_of_multivariate_normals(seed, n, size):
    q, p, d = rank_one(seed, n, size=size), rank_one(seed + 1, n, size=size), diagonal(seed + 2, n)
    exact_d = MultivariateNormal(d.mean, torch.diag_embed(d.variance))
    tolerance = {"rtol": 1e-8, "atol": 1e-8}
    torch.testing.assert_close(kl_divergence(q, d), kl_divergence(full(q), exact_d), **tolerance)
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(full(q), full(p)), **tolerance)
    torch.testing.assert_close(kl_divergence(full(q), d), kl_divergence(full(q), exact_d), **tolerance)
    torch.testing.assert_close(kl_divergence(q, q), torch.zeros(3).double(), rtol=0, atol=1e-9)


def test_divergences_agree_with_samples_and_broadcast():
    """Within 4 standard errors of 40,000 draws, for three data and three pairs."""
    q, p, d = rank_one(7), rank_one(8), diagonal(9)
    for one, two in ((q, d), (q, p), (full(q), d)):
        mean, error = monte_carlo(one, two)
        assert ((kl_divergence(one, two) - mean).abs() < 4 * error).all()
    prior = Independent(Normal(torch.zeros(4).double(), torch.ones(4).double()), 1)
    assert kl_divergence(q, prior).shape == kl_divergence(full(q), prior).shape == (3,)
    assert kl_divergence(q.expand((2, 3)), prior).shape == (2, 3)
    # a Pyro distribution of the same kind, and one that is not diagonal over vectors
    torch.testing.assert_close(kl_divergence(q, dist.Normal(prior.mean, 1.0).to_event(1)), kl_divergence(q, prior))
    with pytest.raises(NotImplementedError):
        kl_divergence(q, Independent(dist.Laplace(torch.zeros(4), torch.ones(4)), 1))
    assert diagonal_moments(Normal(0.0, 1.0)) is None
    assert diagonal_moments(Independent(Normal(torch.zeros(2, 3), 1.0), 2)) is None
    assert diagonal_moments(d)[1] is d.base_dist.scale


@settings(max_examples=60)
@given(
    loc=st.floats(-3, 4),
    scale=st.floats(-5, 3).map(lambda e: 10**e),
    levels=st.sampled_from([2, 3, 16, 256]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_logistic_probabilities_of_all_levels_sum_to_one(loc, scale, levels, dtype):
    grid = torch.arange(levels, dtype=dtype) / (levels - 1)
    q = DiscretizedLogistic(torch.tensor(loc, dtype=dtype), torch.tensor(scale, dtype=dtype), levels)
    log_prob = q.log_prob(grid)
    assert torch.isfinite(log_prob).all() and (log_prob <= 0).all()
    error = 1e-9 if dtype == torch.float64 else 1e-3  # float32: the rounding of (x - loc) / scale, at most 1e-7 / 1e-5
    assert log_prob.double().exp().sum().item() == pytest.approx(1.0, abs=error if scale > 1e-4 else 20 * error)


def test_logistic_equals_the_difference_of_two_sigmoids():
    grid = torch.arange(256, dtype=torch.double) / 255
    loc, scale, half = torch.tensor(0.3).double(), torch.tensor(0.2).double(), 0.5 / 255
    direct = torch.sigmoid((grid + half - loc) / scale) - torch.sigmoid((grid - half - loc) / scale)
    direct[0] = torch.sigmoid((half - loc) / scale)
    direct[-1] = 1 - torch.sigmoid((1 - half - loc) / scale)
    torch.testing.assert_close(DiscretizedLogistic(loc, scale).log_prob(grid), direct.log())
    # float32 at the scale of a sharp image stays near float64
    for at in (0.0, 0.3, 1.0, 1.2):
        single = DiscretizedLogistic(torch.tensor(at), torch.tensor(1e-3)).log_prob(grid.float())
        double = DiscretizedLogistic(torch.tensor(at).double(), torch.tensor(1e-3).double()).log_prob(grid)
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-5, 1e-3, 0.1, 10.0, 1e4])
def test_logistic_gradients_are_finite_in_the_tails(scale):
    loc = torch.tensor([-100.0, -2.0, 0.0, 0.5, 1.0, 3.0, 100.0]).unsqueeze(-1).requires_grad_()
    s = torch.tensor(scale, requires_grad=True)
    log_prob = DiscretizedLogistic(loc, s).log_prob(torch.tensor([0.0, 1 / 255, 0.5019608, 1.0]))
    assert torch.isfinite(log_prob).all()
    log_prob.sum().backward()
    assert torch.isfinite(loc.grad).all() and torch.isfinite(s.grad)
    # far away, it pulls towards the data: 3 of the 4 values (first and last bin are open)
    assert loc.grad[0] > 0 and loc.grad[-1] < 0


def test_logistic_draws_follow_the_probabilities_and_lie_on_the_grid():
    """100,000 draws: every frequency within 5 standard errors of a binomial, for 8 levels and three locations."""
    q = DiscretizedLogistic(torch.tensor([-0.1, 0.4, 0.9]), torch.tensor([0.1, 0.2, 0.05]), levels=8)
    draws = q.sample((100_000,))
    level = draws * 7
    assert torch.equal(draws, level.round() / 7)
    grid = torch.arange(8).unsqueeze(-1) / 7
    p = q.log_prob(grid).exp()
    frequency = (draws.unsqueeze(1) == grid).double().mean(0)
    assert ((frequency - p).abs() < 5 * (p * (1 - p) / 100_000).sqrt() + 1e-4).all()
    # what is drawn is what the data readers give: k / (levels - 1) in float32, and likely where it was drawn
    q = DiscretizedLogistic(torch.rand(1000), torch.full((1000,), 1e-3))
    x = q.sample()
    assert torch.equal(x, (x * 255).round().to(torch.uint8).float() / 255)
    assert (q.log_prob(q.sample()) > -25).all()
    assert torch.equal(q.mean, q.loc) and q.expand((2, 1000)).sample((3,)).shape == (3, 2, 1000)
    assert q.expand((2, 1000)).levels == 256


def test_bounded_exp():
    s = torch.tensor([-1e6, -1.0, 0.0, 1e-3, 1e6])
    value = bounded_exp(s)
    torch.testing.assert_close(value[[0, 4]], torch.tensor([math.exp(-5), math.exp(5)]))
    assert value[2] == 1 and value[3].item() == pytest.approx(math.exp(1e-3), rel=1e-6)


# Likelihoods.


@pytest.mark.parametrize(
    ("spec", "kind", "count"),
    [
        ("bernoulli", "Bernoulli", 1),
        ("gaussian", "Gaussian", 2),
        ("gaussian:0.1", "Gaussian", 1),
        ("unit-gaussian:0.1", "UnitGaussian", 1),
        ("shared-gaussian", "SharedGaussian", 1),
        ("logistic", "Logistic", 2),
        ("logistic:16", "Logistic", 2),
    ],
)
def test_likelihood_by_name(spec, kind, count):
    made = likelihood(spec)
    assert type(made).__name__ == kind and made.count == count
    assert likelihood(made) is made
    params = torch.randn(2, 3, count * 5)
    rows = made(params)
    assert rows.batch_shape == (2, 3) and rows.event_shape == (5,)
    x = rows.sample()
    assert rows.log_prob(x).shape == (2, 3) and made.mean(params).shape == (2, 3, 5)
    made.check(x)
    assert made.mean(torch.zeros(count * 5)).min() >= 0
    if kind not in ("Gaussian", "SharedGaussian"):
        assert (made.mean(100 * params) >= 0).all() and (made.mean(100 * params) <= 1).all()


def test_likelihood_densities_by_hand():
    params, x = torch.randn(4, 6, dtype=torch.double), torch.rand(4, 3, dtype=torch.double)
    loc, log_scale = params[:, :3], params[:, 3:]
    expected = dist.Normal(loc, (5 * torch.tanh(log_scale / 5)).exp()).log_prob(x).sum(-1)
    torch.testing.assert_close(likelihood("gaussian")(params).log_prob(x), expected)
    fixed = likelihood("gaussian:0.5").double()
    torch.testing.assert_close(fixed(loc).log_prob(x), dist.Normal(loc, 0.5).log_prob(x).sum(-1))
    shared = likelihood("shared-gaussian").double()
    assert shared.log_scale.item() == 0
    shared.log_scale.data.fill_(-1.5)
    torch.testing.assert_close(shared(loc).log_prob(x), dist.Normal(loc, np.exp(-1.5)).log_prob(x).sum(-1))
    unit = likelihood("unit-gaussian:0.5").double()
    torch.testing.assert_close(unit(loc).log_prob(x), dist.Normal(loc.sigmoid(), 0.5).log_prob(x).sum(-1))
    bits = (x > 0.5).double()
    p = loc.sigmoid()
    expected = (bits * p.log() + (1 - bits) * (1 - p).log()).sum(-1)
    torch.testing.assert_close(likelihood("bernoulli")(loc).log_prob(bits), expected)
    grey = (x * 15).round() / 15
    expected = DiscretizedLogistic(0.5 + loc, 0.1 * bounded_exp(log_scale), 16).log_prob(grey).sum(-1)
    torch.testing.assert_close(likelihood("logistic:16")(params).log_prob(grey), expected)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("poisson", "'poisson', want 'bernoulli', 'gaussian', 'gaussian:SCALE' or 'logistic:LEVELS', or a module"),
        ("bernoulli:2", "found 'bernoulli:2', want"),
        ("bernoulli:", "found 'bernoulli:', want"),
        ("gaussian:", "'gaussian:': could not convert"),
        ("gaussian:wide", "'gaussian:wide': could not convert"),
        ("gaussian:0", "'gaussian:0': found scale 0.0, want a positive finite number"),
        ("gaussian:-1", "found scale -1.0"),
        ("gaussian:nan", "found scale nan"),
        ("gaussian:inf", "found scale inf"),
        ("logistic:1", "'logistic:1': found 1 levels, want at least 2"),
        ("logistic:2.5", "'logistic:2.5': invalid literal"),
        (None, "found None"),
    ],
)
def test_likelihood_names_that_mean_nothing(spec, words):
    with pytest.raises(ValueError, match="likelihood") as caught:
        likelihood(spec)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("x", "kind", "words"),
    [
        (np.zeros((2, 4), "float32"), TypeError, "found a ndarray, want a float tensor; try torch.as_tensor"),
        ([[0.0] * 4], TypeError, "found a list"),
        (torch.zeros(2, 4).to(torch.uint8), TypeError, "found dtype torch.uint8, want a float tensor; try x.float()"),
        (torch.zeros(2, 5), ValueError, "found shape (2, 5), want (n, 4); build the model for this size"),
        (torch.zeros(2, 1, 2, 2), ValueError, "found shape (2, 1, 2, 2), want (n, 4); try x.flatten(1)"),
        (torch.zeros(4), ValueError, "found shape (4,), want (n, 4); try x.unsqueeze(0)"),
        (torch.tensor(0.0), ValueError, "found shape (), want (n, 4)"),
        (torch.zeros(0, 4), ValueError, "the batch is empty (shape (0, 4)), want at least one row"),
        (torch.tensor([[0.0] * 4, [0.0, math.nan, 0, 0]]), ValueError, "NaN or infinite values (first in row 1)"),
        (torch.tensor([[0.0, math.inf, 0, 0]]), ValueError, "NaN or infinite values (first in row 0)"),
        (torch.zeros(2, 4).double(), TypeError, "found dtype torch.float64, want the model's torch.float32; try x.to("),
    ],
)
def test_check_data(x, kind, words):
    with pytest.raises(kind, match="site 'x': ") as caught:
        check_data(x, 4, dtype=torch.float32)
    assert words in str(caught.value)


def test_check_data_returns_what_is_good():
    x = torch.rand(3, 4)
    assert check_data(x, 4) is x and check_data(x, (4,)) is x
    images = torch.rand(3, 1, 2, 2)
    assert check_data(images, (1, 2, 2)) is images
    with pytest.raises(ValueError, match="site 'y'"):
        check_data(x, 5, name="y")


def test_check_of_support():
    grey = torch.tensor([[0.0, 1.0, 0.25]])
    with pytest.raises(ValueError, match="found the value 0.25, a Bernoulli likelihood wants 0 or 1; binarize"):
        likelihood("bernoulli").check(grey)
    likelihood("gaussian").check(100 * grey)
    likelihood("logistic:5").check(grey)
    with pytest.raises(ValueError, match="found the value 0.25, a discretized logistic with 256 levels wants k / 255"):
        likelihood("logistic").check(grey)
    for wrong in (2.0, -1 / 255):
        with pytest.raises(ValueError, match="discretized logistic"):
            likelihood("logistic").check(torch.tensor([[wrong]]))
    likelihood("logistic").check(torch.arange(256.0).unsqueeze(0) / 255)


class Unread(Tensor):
    """A tensor that does not let its values be read."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        names = {getattr(func, "__name__", ""), getattr(getattr(func, "__self__", None), "__name__", "")}
        if names & {"shape", "dtype", "__len__", "dim", "is_floating_point"}:
            return super().__torch_function__(func, types, args, kwargs or {})
        raise AssertionError(f"read by {func}")


def test_nothing_is_read_while_validation_is_off():
    x = torch.full((2, 4), math.nan).as_subclass(Unread)
    with pyro.validation_enabled(False):
        check_data(x, 4)
        for spec in ("bernoulli", "gaussian", "logistic"):
            likelihood(spec).check(x)
    with pyro.validation_enabled(True), pytest.raises(AssertionError, match="read by"):
        check_data(x, 4)


def test_check_count():
    assert check_count(3) == 3 and check_count(np.int64(2)) == check_count(torch.tensor(2)) == 2
    for wrong in (0, -1, 1.5, "2", None, True, torch.tensor([2, 2])):
        with pytest.raises(ValueError, match="want the number of data to generate, an integer of at least 1"):
            check_count(wrong)
