"""The inspector on NumPyro programs: the cases of `numpyro_pairs`, and what only NumPyro has."""

import random
import sys
from functools import partial

import numpy as np
import pytest

pytest.importorskip("numpyro")

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pyro
import torch
from numpyro import handlers, param, plate, sample
from numpyro.contrib.control_flow import cond, scan
from numpyro.infer import autoguide

from ppl_models.factorization import Factorization, compare, factorization
from ppl_models.factorization.nats.gaussian import GaussianJoint, price
from ppl_models.programs.laboratory import experiments
from tests.helpers.cases import few
from tests.helpers.numpyro_pairs import (
    BITS,
    MEANS,
    TWINS,
    UP,
    X,
    chain,
    data,
    drawn,
    encoder,
    head,
    normal,
    shifted,
    two,
    vae,
)
from tests.helpers.pairs import ANY, PAIRS, SURE, UNKNOWN, WRONG


def triple(report):
    return report.faithful, report.minimal, report.perfect


def sets(found):
    return {site: set(names) for site, names in found.items() if names}


# one of a kind of program; of nested plates and globals the factorizations are compared below, every time
OFTEN = (
    *("vae", "skip, bottom-up", "mixture", "factor, one given the other", "enumerated", "subsampled", "leak, mean"),
)


@pytest.mark.parametrize("name", few(TWINS, lambda name: name in OFTEN))
def test_the_verdict_is_that_of_the_twin(name):
    pair, (model, guide, x) = PAIRS[name], TWINS[name]
    report = compare(model, guide, x)
    text = str(report)
    assert all(e == ANY or f is e for f, e in zip(triple(report), pair.verdict, strict=True)), text
    assert sets(report.missing) == dict(pair.missing), text
    if pair.superfluous != ANY:
        assert sets(report.superfluous) == dict(pair.superfluous), text
    assert report.reasons == (), text
    assert "hidden" not in text and "single precision" not in text, text


BOTH = ("vae", "hierarchy, bottom-up", "skip, bottom-up", "state space, filtering")
BOTH += ("globals, first", "mixture", "nested plates")


@pytest.mark.parametrize("name", few(BOTH, lambda name: name in ("globals, first", "nested plates")))
def test_both_languages_show_the_same_factorizations(name):
    (model, guide, x), (twin, other, args) = TWINS[name], PAIRS[name].build()
    report, theirs = compare(model, guide, x), compare(twin, other, *args)
    assert report.model == theirs.model and report.guide == theirs.guide
    assert set(map(frozenset, report.posterior)) == set(map(frozenset, theirs.posterior))
    assert factorization(model, jnp.asarray(x)) == factorization(twin, *args) == report.model


@pytest.mark.slow
def test_printed():
    assert str(factorization(chain, BITS)) == "p(z3) p(z2 | z3) p(z1 | z2) p(x | z1)"
    assert str(factorization(UP, BITS)) == "q(z1 | x) q(z2 | z1) q(z3 | z2)"
    assert str(factorization(autoguide.AutoNormal(chain), BITS)) == "q(z3) q(z2) q(z1)"
    assert str(factorization(handlers.seed(chain, 0), x=BITS)) == str(factorization(chain, BITS))


# What only JAX has


@pytest.mark.parametrize("mean", few(MEANS, lambda mean: mean.__name__ in ("written", MEANS[0].__name__)))
def test_code_that_jax_allows(mean):
    def model(x):
        sample("x", dist.Normal(mean(sample("a", normal(1)), sample("b", normal(1))), 1.0).to_event(1), obs=x)

    x = data(2 if mean.__name__ == "written" else 1)
    report = compare(model, partial(two, given=False), x)
    assert triple(report) == WRONG and report.missing == {"b": ("a",)}, str(report)
    assert triple(compare(model, partial(two, given=True), x)) == SURE


def test_masks_that_do_not_depend_on_latents():
    def model(x):
        with plate("data", len(x)), handlers.mask(mask=np.array([True, True, False])):
            z = sample("z", normal())
            sample("x", head("px", 3, z), obs=x)

    report = compare(model, encoder, X)
    assert report.faithful is True and sets(report.missing) == {}


