"""The rank-one affine bijection: against autograd's Jacobian, its own inverse, and as torch's machinery uses it."""

import copy

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch.distributions import TransformedDistribution, kl_divergence

from ppl_models.parts.bijectors import ConditionalRankOneAffine, RankOneAffine

EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}


def affine(seed: int, n: int = 5, batch: tuple[int, ...] = (), low: float = 0.3, vector: float = 1.0) -> RankOneAffine:
    """A float64 transform with d in [low, 10 low) and u = vector * normal."""
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.double}
    shape = (*batch, n)
    d = low * (1 + 9 * torch.rand(shape, **draw))
    return RankOneAffine(torch.randn(shape, **draw), d, vector * torch.randn(shape, **draw), cache_size=0)


def matrix(t: RankOneAffine) -> Tensor:
    """A = diag(d) + u u^T in float64."""
    d, u = t.scale.double(), t.vector.double()
    return torch.diag_embed(d) + u.unsqueeze(-1) * u.unsqueeze(-2)


def condition(t: RankOneAffine) -> Tensor:
    """What an inverse by Sherman-Morrison may lose: the condition number of A, or the growth u^T diag(d)^-1 u of w."""
    return torch.linalg.cond(matrix(t)) + (t.vector.double().square() / t.scale.double()).sum(-1)


def cast(t: RankOneAffine, dtype: torch.dtype) -> RankOneAffine:
    return RankOneAffine(t.shift.to(dtype), t.scale.to(dtype), t.vector.to(dtype), cache_size=0)


@settings(max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 8),
    low=st.floats(-3, 2).map(lambda e: 10**e),
    vector=st.sampled_from([0.0, 1e-8, 0.1, 1.0, 30.0]),
)
def test_log_det_is_that_of_autograds_jacobian(seed, n, low, vector):
    t = affine(seed, n, low=low, vector=vector)
    eps = torch.randn(n, dtype=torch.double, generator=torch.Generator().manual_seed(seed + 1))
    jacobian = torch.autograd.functional.jacobian(t, eps)
    torch.testing.assert_close(jacobian, matrix(t), rtol=1e-12, atol=1e-12)
    sign, log_det = torch.linalg.slogdet(jacobian)
    # slogdet itself loses a digit for each of the condition number
    tolerance = 1e-10 + n * EPS[torch.float64] * condition(t).item()
    assert sign == 1
    torch.testing.assert_close(t.log_abs_det_jacobian(eps, t(eps)), log_det, rtol=1e-10, atol=tolerance)
    # the inverse has the inverse Jacobian
    back = torch.autograd.functional.jacobian(t.inv, t(eps).detach())
    tolerance = 50 * EPS[torch.float64] * condition(t).item()
    torch.testing.assert_close(back @ jacobian, torch.eye(n, dtype=torch.double), rtol=0, atol=tolerance)


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), vector=st.floats(0, 1.0))
def test_inverse_undoes_forward(seed, n, vector):
    t = affine(seed, n, (20,), vector=vector)
    eps = torch.randn(20, n, dtype=torch.double, generator=torch.Generator().manual_seed(seed + 1))
    torch.testing.assert_close(t.inv(t(eps)), eps, rtol=0, atol=1e-12)
    t, eps = cast(t, torch.float32), eps.float()
    torch.testing.assert_close(t.inv(t(eps)), eps, rtol=1e-5, atol=1e-5 * max(1.0, n * vector**2))


@settings(max_examples=100)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 12),
    low=st.floats(-3, 3).map(lambda e: 10**e),
    vector=st.floats(-4, 2).map(lambda e: 10**e),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_extreme_parameters_cost_no_more_than_the_condition_number(seed, n, low, vector, dtype):
    """z is rounded, so no inverse can be better than cond(A) * eps; this one stays within 8 times `condition`."""
    t = cast(affine(seed, n, (20,), low, vector), dtype)
    eps = torch.randn(20, n, dtype=torch.double, generator=torch.Generator().manual_seed(seed + 1)).to(dtype)
    error = (t.inv(t(eps)) - eps).double().norm(dim=-1)
    norm = torch.linalg.matrix_norm(matrix(t), 2)
    size = eps.double().norm(dim=-1) + t.shift.double().norm(dim=-1) / norm
    assert (error <= 8 * EPS[dtype] * condition(t) * size).all()
    assert torch.isfinite(t.log_abs_det_jacobian(eps, t(eps))).all()


