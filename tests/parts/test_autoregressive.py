"""Autoregressive steps: masks by Jacobians, inverses, volumes, integrals, contexts, calls; zuko's and Pyro's flows."""

import math
from collections.abc import Sequence
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from pyro.distributions.transforms import AffineAutoregressive
from pyro.nn import AutoRegressiveNN
from torch import Tensor
from torch.distributions import AffineTransform, Transform, TransformedDistribution
from torch.nn.functional import silu

from ppl_models import VAE
from ppl_models.inference.pyro.passes.terms import terms
from ppl_models.parts.flows import autoregressive
from ppl_models.parts.flows.autoregressive import AutoregressiveFlow, MaskedNet
from ppl_models.parts.flows.densities import FlowDensity
from ppl_models.parts.flows.orders import contraction, levels_of
from ppl_models.parts.flows.priors import prior
from tests.helpers.counting import counted_calls

KINDS = ("affine", "gate", "shift", "spline")
PASSES = (None, 2, 1)

pytestmark = pytest.mark.usefixtures("double")


def pushed(flow: AutoregressiveFlow, x: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
    """What the steps make of x, and the log of the volume that they make of a unit."""
    total = torch.zeros(())
    for step in flow.transforms(*context):
        y = step(x)
        total, x = total + step.log_abs_det_jacobian(x, y), y
    return x, total


def seeded(*args, **sizes) -> AutoregressiveFlow:
    """A flow far from the identity."""
    torch.manual_seed(3)
    return AutoregressiveFlow(*args, hidden=24, depth=2, gain=2.0, **sizes).double()


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("kind", KINDS)
def test_inverse_and_volume(kind, passes):
    flow, x, c = seeded(5, 3, [4], kind=kind, passes=passes), torch.randn(3, 7, 5), torch.randn(7, 4)
    y, volume = pushed(flow, x, c)
    back = y.clone()
    for step in reversed(flow.transforms(c)):
        back = step.inv(back)
    torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-10)
    jacobian = torch.autograd.functional.jacobian(lambda v: pushed(flow, v, c[2])[0], x[1, 2])
    torch.testing.assert_close(volume[1, 2], torch.linalg.slogdet(jacobian)[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("inputs", [(), (3,), (3, 2)])
def test_masks(n, inputs, passes):
    """Numbers of an entry read the entries of lower levels and no others, and every entry all of every context."""
    torch.manual_seed(0)
    levels = levels_of(n, passes)
    net = MaskedNet(levels, 2, inputs, hidden=4 * n, depth=2, gain=1.0).double()
    x, context = torch.randn(n), [torch.randn(m) for m in inputs]
    of_x, *of_context = torch.autograd.functional.jacobian(lambda *a: net(*a), (x, *context))
    expected = torch.tensor(levels) < torch.tensor(levels)[:, None]
    assert torch.equal((of_x != 0).all(1), expected)
    assert torch.equal((of_x != 0).any(1), expected)
    assert all((jacobian != 0).all() for jacobian in of_context)


def test_order_is_turned_round():
    torch.manual_seed(0)
    lower = torch.ones(4, 4).tril().bool()
    for steps, pattern in ((1, lower), (2, torch.ones(4, 4).bool())):
        flow = AutoregressiveFlow(4, steps, hidden=16, gain=1.0).double()
        jacobian = torch.autograd.functional.jacobian(lambda v, flow=flow: pushed(flow, v)[0], torch.randn(4))
        assert torch.equal(jacobian != 0, pattern)


@pytest.mark.parametrize("kind", KINDS)
def test_start(kind):
    """At numbers of 0 the steps are the identity, gates a contraction."""
    flow, x = AutoregressiveFlow(3, 2, kind=kind, gain=0.0).double(), torch.randn(5, 3)
    y, volume = pushed(flow, x)
    torch.testing.assert_close(y, contraction(kind, 2) * x)
    torch.testing.assert_close(volume, torch.full((5,), 3 * math.log(contraction(kind, 2))))


def test_wide_gate_is_the_identity(monkeypatch):
    monkeypatch.setattr(autoregressive, "BIAS", 40.0)
    flow, x = seeded(3, 2, kind="gate"), torch.randn(5, 3)
    torch.testing.assert_close(pushed(flow, x)[0], x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2])
def test_densities_integrate_to_one(kind, n):
    torch.manual_seed(0)
    # mild, since a sum over a grid sees the corners of a spline's slope
    flow = AutoregressiveFlow(n, 2, hidden=8, kind=kind, bins=4, gain=0.05).double()
    grid = torch.linspace(-9, 9, 20001 if n == 1 else 601)
    points = torch.cartesian_prod(*[grid] * n).reshape(-1, n)
    for steps in (flow.transforms(), [step.inv for step in flow.transforms()]):
        q = TransformedDistribution(dist.Normal(torch.zeros(n), 1).to_event(1), steps)
        with torch.no_grad():
            total = q.log_prob(points).exp().sum() * (grid[1] - grid[0]) ** n
        assert abs(total.item() - 1) < 1e-6


@pytest.mark.parametrize("backward", [False, True])
def test_calls_of_the_network(backward):
    """Of an own draw the density costs nothing; that of a foreign value one call a level in the other direction."""
    flow = seeded(4, 2, [3])
    for value, draw, density in ((None, 8 if backward else 2, 0), (torch.randn(5, 4), 0, 2 if backward else 8)):
        steps = flow.transforms(torch.randn(5, 3))
        steps = [step.inv for step in steps] if backward else steps
        q = TransformedDistribution(dist.Normal(torch.zeros(5, 4), 1).to_event(1), steps)
        with counted_calls(MaskedNet) as calls:
            x = q.rsample() if value is None else value
            assert calls() == draw
            q.log_prob(x)
            assert calls() == draw + density
    with torch.no_grad():
        own = q.sample()
        torch.testing.assert_close(q.log_prob(own), q.log_prob(own.clone()), rtol=1e-10, atol=1e-10)


def test_gradients_of_the_slow_direction():
    """Those through the loop are those of the inverse function."""
    flow, y = seeded(4, 1), torch.randn(4)
    (step,) = flow.transforms()
    slow = torch.autograd.functional.jacobian(lambda v: flow.transforms()[0].inv(v), y)
    fast = torch.autograd.functional.jacobian(lambda v: flow.transforms()[0](v), step.inv(y))
    torch.testing.assert_close(slow, torch.linalg.inv(fast), rtol=1e-10, atol=1e-10)


def test_batches_of_contexts_and_bases():
    """A base without the particles of a context gets noise for each of them."""
    flow, c = seeded(3, 2, [2]), torch.randn(6, 5, 2)
    q = dist.TransformedDistribution(dist.Normal(torch.zeros(5, 3), 1).to_event(1), flow.transforms(c))
    assert q.batch_shape == (6, 5)
    draws = q.sample()
    assert draws.shape == (6, 5, 3)
    base = draws
    for step in reversed(flow.transforms(c)):
        base = step.inv(base)
    assert len(base.unique(dim=0)) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_values_without_the_batch_of_the_context(kind):
    """As observed rows have no particles: the same numbers as for values that are repeated."""
    flow, c, x = seeded(3, 2, [2], kind=kind), torch.randn(4, 5, 2), torch.randn(5, 3)
    for of in (lambda step: step, lambda step: step.inv):
        for one, repeated in zip(flow.transforms(c), flow.transforms(c), strict=True):
            y, all_of_y = of(one)(x), of(repeated)(x.expand(4, 5, 3))
            torch.testing.assert_close(y, all_of_y)
            volume = of(one).log_abs_det_jacobian(x, y)
            torch.testing.assert_close(volume, of(repeated).log_abs_det_jacobian(x.expand(4, 5, 3), all_of_y))
            assert volume.shape == (4, 5)


def test_linear_steps_are_a_gaussian():
    """Networks without hidden curvature: z = L eps + m is a Gaussian of any covariance."""
    flow = AutoregressiveFlow(3, 1, kind="shift").double()
    torch.manual_seed(0)
    lower = torch.randn(3, 3).tril(-1)

    def linear(x: Tensor) -> Tensor:
        return (x @ lower.mT).unsqueeze(-1)

    flow.nets[0].forward = linear
    q = TransformedDistribution(dist.Normal(torch.zeros(3), 1).to_event(1), flow.transforms())
    exact = torch.distributions.MultivariateNormal(torch.zeros(3), scale_tril=torch.eye(3) + lower)
    values = torch.randn(7, 3)
    torch.testing.assert_close(q.log_prob(values), exact.log_prob(values), rtol=1e-10, atol=1e-10)


def test_equals_zukos():
    """The same masks and weights, and zuko's squash of log scales in place of ours."""
    torch.manual_seed(0)
    theirs = zuko.flows.MAF(4, transforms=2, hidden_features=(12,), activation=torch.nn.SiLU).double()
    flow = AutoregressiveFlow(4, 2, hidden=12).double()
    inner = [step.hyper for step in theirs.transform.transforms]
    for net, hyper in zip(flow.nets, inner, strict=True):
        copy_layer(net.entries, hyper[0])
        copy_layer(net.last, hyper[2])

    def squashed(numbers: Tensor) -> AffineTransform:
        shift, scale = numbers.unbind(-1)
        return AffineTransform(shift, (scale / (1 + abs(scale / math.log(1e-3)))).exp())

    flow.of = squashed
    q = TransformedDistribution(
        dist.Normal(torch.zeros(4), 1).to_event(1), [step.inv for step in reversed(flow.transforms())]
    )
    x = torch.randn(9, 4)
    torch.testing.assert_close(q.log_prob(x), theirs().log_prob(x), rtol=1e-10, atol=1e-10)


def copy_layer(ours: torch.nn.Linear, theirs: torch.nn.Linear) -> None:
    """Weights and mask of another library's masked layer."""
    with torch.no_grad():
        ours.weight.copy_(theirs.weight), ours.bias.copy_(theirs.bias), ours.mask.copy_(theirs.mask)


def test_equals_pyros():
    """The same masks and weights as Pyro's, whose numbers are means first and log scales next, clipped."""
    torch.manual_seed(0)
    net = AutoRegressiveNN(4, [12], permutation=torch.arange(4), nonlinearity=torch.nn.SiLU()).double()
    theirs = AffineAutoregressive(net)
    flow = AutoregressiveFlow(4, 1, hidden=12).double()
    copy_layer(flow.nets[0].entries, net.layers[0])
    inner, last = flow.nets[0], net.layers[-1]

    def numbers(x: Tensor) -> Tensor:
        h = silu(inner.entries(x))
        return torch.nn.functional.linear(h, last.weight * last.mask, last.bias).unflatten(-1, (2, 4)).movedim(-2, -1)

    inner.forward = numbers

    def clipped(found: Tensor) -> AffineTransform:
        shift, log_scale = found.unbind(-1)
        return AffineTransform(shift, log_scale.clamp(-5.0, 3.0).exp())

    flow.of = clipped
    base, x = dist.Normal(torch.zeros(4), 1).to_event(1), torch.randn(9, 4)
    ours = TransformedDistribution(base, flow.transforms()).log_prob(x)
    torch.testing.assert_close(ours, TransformedDistribution(base, [theirs]).log_prob(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("word", ["maf", "maf-mean:steps=2", "nsf:steps=1", "nsf:passes=2,steps=2"])
def test_prior_is_the_posterior_of_its_noise(word):
    """log p(z) of a flow prior is log N(eps; 0, I) and the volume of eps -> z, eps = T(z)."""
    torch.manual_seed(0)
    p = prior("VAE", f"{word}{',' if ':' in word else ':'}hidden=12", 3).double()
    assert isinstance(p, FlowDensity)
    z = torch.randn(6, 3)
    eps, volume = pushed(p.flow, z)
    expected = dist.Normal(torch.zeros(3), 1).to_event(1).log_prob(eps) + volume
    torch.testing.assert_close(p().log_prob(z), expected, rtol=1e-10, atol=1e-10)
    with counted_calls(MaskedNet) as calls:
        p().log_prob(z)
        assert calls() == len(p.flow.nets)


@pytest.mark.parametrize("word", ["maf:steps=2,hidden=12", "nsf:steps=1,hidden=12"])
def test_a_flow_prior_has_the_bound_of_a_flow_posterior(word):
    """The ELBO of z ~ T^-1(N(0, I)) with q(z | x), and of eps ~ N(0, I), x given T^-1(eps), with T(q(z | x))."""
    torch.manual_seed(0)
    model = VAE(6, 3, hidden=8, prior=word).double()
    x = torch.bernoulli(torch.full((5, 6), 0.5))
    flow = model.prior.flow

    def on_noise(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("eps", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            for step in reversed(flow.transforms()):
                z = step.inv(z)
            pyro.sample("x", model.likelihood(model.decoder(z)), obs=x)

    loc, scale = torch.randn(5, 3), torch.rand(5, 3) + 0.1

    def guide(x: Tensor, name: str = "z1", steps: Sequence[Transform] = ()) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample(name, dist.TransformedDistribution(dist.Normal(loc, scale).to_event(1), [*steps]))

    bounds = []
    for program, q in ((model, guide), (on_noise, partial(guide, name="eps", steps=flow.transforms()))):
        torch.manual_seed(1)
        bounds.append(terms(program, q, (x,), particles=7, nesting=1).log_w)
    torch.testing.assert_close(*bounds, rtol=1e-10, atol=1e-10)


def test_contexts_of_other_widths_are_refused():
    flow = AutoregressiveFlow(3, inputs=[2, 4])
    for context in ((), (torch.zeros(5, 2),), (torch.zeros(5, 4), torch.zeros(5, 2))):
        with pytest.raises(ValueError, match=r"a flow of 3 entries: found contexts of widths .*, want \[2, 4\]"):
            flow.transforms(*context)