def test_cond_takes_one_branch_of_sites():
    def model(x):
        a = sample("a", normal(1))
        b = cond(a[0] > 0, lambda _: sample("b", dist.Normal(2.0)), lambda _: sample("b", dist.Normal(-2.0)), None)
        sample("x", dist.Normal(b, 1.0), obs=x[0])

    def guide(x):
        b = sample("b", dist.Normal(x[0], 1.0))
        sample("a", head("qa", 1, b[None]))

    report = compare(model, guide, data(1))
    assert str(report.model) == "p(a) p(b | a) p(x | b)" and triple(report) == SURE, str(report)


def test_scan_gets_no_verdict():
    def model(x):
        def step(z, x):
            z = sample("z", dist.Normal(z, 1.0))
            sample("x", dist.Normal(z, 1.0), obs=x)
            return z, None

        scan(step, 0.0, x)

    def guide(x):
        sample("z", dist.Normal(x, 1.0).to_event(1))

    report = compare(model, guide, data(3))
    assert triple(report) == UNKNOWN and "scans" in str(report)


@pytest.mark.parametrize("steps", [3, 60])  # a loop in Python at first, and a loop of JAX's
def test_programs_that_scan_are_compiled_once(steps):
    calls = []

    def model(x):
        calls.append(len(x))
        scale = numpyro.param("scale", 1.0)

        def step(z, x):
            z = sample("z", dist.Normal(jnp.tanh(z), jnp.exp(0.1 * scale)))
            sample("x", dist.Normal(z, 1.0), obs=x)
            return z, None

        scan(step, 0.0, x)

    x = jnp.linspace(-1.0, 1.0, steps)
    with experiments([model], (x,), {}) as (experiment,):
        first = experiment.run(seed=1)
        held, other = {"z": first["z"].value}, {"z": first["z"].value + 0.3}
        once, count = experiment.run(held, seed=2, jitter=5), len(calls)
        runs = [experiment.run(values, seed=2, jitter=r) for values in (held, other) for r in (5, 6)]
        assert len(calls) == count + 1
        for name in ("z", "x"):
            np.testing.assert_allclose(runs[0][name].signal, once[name].signal, rtol=1e-12)
        assert not np.allclose(runs[1]["z"].signal, once["z"].signal)  # another jitter of the parameter
        density = -((np.asarray(x) - other["z"]) ** 2) / 2 - np.log(2 * np.pi) / 2
        np.testing.assert_allclose(runs[2]["x"].signal, density, rtol=1e-10)
        np.testing.assert_allclose(runs[0]["z"].fresh(), once["z"].fresh(), rtol=1e-12)


# Guides that NumPyro makes


@pytest.mark.parametrize(
    "make, verdict",
    [
        (autoguide.AutoNormal, WRONG),
        pytest.param(autoguide.AutoDiagonalNormal, WRONG, marks=pytest.mark.slow),
        pytest.param(autoguide.AutoMultivariateNormal, (True, False, False), marks=pytest.mark.slow),
        pytest.param(autoguide.AutoLowRankMultivariateNormal, (True, False, False), marks=pytest.mark.slow),
        (autoguide.AutoDelta, UNKNOWN),
        pytest.param(autoguide.AutoLaplaceApproximation, UNKNOWN, marks=pytest.mark.slow),
        pytest.param(autoguide.AutoIAFNormal, (True, False, False), marks=pytest.mark.slow),
        pytest.param(autoguide.AutoBNAFNormal, UNKNOWN, marks=pytest.mark.slow),
    ],
)
def test_autoguides(make, verdict):
    guide = make(shifted)
    before = dict(vars(guide))
    report = compare(shifted, guide, X)
    assert triple(report) == verdict, str(report)
    assert vars(guide) == before and guide.prototype_trace is None
    if verdict == WRONG:
        assert sets(report.missing) == {"s": {"z"}}


@pytest.mark.slow
def test_an_autoguide_in_use_stays_as_it_is():
    guide = autoguide.AutoNormal(shifted)
    with handlers.seed(rng_seed=0):
        guide(X)
    before = {k: (v, dict(v) if isinstance(v, dict) else v) for k, v in vars(guide).items()}
    assert triple(compare(shifted, guide, X)) == WRONG
    assert all(vars(guide)[k] is v and content == v for k, (v, content) in before.items())
    assert all(v.dtype == jnp.float32 for v in guide._init_locs.values())


def test_hamiltonian_guides_are_refused():
    with pytest.raises(ValueError, match="AutoDAIS .* AutoMultivariateNormal"):
        compare(shifted, autoguide.AutoDAIS(shifted), X)


