"""Plain `def model(x)` functions, never seen by the library: guides that fit train, the others say why not."""

from itertools import product

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from torch import Tensor
from torch.distributions import MultivariateNormal, constraints

from guides import BottomUp, Faithful, Ladder, MeanField, SelfReflective
from ppl_models.inference.objectives.bounds import elbo
from ppl_models.inference.pyro.passes.terms import terms
from ppl_models.inference.pyro.training.fit import fit
from tests.helpers.cases import few

GUIDES = (MeanField, BottomUp, Ladder, SelfReflective, Faithful)
ORDERED = (BottomUp, Faithful)
ROWS, WIDTH = 12, 4


def rows(z: Tensor, scale: Tensor | float = 1.0, width: int = WIDTH) -> dist.Independent:
    """Rows of `width` noisy readings of z."""
    return dist.Normal(z.unsqueeze(-1).expand(*z.shape, width), scale).to_event(1)


def one(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", rows(z), obs=x)


def scalar(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])


def matrix(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2, 3]).to_event(2))
        w = pyro.sample("w", dist.Normal(z.sum(-1), 1.0).to_event(1))
        v = pyro.sample("v", dist.Normal(w.sum(-1) + z.sum((-2, -1)), 1.0))
        pyro.sample("x", rows(v), obs=x)


def positive(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Gamma(2.0, 1.0))
        b = pyro.sample("b", dist.LogNormal(a.log().unsqueeze(-1).expand(a.shape + (WIDTH,)), 1.0).to_event(1))
        c = pyro.sample("c", dist.HalfNormal(1.0))
        pyro.sample("x", dist.Normal(b, c.unsqueeze(-1) + 0.1).to_event(1), obs=x)


