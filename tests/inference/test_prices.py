"""`price_edges`: the worth of edges is a difference of bounds, on linear-Gaussian models that of the closed form."""

import numpy as np
import pyro
import pytest
import torch

from guides import MeanField, SelfReflective
from ppl_models import LinearGaussian
from ppl_models.factorization import compare
from ppl_models.inference import Difference, evaluate, price_edges
from ppl_models.inference.evaluation.prices import measured

X = torch.eye(3)


def explaining_away() -> LinearGaussian:
    """z1 with two children, which are parents of the data both."""
    parents = {"z3": ("z1",), "x": ("z2", "z3")}
    found = LinearGaussian(3, (1, 1, 1), parents, weight=1.5, generator=torch.Generator().manual_seed(1))
    return found.requires_grad_(False)


def look(parents):
    model = explaining_away()
    return compare(model, SelfReflective(model, X, parents=parents, hidden=4), X)


def test_each_edge_that_is_lacking_is_mended_alone_and_then_all_are():
    bounds, rng = {}, np.random.default_rng(0)

    def train(parents, seed):
        edges = () if parents == "none" else tuple((u, z) for z, given in parents.items() for u in given)
        bounds[edges, seed] = rng.normal(size=50) + 3.0 * len(edges)
        return bounds[edges, seed]

    found = measured(look, train, "none", range(5, 7))
    edges = ("z1", "z2"), ("z1", "z3"), ("z2", "z3")
    assert [each.edges for each in found.edges] == [(edge,) for edge in edges] and found.together.edges == edges
    assert found.parents == {"z1": (), "z2": (), "z3": ()} and found.verdict == "unfaithful" and not found.notes
    assert {key for key, _ in bounds} == {(), *((edge,) for edge in edges), edges} and len(bounds) == 10
    for each in (*found.edges, found.together):
        first, second = (bounds[each.edges, seed] - bounds[(), seed] for seed in (5, 6))
        over_data, over_seeds = (first + second).std(ddof=1) / 2 / 50**0.5, abs(first.mean() - second.mean()) / 2
        assert np.isclose(each.nats, (first.mean() + second.mean()) / 2)
        assert np.isclose(each.error, np.hypot(over_data, over_seeds))
        assert each.verdict == ("faithful, minimal, perfect" if each is found.together else "unfaithful")
    assert np.isclose(found.elbo, (bounds[(), 5].mean() + bounds[(), 6].mean()) / 2)
    assert len(found.to_dict()["prices"]) == 4 and str(found).count("nats; with it") == 4


def test_a_guide_that_lacks_nothing_has_no_price_and_one_edge_is_not_told_twice():
    whole = measured(look, lambda parents, seed: np.zeros(3), "needed", range(1))
    assert whole.edges == () and whole.together is None and "nats;" not in str(whole)
    one = measured(look, lambda parents, seed: np.zeros(3), {"z2": ["z1"], "z3": ["z1"]}, range(1))
    assert [each.edges for each in one.edges] == [(("z2", "z3"),)] and one.together is None
    assert one.edges[0].nats == one.edges[0].error == 0