def test_the_identity_and_its_gradient():
    n = 4
    t = RankOneAffine(torch.zeros(n), torch.ones(n), torch.zeros(n, requires_grad=True))
    eps = torch.randn(3, n)
    assert torch.equal(t(eps), eps) and torch.equal(t.log_abs_det_jacobian(eps, eps), torch.zeros(3))
    (t.inv(torch.randn(3, n)).sum() + t.log_abs_det_jacobian(eps, eps).sum()).backward()
    assert torch.isfinite(t.vector.grad).all()


def test_cache_gives_the_very_base_value_back():
    t = affine(0).with_cache(1)
    eps = torch.randn(3, 5, dtype=torch.double)
    z = t(eps)
    assert t.inv(z) is eps and t(eps) is z
    assert t.inv(z.clone()) is not eps
    # an inverse is cached as well: z -> eps -> z
    z = torch.randn(3, 5, dtype=torch.double)
    assert t(t.inv(z)) is z
    # the density of a draw is the base's at the very number drawn, in float32 too
    t = cast(affine(0, 5, low=1e-3, vector=10.0), torch.float32).with_cache(1)
    base = dist.Normal(torch.zeros(5), torch.ones(5)).to_event(1)
    q = TransformedDistribution(base, [t])
    z = q.rsample((7,))
    eps = t.inv(z)
    assert torch.equal(q.log_prob(z), base.log_prob(eps) - t.log_abs_det_jacobian(eps, z))


def test_with_cache():
    t = affine(0)
    assert t.with_cache(0) is t
    cached = t.with_cache(1)
    assert cached is not t and cached._cache_size == 1 and cached.vector is t.vector
    assert cached.with_cache() is cached
    with pytest.raises(ValueError, match="cache_size"):
        RankOneAffine(t.shift, t.scale, t.vector, cache_size=2)


@pytest.mark.parametrize("batch", [(), (3,), (4, 1), (4, 3)])
@pytest.mark.parametrize("particles", [(), (2,), (2, 4, 3)])
def test_parameters_and_values_broadcast(batch, particles):
    t = affine(0, 5, batch)
    shape = torch.broadcast_shapes(batch, particles) if len(particles) > 1 else (*particles, *batch)
    eps = torch.randn(*shape, 5, dtype=torch.double)
    z, log_det = t(eps), t.log_abs_det_jacobian(eps, t(eps))
    assert z.shape == eps.shape and log_det.shape == shape
    full = matrix(t).expand(*shape, 5, 5)
    torch.testing.assert_close(z, t.shift + (full @ eps.unsqueeze(-1)).squeeze(-1))
    torch.testing.assert_close(log_det, torch.logdet(full))
    torch.testing.assert_close(t.inv(z), eps)
    assert t.forward_shape(eps.shape) == t.inverse_shape(eps.shape) == eps.shape


@settings(max_examples=25)
@given(raw=st.floats(-1e4, 1e4), seed=st.integers(0, 1000))
def test_d_stays_positive_whatever_the_network_says(raw, seed):
    torch.manual_seed(seed)
    layer = ConditionalRankOneAffine(4, [3])
    with torch.no_grad():
        layer.net.bias.chunk(3)[1].fill_(raw)
    t = layer(torch.randn(6, 3))
    eps = torch.randn(6, 4)
    z = t(eps)
    assert (t.scale >= 1e-3).all()
    assert torch.isfinite(z).all() and torch.isfinite(t.log_abs_det_jacobian(eps, z)).all()


def test_d_stays_positive_for_extreme_contexts_and_weights():
    layer = ConditionalRankOneAffine(4, [3])
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(100)
    for scale in (0.0, 1.0, 1e4, 1e8):
        t = layer(scale * torch.randn(50, 3))
        assert (t.scale >= 1e-3).all() and torch.isfinite(t.scale).all() and torch.isfinite(t.vector).all()