def log_normal(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.LogNormal(0.0, 1.0))
        b = pyro.sample("b", dist.LogNormal(a.log().unsqueeze(-1).expand(a.shape + (WIDTH,)), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(b, 1.0).to_event(1), obs=x)


def bounded(x):
    with pyro.plate("data", len(x)):
        p = pyro.sample("p", dist.Dirichlet(torch.ones(WIDTH)))
        b = pyro.sample("b", dist.Beta(2.0, 2.0))
        u = pyro.sample("u", dist.Uniform(torch.zeros(WIDTH), 2 * torch.ones(WIDTH)).to_event(1))
        pyro.sample("x", dist.Normal(p * b.unsqueeze(-1) + u, 1.0).to_event(1), obs=x)


def nested(x):
    with pyro.plate("data", len(x), dim=-2):
        u = pyro.sample("u", dist.Normal(0.0, 1.0))
        with pyro.plate("time", x.shape[1], dim=-1):
            v = pyro.sample("v", dist.Normal(u, 1.0))
            pyro.sample("x", dist.Normal(v, 1.0), obs=x)


def nested_other_way(x):
    with pyro.plate("data", len(x), dim=-1):
        u = pyro.sample("u", dist.Normal(0.0, 1.0))
        with pyro.plate("time", x.shape[1], dim=-2):
            v = pyro.sample("v", dist.Normal(u, 1.0))
            pyro.sample("x", dist.Normal(v, 1.0), obs=x.T)


def private_inside(x):
    with pyro.plate("data", len(x), dim=-1):
        with pyro.plate("parts", 3, dim=-2):
            w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        z = pyro.sample("z", dist.Normal(w.sum(-1).sum(-2, keepdim=True), 1.0))
        pyro.sample("x", rows(z), obs=x)


def private_before(x):
    with pyro.plate("topics", 3):  # the same dim as the data's plate
        phi = pyro.sample("phi", dist.Normal(0.0, 1.0).expand([WIDTH]).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        pyro.sample("x", dist.Normal(z @ phi, 1.0).to_event(1), obs=x)


def one_global(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", rows(z), obs=x)


def two_globals(x):
    theta = pyro.sample("theta", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    phi = pyro.sample("phi", dist.Normal(theta.sum(-1), 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(phi, 1.0))
        pyro.sample("x", rows(z), obs=x)


def two_arguments(x, y):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("x", rows(z[..., 0]), obs=x)
        pyro.sample("y", dist.Categorical(logits=torch.stack([z[..., 0], z[..., 1], -z[..., 0]], -1)), obs=y)


def arithmetic(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", rows(z), obs=x.exp().log())


def subsampled(x):
    with pyro.plate("data", len(x), subsample_size=5) as index:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", rows(z), obs=x[index])


def batch_of_a_hundred(x):
    with pyro.plate("data", 100, subsample=torch.arange(len(x))):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", rows(z), obs=x)


def no_plate(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([WIDTH]).to_event(1))
    pyro.sample("x", dist.Normal(z.unsqueeze(-2).expand(z.shape[:-1] + x.shape), 1.0).to_event(2), obs=x)


def deterministic_and_factor(x):
    with pyro.plate("topics", 3):
        pyro.deterministic("c", torch.arange(3.0), event_dim=0)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.deterministic("twice", 2 * z, event_dim=0)
        pyro.factor("f", -z.square())
        pyro.sample("x", rows(z), obs=x)


def masked_data(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with poutine.mask(mask=x[:, 0] > 0):
            pyro.sample("x", rows(z), obs=x)


def masked_latent(x):
    with pyro.plate("data", len(x)):
        with poutine.mask(mask=x[:, 0] > 0):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", rows(z), obs=x)


def masked_prior(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).mask(x[:, 0] > 0))
        pyro.sample("x", rows(z), obs=x)


def partly_missing(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0], obs_mask=x[:, 1] > 0)


def scaled_latent(x):
    with pyro.plate("data", len(x)):
        with poutine.scale(scale=0.5):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", rows(z), obs=x)


def with_params(x):
    loc = pyro.param("loc", torch.zeros(()))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", rows(z, scale), obs=x)


def part_of_the_data(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x[:, 2:].sum(-1), 1.0))
        pyro.sample("x", rows(z, width=2), obs=x[:, :2])


def in_two_parts(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", rows(z, width=2), obs=x[:, :2])
        pyro.sample("y", dist.Normal(z, 1.0), obs=x[:, 2])


def counts(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        rate = z.exp().unsqueeze(-1).expand(z.shape + (WIDTH,))
        pyro.sample("x", dist.Poisson(rate).to_event(1), obs=x.abs().round())


def matrix_prior(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.MultivariateNormal(torch.zeros(WIDTH), torch.eye(WIDTH)))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


NOT_GAUSSIAN = (positive, bounded, matrix_prior)
ALTERED = (masked_latent, masked_prior, partly_missing, scaled_latent)
MODELS = (
    one, scalar, matrix, positive, log_normal, bounded, nested, nested_other_way, private_inside, private_before,
    one_global, two_globals, two_arguments, arithmetic, subsampled, batch_of_a_hundred, no_plate,
    deterministic_and_factor, masked_data, masked_latent, masked_prior, partly_missing, scaled_latent, with_params,
    part_of_the_data, in_two_parts, counts, matrix_prior,
)  # fmt: skip


def fits(model, guide) -> bool:
    return not (guide is Ladder and model in NOT_GAUSSIAN or guide in ORDERED and model in ALTERED)


def data(model, n: int = ROWS) -> tuple[Tensor, ...]:
    x = torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(1))
    return (x, torch.arange(n) % 3) if model is two_arguments else (x,)


@pytest.mark.parametrize(
    ("model", "guide"),
    few(
        product(MODELS, GUIDES),
        lambda model, guide: guide is Faithful or not fits(model, guide) or model is subsampled,
    ),
    ids=lambda each: each.__name__,
)
def test_every_guide_trains_on_every_model_it_fits(model, guide):
    args = data(model)
    if not fits(model, guide):
        wanted = "wants a diagonal Gaussian" if guide is Ladder else "a guide with an order of its own cannot follow"
        with pytest.raises(ValueError, match=f"guide {guide.__name__}: site '[a-z_]*' has a .*{wanted}"):
            guide(model, *args)
        return
    q = guide(model, *args, family="full", hidden=8)
    loss = -elbo(terms(model, q, args))
    loss.backward()
    missed = [n for n, p in q.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert torch.isfinite(loss) and not missed
    many = terms(model, q, args, particles=3)
    n = {subsampled: 5, no_plate: 1}.get(model, ROWS)
    assert many.log_w.shape == (3, n)
    svi = SVI(model, q, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    before = [p.detach().clone() for p in q.parameters()]
    for _ in range(3):
        svi.step(*args)
    assert not any(torch.equal(a, b) for a, b in zip(before, q.parameters(), strict=True))
    fit(model, q, args, steps=2, batch_size=ROWS if model is no_plate else 6, progress=False)
    if model is not no_plate:
        values = q(*data(model, 7))  # another number of rows
        assert set(values) == set(q.layout.latents)


# log p(x): covariances of a row x by the algebra of each model; all readings of a datum share z, hence the ones


def evidence(covariance: Tensor, x: Tensor) -> Tensor:
    return MultivariateNormal(torch.zeros(len(covariance)), covariance).log_prob(x)


ONES, EYE = torch.ones(WIDTH, WIDTH), torch.eye(WIDTH)
DATA = torch.ones(ROWS, ROWS)  # what is shared by all data
EVERY = torch.eye(ROWS)
CONJUGATE = {
    one: lambda x: evidence(ONES + EYE, x).sum(),
    nested_other_way: lambda x: evidence(ONES + 2 * EYE, x).sum(),
    one_global: lambda x: evidence(torch.kron(9 * DATA + EVERY, ONES) + torch.eye(ROWS * WIDTH), x.flatten()),
    part_of_the_data: lambda x: evidence(ONES[:2, :2] + EYE[:2, :2], x[:, :2] - x[:, 2:].sum(-1, keepdim=True)).sum(),
    in_two_parts: lambda x: evidence(ONES[:3, :3] + EYE[:3, :3], x[:, :3]).sum(),
    matrix_prior: lambda x: evidence(2 * EYE, x).sum(),
}
LINEAR = {"encoder": "linear", "depth": 0}


@pytest.mark.parametrize("guide", GUIDES[1:])
@pytest.mark.parametrize("model", few(CONJUGATE, lambda model: model is in_two_parts), ids=lambda model: model.__name__)
def test_trained_guides_are_exact_where_the_truth_is_known(model, guide):
    if not fits(model, guide) or (model, guide) == (nested_other_way, BottomUp):
        pytest.skip("the guide does not fit, or v sees its own reading only and not those that u connects it with")
    args = data(model)
    q = guide(model, *args, family="full", **LINEAR)
    # one fixed batch, so the sum over its rows is what is trained; log_w is constant at the exact posterior
    fit(model, q, args, steps=800 if model is one_global else 400, lr=5e-2, ema=0.95, progress=False, seed=0)
    with torch.no_grad():
        found = terms(model, q, args, particles=200, analytic=False)
        local = [n for n in found.log_p if n not in found.shared]
        total = sum(t.sum(1) for t in found.log_likelihood.values())
        total = total + sum((found.log_p[n] - found.log_q[n]).sum(1) for n in found.log_p)
    assert local
    truth = CONJUGATE[model](args[0])
    error = total.std() / 200**0.5
    assert total.mean() < truth + 4 * error
    assert total.mean() > truth - 0.02 * ROWS - 4 * error  # within 0.02 nats a datum
    assert error < 0.3


@pytest.mark.parametrize("guide", few(GUIDES, lambda guide: guide in (MeanField, Faithful)))
@pytest.mark.parametrize("model", few([subsampled, batch_of_a_hundred], lambda model: model is subsampled))
def test_subsamples_are_amortized_at_their_own_indices_and_scaled(model, guide):
    (x,) = data(model)
    q = guide(model, x, **LINEAR)
    fit(model, q, x, steps=300, lr=3e-2, batch_size=ROWS, ema=0.98, progress=False, seed=0)
    trace, guide_trace = Trace_ELBO()._get_trace(model, q, (x,), {})
    index = trace.nodes["data"]["value"] if "data" in trace.nodes else torch.arange(len(trace.nodes["z"]["value"]))
    scale = trace.nodes["z"]["scale"]
    assert scale == guide_trace.nodes["z"]["scale"] == {subsampled: ROWS / 5, batch_of_a_hundred: 100 / ROWS}[model]
    observed = trace.nodes["x"]["value"]
    assert observed.shape[0] == len(index)
    fn = guide_trace.nodes["z"]["fn"]
    # z | x ~ N(sum x / 5, 1 / 5) at the rows that this very run observed
    torch.testing.assert_close(fn.mean, observed.sum(-1) / 5, atol=0.15, rtol=0)
    torch.testing.assert_close(fn.stddev, torch.full_like(fn.mean, 0.2**0.5), atol=0.08, rtol=0)
    found = terms(model, q, (x,), analytic=False)
    size = {subsampled: ROWS, batch_of_a_hundred: 100}[model]
    assert found.full_size == size
    expected = (found.log_w.sum() / size).item()
    assert elbo(found).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("guide", few(GUIDES, lambda guide: guide in (MeanField, Faithful)))
def test_data_closed_over_instead_of_passed(guide):
    (x,) = data(one)

    def closed():
        return one(x)

    q = guide(closed, **LINEAR)
    optimizer = torch.optim.Adam(q.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (Trace_ELBO()(closed, q)() / ROWS).backward()
        optimizer.step()
    z = torch.stack([q()["z"] for _ in range(400)])
    # an error of 0.1 of a posterior whose standard deviation is 0.45, in the mean of 400 draws and 12 rows
    assert (z.mean(0) - x.sum(-1) / 5).abs().mean() < 0.1


@pytest.mark.parametrize("guide", GUIDES)
def test_arguments_by_keyword(guide):
    args = data(two_arguments)
    q = guide(two_arguments, *args, hidden=8)
    pyro.set_rng_seed(4)
    by_place = q(*args)
    pyro.set_rng_seed(4)
    by_name = q(y=args[1], x=args[0])
    assert all(torch.equal(by_place[n], by_name[n]) for n in by_place)
    pyro.set_rng_seed(4)
    other = q(args[0], (args[1] + 1) % 3)
    assert not torch.equal(by_place["z"], other["z"])  # the second argument is evidence, too


def test_params_of_plain_functions_are_trained_by_fit():
    (x,) = data(with_params, 200)
    q = SelfReflective(with_params, x + 1, **LINEAR)
    fit(with_params, q, x + 1, steps=800, lr=5e-2, ema=0.95, progress=False)
    # the mean of all readings is the maximum-likelihood estimate of loc
    assert pyro.param("loc").item() == pytest.approx((x + 1).mean().item(), abs=0.15)
    assert pyro.param("scale").item() == pytest.approx(1.0, abs=0.15)


# ---- evidence


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("model", [nested_other_way, part_of_the_data, in_two_parts, arithmetic, private_inside])
def test_a_datum_is_inferred_from_its_own_row(model, guide):
    """In a batch as wide as it is long, and under a permutation of the rows: nothing is transposed or mixed up."""
    (x,) = data(model, WIDTH)
    q = guide(model, x, hidden=8)
    order = torch.tensor([2, 0, 3, 1])
    first = next(name for name in q.layout.latents if not q.layout.latents[name].is_global)
    if guide is BottomUp:
        first = q.order[0]

    def base(x: Tensor) -> Tensor:
        fn = poutine.trace(q).get_trace(x).nodes[first]["fn"]
        return fn.mean

    plate = next(p for p in q.layout.latents[first].plates if p.name == "data")
    event = len(q.layout.latents[first].event_shape)
    a, b = base(x), base(x[order])
    torch.testing.assert_close(a.index_select(plate.dim - event, order), b)


def evidence_of(model, *args: Tensor) -> dict:
    return MeanField(model, *args).layout.evidence(model, args, {})[0]


def test_evidence_is_what_is_observed():
    def square(x):  # x.T has the shape of x and shares its memory
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", rows(z, width=len(x)), obs=x.T)

    x = torch.randn(4, 4)
    (found,) = evidence_of(square, x).values()
    assert torch.equal(found, x.T)

    def halves(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", rows(z, width=2), obs=x)
            pyro.sample("y", rows(z, width=2), obs=y)

    (found,) = evidence_of(halves, x[:, :2], x[:, 2:]).values()  # two views of one tensor
    assert torch.equal(found, x)
    (found,) = evidence_of(halves, x[:, 2:], x[:, :2]).values()
    assert torch.equal(found, torch.cat([x[:, 2:], x[:, :2]], -1))
    (found,) = evidence_of(halves, x[:, :2], x[:, :2]).values()
    assert torch.equal(found, torch.cat([x[:, :2], x[:, :2]], -1))

    row = x[:1].expand(5, 4)  # stride 0
    (found,) = evidence_of(one, row).values()
    assert torch.equal(found, row)

    def shifted(x):  # the last rows, of the same memory
        with pyro.plate("data", len(x) - 1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", rows(z), obs=x[1:])

    (found,) = evidence_of(shifted, x).values()
    assert torch.equal(found, x[1:])

    def converted(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", rows(z), obs=x.to(torch.float32))

    (found,) = evidence_of(converted, x.double()).values()
    assert found.dtype == torch.float32 and torch.equal(found, x)
    layout = MeanField(converted, x).layout  # no conversion on the example
    (found,) = layout.evidence(converted, (x.double(),), {})[
        0
    ].values()  # as passed: the networks read it in their own dtype
    assert torch.equal(found.float(), x)
    (found,) = layout.evidence(converted, (torch.arange(16).reshape(4, 4),), {})[0].values()
    assert found.dtype == torch.float32 and torch.equal(found, torch.arange(16.0).reshape(4, 4))


def test_deterministic_values_are_no_evidence():
    (x,) = data(one)
    (found,) = evidence_of(deterministic_and_factor, x).values()
    assert torch.equal(found, x)


# ---- what does not fit


def discrete(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        z = pyro.sample("z", dist.Normal(k, 1.0))
        pyro.sample("x", rows(z), obs=x)


def bounds_by_datum(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Uniform(x[:, 0] - 1, x[:, 0] + 1))
        pyro.sample("x", rows(z), obs=x)


def bounds_by_latent(x):
    m = pyro.sample("m", dist.Gamma(3.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Uniform(0 * m, m))
        pyro.sample("x", rows(z), obs=x)


def loose_batch(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
    pyro.sample("x", rows(z).to_event(1), obs=x)


def discrete_seen(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Poisson(0.5))
        pyro.sample("x", rows(k), obs=x)


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize(
    ("model", "text"),
    [
        (discrete_seen, "site 'k' is discrete .*Poisson.*want a Categorical"),
        (bounds_by_datum, "site 'z' .Uniform. has a support whose lower bound differs .* draw a unit variable"),
        (bounds_by_latent, "site 'z' .Uniform. has a support whose upper bound differs .* draw a unit variable"),
        (loose_batch, r"site 'z' has batch shape \(12,\), of which dim -1 is in no plate; put it in a pyro.plate"),
        (lambda x: pyro.sample("z", dist.Normal(0.0, 1.0)), "observed nothing .* .it drew 'z'.; pass the data"),
        (lambda x: pyro.sample("x", dist.Normal(0.0, 1.0), obs=x[0, 0]), "the model has no latent site"),
    ],
)
def test_models_that_no_guide_fits_are_refused_at_construction(guide, model, text):
    if model is loose_batch and guide in ORDERED:
        assert guide(model, *data(one))(*data(one))["z"].shape == (ROWS,)  # one factor over R^12
        return
    with pytest.raises(ValueError, match=f"guide {guide.__name__}: .*{text}"):
        guide(model, *data(one))


def test_an_enumerated_latent_is_left_to_the_loss():
    (x,) = data(one)
    q = BottomUp(discrete, x, hidden=8)
    svi = SVI(discrete, q, pyro.optim.Adam({"lr": 0.01}), TraceEnum_ELBO(max_plate_nesting=1))
    assert svi.step(x) < float("inf")


@pytest.mark.parametrize("guide", GUIDES)
def test_runs_that_do_not_fit_the_guide_say_why(guide):
    (x,) = data(one)

    def optional(x=None, extra=False):
        with pyro.plate("data", 12 if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            if extra:
                z = pyro.sample("w", dist.Normal(z, 1.0))
            return pyro.sample("x", rows(z, width=WIDTH if x is None else x.shape[1]), obs=x)

    q = guide(optional, x, hidden=8)
    with pytest.raises(ValueError, match=f"guide {guide.__name__}: site 'x' was not observed in this run.*pass"):
        q()
    with pytest.raises(ValueError, match=f"guide {guide.__name__}: found 3 observed values a datum .*built for 4"):
        q(x[:, :3])
    text = "no factor .*'w'" if guide in ORDERED else "drew the site 'w', which it did not draw on the example"
    with pytest.raises(ValueError, match=text):
        terms(optional, q, (x, True))


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_for_another_model_is_refused(guide):
    (x,) = data(one)
    q = guide(one, x, hidden=8)
    text = f"the guide {guide.__name__} runs its own model, one at .*, which is not the positive at"
    with pytest.raises(ValueError, match=text):
        terms(positive, q, (x,))
    with pytest.raises(ValueError, match=text):
        fit(positive, q, x, steps=1, progress=False)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"family": "fulll"}, "found family 'fulll', want one of 'diagonal', 'rank-one', 'full'"),
        ({"encoder": "cnn"}, "found encoder 'cnn', want 'separate', 'shared'"),
        ({"encoder": "conv"}, r"encoder 'conv' reads rows of 4 values as images, found image=None; pass image="),
        ({"encoder": torch.nn.Linear(4, 3)}, "encoder Linear lacks the attribute `output`"),
        ({"parents": "needful"}, r"found parents='needful', want one of 'needed', 'all', 'previous', 'none'"),
        ({"parents": {"y": ("z",)}}, "parents names the site 'y', want one of the latents z, w, v"),
        ({"parents": {"w": ("y",)}}, r"parents\['w'\] has 'y', which this guide does not sample before it"),
        ({"depth": -1}, "found depth=-1, want an integer of at least 0"),
    ],
)
@pytest.mark.parametrize("guide", GUIDES)
def test_wrong_words_are_refused(guide, options, text):
    if guide in (MeanField, Faithful) and "parents" in options:
        pytest.skip("no parents to choose")
    with pytest.raises(ValueError, match=text):
        guide(matrix, *data(matrix), **options)