# Parameters, modules and data


def test_parameters_that_are_zero_and_bounded():
    def guide(x):
        weights = param("w", jnp.zeros((3, 2)))
        scale = param("s", jnp.ones(2), constraint=dist.constraints.positive)
        bounded = param("b", jnp.full(2, 0.5), constraint=dist.constraints.unit_interval)
        assert (scale > 0).all() and ((bounded > 0) & (bounded < 1)).all()
        with plate("data", len(x)):
            sample("z", dist.Normal(x @ weights + bounded, scale).to_event(1))

    assert triple(compare(vae, guide, X)) == SURE
    assert compare(vae, guide, X, jitter=False).guide.parents == {"z": ()}


def test_equinox():
    eqx = pytest.importorskip("equinox")
    from numpyro.contrib.module import eqx_module, random_eqx_module

    net = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    net = eqx.tree_at(lambda n: n.layers[-1].weight, net, jnp.zeros((2, 4)))

    def guide(x):
        encode = eqx_module("net", net)
        with plate("data", len(x)):
            sample("z", dist.Normal(jax.vmap(encode)(x), 1.0).to_event(1))

    assert triple(compare(vae, guide, X)) == SURE
    assert net.layers[0].weight.dtype == jnp.float32

    def bayesian(x):
        encode = random_eqx_module("net", eqx.nn.Linear(3, 1, key=jax.random.key(0)), prior=dist.Normal())
        with plate("data", len(x)):
            sample("y", dist.Normal(jax.vmap(encode)(x)[:, 0], 1.0), obs=x.sum(-1))

    assert set(factorization(bayesian, X).parents["y"]) == set(factorization(bayesian, X).latents)


def test_flax():
    linen = pytest.importorskip("flax.linen")
    from numpyro.contrib.module import flax_module

    def guide(x):
        net = flax_module("net", linen.Dense(2), input_shape=(3,))
        with plate("data", len(x)):
            sample("z", dist.Normal(net(x), 1.0).to_event(1))

    assert triple(compare(vae, guide, X)) == SURE


def test_data_by_keyword_and_of_jax():
    def model(*, y, b):
        with plate("data", len(b)):
            z = sample("z", normal())
            sample("b", dist.Normal(z, 1.0).to_event(1), obs=b)
            sample("y", dist.Poisson(jnp.exp(z[:, 0])), obs=y)

    def guide(*, b, y):
        with plate("data", len(b)):
            sample("z", head("q", 2, b))

    y, b = jnp.array([0, 3, 1]), jnp.asarray(data(3, 2))
    assert compare(model, guide, y=y, b=b).missing == {"z": ("y",)}
    assert str(factorization(guide, y=y, b=b)) == str(factorization(guide, b=b, y=y)) == "q(z | b)"


def test_data_that_are_closed_over():
    assert compare(lambda: vae(X), lambda: drawn(X, z="x")).faithful is True


def test_weights_after_training():
    def trained(x):
        return handlers.substitute(encoder, {"qz.second": jnp.zeros((4, 2))})(x)

    assert triple(compare(vae, trained, X)) == SURE  # moved a little
    assert compare(vae, trained, X, jitter=False).missing == {"z": ("x",)}


@pytest.mark.parametrize("draw", [lambda: np.random.normal(), lambda: jax.random.normal(numpyro.prng_key())])
def test_hidden_random_numbers_get_no_verdict(draw):
    report = compare(partial(vae, mix=lambda z: z + draw()), encoder, X)
    assert triple(report) == UNKNOWN and "random" in str(report)


def test_errors():
    with pytest.raises(ValueError, match="never draws 'z1'"):
        compare(chain, partial(drawn, z3="x", z2="x"), BITS)
    with pytest.raises(ValueError, match="observed nothing"):
        compare(encoder, encoder, X)
    with pytest.raises(ZeroDivisionError):
        compare(partial(vae, mix=lambda z: 1 / 0), encoder, X)


# Nothing changes, and nobody is taken for another


def test_nothing_changes():
    x, state = X.copy(), np.random.get_state()[1].copy()
    python, threads = random.getstate(), torch.get_rng_state()
    with handlers.trace() as trace, handlers.seed(rng_seed=0):
        assert triple(compare(vae, partial(encoder, mix=lambda x: x.__iadd__(0.0)), X)) == SURE
        assert not trace
    assert (np.random.get_state()[1] == state).all() and random.getstate() == python
    assert (torch.get_rng_state() == threads).all() and (X == x).all()
    assert jnp.zeros(1).dtype == jnp.float32 and not jax.config.jax_enable_x64
    assert numpyro.primitives._PYRO_STACK == []


