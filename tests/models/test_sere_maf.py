"""SeRe-MAF of two blocks: densities, draws and marginals against quadrature, and in closed form where it is linear."""

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

from guides import SelfReflective
from ppl_models import SeReMAF, data
from ppl_models.inference import evaluate, fit

SIZES = {"layers": 2, "latent": 1, "hidden": 12, "code_hidden": 6, "bijection": "rank-one"}
EDGE, POINTS = 8.0, 61


def built(event: int, seed: int = 0) -> SeReMAF:
    """A model far enough from its start to be curved."""
    torch.manual_seed(seed)
    model = SeReMAF(event, **SIZES).double().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.15 * torch.randn_like(parameter))
    return model


def log_joint(model: SeReMAF, x: Tensor, z: dict[str, Tensor]) -> Tensor:
    """log p(x, z), summed over the sites, at values of the codes."""
    nodes = poutine.trace(poutine.condition(model, data=z)).get_trace(x)
    nodes.compute_log_prob()
    return sum(node["log_prob"] for node in nodes.nodes.values() if node["type"] == "sample" and "log_prob" in node)


def marginal(model: SeReMAF, x: Tensor) -> Tensor:
    """log p(x) of each row by a sum over a grid of both codes."""
    grid = torch.linspace(-EDGE, EDGE, POINTS)
    z1, z2 = (part.reshape(-1, 1) for part in torch.meshgrid(grid, grid, indexing="ij"))
    step, found = 2 * (grid[1] - grid[0]).log(), []
    for rows in x.split(20):
        z = {"z1": z1.repeat(len(rows), 1), "z2": z2.repeat(len(rows), 1)}
        joint = log_joint(model, rows.repeat_interleave(len(z1), 0), z).unflatten(0, (len(rows), -1))
        found.append(joint.logsumexp(1) + step)
    return torch.cat(found)


def test_blocks_integrate_to_one(double):
    model = built(4)
    grid = torch.linspace(-12, 12, 401)
    first, z = torch.tensor([0.3, -0.8]), torch.tensor([[0.7]])
    block = torch.cartesian_prod(grid, grid)
    x = torch.cat([first.expand(len(block), 2), block], -1)
    nodes = poutine.trace(poutine.condition(model, data={"z1": z.expand(len(x), 1), "z2": z.expand(len(x), 1)}))
    found = nodes.get_trace(x).nodes["x2"]
    total = found["fn"].log_prob(found["value"]).exp().sum() * (grid[1] - grid[0]) ** 2
    assert abs(total.item() - 1) < 1e-6


@pytest.mark.slow
def test_marginal_against_importance_samples_and_draws(double):
    model = built(2)
    x = torch.tensor([[0.2, -0.4], [1.0, 0.5], [-1.5, 0.1]])
    exact = marginal(model, x)
    guide = SelfReflective(model, x, hidden=4)
    found = evaluate(model, guide, x, particles=40_000, progress=False)
    assert abs(found.nll + exact.mean().item()) < 0.01
    # probabilities of cells under the marginal against frequencies of draws
    pyro.set_rng_seed(1)
    draws = model(n=20_000)
    edges = torch.tensor([-1.0, 0.0, 1.0])
    cells = torch.bucketize(draws, edges)
    frequencies = (cells[:, 0] * 4 + cells[:, 1]).bincount(minlength=16) / len(draws)
    grid = torch.linspace(-8, 8, 33)
    points = torch.cartesian_prod(grid, grid) + 0.25
    weights = marginal(model, points).exp() * (grid[1] - grid[0]) ** 2
    cells = torch.bucketize(points, edges)
    exact = torch.zeros(16).index_add(0, cells[:, 0] * 4 + cells[:, 1], weights)
    assert abs(exact.sum() - 1) < 2e-3
    assert (exact - frequencies).abs().max() < 4 * 0.5 / len(draws) ** 0.5


