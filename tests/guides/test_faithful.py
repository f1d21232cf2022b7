"""`Faithful`: the structure it finds, that it trains on any model, and how exact it gets."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

from benchmarks import eight_schools
from guides import BottomUp, Faithful, Ladder, MeanField, SelfReflective
from guides.parts import conditionals
from guides.parts.families import continuous as families
from guides.parts.families.factors import choose_family
from ppl_models import LinearGaussian
from ppl_models.factorization import compare
from ppl_models.factorization.graph import ORDERS
from ppl_models.inference import fit, terms
from tests.helpers.cases import few
from tests.helpers.regressions import DESIGNS, Regression

Y, SIGMA = eight_schools.Y, eight_schools.SIGMA


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def schools(y, sigma):
    """As in Pyro's own example: batch dims and no plate."""
    mu = pyro.sample("mu", dist.Normal(torch.zeros(1), 10 * torch.ones(1)))
    tau = pyro.sample("tau", dist.HalfCauchy(25 * torch.ones(1)))
    eta = pyro.sample("eta", dist.Normal(torch.zeros(8), torch.ones(8)))
    pyro.sample("obs", dist.Normal(mu + tau * eta, sigma), obs=y)


def schools_in_a_plate(y, sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * eta, sigma), obs=y)


def groups(x, y):
    """Coefficients for each group around common ones: x (groups, rows, 2), y (groups, rows)."""
    center = pyro.sample("center", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    spread = pyro.sample("spread", dist.HalfNormal(1.0).expand([2]).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("groups", len(y)):
        b = pyro.sample("b", dist.Normal(center.unsqueeze(-2), spread.unsqueeze(-2)).to_event(1))
        mean = (x * b.unsqueeze(-2)).sum(-1)
        pyro.sample("y", dist.Normal(mean, scale.unsqueeze(-1).unsqueeze(-1)).to_event(1), obs=y)


def chains(x):
    with pyro.plate("data", len(x)):
        z = torch.zeros(len(x))
        for t in range(x.shape[1]):
            z = pyro.sample(f"z{t}", dist.Normal(z, 1.0))
            pyro.sample(f"x{t}", dist.Normal(z, 1.0), obs=x[:, t])


def chains_of_copies(x):
    """Values that are no views of the argument."""
    chains(x + 1.0)


def one_chain(x):
    z = torch.zeros(())
    for t in range(len(x)):
        z = pyro.sample(f"z{t}", dist.Normal(z, 1.0))
        pyro.sample(f"x{t}", dist.Normal(z, 1.0), obs=x[t])


def dynamics(x):
    """Chains with a shared scale of their steps."""
    step = pyro.sample("step", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        z = torch.zeros(len(x))
        for t in range(x.shape[1]):
            z = pyro.sample(f"z{t}", dist.Normal(z, step))
            pyro.sample(f"x{t}", dist.Normal(z, 1.0), obs=x[:, t])


def topics(words):
    with pyro.plate("topics", 2):
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(5)))
    with pyro.plate("documents", len(words)):
        theta = pyro.sample("theta", dist.Dirichlet(torch.ones(2)))
        pyro.sample("words", dist.Multinomial(20, (theta.unsqueeze(-2) @ phi).squeeze(-2)), obs=words)


def poisson_topics(words):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0).expand([2, 5]).to_event(2))
    with pyro.plate("documents", len(words)):
        weight = pyro.sample("weight", dist.LogNormal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("words", dist.Poisson((weight.unsqueeze(-2) @ rate).squeeze(-2)).to_event(1), obs=words)


def correlated(x):
    tril = pyro.sample("tril", dist.LKJCholesky(3, 2.0))
    scale = pyro.sample("scale", dist.HalfNormal(1.0).expand([3]).to_event(1))
    with pyro.plate("data", len(x)):
        factor = scale.unsqueeze(-1) * tril
        factor = factor if factor.dim() == 2 else factor.unsqueeze(-3)
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(3), scale_tril=factor), obs=x)


def bounded(x):
    p = pyro.sample("p", dist.Beta(2.0, 2.0))
    u = pyro.sample("u", dist.Uniform(-torch.ones(2), 3 * torch.ones(2)).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Uniform(0.0, 1.0))
        pyro.sample("x", dist.Normal((p + z).unsqueeze(-1) * u.unsqueeze(-2), 1.0).to_event(1), obs=x)


def covariates(x, t):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(t, 1.0))
        b = pyro.sample("b", dist.Normal(a, 1.0))
        pyro.sample("x", dist.Normal(b, 1.0), obs=x)


