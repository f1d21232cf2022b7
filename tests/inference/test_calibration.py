"""Simulation-based calibration: exact tests of ranks, and guides that are wrong in a known way, for which each is."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from benchmarks.diagnostics import kinds, page, seen, twin, verdicts
from guides import MeanField, Refined
from ppl_models import VAE
from ppl_models.inference import sbc
from ppl_models.inference.evaluation.calibration.ranking import Ranking, rank
from ppl_models.inference.evaluation.calibration.uniformity import Uniform, symmetry
from ppl_models.programs.places import Observed, Places
from ppl_models.views import rank_ecdfs

ROOT = Path(__file__).resolve().parents[2]
FOUND = json.loads((ROOT / "benchmarks" / "results" / "diagnostics.json").read_text())["guides"]
QUICK = "right", "without z1 -> z2, marginals right", "the prior, reads no data"


@pytest.mark.parametrize(("simulations", "draws"), [(4, 3), (5, 2)])
def test_p_values_and_bands_are_exact(simulations, draws):
    """Held against all (S + 1)^N rank vectors, each as likely as any other."""
    test, known = Uniform(simulations, draws), {}
    low, high = test.band(0.3)
    p, inside = [], []
    for ranks in product(range(draws + 1), repeat=simulations):
        counts = test.counts(np.array(ranks))
        if tuple(counts) not in known:
            known[tuple(counts)] = test.p_value(np.array(ranks)), ((low <= counts) & (counts <= high)).all()
        p.append(known[tuple(counts)][0])
        inside.append(known[tuple(counts)][1])
    for value in np.unique(np.round(p, 10)):
        assert np.mean(np.array(p) <= value + 1e-9) == pytest.approx(value, abs=1e-8)
    assert np.mean(inside) >= 0.7
    out = 1 - np.mean(inside)  # and what is outside is what has the smaller p-values
    assert all((value > out + 1e-9) == within for value, within in zip(p, inside, strict=True))


def test_symmetry_is_exact():
    """Held against all signs of the distances from the middle, each as likely as any other."""
    size = np.array([7, 5, 5, 3, 1, 1])  # odd: no rank is in the middle of 0 ... 9
    p = np.array([symmetry((9 + np.array(signs) * size) // 2, 9) for signs in product((-1, 1), repeat=6)])
    for value in np.unique(p.round(10)):
        assert np.mean(p <= value + 1e-9) == pytest.approx(value, abs=1e-9)


@pytest.mark.slow
def test_the_band_is_that_of_arviz():
    """Of ArviZ 0.x, which computes it by another way for continuous values, at the same points."""
    ecdf = pytest.importorskip("arviz.stats.ecdf_utils")
    shares = np.arange(1, 100) / 100
    low, high = ecdf.ecdf_confidence_band(500, shares, shares, prob=0.95)
    ours = [bound / 500 for bound in Uniform(500, 99).band(0.05)]
    assert np.abs(low - ours[0]).max() <= 2 / 500 and np.abs(high - ours[1]).max() <= 2 / 500


def test_ties_are_broken_evenly_and_rounding_is_a_tie():
    rng = np.random.default_rng(0)
    found = rank(np.zeros(4000), np.zeros((3, 4000)), rng)
    assert np.abs(np.bincount(found) / 4000 - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 4000)
    ranking, z = Ranking(0), {"z": np.zeros((2000, 1))}
    drawn = {"z": np.ones((9, 2000, 1))}
    p, q = np.full(2000, -100.0), np.full(2000, -90.0)
    noise = 1e-14 * rng.normal(size=(9, 2000)) - 1e-14  # log w of an exact guide, whose draws are rounded otherwise
    ranking.add(z, drawn, {"log p(x, z)": p, "log q(z | x)": q}, {"log p(x, z)": p + noise, "log q(z | x)": q + noise})
    assert Uniform(2000, 9).p_value(ranking.ranks["log p(x, z)"]) > 0.01
    with pytest.raises(ValueError, match=r"sbc: log p\(x, z\) is NaN in 2000 of 2000"):
        ranking.add(z, drawn, {"log p(x, z)": p * np.nan}, {"log p(x, z)": p + noise})


def test_large_codes_are_ranked_by_projections():
    ranking, rng = Ranking(0), np.random.default_rng(0)
    z, draws = rng.normal(size=(8, 60)), rng.normal(size=(5, 8, 60))
    ranking.add({"z": z}, {"z": draws}, {"log p(x, z)": z[:, 0]}, {"log p(x, z)": draws[..., 0]})
    assert [*ranking.ranks] == [*(f"projection {i}" for i in range(20)), "log p(x, z)"]


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FOUND])
def test_each_diagnostic_sees_what_the_table_says(name):
    """By the seed of the table, of p-values that no other order of the sums brings over the threshold of 0.05."""
    model = twin()
    found = verdicts(seen(model, kinds(model)[name], temperatures=0))
    stored = verdicts(FOUND[name])
    close = {"SBC, log p(x, z)"} if 0.01 < FOUND[name]["joint"]["log p(x, z)"] < 0.1 else set()
    assert all(found[diagnostic] == stored[diagnostic] for diagnostic in found.keys() - close)
    assert stored["AIS"] == (name != "right") == stored["SBC, log w"]
    bounds = FOUND[name]["ais"]  # and the bounds bracket the truth
    assert bounds["below"] > -4 * bounds["below_error"] - 1e-9 and bounds["open"] > -4 * bounds["open_error"] - 1e-9


def test_the_docs_have_the_table_of_the_results():
    assert page({"guides": FOUND}) in (ROOT / "docs" / "diagnostics.md").read_text()


@pytest.mark.slow
def test_a_right_guide_is_called_wrong_as_often_as_is_said():
    """In at most 5 % of 200 seeds, and by VSBC likewise: 21 of them have a chance of 0.1 %."""
    model = twin()
    guide, x = kinds(model)["right"], torch.zeros(4, 3, dtype=torch.double) + torch.arange(4.0)[:, None]
    found = [sbc(model, guide, x, simulations=200, draws=19, seed=seed) for seed in range(200)]
    assert sum(bool(each.outside) for each in found) <= 21 and sum(bool(each.biased) for each in found) <= 21


def test_it_says_what_is_wrong():
    model = twin()
    found = sbc(model, kinds(model)["too narrow, scales 0.5"], torch.eye(3, dtype=torch.double), simulations=300)
    lines = str(found).splitlines()
    assert lines[0] == "300 simulations, 99 draws of the guide each; outside where p < 0.05 / 6"
    assert sum("OUTSIDE: the draws are too narrow" in line for line in lines) == 2
    assert any("log p(x, z)" in line and "a guide too narrow" in line for line in lines)
    assert lines[-1].startswith("VSBC") and "no bias seen" in lines[-1] and not found.biased
    json.dumps(found.to_dict())
    figure = rank_ecdfs(found, ["z1", "log w"], title="narrow")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["z1: outside", "log w: outside"]
    with pytest.raises(ValueError, match="rank_ecdfs: found names"):
        rank_ecdfs(found, ["z3"])


def regression(x, y):
    """Covariates x stay as they are; the two halves of y are observed apart, in turned order."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.sum(-1), 1.0))
        pyro.sample("second", dist.Normal(2 * z, 1.0), obs=y[:, 1])
        pyro.sample("first", dist.Normal(z, 1.0), obs=y[:, 0])