def test_the_density_of_a_block_by_its_formula(double):
    """log N(T(x); mu(z), (diag d + u u^T)^-1) + log|det dT/dx|, with torch's Gaussian and the Jacobian of T."""
    model = SeReMAF(6, **SIZES | {"latent": 2}).double().requires_grad_(False)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    x = torch.randn(3, 6)
    nodes = poutine.trace(model).get_trace(x).nodes
    z, (before, block) = nodes["z2"]["value"], model.cut(x)
    loc, log_d, u = model.bases[1](z).chunk(3, -1)
    precision = torch.diag_embed((5 * torch.tanh(log_d / 5)).exp()) + u.unsqueeze(-1) * u.unsqueeze(-2)

    for i in range(3):

        def noise(e: Tensor, i: int = i) -> Tensor:
            for net in model.flows[1].nets:
                m, a = net(e, z[i], before[i]).unbind(-1)
                e = m + (3 * torch.tanh(a / 3)).exp() * e
            return e

        volume = torch.linalg.slogdet(torch.autograd.functional.jacobian(noise, block[i])).logabsdet
        base = torch.distributions.MultivariateNormal(loc[i], precision_matrix=precision[i])
        expected = base.log_prob(noise(block[i])) + volume
        torch.testing.assert_close(nodes["x2"]["fn"].log_prob(block)[i], expected, rtol=1e-10, atol=1e-10)


def test_linear_networks_are_jointly_gaussian(double):
    """T(x) = x + M x + a z + B x', codes in a Gaussian chain: log p(x) in closed form."""
    model = SeReMAF(4, **SIZES | {"steps": 1, "bijection": "identity"}).double().requires_grad_(False)
    torch.manual_seed(5)
    m, a, b = [torch.randn(2, 2).tril(-1) for _ in range(2)], torch.randn(2, 2), torch.randn(2, 2)
    slope = 0.8

    def steps_of(i: int):
        def numbers(x: Tensor, z: Tensor, *before: Tensor) -> Tensor:
            shift = x @ m[i].mT + z * a[i] + (before[0] @ b.mT if before else 0.0)
            return torch.stack([shift, torch.zeros_like(shift)], -1)

        return numbers

    for i in range(2):
        model.flows[i].nets[0].forward = steps_of(i)
        model.bases[i].forward = lambda z: torch.zeros(*z.shape[:-1], 6)
    model.priors[0].forward = lambda: torch.zeros(2)
    model.priors[1].forward = lambda z: torch.cat([slope * z, torch.zeros_like(z)], -1)
    # noise (e_z1, e_z2, e_x1, e_x2) -> x: z1 = e, z2 = slope z1 + e, (I + M) x = e - a z - B x'
    z1 = torch.tensor([[1.0, 0, 0, 0, 0, 0]])
    z2 = slope * z1 + torch.tensor([[0, 1.0, 0, 0, 0, 0]])
    unit = torch.eye(6)
    x1 = torch.linalg.solve(torch.eye(2) + m[0], unit[2:4] - a[0][:, None] * z1)
    x2 = torch.linalg.solve(torch.eye(2) + m[1], unit[4:] - a[1][:, None] * z2 - b @ x1)
    whole = torch.cat([x1, x2])
    exact = torch.distributions.MultivariateNormal(torch.zeros(4), whole @ whole.mT)
    pyro.set_rng_seed(0)
    x = model(n=5)
    torch.testing.assert_close(marginal(model, x), exact.log_prob(x), rtol=1e-8, atol=1e-8)


def test_blocks_of_images_and_of_vectors():
    image = SeReMAF((2, 5, 3), layers=2, latent=2, hidden=6, code_hidden=4)
    x = torch.randn(3, 30)
    assert image.blocks == [12, 18] and torch.equal(image.join(image.cut(x)), x)
    assert torch.equal(image.cut(x)[0][0], x[0].reshape(2, 5, 3)[:, :2].flatten())
    assert image(n=2).shape == (2, 30)
    assert SeReMAF(7, layers=3, latent=2, hidden=6, code_hidden=4).blocks == [2, 2, 3]


def test_it_learns():
    train, test = data.load("digits", transform="logit")
    torch.manual_seed(0)
    model = SeReMAF((1, 8, 8), layers=2, latent=4, hidden=64, code_hidden=16)
    guide = SelfReflective(model, train[:3], hidden=32)
    before = evaluate(model, guide, test, particles=5, progress=False)
    fit(model, guide, train, steps=60, lr=2e-3, batch_size=128, progress=False)
    after = evaluate(model, guide, test, particles=5, progress=False)
    assert after.nll < before.nll - 50
    assert after.bits_per_dim < before.bits_per_dim


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 5), "found .*5"),
        (torch.full((3, 4), float("nan")), "NaN|finite"),
        (torch.zeros(0, 4), "empty|at least"),
        (torch.eye(4), "found 2 different values among 16.* dequantize them"),
    ],
)
def test_wrong_data(x, message):
    with pytest.raises(ValueError, match=message):
        SeReMAF(4, **SIZES)(x)
