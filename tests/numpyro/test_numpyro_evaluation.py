"""`evaluate` and `nuts` of NumPyro pairs: against evidence and posteriors that are known, and against torch."""

import re

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pyro
import pytest
import torch
from jax.scipy.special import logsumexp
from numpyro.infer.autoguide import AutoDelta, AutoLaplaceApproximation, AutoMultivariateNormal, AutoNormal

import ppl_models.inference as torch_side
from benchmarks.eight_schools import REFERENCE, SIGMA, Y
from guides import Ladder as TorchLadder
from guides.numpyro import Ladder, MeanField
from ppl_models import LinearGaussian as TorchLinearGaussian
from ppl_models.data import Binarize, Data, Dequantize, Logit, Scale
from ppl_models.inference.numpyro import Reference, evaluate, fit, nuts, terms
from ppl_models.numpyro import VAE, LinearGaussian
from ppl_models.numpyro.weights import like_torch
from tests.helpers.cases import few

N, WIDTH, COLUMNS = 40, 4, 7


def rows(n: int = N, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, width)).astype(np.float32)


def model(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(jnp.repeat(z[:, None], WIDTH, 1), 1.0).to_event(1), obs=x)


def guide(x):
    """The exact posterior: the weights are constant."""
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(x.sum(-1) / (WIDTH + 1), (WIDTH + 1) ** -0.5))


def wrong(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(0.9 * x.sum(-1) / (WIDTH + 1), 0.6))


def log_evidence(x) -> float:
    cov = np.ones((WIDTH, WIDTH)) + np.eye(WIDTH)
    law = torch.distributions.MultivariateNormal(torch.zeros(WIDTH).double(), torch.tensor(cov))
    return law.log_prob(torch.tensor(x).double()).mean().item()


def quiet(*pair_and_data, **arguments):
    return evaluate(*pair_and_data, **{"particles": 3, "progress": False, **arguments})


def test_an_exact_posterior_gives_the_evidence():
    for sizes in ({}, {"rows": 7}, {"vectorize": False}, {"rows": 1}):
        found = quiet(model, guide, rows(), **sizes)
        assert found.nll == pytest.approx(-log_evidence(rows()), rel=1e-4)
        assert found.n == N and found.notes == [] and found.bits_per_dim is None
        assert found.elbo == pytest.approx(-found.nll, abs=0.3)
    assert quiet(model, guide, rows(1)).nll_error != quiet(model, guide, rows(1)).nll_error  # of one datum: not known


def test_more_particles_come_nearer():
    few, many = (quiet(model, wrong, rows(), particles=k) for k in (1, 500))
    assert few.nll > many.nll == pytest.approx(-log_evidence(rows()), abs=0.01)
    assert many.elbo < -many.nll - 0.02
    again = quiet(model, wrong, rows(), particles=500, rows=100)  # other chunks, other draws
    assert again.nll == pytest.approx(many.nll, abs=0.01) and again.nll != many.nll
    assert quiet(model, wrong, rows(), particles=500).to_dict() == many.to_dict()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"particles": 0}, "evaluate: found particles=0, want an integer of at least 1"),
        ({"rows": 0}, "found rows=0, want an integer of at least 1"),
        ({"vectorize": "yes"}, "found vectorize='yes', want 'auto'"),
    ],
)
def test_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        quiet(model, guide, rows(), **arguments)


def test_what_is_refused():
    with pytest.raises(ValueError, match="observes the site 'x'; are model and guide in this order"):
        quiet(guide, model, rows())
    with pytest.raises(ValueError, match="evaluate: data: NaN or infinite values .first in row 0"):
        quiet(model, guide, np.full((3, WIDTH), np.nan))

    def bits(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Bernoulli(logits=jnp.repeat(z[:, None], WIDTH, 1)).to_event(1), obs=x)

    good = (rows(2500) > 0).astype(np.float32)
    assert quiet(bits, guide, good).nll > 0
    good[2400, 1] = 0.5
    with pytest.raises(ValueError, match=r"the site 'x' observes values outside the support .* \(first in row 2400\)"):
        quiet(bits, guide, good)


