"""The bound of a hierarchical prior: by hand, between the ELBO and the evidence, in both languages, in every step."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as jax_dist
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import ppl_models.inference.numpyro as jax_side
from guides import BottomUp, Faithful, Ladder, MeanField
from guides.numpyro import BottomUp as JaxBottomUp
from ppl_models import VAE, HierarchicalVAE, LinearGaussian
from ppl_models.factorization import compare
from ppl_models.inference import Loss, Terms, elbo, fit, geco, importance_weighted, rewo, terms, training_step, vhp
from ppl_models.inference.objectives.stateful import begun
from ppl_models.inference.pyro.engine import compiled
from ppl_models.inference.pyro.passes.messengers import Substitute
from ppl_models.numpyro import LinearGaussian as JaxLinearGaussian, like_torch
from ppl_models.runs.naming.objectives import objective_of
from tests.helpers.uncompiled import as_it_is

pytestmark = pytest.mark.usefixtures("double")


def bits(n: int = 8) -> Tensor:
    return (torch.rand(n, 6, generator=torch.Generator().manual_seed(0)) < 0.5).double()


def chain() -> tuple[LinearGaussian, Tensor]:
    """A chain zeta -> z -> x of 2, 2 and 4 values, and data of it."""
    model = LinearGaussian(event=4, latent=(2, 2), generator=torch.Generator().manual_seed(3)).requires_grad_(False)
    with torch.no_grad():
        torch.manual_seed(0)
        return model, model(n=200)


# The objective, by a loop by hand.


def log_mean_exp(values: list[float]) -> float:
    return math.log(sum(math.exp(v) for v in values) / len(values))


def made(as_array: Any, numbers: dict[str, np.ndarray], inner: int) -> Terms:
    given = {name: as_array(value) for name, value in numbers.items()}
    kl = {site: given[f"q {site}"] - given[f"p {site}"] for site in ("zeta", "z")}
    log_p, log_q = ({site: given[f"{side} {site}"] for site in ("zeta", "z")} for side in "pq")
    return Terms({"x": given["x"]}, log_p, log_q, kl, frozenset(), inner=inner)


def test_the_bound_is_that_of_a_loop_by_hand():
    """Two particles of three inner draws, four data; the densities of x, z and its factor do not read zeta's draws."""
    rng = np.random.default_rng(0)
    numbers = {name: rng.normal(size=(6, 4)) for name in ("p zeta", "q zeta", "p z")}
    numbers |= {name: np.repeat(rng.normal(size=(2, 4)), 3, 0) for name in ("x", "q z")}
    bounds, likelihoods = [], []
    for s in range(2):
        for n in range(4):
            k = range(3 * s, 3 * s + 3)
            prior = log_mean_exp([numbers["p z"][i, n] + numbers["p zeta"][i, n] - numbers["q zeta"][i, n] for i in k])
            likelihoods.append(numbers["x"][3 * s, n])
            bounds.append(prior - numbers["q z"][3 * s, n])
    with jax.enable_x64(True):
        for make in (torch.tensor, jnp.asarray):
            for beta in (1.0, 0.3, make(0.3), 2.0):
                value = vhp(inner=3)(made(make, numbers, 3), beta)
                wanted = np.mean(likelihoods) + float(beta) * np.mean(bounds)
                assert float(value) == pytest.approx(wanted, rel=1e-12)
            with pytest.raises(ValueError, match=r"vhp: found terms of 3 inner draws, want 4; try terms\(..., inner=4"):
                vhp(inner=4)(made(make, numbers, 3))


def test_of_one_inner_draw_it_is_the_elbo_and_of_one_particle_the_importance_weighted_bound():
    model, x = chain()
    guide = BottomUp(model, x[:3], hidden=4)
    found = terms(model, guide, (x,), particles=3)
    for beta in (1.0, 0.4):
        assert torch.equal(vhp(inner=1)(found, beta, 500), elbo(found, beta, 500))
    found = terms(model, guide, (x,), inner=7)
    torch.testing.assert_close(vhp(inner=7)(found), importance_weighted(found))


def test_geco_and_rewo_weigh_it():
    model, x = chain()
    found = terms(model, BottomUp(model, x[:3], hidden=4), (x,), inner=5)
    likelihood, bound = elbo(found, 0.0), vhp(inner=5)(found)
    state = {**begun(geco(tolerance=3.0, inner=5), found, None), "lambda": torch.tensor(2.0)}
    value, _ = geco(tolerance=3.0, inner=5)(found, 1.0, None, state)
    torch.testing.assert_close(value, (bound - likelihood) + 2.0 * (likelihood + 3.0))
    state = {**begun(rewo(tolerance=3.0, inner=5), found, None), "lambda": torch.tensor(4.0), "phase": torch.ones(())}
    value, _ = rewo(tolerance=3.0, inner=5)(found, 1.0, None, state)
    torch.testing.assert_close(value, likelihood + (bound - likelihood) / 4.0)


# Between the ELBO and the evidence.