@pytest.mark.parametrize("inputs", [(), (3,), (3, 2)])
def test_conditional_form_starts_near_the_identity(inputs):
    layer = ConditionalRankOneAffine(6, inputs)
    contexts = [torch.randn(100, n) for n in inputs]
    t = layer(*contexts)
    shape = (100, 6) if inputs else (6,)
    assert t.shift.shape == t.scale.shape == t.vector.shape == shape
    # the widest of 600 outputs of weights shrunk to a tenth: c and u within 0.6 of 0, d within 0.5 of 1
    assert t.shift.abs().max() < 0.6 and (t.scale - 1).abs().max() < 0.5 and t.vector.abs().max() < 0.6
    assert t.vector.abs().max() > 0  # at u = 0 exactly its gradient would vanish
    eps = torch.randn(100, 6)
    assert (t(eps) - eps).square().mean() < 0.2 * eps.square().mean()
    assert [name for name, p in layer.named_parameters() if p.requires_grad] != []


def test_every_parameter_of_the_conditional_form_is_reached():
    layer = ConditionalRankOneAffine(4, [3], depth=2)
    for block in layer.net.blocks[:-1]:  # they start at zero: move them, so that what is before them matters
        torch.nn.init.normal_(block.outer.weight)
    t = layer(torch.randn(5, 3))
    eps = torch.randn(5, 4)
    z = t(eps)
    (z.square().sum() + t.log_abs_det_jacobian(eps, z).sum()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())
    constant = copy.deepcopy(ConditionalRankOneAffine(4))
    constant().inv(torch.randn(5, 4)).square().sum().backward()
    assert [tuple(p.grad.shape) for p in constant.parameters()] == [(12,)]


def test_gradients_of_both_directions_and_the_log_det():
    def forward(c, d, u, eps):
        t = RankOneAffine(c, d, u, 0)
        z = t(eps)
        return z, t.inv(eps), t.log_abs_det_jacobian(eps, z)

    t = affine(1, 3, (2,))
    arguments = (t.shift, t.scale, t.vector, torch.randn(2, 3, dtype=torch.double))
    assert torch.autograd.gradcheck(forward, [a.requires_grad_() for a in arguments])


def test_inside_a_transformed_distribution():
    t, base = affine(2, 4).with_cache(1), dist.Normal(torch.zeros(4).double(), 2.0).to_event(1)
    q = dist.TransformedDistribution(base, [t])
    assert q.event_shape == (4,) and q.batch_shape == () and q.has_rsample and q.support.event_dim == 1
    a = matrix(t)
    exact = dist.MultivariateNormal(t.shift, 4 * a @ a)
    z = torch.randn(6, 4, dtype=torch.double)
    torch.testing.assert_close(q.log_prob(z), exact.log_prob(z))
    # expanded, as a plate does it
    expanded = q.expand((3, 6))
    assert expanded.batch_shape == (3, 6) and expanded.transforms == q.transforms
    assert expanded.rsample().shape == (3, 6, 4) and expanded.rsample((2,)).shape == (2, 3, 6, 4)
    torch.testing.assert_close(expanded.log_prob(z), exact.log_prob(z).expand(3, 6))
    value = expanded.rsample()
    torch.testing.assert_close(expanded.log_prob(value), exact.log_prob(value))


def test_divergence_reduces_to_the_bases_if_the_transform_is_shared():
    t = affine(3, 4, (5,))
    one, two = (dist.Normal(torch.randn(5, 4).double(), torch.rand(5, 4).double() + 0.1).to_event(1) for _ in range(2))
    q, p = dist.TransformedDistribution(one, [t]), dist.TransformedDistribution(two, [t])
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(one, two), rtol=0, atol=0)
    # and that is the divergence of the Gaussians that they are
    a = matrix(t)
    push = [dist.MultivariateNormal(t(d.mean), a @ torch.diag_embed(d.variance) @ a) for d in (one, two)]
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(*push))
    # expanded by a plate
    wide = kl_divergence(q.expand((2, 5)), p.expand((2, 5)))
    torch.testing.assert_close(wide, kl_divergence(one, two).expand(2, 5))
    # the same numbers in another transform are another transform
    twin = RankOneAffine(t.shift, t.scale, t.vector, 0)
    assert twin != t and t == t  # noqa: PLR0124
    with pytest.raises(NotImplementedError):
        kl_divergence(q, dist.TransformedDistribution(two, [twin]))
