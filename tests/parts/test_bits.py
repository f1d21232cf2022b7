"""Relaxed bits: densities against torch's and closed forms, draws, the bits themselves, masks, programs of bits."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import RelaxedBernoulli, kl_divergence
from torch.distributions.relaxed_bernoulli import LogitRelaxedBernoulli

from ppl_models.parts import DependentBits, Discretized, RelaxedBits
from ppl_models.parts.bits import LOGIT
from ppl_models.parts.flows.autoregressive import MaskedNet
from ppl_models.parts.flows.orders import levels_of
from ppl_models.parts.states import states_of

TEMPERATURES = (0.1, 0.5, 2 / 3, 3.0)
FORK = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]], dtype=torch.bool)  # 1 and 2 read 0


def reading(reads: Tensor | None = None, n: int = 4, temperature: float = 0.5, batch: tuple = ()) -> DependentBits:
    """Bits that read others strongly."""
    torch.manual_seed(4)
    net = MaskedNet(levels_of(n) if reads is None else reads.numpy(), 1, (2,), hidden=32, depth=2, gain=6.0)
    net = net.to(torch.get_default_dtype())
    return DependentBits(torch.randn(*batch, n), net, (torch.randn(*batch, 2),), temperature)


@pytest.mark.parametrize("t", TEMPERATURES)
def test_density(double, t):
    """Torch's own, the formula of the paper, and the density of the relaxed bit that it is the logit of."""
    a, y = torch.linspace(-4, 4, 9)[:, None], torch.linspace(-9, 9, 31)
    found = RelaxedBits(a, t).log_prob(y)
    torch.testing.assert_close(
        found, LogitRelaxedBernoulli(torch.tensor(t), logits=a).log_prob(y), rtol=1e-12, atol=1e-12
    )
    d = a - t * y
    torch.testing.assert_close(found, math.log(t) + d - 2 * d.exp().log1p(), rtol=1e-12, atol=1e-12)
    x, y = y.sigmoid()[10:21], y[10:21]
    of_bits = RelaxedBernoulli(torch.tensor(t), logits=a).log_prob(x) + x.log() + (1 - x).log()
    torch.testing.assert_close(RelaxedBits(a, t).log_prob(y), of_bits, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", TEMPERATURES)
def test_mass_above_zero_is_that_of_the_bit(double, t):
    """P(y > 0) = sigmoid(a) whatever the temperature; moments are those of a logistic density; all by quadrature."""
    a = torch.tensor([-3.0, -0.4, 0.0, 2.0])
    y = torch.linspace(-80 / t, 80 / t, 400_001)[1:-1:2, None]  # 0 is between two points
    fn, h = RelaxedBits(a, t), 2 * (160 / t / 400_000)
    mass = fn.log_prob(y).exp() * h
    torch.testing.assert_close((mass * (y > 0)).sum(0), a.sigmoid(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mass.sum(0), torch.ones(4), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close((mass * y).sum(0), fn.mean, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close((mass * (y - fn.mean).square()).sum(0), fn.variance, rtol=1e-6, atol=1e-6)


def test_draws():
    """Of the density that is stated: the share above zero within 5 standard errors, and draws that carry gradients."""
    torch.manual_seed(0)
    a = torch.tensor([-6.0, -1.0, 0.0, 2.0])
    for t in (*TEMPERATURES, 0.0):
        share = (RelaxedBits(a, t).sample(torch.Size([200_000])) > 0).double().mean(0)
        error = (a.sigmoid() * (-a).sigmoid() / 200_000).sqrt()
        assert ((share - a.sigmoid()).abs() < 5 * error).all()
    a.requires_grad_()
    RelaxedBits(a, 0.25).rsample().sum().backward()
    torch.testing.assert_close(a.grad, torch.full((4,), 4.0))
    assert not RelaxedBits(a, 0.0).has_rsample and not RelaxedBits(a, 0.0).sample().requires_grad


def test_float32_at_low_temperature():
    """At t = 0.1 and a = 3 torch clamps 4 of 5 draws of the relaxed bit; of its logit nothing is rounded off."""
    torch.manual_seed(0)
    a, t = torch.tensor(3.0), 0.1
    x = RelaxedBernoulli(torch.tensor(t), logits=a).sample(torch.Size([20_000]))
    clamped = (x == x.max()) | (x == x.min())
    assert 0.8 < clamped.float().mean() < 0.85
    y = RelaxedBits(a, t).sample(torch.Size([20_000]))
    assert len(y.unique()) > 19_000
    exact = RelaxedBits(a.double(), t).log_prob(y.double())
    torch.testing.assert_close(RelaxedBits(a, t).log_prob(y).double(), exact, rtol=1e-5, atol=1e-5)
    # torch's own logit is drawn by way of a probability, which float32 keeps 1e-7 off 1: another one than it scores
    far = torch.tensor(40.0)
    assert abs(RelaxedBits(far, 1.0).sample(torch.Size([1000])).mean().item() - 40) < 0.3  # 5 errors of 0.06
    assert LogitRelaxedBernoulli(torch.tensor(1.0), logits=far).sample(torch.Size([1000])).mean() < 20


def test_a_uniform_draw_of_zero_is_no_wild_one(monkeypatch):
    for dtype in (torch.float32, torch.float64):
        monkeypatch.setattr(torch, "rand", lambda shape, dtype, device: torch.zeros(shape, dtype=dtype))
        lowest = RelaxedBits(torch.zeros((), dtype=dtype), 1.0).sample()
        largest = 1 - torch.finfo(dtype).eps / 2
        highest = math.log(largest) - math.log1p(-largest)
        assert -1.1 * highest < lowest < -highest


def test_the_bit_itself(double):
    """Bernoulli masses at the two logits, whose sigmoid is exactly 0 and 1 in either precision; nowhere else."""
    a = torch.randn(5)
    hard, bits = RelaxedBits(a, 0.7).hard(), torch.tensor([[0.0], [1.0]])
    y = (2 * bits - 1) * LOGIT
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(y.to(dtype).sigmoid(), bits.to(dtype))
    torch.testing.assert_close(hard.log_prob(y.expand(2, 5)), dist.Bernoulli(logits=a).log_prob(bits))
    draws = hard.sample(torch.Size([50]))
    assert torch.equal(draws.abs(), torch.full_like(draws, LOGIT))
    torch.testing.assert_close(hard.mean, (a.sigmoid() - (-a).sigmoid()) * LOGIT)
    torch.testing.assert_close(hard.variance, 4 * a.sigmoid() * (-a).sigmoid() * LOGIT**2)
    assert hard.support.is_discrete and not RelaxedBits(a, 0.7).support.is_discrete
    with pytest.raises(ValueError, match="support"):
        hard.log_prob(torch.zeros(5))


def test_the_limit_of_low_temperature(double):
    """With the same noise a bit is the sign of the relaxed one, at every temperature."""
    for fn in (RelaxedBits(torch.randn(6), 0.4), reading()):
        torch.manual_seed(1)
        y = fn.sample(torch.Size([200]))
        torch.manual_seed(1)
        b = fn.hard().sample(torch.Size([200]))
        if isinstance(fn, RelaxedBits):
            assert torch.equal(b, y.sign() * LOGIT)
        else:  # what is read is another number
            assert torch.equal(b[:, 0], y[:, 0].sign() * LOGIT)


def test_relaxed_divergences_are_above_that_of_the_bit(double):
    """At equal temperatures the same for all, never tending to it; at others not 0 where the logits are the same."""
    a, b = torch.tensor(1.0), torch.tensor(-0.3)
    y = torch.linspace(-300, 300, 200_001)

    def divergence(tq: float, tp: float, b: Tensor = b) -> float:
        q, p = RelaxedBits(a, tq).log_prob(y), RelaxedBits(b, tp).log_prob(y)
        return ((q.exp() * (q - p)).sum() * (y[1] - y[0])).item()

    of_bits = kl_divergence(dist.Bernoulli(logits=a), dist.Bernoulli(logits=b)).item()
    equal = [divergence(t, t) for t in (0.1, 0.5, 1.0)]
    assert max(equal) - min(equal) < 1e-6 and equal[0] > of_bits + 0.05
    assert divergence(2 / 3, 1 / 2) > of_bits and divergence(2 / 3, 1 / 2, a) > 0.01


# bits that read others


@pytest.mark.parametrize("reads", [None, FORK])
def test_masks_by_jacobian(double, reads):
    """The logit of a bit reads those that it may, and no others."""
    q = reading(reads)
    jacobian = torch.autograd.functional.jacobian(lambda y: q._given(y), torch.randn(4))
    expected = torch.ones(4, 4).tril(-1).bool() if reads is None else reads
    assert torch.equal(jacobian != 0, expected)
    assert q.net.passes == (4 if reads is None else 3)


@pytest.mark.parametrize("reads", [None, FORK])
def test_density_is_the_product_of_its_factors(double, reads):
    q, y = reading(reads, temperature=0.3, batch=(5,)), torch.randn(7, 5, 4)
    found = q.log_prob(y)
    assert found.shape == (7, 5)
    logits = q.logits + q.net(y.sigmoid(), *q.context)[..., 0]
    torch.testing.assert_close(found, RelaxedBits(logits, 0.3).log_prob(y).sum(-1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reads", [None, FORK])
def test_draws_are_of_the_density(double, reads):
    """Each entry of a draw is its own noise given the entries that it reads; gradients are those of that recursion."""
    q = reading(reads, temperature=0.4, batch=(3,))
    logits = q.logits.requires_grad_()
    torch.manual_seed(2)
    y = q.rsample(torch.Size([6]))
    torch.manual_seed(2)
    noise = torch.rand(6, 3, 4).logit()
    torch.testing.assert_close(y * 0.4, q._given(y) + noise, rtol=1e-10, atol=1e-10)
    found = torch.autograd.grad(y.square().sum(), logits)[0]
    values: list[Tensor] = []
    for i in range(4):
        before = torch.stack([*values, *[torch.zeros(6, 3)] * (4 - i)], -1)
        values.append((q._given(before)[..., i] + noise[..., i]) / 0.4)
    torch.testing.assert_close(torch.autograd.grad(torch.stack(values, -1).square().sum(), logits)[0], found)


@pytest.mark.parametrize("reads", [None, FORK])
def test_masses_of_bits_that_read_others_sum_to_one(double, reads):
    q = reading(reads, batch=(2,)).hard()
    y = torch.tensor(2.0 * states_of(4) - 1)[:, None] * LOGIT
    mass = q.log_prob(y.expand(-1, 2, -1)).exp()
    torch.testing.assert_close(mass.sum(0), torch.ones(2))
    torch.manual_seed(0)
    drawn = q.sample(torch.Size([40_000]))
    assert torch.equal(drawn.abs(), torch.full_like(drawn, LOGIT))
    share = (drawn[:, None] == y).all(-1).double().mean(0)
    assert ((share - mass).abs() < 5 * (mass * (1 - mass) / 40_000).sqrt() + 1e-9).all()


def test_integral_of_two_bits_that_read(double):
    q, grid = reading(n=2, temperature=0.7), torch.linspace(-60, 60, 400)  # 0 is between two points
    y = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        mass = q.log_prob(y).exp() * (grid[1] - grid[0]) ** 2
    assert abs(mass.sum().item() - 1) < 1e-6
    first = q._given(y[:1])[0, 0].detach()
    torch.testing.assert_close(mass[y[:, 0] > 0].sum(), first.sigmoid(), rtol=1e-3, atol=1e-3)


def test_batches_are_expanded():
    for fn in (RelaxedBits(torch.randn(1, 3), 0.5).to_event(1), reading(batch=(1,))):
        wide, y = fn.expand(torch.Size([2, 5])), torch.randn(2, 5, *fn.event_shape)
        assert wide.batch_shape == (2, 5) and wide.sample().shape == y.shape
        torch.testing.assert_close(wide.log_prob(y), fn.log_prob(y))


# programs of bits


def program(x: Tensor) -> Tensor:
    with pyro.plate("data", len(x)):
        pyro.sample("e", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", RelaxedBits(torch.tensor([5.0, -5.0, 0.0]), 0.5).to_event(1))
        return pyro.sample("x", dist.Bernoulli(z.sigmoid()).to_event(1), obs=x)


def test_a_program_of_bits():
    """Only relaxed bits change; what is observed at 0 and 1 is the bit."""
    x = torch.tensor([[1.0, 0, 0], [1, 0, 1]])
    trace = pyro.poutine.trace(Discretized(program)).get_trace(x)
    z = trace.nodes["z"]
    assert torch.equal(z["value"].abs(), torch.full((2, 3), LOGIT))
    assert isinstance(trace.nodes["e"]["fn"], dist.Normal) and z["fn"].batch_shape == (2,)
    torch.testing.assert_close(trace.nodes["x"]["fn"].base_dist.mean, z["value"].sigmoid())
    assert pyro.poutine.trace(program).get_trace(x).nodes["z"]["value"].abs().max() < 100


def test_a_program_without_relaxed_bits_is_refused():
    def other() -> None:
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="Discretized: found no relaxed bits .the program draws 'z' from other"):
        Discretized(other)()