class Off(nn.Module):
    """q(z2 | x) as in the exact posterior; q(z1 | z2) with the exact mean, and twice the exact standard deviation."""

    def __init__(self, model: LinearGaussian, wide: float) -> None:
        super().__init__()
        self.model, self.wide = model, wide
        mean, covariance = model.joint()
        self.mean, one, two = mean, model.blocks()["z1"], model.blocks()["z2"]
        self.gain = covariance[one, two] @ covariance[two, two].inverse()
        self.rest = covariance[one, one] - self.gain @ covariance[two, one]

    def forward(self, x: Tensor) -> None:
        posterior, one, two = self.model.posterior(x), *(self.model.blocks()[name] for name in ("z1", "z2"))
        covariance = posterior.covariance_matrix[:, two, two]
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.MultivariateNormal(posterior.mean[:, two], covariance))
            loc = self.mean[one] + (z2 - self.mean[two]) @ self.gain.mT
            pyro.sample("z1", dist.MultivariateNormal(loc, self.wide**2 * self.rest))


def test_with_the_exact_factor_of_zeta_every_draw_gives_the_evidence():
    model, x = chain()
    found = terms(model, Off(model, 1.0), (x,), inner=3, particles=2)
    torch.testing.assert_close(vhp(inner=3)(found), model.log_evidence(x).mean(), rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_it_lies_between_the_elbo_and_the_evidence_and_rises_with_the_draws():
    """Means of 200 data and 400 draws of z; errors below 0.01 nats, and the ELBO's loss in closed form."""
    model, x = chain()
    torch.manual_seed(0)
    evidence = model.log_evidence(x).mean().item()
    # KL of two Gaussians of two values of one mean, one twice as wide: 2 (log 2 - 1/2 + 1/8) from wide to narrow
    lost = 2 * (4 - 1) / 2 - 2 * math.log(2)
    guide, found = Off(model, 2.0), {}
    for inner in (1, 2, 8, 64):
        found[inner] = vhp(inner=inner)(terms(model, guide, (x,), inner=inner, particles=400 if inner < 64 else 50))
    bounds = [value.item() for value in found.values()]
    assert bounds[0] == pytest.approx(evidence - lost, abs=0.02)
    assert bounds == sorted(bounds) and all(b - a > 0.05 for a, b in zip(bounds, bounds[1:], strict=False))
    assert evidence - 0.1 < bounds[-1] < evidence


def test_the_guide_that_it_is_made_for_is_faithful():
    model = HierarchicalVAE(event=6, latent=(2, 2), hidden=4)
    report = compare(model, Faithful(model, bits()[:3], order="bottom-up", hidden=4), bits()[:3])
    assert str(report.guide) == "q(z2 | x) q(z1 | z2)" and report.verdict == "faithful, minimal, perfect"


# Draws.


@pytest.mark.parametrize("guide", [BottomUp, MeanField, Ladder])
def test_the_latent_that_the_guide_draws_first_is_shared(guide):
    model = HierarchicalVAE(event=6, latent=(2, 2), hidden=4)
    found = terms(model, guide(model, bits()[:3], hidden=4), (bits(),), inner=5, particles=2)
    once, often = ("z2", "z1") if guide is BottomUp else ("z1", "z2")
    drawn = {name: value[:, 0, 0].unique().numel() for name, value in found.drawn.items()}
    # of a pass it has one row, which two passes side by side repeat
    assert drawn == {once: 2, often: 10} and found.inner == 5
    assert found.log_w.shape == (10, 8)
    assert {name: tuple(value.shape) for name, value in found.prior.items()} == {"z1": (10, 8, 2), "z2": (10, 8, 2)}


def test_the_decoder_runs_once_for_all_inner_draws():
    model = HierarchicalVAE(event=6, latent=(2, 2), hidden=4)
    guide, shapes = BottomUp(model, bits()[:3], hidden=4), {}

    def seen(name: str) -> Any:
        return lambda module, args, out: shapes.update({name: tuple(out.shape)})

    model.decoder.register_forward_hook(seen("x"))
    model.priors[0].register_forward_hook(seen("z2"))
    terms(model, guide, (bits(),), inner=5, nesting=1)
    assert shapes == {"x": (8, 6), "z2": (5, 8, 4)}


@pytest.mark.slow
def test_both_languages_score_the_same_draws_alike():
    model, x = chain()
    guide = BottomUp(model, x[:3], hidden=4)
    with jax.enable_x64(True):
        port = like_torch(JaxLinearGaussian(event=4, latent=(2, 2), key=jax.random.key(0)), model)
        array = jnp.asarray(x.numpy())
        port_guide = like_torch(JaxBottomUp(port, array[:3], hidden=4, key=jax.random.key(1)), guide)
        theirs = jax_side.terms(port, port_guide, (array,), inner=5, particles=2, key=jax.random.key(2))
        drawn = {name: torch.tensor(np.asarray(value)) for name, value in theirs.drawn.items()}
        values = []
        for s in range(2):
            held = {"z1": drawn["z1"][5 * s : 5 * s + 5], "z2": drawn["z2"][5 * s]}
            assert (drawn["z2"][5 * s : 5 * s + 5] == held["z2"]).all() and drawn["z1"].unique().numel() == 10 * 400
            with Substitute(held):
                ours = terms(model, guide, (x,), inner=5, nesting=1)
            np.testing.assert_allclose(theirs.log_w[5 * s : 5 * s + 5], ours.log_w.detach(), rtol=1e-10)
            values.append(vhp(inner=5)(ours, 0.7, 300).item())
        assert float(vhp(inner=5)(theirs, 0.7, 300)) == pytest.approx(np.mean(values), rel=1e-10)


# Steps.


@pytest.mark.parametrize("objective", [vhp(inner=3), rewo(tolerance=3.0, inner=3)])
def test_captured_steps_are_those_of_python(objective, monkeypatch):
    monkeypatch.setattr(compiled, "compiled", as_it_is())
    losses = []
    for compile in (False, True):
        torch.manual_seed(0)
        model = HierarchicalVAE(event=6, latent=(2, 2), hidden=4)
        guide = BottomUp(model, bits()[:3], hidden=4)
        step = training_step(model, guide, (bits(),), objective=objective, compile=compile, particles=2)
        losses.append(torch.stack([step(bits()) for _ in range(5)]))
        assert not step.notes
    torch.testing.assert_close(*losses)


def test_trainings_take_it(tmp_path):
    def pair() -> tuple[HierarchicalVAE, BottomUp]:
        torch.manual_seed(0)
        model = HierarchicalVAE(event=6, latent=(2, 2), hidden=4)
        return model, BottomUp(model, bits()[:3], hidden=4)

    options = {"steps": 30, "lr": 0.01, "objective": vhp(inner=3), "seed": 0, "progress": False, "folder": tmp_path}
    done = fit(*pair(), bits(), **options)
    assert fit(*pair(), bits(), **options, resume=True).history == done.history
    with pytest.raises(ValueError, match=r"found objective='vhp\(inner=4\)', but the run in this folder was"):
        fit(*pair(), bits(), **options | {"objective": vhp(inner=4)}, resume=True)
    Loss(vhp(inner=3))(*pair())(bits()).backward()


def jax_model(x):
    with numpyro.plate("data", len(x)):
        z1 = numpyro.sample("z1", jax_dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        z2 = numpyro.sample("z2", jax_dist.Normal(z1, numpyro.param("s", 1.0)).to_event(1))
        numpyro.sample("x", jax_dist.Normal(jnp.concatenate([z2, z2, z2], -1), 1.0).to_event(1), obs=x)


def jax_guide(x):
    with numpyro.plate("data", len(x)):
        z2 = numpyro.sample("z2", jax_dist.Normal(numpyro.param("v", 0.1) * x[:, :2], 1.0).to_event(1))
        numpyro.sample("z1", jax_dist.Normal(0.5 * z2, 1.0).to_event(1))


def test_trainings_of_numpyro_take_it():
    options = {"steps": 40, "every": 20, "seed": 0, "progress": False}
    run = jax_side.fit(jax_model, jax_guide, bits().numpy(), objective=vhp(inner=3), **options)
    # of the same draws, so always
    assert all(record["loss"] < record["negative_elbo"] for record in run.history)


def test_what_does_not_fit_is_refused_in_one_line():
    x = bits()
    alone = VAE(event=6, latent=2, hidden=4)
    with pytest.raises(ValueError, match="vhp: found the latent 'z1' alone, want two or more, as those of Hier"):
        training_step(alone, MeanField(alone, x[:3], hidden=4), (x,), objective=vhp(inner=3))(x)

    class Fixed(nn.Module):
        """Its second latent is drawn of all data at once: no dim is left for particles."""

        def __init__(self) -> None:
            super().__init__()
            self.v = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z2 = pyro.sample("z2", dist.Normal(self.v + x[:, 0], 1.0))
                pyro.sample("z1", dist.Normal(z2, 1.0))

    def fixed(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(0.0, 1.0))
            z2 = pyro.sample("z2", dist.Normal(z1.reshape(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z2[:, None], 1.0).to_event(1), obs=x)

    told = "training_step: found an objective of 3 inner draws, but the programs do not take a particle dimension"
    with pytest.raises(ValueError, match=told) as error:
        training_step(fixed, Fixed(), (x,), objective=vhp(inner=3))
    assert "\n" not in str(error.value) and "try inner=1" in str(error.value)
    for inner in (0, 1.5, "many"):
        with pytest.raises(ValueError, match=f"vhp: found inner={inner!r}, want an integer"):
            vhp(inner=inner)


def test_by_the_words_of_a_command_line():
    assert objective_of("vhp") == vhp(inner=16) and objective_of("vhp:inner=4") == vhp(inner=4)
    with pytest.raises(ValueError, match="found the option 'k', want some of inner"):
        objective_of("vhp:k=4")