def of_regression(x, y):
    precision = 1 + 1 + 4
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x.sum(-1) + y[:, 0] + 2 * y[:, 1]) / precision, precision**-0.5))


def test_data_are_put_where_the_model_reads_them(double):
    data = torch.randn(7, 2), torch.zeros(7, 2)  # whose columns are equal, and yet told apart
    data[1][0, 0] = 1.0
    assert not sbc(regression, of_regression, data, simulations=500).outside
    assert sbc(regression, lambda x, y: of_regression(x, y.flip(1)), data, simulations=500).outside


def test_places_of_parts_and_transposed_rows():
    x = np.arange(12.0).reshape(4, 3)
    sites = {"a": Observed(x.T[1:], -1), "b": Observed(x[:, 0], -1)}
    places = Places.find("sbc", sites, [None, x])
    new = places.put([None, x], {"a": Observed(-x.T[1:], -1), "b": Observed(-x[:, 0], -1)})
    np.testing.assert_array_equal(new[1], -x)
    with pytest.raises(ValueError, match="'c', which observes no entries of the arguments"):
        Places.find("sbc", {"c": Observed(x[:, 0] ** 2, -1)}, [x])
    with pytest.raises(ValueError, match="equal in all rows"):
        Places.find("sbc", {"c": Observed(np.zeros((4, 2)), -2)}, [np.zeros((4, 3))])


def test_discrete_latents_are_ranked(double):
    means = torch.tensor([-1.0, 1.0])

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])))
            pyro.sample("x", dist.Normal(means[k], 1.0), obs=x)

    def guide(x, prior=(0.3, 0.7)):
        logits = torch.tensor(prior).log() + dist.Normal(means, 1.0).log_prob(x[:, None])
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=logits))

    x = torch.randn(5)
    assert not sbc(model, guide, x, simulations=400).outside
    assert "k" in sbc(model, lambda x: guide(x, (0.5, 0.5)), x, simulations=400).outside


def test_where_the_density_of_the_truth_is_unknown_other_quantities_are_ranked():
    model = VAE(event=4, latent=2, hidden=4)
    found = sbc(model, Refined(MeanField(model, torch.eye(4), hidden=4), steps=1), torch.eye(4), simulations=40)
    assert found.joint == ("log p(x, z)", "log p(x | z)") and "no log q" in found.notes[0]


def shared(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def local(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)


def squares(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x**2)


def of_z(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


@pytest.mark.parametrize(
    ("model", "guide", "message"),
    [
        (shared, AutoNormal(shared), "sbc: the latent 'mu' is outside the plate of the data"),
        (local, AutoNormal(local), "sbc: found a guide that is not amortized"),
        (squares, of_z, "sbc: found the site 'x', which observes no entries of the arguments"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(model, guide, message):
    with pytest.raises(ValueError, match=message):
        sbc(model, guide, torch.linspace(-1, 1, 6), simulations=10)


def test_an_autoguide_that_was_trained_on_these_rows_is_refused():
    x = torch.linspace(-1, 1, 6)
    guide = AutoNormal(local)
    guide(x)
    with pytest.raises(ValueError, match=r"sbc: found a guide that is not amortized \(it has values for 6 rows\)"):
        sbc(local, guide, x, simulations=10)
