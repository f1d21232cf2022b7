"""Guides of models with discrete latents: exact means over states, relaxed draws, and what is refused."""

from collections.abc import Callable
from itertools import product

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from guides import Bidirectional, BottomUp, Faithful, Infused, Ladder, MeanField, Merging, Recurrent, SelfReflective
from ppl_models.factorization import compare
from ppl_models.inference import elbo, evaluate, fit, importance_weighted, terms, vhp
from ppl_models.inference.pyro.passes.messengers import Substitute
from tests.helpers.cases import few

WEIGHTS = torch.tensor([0.2, 0.3, 0.5], dtype=torch.double)
STEP = torch.tensor([[0.8, 0.2], [0.3, 0.7]], dtype=torch.double)
SEEN = torch.tensor([0.2, 0.9], dtype=torch.double)
LOCS = torch.tensor([[1.0, 0.0], [0.0, -1.0], [2.0, 0.5]], dtype=torch.double)


def mixture(x: Tensor) -> None:
    """Three Gaussians on a line."""
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(WEIGHTS.to(x)))
        pyro.sample("x", dist.Normal(2.0 * k, 1.0), obs=x)


def chain(x: Tensor) -> None:
    """Two hidden states, three steps."""
    state = 0
    with pyro.plate("data", len(x)):
        for t in pyro.markov(range(3)):
            state = pyro.sample(f"s{t}", dist.Categorical(STEP.to(x)[state]))
            pyro.sample(f"x{t}", dist.Bernoulli(SEEN.to(x)[state]), obs=x[:, t])


def mixed(x: Tensor) -> None:
    """A one-hot cluster, a vector of bits and a code."""
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.OneHotCategorical(WEIGHTS.to(x)))
        b = pyro.sample("b", dist.Bernoulli(torch.tensor([0.3, 0.6]).to(x)).to_event(1))
        z = pyro.sample("z", dist.Normal(k @ LOCS.to(x), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z + b, 1.0).to_event(1), obs=x)


def bits(x: Tensor) -> None:
    """Bits alone, of which the data are the weighted sum."""
    with pyro.plate("data", len(x)):
        b = pyro.sample("b", dist.Bernoulli(torch.tensor([0.3, 0.6]).to(x)).to_event(1))
        k = pyro.sample("k", dist.OneHotCategorical(logits=b @ LOCS[:2].T.to(x) @ LOCS[:2].to(x)))
        mean = (b * torch.tensor([1.0, 2.0]).to(x)).sum(-1) + (k * torch.tensor([0.0, 1.0]).to(x)).sum(-1)
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def switching(x: Tensor) -> None:
    """A position that a switch moves, two steps."""
    with pyro.plate("data", len(x)):
        s1 = pyro.sample("s1", dist.Bernoulli(0.3))
        z1 = pyro.sample("z1", dist.Normal(3 * s1, 1.0))
        pyro.sample("x1", dist.Normal(z1, 0.5), obs=x[:, 0])
        s2 = pyro.sample("s2", dist.Bernoulli(0.2 + 0.6 * s1))
        z2 = pyro.sample("z2", dist.Normal(z1 + s2, 1.0))
        pyro.sample("x2", dist.Normal(z2, 0.5), obs=x[:, 1])


TOPICS = torch.tensor([[4.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 4.0]])


def topics(x: Tensor) -> None:
    """Words of documents by topics."""
    with pyro.plate("documents", len(x), dim=-2):
        theta = pyro.sample("theta", dist.Dirichlet(torch.ones(2)))
        with pyro.plate("words", x.shape[1], dim=-1):
            z = pyro.sample("z", dist.Categorical(theta))
            pyro.sample("x", dist.Categorical(logits=TOPICS[z]), obs=x)


def global_means(x: Tensor) -> None:
    """A mixture whose means are unknown."""
    with pyro.plate("components", 3):
        means = pyro.sample("means", dist.Normal(0.0, 5.0))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.ones(3)))
        pyro.sample("x", dist.Normal(means[k], 1.0), obs=x)