def test_provenance_bounds_the_factors_from_above():
    def inert(x):
        a, b = sample("a", normal(1)), sample("b", normal(1))
        sample("x", dist.Normal(b + 0 * a, 1.0).to_event(1), obs=x)

    text = str(compare(inert, partial(two, given=True), data(1)))
    assert "inert: the model computes 'x' from 'a'" in text and "inert" not in str(compare(*TWINS["mixture"]))


def test_the_same_again():
    model, guide, x = TWINS["hierarchy, mean field"]
    assert len({str(compare(model, guide, x)) for _ in range(2)}) == 1


def test_a_program_of_pyro_is_run_by_pyro():
    from ppl_models.programs.laboratory import choose
    from ppl_models.programs.laboratory.numpyro import NumPyroLaboratory, speaks

    def theirs(x):
        calls.append(pyro.param("scale", torch.ones(())))
        return sys.modules["pyro"].sample("z", pyro.distributions.Normal(0.0, 1.0))

    def hidden(x):
        return sys.modules["numpyro"].sample("z", sys.modules["numpyro"].distributions.Normal(0.0, 1.0))

    calls, seed = [], torch.get_rng_state()
    assert not speaks([theirs], (X,), {}) and not speaks([theirs, theirs], (torch.zeros(3),), {})
    assert (torch.get_rng_state() == seed).all() and "scale" not in pyro.get_param_store()
    assert speaks([hidden], (X,), {}) and speaks([vae, encoder], (), {"x": X}) and speaks([theirs], (jnp.ones(1),), {})
    assert choose([vae], (X,), {}) is NumPyroLaboratory


def test_linear_gaussian_models_are_priced_as_in_pyro():
    """By differences here, by gradients there: the same two numbers, and those of the closed form."""
    import pyro.distributions as pyro_dist

    def model(language, distributions, x):
        with language.plate("data", 3):
            a = language.sample("a", distributions.Normal(0.0, 1.0))
            b = language.sample("b", distributions.Normal(0.7 * a, 0.5))
            language.sample("x", distributions.Normal(a + b, 0.8), obs=x)

    def guide(language, distributions, x):
        with language.plate("data", 3):
            for name in "ab":
                language.sample(name, distributions.Normal(x, 1.0))

    x = np.array([0.1, 1.0, -2.0], np.float32)
    reports = [
        compare(lambda x: model(numpyro, dist, x), lambda x: guide(numpyro, dist, x), jnp.asarray(x)),
        compare(lambda x: model(pyro, pyro_dist, x), lambda x: guide(pyro, pyro_dist, x), torch.from_numpy(x)),
    ]
    # precision of (a, b) given x: what b lacks without a is the information of a and b given x
    precision = np.array(
        [[1 + 0.49 / 0.25 + 1 / 0.64, -0.7 / 0.25 + 1 / 0.64], [-0.7 / 0.25 + 1 / 0.64, 1 / 0.25 + 1 / 0.64]]
    )
    lost = 0.5 * np.log(precision[0, 0] * precision[1, 1] / np.linalg.det(precision))
    for report in reports:
        assert report.gap.forward == pytest.approx(lost, abs=1e-8)
        assert report.gap.elbo == pytest.approx(lost, abs=1e-6) and report.gap.per == "datum"


def test_data_that_depend_on_data_are_priced():
    def model(x):
        with plate("data", len(x)):
            z1 = sample("z1", dist.Normal(0.0, 1.0))
            sample("x1", dist.Normal(0.8 * z1, 0.5), obs=x[:, 0])
            z2 = sample("z2", dist.Normal(0.7 * z1, 0.6))
            sample("x2", dist.Normal(0.9 * z2 + 0.6 * x[:, 0], 0.4), obs=x[:, 1])

    def guide(x):
        with plate("data", len(x)):
            sample("z1", dist.Normal(x[:, 0], 1.0)), sample("z2", dist.Normal(x.sum(-1), 1.0))

    weights = np.array([[0, 0, 0, 0], [0.7, 0, 0, 0], [0.8, 0, 0, 0], [0, 0.9, 0.6, 0]])
    root = np.linalg.inv(np.eye(4) - weights) @ np.diag([1.0, 0.6, 0.5, 0.4])
    blocks = {name: slice(i, i + 1) for i, name in enumerate(("z1", "z2", "x1", "x2"))}
    asserted = Factorization({"z1": ("x1",), "z2": ("x1", "x2")}, given=("x1", "x2"), letter="q")
    lost = price(GaussianJoint(root @ root.T, blocks, ("x1", "x2")), asserted)
    report = compare(model, guide, jnp.asarray(data(3, 2)))
    assert report.gap.forward == pytest.approx(lost.forward, abs=1e-8)
    assert report.gap.elbo == pytest.approx(lost.elbo, abs=1e-6)