def test_data_that_a_factor_lacks_are_told_and_not_priced():
    def lacks(parents):
        def guide(x):
            with pyro.plate("data", len(x)):
                z1 = pyro.sample("z1", pyro.distributions.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
                z2 = pyro.sample("z2", pyro.distributions.Normal(z1 + x[:, :1], 1.0).to_event(1))
                pyro.sample("z3", pyro.distributions.Normal(z1 + z2 + x[:, :1], 1.0).to_event(1))

        return compare(explaining_away(), guide, X)

    found = measured(lacks, lambda parents, seed: np.zeros(3), "none", range(1))
    assert found.edges == () and found.notes == ("z1 lacks x, too, which is no latent that it can be given",)


def test_what_cannot_be_priced_is_refused_in_words():
    model = explaining_away()

    def deaf(parents):
        return model, MeanField(model, X, hidden=4)

    how = {"steps": 1, "progress": False}
    with pytest.raises(
        ValueError, match="found z2 without z1, of which the pair was made with parents=.* want a guide"
    ):
        price_edges(deaf, X, X, **how)
    with pytest.raises(TypeError, match="pair gave 3, want a tuple"):
        price_edges(lambda parents: 3, X, X, **how)
    with pytest.raises(ValueError, match="parents has .*|parents.* sample"):
        price_edges(lambda p: (model, SelfReflective(model, X, parents=p)), X, X, parents={"z1": ["z2"]}, **how)


def test_a_model_that_the_training_before_has_trained_is_refused():
    model = explaining_away().requires_grad_(True)

    def pair(parents):
        return model, SelfReflective(model, X, parents=parents, hidden=4)

    with pytest.raises(ValueError, match="weights that the training before has trained, want new ones"):
        price_edges(pair, X, X, steps=1, draws=2, progress=False)


def test_differences_of_several_trainings_tell_both_errors():
    first, second = np.random.default_rng(0).normal(size=(2, 4, 30))
    found, each = Difference.of(first, second), first - second
    assert np.isclose(found.nll, each.mean()) and (found.n, found.seeds) == (30, 4)
    assert np.isclose(found.error, each.mean(0).std(ddof=1) / 30**0.5)
    assert np.isclose(found.seed_error, each.mean(1).std(ddof=1) / 2)
    assert np.isclose(found.total_error, np.hypot(found.error, found.seed_error)) and "over 4 seeds" in str(found)
    one = Difference.of(first[0], second[0])
    assert one.total_error == one.error and one.to_dict()["seed_error"] is None and "seeds" not in str(one)
    with pytest.raises(ValueError, match="found 30 and 29 data"):
        Difference.of(first, second[:, :29])
    with pytest.raises(ValueError, match="want the same data twice"):
        Difference.of(first, second[0])


def test_bounds_of_each_datum_are_those_of_the_mean():
    model = explaining_away()
    guide, x = SelfReflective(model, X, hidden=4), torch.randn(50, 3)
    found = evaluate(model, guide, x, particles=30, analytic=False, rows=600, progress=False)
    assert np.isclose(found.elbos.mean(), found.elbo, rtol=1e-5) and (found.elbos <= -found.nlls + 1e-6).all()
    assert not {"elbos", "nlls"} & found.to_dict().keys()


def held_to_the_closed_form(found, look):
    """Within four of their standard errors, and a fiftieth for what training leaves."""
    gap, priced = look("none").gap.elbo, [*found.edges, found.together]
    assert gap > 0.1 and len(priced) == 4
    for each in priced:
        parents = {z: tuple(u for u, site in each.edges if site == z) for z in ("z2", "z3")}
        exact = gap - look(parents).gap.elbo
        assert abs(each.nats - exact) < 4 * each.error + exact / 50, (each.edges, each.nats, each.error, exact)


HOW = {"steps": 1500, "lr": 1e-2, "seeds": 2, "compile": True, "progress": False}


@pytest.mark.slow
def test_measured_prices_are_those_of_the_closed_form():
    model = explaining_away()
    pyro.set_rng_seed(0)
    with torch.no_grad():
        train, test = model(n=4000), model(n=1000)

    def pair(parents):
        return model, SelfReflective(model, train[:3], parents=parents, hidden=16)

    held_to_the_closed_form(price_edges(pair, train, test, **HOW), look)


@pytest.mark.slow
def test_measured_prices_of_a_port_are_those_of_the_closed_form():
    numpyro, jax = pytest.importorskip("numpyro"), pytest.importorskip("jax")
    dist = numpyro.distributions

    from guides.numpyro import SelfReflective as Port
    from ppl_models.numpyro import price_edges as price_ports

    def model(x=None, n=0):
        with numpyro.plate("data", n or len(x)):
            z1 = numpyro.sample("z1", dist.Normal(0.0, 1.0))
            z2 = numpyro.sample("z2", dist.Normal(1.5 * z1, 0.7))
            z3 = numpyro.sample("z3", dist.Normal(-z1, 0.9))
            return numpyro.sample("x", dist.Normal(z2 + z3, 0.5), obs=x)

    with numpyro.handlers.seed(rng_seed=0):
        train, test = model(n=4000), model(n=1000)

    def pair(parents):
        return model, Port(model, train[:3], parents=parents, hidden=16, key=numpyro.prng_key())

    def look_at(parents):
        return compare(model, Port(model, train[:3], parents=parents, hidden=4, key=jax.random.key(0)), train[:3])

    held_to_the_closed_form(price_ports(pair, train, test, **HOW), look_at)