SEQUENCES = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)


def line(n: int = 6, width: int = 0) -> Tensor:
    return 2 * torch.randn(n, *[width] * bool(width), generator=torch.Generator().manual_seed(1)).double() + 1


def bound(model: Callable, guide: Callable, x: Tensor) -> Tensor:
    return elbo(terms(model, guide, (x,), nesting=1, states=True))


def evidence(model: Callable, x: Tensor, sites: dict[str, int]) -> float:
    """log p(x) of a model of whole numbers, by all of its states, in nats per datum."""
    found = []
    for states in product(*(range(n) for n in sites.values())):
        values = {name: torch.full((len(x),), state) for name, state in zip(sites, states, strict=True)}
        trace = pyro.poutine.trace(pyro.poutine.condition(model, data=values)).get_trace(x)
        trace.compute_log_prob()
        found.append(sum(node["log_prob"] for node in trace.nodes.values() if node["type"] == "sample"))
    return torch.stack(found).logsumexp(0).mean().item()


QUICK = [("mixture", BottomUp), ("chain", Faithful)]
CASES = {"mixture": (mixture, line(), {"k": 3}), "chain": (chain, SEQUENCES.double(), {f"s{t}": 2 for t in range(3)})}


@pytest.mark.parametrize(
    ("name", "guide"),
    few(product(CASES, [Faithful, BottomUp, SelfReflective]), lambda name, guide: (name, guide) in QUICK),
)
def test_exact_posteriors_are_reached(name, guide, double):
    """Within 1e-3 nats of the evidence, by a few steps of L-BFGS on the exact bound."""
    model, x, sites = CASES[name]
    q = guide(model, x, hidden=16)
    optimizer = torch.optim.LBFGS(q.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = -bound(model, q, x)
        value.backward()
        return value

    optimizer.step(loss)
    gap = evidence(model, x, sites) - bound(model, q, x).item()
    assert -1e-9 < gap < 1e-3
    found = evaluate(model, q, x, particles=50, progress=False)  # by draws
    assert found.nll == pytest.approx(-evidence(model, x, sites), abs=5e-3)


@pytest.mark.slow
def test_fit_reaches_the_evidence():
    x = line().float()
    q = Faithful(mixture, x, hidden=16)
    run = fit(mixture, q, x, steps=300, lr=2e-2, ema=None, progress=False, seed=0)
    assert run.notes == []
    assert abs(bound(mixture, q, x).item() - evidence(mixture, x, {"k": 3})) < 1e-3


def exact(model: Callable, guide: Callable, x: Tensor, sites: dict[str, list[Tensor]]) -> Tensor:
    """The bound by a sum over all states, each with its own run of the pair."""
    total = torch.zeros(())
    for states in product(*sites.values()):
        values = {n: s.expand(len(x), *s.shape) for n, s in zip(sites, states, strict=True)}
        with Substitute(values):
            found = terms(model, guide, (x,), analytic=False)
        total = total + (sum(found.log_q.values()).exp() * found.log_w).sum() / len(x)
    return total


OFTEN = [Faithful, MeanField]
BITS = [torch.tensor(each).double() for each in product((0.0, 1.0), repeat=2)]
EXACT = {
    "mixture": (mixture, line(), {"k": [*torch.arange(3)]}),
    "chain": (chain, SEQUENCES.double()[::2], {f"s{t}": [*torch.arange(2)] for t in range(3)}),
    "bits": (bits, line(), {"b": BITS, "k": [*torch.eye(2).double()]}),
}


@pytest.mark.parametrize(
    ("name", "guide"),
    few(product(EXACT, [Faithful, MeanField, SelfReflective, BottomUp, Bidirectional]), lambda _, g: g in OFTEN),
)
def test_bound_and_gradient_are_those_of_the_sum_over_all_states(name, guide, double):
    model, x, sites = EXACT[name]
    q = guide(model, x, hidden=4)
    weights = [*q.parameters()]
    found, want = bound(model, q, x), exact(model, q, x, sites)
    assert found.item() == pytest.approx(want.item(), abs=1e-10)
    for one, other in zip(torch.autograd.grad(found, weights), torch.autograd.grad(want, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("guide", [Faithful, BottomUp])
@pytest.mark.parametrize("name", EXACT)
def test_the_elbo_of_pyro_that_enumerates_is_the_same(name, guide, double):
    model, x, _ = EXACT[name]
    q = guide(model, x, hidden=4)
    weights = [*q.parameters()]
    of_pyro = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(model, q, x) / len(x)
    ours = -bound(model, q, x)
    assert ours.item() == pytest.approx(of_pyro.item(), abs=1e-10)
    for one, other in zip(torch.autograd.grad(ours, weights), torch.autograd.grad(of_pyro, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


PROGRAMS = {
    "mixed": (mixed, line(8, 2).float(), "q(k | x) q(b | k, x) q(z | k, b, x)"),
    "switching": (
        switching,
        line(8, 2).float(),
        "q(s1 | x1, x2) q(z1 | s1, x1, x2) q(s2 | s1, z1, x2) q(z2 | z1, s2, x2)",
    ),
    "topics": (topics, torch.randint(0, 4, (5, 6)), "q(theta | x) q(z | theta, x)"),
    "global means": (global_means, line(9).float(), "q(means) q(k | means, x)"),
}


@pytest.mark.parametrize("name", few(PROGRAMS, lambda name: name in ("topics", "global means")))
def test_models_of_users_are_trained_by_a_faithful_guide(name):
    model, x, formula = PROGRAMS[name]
    q = Faithful(model, x, hidden=8)
    assert str(q.factorization) == formula
    run = fit(model, q, x, steps=40, lr=1e-2, particles=2, progress=False, seed=0)
    assert not any("dimension" in note for note in run.notes)  # particles and states, in one pass
    assert run.history[-1]["loss"] < run.history[0]["loss"] or len(run.history) == 1
    report = compare(model, q, x)
    assert report.faithful, str(report)


def test_draws_estimate_what_the_sum_over_states_is(double):
    """Relaxed draws are those of the masses: the mean over many is the exact bound, within 4 standard errors."""
    x = line()
    for guide in (Faithful, MeanField):
        q = guide(bits, x, hidden=4, discrete="relax")
        summed = guide(bits, x, hidden=4)
        summed.load_state_dict(q.state_dict())
        found = terms(bits, q, (x,), particles=4000, nesting=1, analytic=False)
        drawn = found.log_w.mean(1)
        error = drawn.std() / len(drawn) ** 0.5
        assert abs(drawn.mean() - bound(bits, summed, x)) < 4 * error
        assert {*found.drawn["b"].unique().tolist()} == {*found.drawn["k"].unique().tolist()} == {0.0, 1.0}


@pytest.mark.parametrize(
    ("discrete", "guide"),
    few(product(["enumerate", "relax"], [*OFTEN, SelfReflective, BottomUp, Bidirectional]), lambda _, g: g in OFTEN),
)
def test_every_parameter_has_a_gradient(guide, discrete):
    x = line(8, 2).float()
    q = guide(mixed, x, hidden=4, discrete=discrete)
    (-elbo(terms(mixed, q, (x,), nesting=1, states=True))).backward()
    without = [name for name, p in q.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [name for name in without if "blocks" not in name] == []  # inner weights of blocks begin behind zeros


def test_the_divergence_of_relaxed_draws_is_in_closed_form():
    x = line(8, 2).float()
    q = SelfReflective(mixed, x, hidden=4, discrete="relax")
    one, other = (terms(mixed, q, (x,), particles=2, nesting=1).kl for _ in range(2))
    torch.testing.assert_close(one["k"], other["k"])


def test_states_that_the_prior_leaves_out_have_no_mass(double):
    """A chain that never goes back: a guide in the model's order knows it, and stays finite."""
    step = torch.tensor([[0.5, 0.5], [0.0, 1.0]])

    def forward(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            state = pyro.sample("s0", dist.Categorical(step[0]))
            pyro.sample("x0", dist.Bernoulli(SEEN[state]), obs=x[:, 0])
            state = pyro.sample("s1", dist.Categorical(step[state]))
            pyro.sample("x1", dist.Bernoulli(SEEN[state]), obs=x[:, 1])

    x = SEQUENCES.double()
    q = SelfReflective(forward, x, hidden=8)
    assert q.layout.latents["s1"].facts.limited and not q.layout.latents["s0"].facts.limited
    trace = pyro.poutine.trace(q).get_trace(x)
    after = trace.nodes["s1"]["fn"].probs
    assert (after[trace.nodes["s0"]["value"] == 1][:, 0] == 0).all()
    optimizer = torch.optim.Adam(q.parameters(), lr=3e-2)
    for _ in range(200):
        optimizer.zero_grad()
        (-bound(forward, q, x)).backward()
        optimizer.step()
    assert abs(evidence(forward, x, {"s0": 2, "s1": 2}) - bound(forward, q, x).item()) < 1e-3


def test_rows_that_a_mask_takes_out_count_for_nothing(double):
    """The factor has the mask of its prior, and its masses still sum to one where they do not count."""
    kept = torch.tensor([True, False, True, True, False, True])

    def masked(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            with pyro.poutine.mask(mask=kept[: len(x)]):
                k = pyro.sample("k", dist.Categorical(WEIGHTS))
            pyro.sample("x", dist.Normal(2.0 * k, 1.0), obs=x)

    x = line()
    q = MeanField(masked, x, hidden=4)
    found = terms(masked, q, (x,), nesting=1, states=True)
    masses = pyro.poutine.trace(q).get_trace(x).nodes["k"]["fn"].probs
    density = dist.Normal(2.0 * torch.arange(3.0), 1.0).log_prob(x[:, None])
    torch.testing.assert_close(found.log_likelihood["x"][0], (masses * density).sum(-1))
    torch.testing.assert_close(found.kl["k"][0], kept * (masses * (masses.log() - WEIGHTS.log())).sum(-1))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "discrete"), [("mixed", "enumerate"), ("mixed", "relax"), ("switching", "enumerate")])
@pytest.mark.parametrize("guide", [Faithful, SelfReflective])
def test_captured_steps_are_the_eager_ones(name, guide, discrete):
    model, x, _ = PROGRAMS[name]
    found = []
    for compiler in (False, "xla"):
        pyro.set_rng_seed(0)
        q = guide(model, x, hidden=4, discrete=discrete)
        run = fit(model, q, x, steps=20, progress=False, ema=None, compile=compiler, seed=0)
        assert run.notes == []
        found.append(torch.cat([p.detach().flatten() for p in q.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


# ---- what is refused


def of(prior: Callable) -> Callable:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", prior())
            pyro.sample("x", dist.Normal(k.reshape(*k.shape[: k.dim() - prior().event_dim], -1).sum(-1), 1.0), obs=x)

    return model


@pytest.mark.parametrize("guide", [MeanField, Faithful, SelfReflective, Ladder, BottomUp])
@pytest.mark.parametrize(
    "prior", [lambda: dist.Poisson(2.0), lambda: dist.Multinomial(4, torch.ones(3)), lambda: dist.Binomial(3, 0.5)]
)
def test_other_discrete_families_are_refused(guide, prior):
    family = type(prior()).__name__
    text = rf"guide {guide.__name__}: site 'k' is discrete \({family}\), want a Categorical, a OneHotCategorical or a"
    with pytest.raises(ValueError, match=text):
        guide(of(prior), line().float())


@pytest.mark.parametrize("guide", [Ladder, Merging, Recurrent, Infused])
def test_guides_of_gaussians_refuse_discrete_sites(guide):
    with pytest.raises(ValueError, match=f"guide {guide.__name__}: site 'k' .*try SelfReflective"):
        guide(mixture, line().float())


def loose(x: Tensor) -> None:
    k = pyro.sample("k", dist.Bernoulli(torch.full((3,), 0.5)))
    pyro.sample("x", dist.Normal(k.sum(-1), 1.0), obs=x.sum())


REFUSED = [
    (mixture, {"discrete": "relax"}, "site 'k' is discrete .Categorical., found discrete='relax', .*OneHotCategorical"),
    (of(lambda: dist.Bernoulli(torch.full((20,), 0.5)).to_event(1)), {}, r"2\^20 states, want at most 4096 .*relax"),
    (loose, {}, "3 batch entries in no plate"),
]


@pytest.mark.parametrize(("model", "options", "text"), REFUSED)
def test_what_has_no_sum_or_no_gradient_is_refused(model, options, text):
    with pytest.raises(ValueError, match=f"guide Faithful: .*{text}"):
        Faithful(model, line().float(), **options)


def test_a_factor_of_all_copies_of_a_discrete_site_is_refused():
    with pytest.raises(ValueError, match="site 'theta' is given all copies of 'z' in the plate 'words'.*order"):
        BottomUp(topics, torch.randint(0, 4, (5, 6)))


def test_all_copies_of_a_discrete_site_are_refused_where_a_datum_depends_on_them():
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            with pyro.plate("parts", 3, dim=-1):
                b = pyro.sample("b", dist.Bernoulli(0.4))
            pyro.sample("x", dist.Normal(b.sum(-1, keepdim=True), 1.0), obs=x)

    x = line().float().unsqueeze(-1)
    with pytest.raises(ValueError, match="depends on all copies of 'b' in the plate 'parts'.*discrete='relax'"):
        fit(model, MeanField(model, x, hidden=4), x, steps=1, progress=False)
    fit(model, MeanField(model, x, hidden=4, discrete="relax"), x, steps=1, progress=False)


def test_programs_that_are_wrong_with_states_side_by_side_are_refused():
    table = torch.randn(6, 3)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3)))
            pyro.sample("x", dist.Normal(table.flatten()[k.flatten() + torch.arange(len(k.flatten()))], 1.0), obs=x)

    with pytest.raises(ValueError, match="fit: found the sites 'k' enumerated by the guide, but .*Vindex"):
        fit(model, MeanField(model, line().float(), hidden=4), line().float(), steps=1, progress=False)


def test_weights_of_draws_are_refused():
    q = MeanField(mixture, line().float(), hidden=4)
    with pytest.raises(ValueError, match="importance_weighted: found the sites 'k' enumerated.*try elbo"):
        fit(mixture, q, line().float(), steps=1, progress=False, objective=importance_weighted)
    with pytest.raises(ValueError, match="inner draws: found the sites 'k' enumerated"):
        fit(mixture, q, line().float(), steps=1, progress=False, objective=vhp(inner=2))
    found = terms(mixture, q, (line().float(),), states=True)
    with pytest.raises(ValueError, match="found the sites 'k' enumerated"):
        _ = found.drawn["k"]


def test_a_guide_of_ones_own_is_summed_over_where_it_is_marked():
    """Of `config_enumerate` the discrete sites alone are."""
    table = torch.nn.Parameter(torch.zeros(3))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3)))
            z = pyro.sample("z", dist.Normal(2.0 * k, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    @pyro.infer.config_enumerate
    def guide(x: Tensor) -> None:
        logits = pyro.param("logits", table)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=logits))
            pyro.sample("z", dist.Normal(1.0 * k, pyro.param("scale", torch.tensor(1.0))))

    x = line().float()
    found = terms(model, guide, (x,), nesting=1, states=True)
    assert found.enumerated == {"k"} and found.seen == len(x)
    fit(model, guide, x, steps=3, progress=False)