def test_binomials_of_different_numbers_of_trials():
    def model(n, y):
        with plate("data", 3):
            z, k = sample("z", dist.Normal(0.0, 1.0)), sample("k", dist.Binomial(n, 1e-3))
            sample("y", dist.Binomial(n, logits=z + k), obs=y)

    def guide(n, y, given):
        with plate("data", 3):
            k = sample("k", dist.Binomial(n, jax.nn.sigmoid(1.0 * (y - n))))
            sample("z", dist.Normal(y - n + (k if given else 0), 1.0))

    args = jnp.array([5, 10, 3]), jnp.array([2, 7, 1])
    report = compare(model, partial(guide, given=True), *args)
    assert triple(report) == SURE and not any("single precision" in note for note in report.notes)
    assert compare(model, partial(guide, given=False), *args).missing == {"z": ("k",)}


@pytest.mark.parametrize(
    ("unit", "low", "high"),
    few([(jnp.tanh, 1900, 2021), (jax.nn.softmax, 1000, 9000)], lambda unit, low, high: unit is jnp.tanh),
)
def test_verdicts_do_not_depend_on_the_seed_of_weights_of_units_that_saturate(unit, low, high):
    rng = np.random.default_rng(1)
    weights = {name: rng.uniform(-0.6, 0.6, (size, 4)) for name, size in (("py", 3), ("qu", 2), ("qv", 3))}

    def units(name, *inputs):
        hidden = unit(jnp.stack(inputs, -1) @ param(name, jnp.asarray(weights[name], jnp.float32)))
        return hidden @ param(f"{name}.last", jnp.array([0.5, -0.4, 0.3, -0.2]))

    def model(y, c):
        with plate("data", 3):
            u, v = sample("u", dist.Normal(0.0, 1.0)), sample("v", dist.Normal(0.0, 1.0))
            sample("y", dist.Normal(units("py", u, v, c), 1.0), obs=y)

    def guide(y, c, given):
        with plate("data", 3):
            u = sample("u", dist.Normal(units("qu", y, c), 1.0))
            sample("v", dist.Normal(units("qv", y, c, u if given else y), 1.0))

    args = jnp.asarray(data(3)), jnp.asarray(rng.integers(low, high, 3), jnp.float32)
    report = compare(model, partial(guide, given=True), *args)
    assert report.faithful and report.missing == {}, str(report)
    assert compare(model, partial(guide, given=False), *args).missing == {"v": ("u",)}


def test_the_base_of_a_shared_transform_is_judged():
    mix = jnp.array([[1.0, 0.0], [-0.6, 0.8]])
    shared = dist.transforms.LowerCholeskyAffine(jnp.zeros(2), mix)

    def model(x):
        with plate("data", len(x)):
            z = sample("z", dist.TransformedDistribution(normal(), [shared]))
            sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(x, shares):
        with plate("data", len(x)):
            q = dist.Normal(jnp.stack([x.sum(-1), x[:, 0] - x[:, 1]], -1), 1.0).to_event(1)
            sample("z", dist.TransformedDistribution(q, [shared]) if shares else q)

    precision = np.eye(2) + mix.T @ mix / 0.25
    lost = 0.5 * np.log(precision.diagonal().prod() / np.linalg.det(precision))
    report = compare(model, partial(guide, shares=True), data(3, 2), level="element")
    assert report.missing == {"base(z).1": ("base(z).0",)} and report.perfect is False
    assert report.gap.forward == pytest.approx(lost, abs=1e-6)
    assert compare(model, partial(guide, shares=False), data(3, 2), level="element").missing == {"z.1": ("z.0",)}