# subsamples, and which plate enumerates the rows


@pytest.mark.parametrize("size", [2, 30])
def test_a_model_that_subsamples_has_no_bound(size):
    def program(x):
        with numpyro.plate("rows", len(x), subsample_size=size) as index:
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Normal(jnp.repeat(z[:, None], WIDTH, 1), 1.0).to_event(1), obs=x[index])

    def factor(x):
        with numpyro.plate("rows", len(x), subsample_size=size):
            numpyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=f"evaluate: the plate 'rows' draws {size} of 40 data, want every datum"):
        quiet(program, factor, rows())


def effects(x):
    """Global effects of the columns, in a plate of their own: w_j ~ N(0, 1), x_ij ~ N(w_j, 1)."""
    columns = numpyro.plate("cols", COLUMNS, dim=-1)
    with columns:
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", len(x), dim=-2), columns:
        numpyro.sample("x", dist.Normal(w, 1.0), obs=x)


def posterior_of_effects(x):
    with numpyro.plate("cols", COLUMNS, dim=-1):
        numpyro.sample("w", dist.Normal(x.sum(0) / (len(x) + 1), (len(x) + 1) ** -0.5))


@pytest.mark.parametrize("n", [N, COLUMNS])
def test_global_latents_in_a_plate_of_their_own(n):
    x = rows(n, COLUMNS)
    found = quiet(effects, posterior_of_effects, x, particles=20)
    cov = torch.ones(n, n).double() + torch.eye(n)
    law = torch.distributions.MultivariateNormal(torch.zeros(n).double(), cov)
    want = law.log_prob(torch.tensor(x.T).double()).sum().item() / n
    assert found.nll == pytest.approx(-want, rel=1e-4) and found.n == n
    assert found.notes[0].startswith("latents or data outside the data plate")
    mean, var = x.sum(0) / (n + 1), 1 / (n + 1)
    assert found.kl["w"] == pytest.approx(0.5 * (mean**2 + var - 1 - np.log(var)).sum() / n, rel=1e-4)


def test_without_a_plate_the_data_count_as_one():
    def program(x):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(w, 1.0).expand(x.shape).to_event(1), obs=x)

    def factor(x):
        numpyro.sample("w", dist.Normal(x.sum() / (len(x) + 1), (len(x) + 1) ** -0.5))

    x = rows()[:, 0]
    law = torch.distributions.MultivariateNormal(torch.zeros(N).double(), torch.ones(N, N).double() + torch.eye(N))
    found = quiet(program, factor, x)
    assert found.notes == ["no plate around the data: they count as one datum"]
    assert found.nll * 1 == pytest.approx(-law.log_prob(torch.tensor(x).double()).item(), rel=1e-4)


# the same numbers as torch


def test_numbers_are_those_of_torch(wide):
    """Closed forms exactly; bounds within their standard errors, of 400 draws a datum."""

    def torch_model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
            mean = z.unsqueeze(-1).expand(*z.shape, WIDTH)
            pyro.sample("x", pyro.distributions.Normal(mean, 1.0).to_event(1), obs=x)

    def torch_wrong(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Normal(0.9 * x.sum(-1) / (WIDTH + 1), 0.6))

    x = rows().astype(float)
    options = {"particles": 400, "progress": False}
    want = torch_side.evaluate(torch_model, torch_wrong, torch.tensor(x), **options)
    found = evaluate(model, wrong, x, **options)
    assert found.kl["z"] == pytest.approx(want.kl["z"], rel=1e-12)
    assert found.nll == pytest.approx(want.nll, abs=0.02) and found.nll_error == pytest.approx(want.nll_error, rel=0.02)
    assert found.elbo == pytest.approx(want.elbo, abs=0.1)
    assert list(found.to_dict()) == list(want.to_dict()) and str(found).count("\n") == str(want).count("\n")