def barren(x):
    with pyro.plate("data", len(x)):
        u = pyro.sample("u", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Normal(u, 1.0))
        pyro.sample("side", dist.Normal(u + z, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def inner(x):
    """A value a datum, and one for each time: v is coupled through u, which therefore comes first in every order."""
    with pyro.plate("data", len(x), dim=-2):
        u = pyro.sample("u", dist.Normal(0.0, 1.0))
        with pyro.plate("time", x.shape[1], dim=-1):
            v = pyro.sample("v", dist.Normal(u, 1.0))
            pyro.sample("x", dist.Normal(v, 1.0), obs=x)


WORDS = torch.distributions.Multinomial(20, torch.ones(5)).sample((6,))
CASES = {
    "schools": (schools, (Y, SIGMA), "q(mu) q(tau | mu) q(eta | mu, tau)"),
    "schools-plate": (schools_in_a_plate, (Y, SIGMA), "q(mu) q(tau | mu) q(eta | mu, tau, y, sigma)"),
    "groups": (
        groups,
        (noise(6, 4, 2), noise(6, 4) + 1),
        "q(center) q(spread | center) q(scale | center, spread) q(b | center, spread, scale, y, x)",
    ),
    "chains": (chains, (noise(6, 3),), "q(z0 | x0, x1, x2) q(z1 | z0, x1, x2) q(z2 | z1, x2)"),
    "copies": (chains_of_copies, (noise(6, 3),), "q(z0 | x0, x1, x2) q(z1 | z0, x1, x2) q(z2 | z1, x2)"),
    "one-chain": (one_chain, (noise(3),), "q(z0) q(z1 | z0) q(z2 | z1)"),
    "dynamics": (dynamics, (noise(6, 2),), "q(step) q(z0 | step, x0, x1) q(z1 | step, z0, x1)"),
    "topics": (topics, (WORDS,), "q(phi) q(theta | phi, words)"),
    "poisson-topics": (poisson_topics, (WORDS,), "q(rate) q(weight | rate, words)"),
    "correlated": (correlated, (noise(6, 3),), "q(tril) q(scale | tril)"),
    "bounded": (bounded, (noise(6, 2),), "q(p) q(u | p) q(z | p, u, x)"),
    "covariates": (covariates, (noise(6), noise(6) + 1), "q(a | x, t) q(b | a, x)"),
    "barren": (barren, (noise(6),), "q(u | x) q(z | u, x) q(side | u, z)"),
    "inner": (inner, (noise(6, 3),), "q(u | x) q(v | u, x)"),
}
LOOSE = ("schools",)  # Pyro's check of shapes refuses the model itself, unless told that there are no plates


@pytest.mark.parametrize(
    ("case", "order", "family"),
    few(
        [(case, order, family) for case in CASES for family in ("diagonal", "full", "flow") for order in ORDERS],
        lambda case, order, family: (
            (order, family) == ("top-down", "full")  # whose formula is written above
            or (case == "copies" and (order, family) in (("top-down", "flow"), ("min-fill", "full")))
        ),
    ),
)
def test_it_trains_on_any_model(case, family, order):
    model, args, formula = CASES[case]
    q = Faithful(model, *args, family=family, order=order, hidden=8)
    assert order != "top-down" or str(q.factorization) == formula
    sites = pyro.poutine.trace(model).get_trace(*args).nodes
    drawn = q(*args)
    assert set(drawn) == {name for name in q.layout.latents}
    for name, value in drawn.items():
        assert value.shape == sites[name]["value"].shape
        assert sites[name]["fn"].support.check(value).all()
    loss = Trace_ELBO(max_plate_nesting=0) if case in LOOSE else Trace_ELBO()
    svi = SVI(model, q, pyro.optim.Adam({"lr": 1e-2}), loss)
    before = [p.detach().clone() for p in q.parameters()]
    losses = [svi.step(*args) for _ in range(2)]
    assert all(torch.isfinite(torch.tensor(losses)))
    assert not any(torch.equal(a, b) for a, b in zip(before, q.parameters(), strict=True))
    run = fit(model, q, args, steps=2, lr=1e-2, progress=False, seed=0)
    assert torch.isfinite(torch.tensor(run.history[-1]["loss"]))


@pytest.mark.parametrize(
    "case",
    few([case for case in CASES if case != "barren"], lambda case: case == "dynamics"),
)
def test_its_loss_falls(case):
    model, args, _ = CASES[case]
    q = Faithful(model, *args, hidden=8)
    run = fit(model, q, args, steps=120, every=30, lr=2e-2, ema=None, particles=2, progress=False, seed=0)
    assert run.history[-1]["loss"] < run.history[0]["loss"]


@pytest.mark.parametrize(
    ("case", "order"),
    few(
        [(case, order) for case in CASES for order in ORDERS],
        lambda case, order: order == "min-fill" or case == "inner",
    ),
)
def test_the_inspector_agrees(case, order):
    """Whatever the order: faithful and minimal as run."""
    model, args, _ = CASES[case]
    # the copies of phi are dependent: a diagonal family says they are not
    family = {"phi": "full"} if case == "topics" else "diagonal"
    report = compare(model, Faithful(model, *args, order=order, hidden=8, family=family), *args)
    assert report.faithful and report.minimal, report


def test_structures_by_order():
    def formula(model, args, order, **options):
        return str(Faithful(model, *args, order=order, hidden=4, **options).factorization)

    x = (noise(6, 3),)
    assert formula(chains, x, "bottom-up") == "q(z2 | x0, x1, x2) q(z1 | z2, x0, x1) q(z0 | z1, x0)"
    assert formula(chains, x, "min-fill") == "q(z1 | x0, x1, x2) q(z2 | z1, x2) q(z0 | z1, x0)"
    assert formula(dynamics, x, "bottom-up").startswith("q(step) q(z2 | step, x0, x1, x2) q(z1 | step, z2, x0, x1)")
    one = (noise(3),)
    assert formula(one_chain, one, "bottom-up") == "q(z2) q(z1 | z2) q(z0 | z1)"
    sequence = "q(z0 | x0, x1, x2) q(z1 | z0, x1, x2) q(z2 | z1, x2)"
    assert formula(one_chain, one, "top-down", amortized=True) == sequence
    assert formula(inner, x, "bottom-up") == "q(u | x) q(v | u, x)"
    assert formula(barren, (noise(6),), "bottom-up") == "q(z | x) q(u | z) q(side | u, z)"
    both = {"z2": ("z1",), "z3": ("z1",), "x": ("z2", "z3")}
    fork = LinearGaussian(3, (2, 2, 2), both)
    assert formula(fork, (noise(4, 3),), "bottom-up") == "q(z3 | x) q(z2 | z3, x) q(z1 | z2, z3)"


@pytest.mark.parametrize("model", [chains, chains_of_copies])
def test_a_factor_reads_the_sites_it_needs_and_no_more(model):
    """q(z1 | z0, x1, x2) does not move with x0, and does with the others; nothing reads another row."""
    x = noise(6, 3)
    q = Faithful(model, x, hidden=8)

    def means(x: Tensor) -> dict[str, Tensor]:
        pyro.set_rng_seed(0)
        nodes = pyro.poutine.trace(q).get_trace(x).nodes
        return {
            name: q.factors.encode(q.layout.evidence(model, (x,), {})[0])[name] for name in q.order if name in nodes
        }

    base = means(x)
    for t in range(3):
        moved = x.clone()
        moved[2, t] += 1
        for i, name in enumerate(("z0", "z1", "z2")):
            change = (means(moved)[name] - base[name]).abs().sum(-1) > 0
            assert change.tolist() == [row == 2 and t >= i for row in range(6)]
    assert q(noise(4, 3))["z1"].shape == (4,)


def test_covariates_are_read_where_they_are_needed():
    x, t = noise(6), noise(6) + 1
    q = Faithful(covariates, x, t, order="bottom-up", hidden=8)
    assert str(q.factorization) == "q(b | x, t) q(a | b, t)"
    assert {reading.sites: size for reading, size in q.layout.sizes.items()} == {("x", "t"): 2, ("t",): 1}
    pyro.set_rng_seed(0)
    first = q(x, t)
    pyro.set_rng_seed(0)
    assert not torch.equal(first["a"], q(x, t=t + 1)["a"])
    assert MeanField(covariates, x, t, hidden=8).layout.covariates == {1: "t"}
    with pytest.raises(ValueError, match="guide Faithful: found no tensor for the argument 't' of the model"):
        q(x)


@pytest.mark.parametrize("guide", [Faithful, BottomUp])
def test_batch_dims_outside_of_plates_are_one_factor(guide):
    q = guide(schools, Y, SIGMA, family="full", hidden=8)
    node = pyro.poutine.trace(q).get_trace(Y, SIGMA).nodes["eta"]
    density, value = node["fn"], node["value"]
    assert density.batch_shape == value.shape == (8,)
    assert isinstance(density, families.Spread) and density.joint.event_shape == (8,)
    torch.testing.assert_close(density.log_prob(value).sum(), density.joint.log_prob(value))
    wide = density.expand((3, 8))
    assert wide.sample().shape == (3, 8) and wide.log_prob(value.expand(3, 8)).shape == (3, 8)
    for other in (MeanField, Ladder, SelfReflective):
        with pytest.raises(ValueError, match="in no plate; put it in a pyro.plate, .*take a guide with an order"):
            other(schools, Y, SIGMA)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"order": "sideways"}, "found order='sideways', want one of 'top-down', 'bottom-up', 'min-fill'"),
        ({"order": None}, "found order=None, want one of 'top-down'"),
        ({"family": "cauchy"}, "found family 'cauchy', want one of 'diagonal', 'rank-one', 'full', 'flow'"),
        ({"amortized": False}, "found amortized=False, but site 'z0' has a value for each datum.*leave it out"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(options, text):
    with pytest.raises(ValueError, match=f"guide Faithful: {text}"):
        Faithful(chains, noise(6, 3), **options)


# ---- the flow


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_flow_is_a_density_that_starts_at_the_gaussian(n):
    flow = choose_family("flow", n, "", conditionals.FAMILIES, precision_weighted=False)
    raw = torch.zeros(4, flow.count(n)).double()
    z = noise(4, n).double()
    gaussian = torch.distributions.Normal(1.0, 2.0)
    start = flow.residual(raw, torch.ones(n).double(), 2.0)
    torch.testing.assert_close(start.log_prob(z), gaussian.log_prob(z).sum(-1), rtol=1e-6, atol=1e-6)
    q = flow.residual(raw + noise(4, flow.count(n)), 0.0, 1.0)
    z = q.rsample()
    kept = q.log_prob(z)
    torch.testing.assert_close(q.log_prob(z.clone()), kept, rtol=1e-7, atol=1e-7)  # no cached inverse
    if n == 1:
        grid = torch.linspace(-100, 100, 200_001).double().reshape(-1, 1, 1)
        total = torch.trapezoid(q.log_prob(grid).exp(), dx=1e-3, dim=0)
        torch.testing.assert_close(total, torch.ones(4).double(), rtol=1e-3, atol=0)


def test_a_flow_is_not_merged():
    with pytest.raises(
        ValueError, match="guide Ladder: found family 'flow', which has no product with a prior.*'full'"
    ):
        Ladder(chains, noise(6, 3), family="flow")
    with pytest.raises(ValueError, match="Flow: found bins=1, want an integer of at least 2"):
        families.Flow(1)
    q = SelfReflective(chains, noise(6, 3), family="flow", hidden=8)
    assert fit(chains, q, noise(6, 3), steps=2, progress=False).history


# ---- exactness

DAGS = {
    "chain": None,
    "skip": {"z3": ("z2", "z1"), "x": ("z3", "z1")},
    "fork": {"z2": ("z1",), "z3": ("z1",), "x": ("z2", "z3")},
}


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dag", DAGS)
def test_it_is_exact_on_linear_gaussian_twins(dag, order):
    model = LinearGaussian(3, (2, 2, 2), DAGS[dag], generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    pyro.set_rng_seed(0)
    x = model(n=2000)
    q = Faithful(model, x[:3], order=order, family="full", encoder="linear", depth=0)
    fit(model, q, x, steps=2000, lr=2e-2, batch_size=500, ema=0.99, progress=False, seed=0)
    with torch.no_grad():
        bounds = torch.stack(
            [terms(model, q, (x,), particles=8, nesting=1, analytic=False).log_w.mean() for _ in range(10)]
        )
    gap = model.log_evidence(x).mean() - bounds.mean()
    assert bounds.std() / 10**0.5 < 0.001  # nats
    assert gap.abs() < 0.01


@pytest.mark.slow
def test_the_flow_agrees_with_reference_draws_on_eight_schools():
    """Means within 0.15 posterior standard deviations, standard deviations within 15 %."""
    guide, _ = eight_schools.trained("flow")
    for name, (errors, ratios) in eight_schools.compared(guide).items():
        assert (errors.abs() < 0.15).all(), (name, errors)
        assert ((ratios - 1).abs() < 0.15).all(), (name, ratios)


@pytest.mark.slow
@pytest.mark.parametrize("name", DESIGNS)
def test_regressions_agree_with_reference_draws(name, data_root):
    """Means within 0.1 posterior standard deviations, standard deviations within 10 %."""
    model = Regression(name, data_root)
    pyro.set_rng_seed(0)
    q = Faithful(model, model.y, order="bottom-up", family="full")  # q(sigma) q(b | sigma): Gaussian in b, exactly
    fit(model, q, model.y, steps=2000, lr=2e-2, particles=16, batch_size=len(model.y), ema=0.99, progress=False, seed=0)
    pyro.set_rng_seed(1)
    with torch.no_grad(), pyro.plate("draws", 50_000):
        found = model.original(q(model.y))
    expected = model.reference
    errors, ratios = (found.mean(0) - expected.mean(0)) / expected.std(0), found.std(0) / expected.std(0)
    assert (errors.abs() < 0.1).all(), errors
    assert ((ratios - 1).abs() < 0.1).all(), ratios