@pytest.mark.slow
def test_a_linear_gaussian_pair_of_the_collection(wide):
    theirs = TorchLinearGaussian(weight=0.3, generator=torch.Generator().manual_seed(0))
    x = theirs(n=50).detach()
    their_guide = TorchLadder(theirs, x[:3], hidden=4)
    ours = like_torch(LinearGaussian(key=jax.random.key(0)), theirs)
    our_guide = like_torch(Ladder(ours, x[:3].numpy(), hidden=4, key=jax.random.key(0)), their_guide)
    options = {"particles": 20_000, "progress": False}  # of 2,000 the bounds of two seeds differ by up to 0.1
    want = torch_side.evaluate(theirs, their_guide, x, **options)
    found = evaluate(ours, our_guide, x.numpy(), **options)
    assert found.elbo == pytest.approx(want.elbo, abs=0.1)
    assert found.nll == pytest.approx(want.nll, abs=0.05)
    for site in want.kl:
        assert found.kl[site] == pytest.approx(want.kl[site], abs=0.05)
    assert -found.nll == pytest.approx(theirs.log_evidence(x).mean().item(), abs=0.2)


@pytest.mark.slow
def test_divergences_by_unit_sum_to_those_of_the_site(wide):
    one = VAE(event=6, latent=3, hidden=4, depth=0, key=jax.random.key(0))
    x = (np.random.default_rng(0).random((5, 6)) < 0.5).astype(float)
    found = terms(
        one, MeanField(one, x, hidden=4, depth=0, key=jax.random.key(1)), (x,), key=jax.random.key(2), particles=4
    )
    assert found.kl_units["z1"].shape == (4, 5, 3)
    np.testing.assert_allclose(found.kl_units["z1"].sum(-1), found.kl["z1"], rtol=1e-12)

    def coupled(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("z1", dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)))

    found = terms(one, coupled, (x,), key=jax.random.key(0))
    with pytest.raises(ValueError, match="site 'z1' has no divergences by unit: found the factor MultivariateNormal"):
        _ = found.kl_units


def mean(x):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def rate(x):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", dist.Gamma(2.0, 1.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(mu, scale), obs=x)


def missing(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=x > 0)


def annealed(x):
    with numpyro.plate("data", len(x)):
        with numpyro.handlers.scale(scale=0.2):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z, 0.5), obs=x)


def annealed_guide(x):
    with numpyro.plate("data", len(x)), numpyro.handlers.scale(scale=0.2):
        numpyro.sample("z", dist.Normal(0.5 * x, 0.4))


UNBOUNDED = {
    "point": (mean, AutoDelta, "the guide draws 'mu' from a point mass .Delta.*bound nothing"),
    "mode": (rate, AutoLaplaceApproximation, "the guide draws 'mu', 'scale' from a point mass"),
    "mask": (missing, AutoNormal, "the mask of 'x_unobserved' in the model is not the guide's"),
    "scale": (annealed, lambda model: annealed_guide, "a scale in the programs weighs 'z'"),
}


@pytest.mark.parametrize("case", UNBOUNDED)
@pytest.mark.slow
def test_numbers_that_bound_nothing_say_so(case):
    model, make, words = UNBOUNDED[case]
    found = quiet(model, make(model), rows(8)[:, 0])
    assert len([note for note in found.notes if re.search(words, note)]) == 1
    assert len([note for note in found.notes if "bound nothing" in note]) == 1
    if case == "point":
        notes = fit(model, make(model), rows(8)[:, 0], steps=1, batch_size=8, progress=False).notes
        assert [note for note in notes if re.search(words, note)]


@pytest.mark.slow
def test_images_of_draws_are_no_points():
    found = quiet(rate, AutoMultivariateNormal(rate), rows(8)[:, 0])
    assert not [note for note in found.notes if "bound nothing" in note]


def test_divergences_are_sampled_where_asked_for():
    exact = [quiet(model, guide, rows(), analytic=analytic) for analytic in (True, False)]
    assert exact[0].nll == exact[1].nll and exact[0].kl["z"] != exact[1].kl["z"]
    assert exact[1].elbo == pytest.approx(-exact[1].nll, rel=1e-5)  # constant weights


def test_masks_and_scales_are_in_the_numbers(wide):
    keep = jnp.arange(5) < 3

    def masked(x):
        with numpyro.plate("data", len(x)), numpyro.handlers.mask(mask=keep), numpyro.handlers.scale(scale=2.0):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def factor(x):
        with numpyro.plate("data", len(x)), numpyro.handlers.mask(mask=keep), numpyro.handlers.scale(scale=2.0):
            numpyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    x = jnp.asarray(rows(5)[:, 0], float)
    found = terms(masked, factor, (x,), key=jax.random.key(0), particles=3)
    closed = 0.5 * (0.5 + x**2 / 4 - 1 + np.log(2))
    np.testing.assert_allclose(found.kl["z"], np.tile(jnp.where(keep, 2 * closed, 0.0), (3, 1)), rtol=1e-12)
    evidence = dist.Normal(0.0, 2**0.5).log_prob(x)
    np.testing.assert_allclose(found.log_w, np.tile(jnp.where(keep, 2 * evidence, 0.0), (3, 1)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "transform", few([Scale(256), Binarize(256), Dequantize(256), Logit(256)], lambda t: isinstance(t, Logit))
)
def test_bits_per_dimension(transform):
    """The same pair and data on both sides; the noise of the data is another."""
    values = torch.randint(256, (400, WIDTH), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))
    data = Data(values, (WIDTH,), 256, transform, "grey")
    binary = isinstance(transform, Binarize)

    def real(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            mean = jnp.repeat(z[:, None], WIDTH, 1)
            numpyro.sample("x", (dist.Bernoulli(logits=mean) if binary else dist.Normal(mean, 1.0)).to_event(1), obs=x)

    def torch_real(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
            mean = z.unsqueeze(-1).expand(*z.shape, WIDTH)
            law = pyro.distributions.Bernoulli(logits=mean) if binary else pyro.distributions.Normal(mean, 1.0)
            pyro.sample("x", law.to_event(1), obs=x)

    def torch_prior(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Normal(0.0, 0.8))

    def prior(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(0.0, 0.8))

    want = torch_side.evaluate(torch_real, torch_prior, data, particles=200, progress=False)
    found = evaluate(real, prior, data, particles=200, progress=False)
    assert (found.bits_per_dim is None) == (want.bits_per_dim is None) == isinstance(transform, Scale)
    if want.bits_per_dim is not None:
        assert found.bits_per_dim == pytest.approx(want.bits_per_dim, abs=0.1)


# reference posteriors


def near(found, site: str, mean: np.ndarray, more: float = 0.0) -> None:
    """Means within five standard errors; `more` is the variance of what they are held against, in posterior ones."""
    estimate, error = found.mean(site)
    scale = error * np.sqrt(1 + more * found.ess[site])
    assert (np.abs(estimate - mean) < 5 * scale).all(), (site, estimate, mean, scale)


@pytest.mark.slow
def test_nuts_of_a_linear_gaussian_model(wide):
    theirs = TorchLinearGaussian(latent=(1, 1), generator=torch.Generator().manual_seed(0))
    ours = like_torch(LinearGaussian(latent=(1, 1), key=jax.random.key(0)), theirs)
    x = theirs(n=3).detach()
    found = nuts(ours, x.numpy(), warmup=400, draws=1000)
    assert found.notes == [] and found.samples["z1"].shape == (4, 1000, 3, 1)
    exact = theirs.posterior(x)
    near(found, "z1", exact.mean[:, :1].detach().numpy())
    near(found, "z2", exact.mean[:, 1:].detach().numpy())
    # variances: of n independent draws their relative standard error is sqrt(2 / n)
    for site, part in (("z1", slice(0, 1)), ("z2", slice(1, 2))):
        ratio = found.samples[site].var((0, 1)) / exact.variance.detach().numpy()[:, part]
        assert (np.abs(np.log(ratio)) < 5 * np.sqrt(2 / (found.ess[site] / 2))).all()
    told = az.from_dict(posterior=found.samples, sample_stats=found.stats)
    assert told.posterior["z1"].dims[:2] == ("chain", "draw") and int(told.sample_stats["diverging"].sum()) == 0
    np.testing.assert_allclose(az.rhat(told, method="split")["z1"], found.r_hat["z1"], rtol=1e-2)


def schools(y, sigma):
    """Rubin 1981, non-centered."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    eta = numpyro.sample("eta", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
    numpyro.deterministic("theta", mu + tau * eta)
    numpyro.sample("y", dist.Normal(mu + tau * eta, sigma).to_event(1), obs=y)


@pytest.mark.slow
def test_nuts_of_eight_schools():
    found = nuts(schools, Y.numpy(), SIGMA.numpy(), warmup=1000, draws=2000, accept=0.95)
    for site, (mean, _) in REFERENCE.items():
        near(found, site, np.array(mean), 1 / 10_000)
    assert set(found.samples) == {"mu", "tau", "eta", "theta"}


def test_what_is_wrong_with_draws_is_noted():
    draws, stats = np.random.default_rng(0).normal(size=(4, 100)), {"diverging": np.zeros((4, 100), bool)}
    assert Reference.of({"z": draws, "one": np.ones((4, 100))}, stats).notes == []
    stats["diverging"][0, :3] = True
    found = Reference.of({"z": draws + np.arange(4)[:, None]}, stats)
    assert found.divergences == 3 and found.notes[0].startswith("3 of 400 draws diverged, so part of the posterior may")
    assert "the chains disagree: r-hat of 'z' is 1." in found.notes[1]
    assert str(found).splitlines()[0] == "4 chains of 100 draws, 3 divergences" and "r-hat" in str(found)


@pytest.mark.slow
def test_nuts_of_a_decoder_held_fixed(wide):
    """Two latents of one datum, against the posterior on a grid."""
    decoder = VAE(event=6, latent=2, hidden=4, depth=0, key=jax.random.key(3))
    decoder = jax.tree.map(lambda p: 3 * p, decoder)  # far from the prior
    x = np.array([[1.0, 0, 1, 1, 0, 1]])
    found = nuts(decoder, x, warmup=500, draws=1500)
    assert found.samples["z1"].shape == (4, 1500, 1, 2) and not [n for n in found.notes if "disagree" in n]
    line = np.linspace(-6, 6, 301)
    grid = jnp.asarray(np.stack(np.meshgrid(line, line), -1).reshape(-1, 1, 2))

    def joint(z):
        return numpyro.infer.util.log_density(numpyro.handlers.seed(decoder, 0), (x,), {}, {"z1": z})[0]

    log_p = jax.vmap(joint)(grid)
    weight = jnp.exp(log_p - logsumexp(log_p))
    near(found, "z1", np.asarray((weight[:, None, None] * grid).sum(0)))


def discrete(x):
    numpyro.sample("k", dist.Bernoulli(0.5))


def subsampled(x):
    numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", 10, subsample_size=2):
        numpyro.sample("x", dist.Normal(0.0, 1.0), obs=jnp.zeros(2))


def certain(x):
    numpyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


@pytest.mark.parametrize(
    ("program", "arguments", "words"),
    [
        (discrete, {}, "nuts: the site 'k' is discrete"),
        (subsampled, {}, "nuts: the plate 'rows' draws 2 of 10 data"),
        (certain, {}, "nuts: the model draws nothing"),
        (certain, {"draws": 3}, "nuts: found draws=3, want an integer of at least 4"),
        (certain, {"chains": 0}, "nuts: found chains=0"),
    ],
)
def test_what_nuts_refuses(program, arguments, words):
    with pytest.raises(ValueError, match=words):
        nuts(program, 0.0, **arguments)
