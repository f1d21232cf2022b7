"""The chain from data to codes and back, ancestral draws, decoding, and the diagnosis of mixing."""

from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from guides import BottomUp, Infused, MeanField, SelfReflective
from ppl_models import VAE, HierarchicalVAE, Infusion, LinearGaussian, PixelVAE, SequentialVAE, SeReVAE
from ppl_models.inference import Chain, Joint, ancestral, markov_chain
from ppl_models.inference.pyro.sampling.sampling import decode
from ppl_models.parts.nets import PixelCNN
from ppl_models.views import mixing

MODELS = {
    "vae": lambda: VAE(6, 2, 4),
    "hierarchical": lambda: HierarchicalVAE(6, (2, 3), 4),
    "sere": lambda: SeReVAE(6, 2, 2, 4),
    "pixel": lambda: PixelVAE((1, 2, 3), 2, 4, 2),
    "sequential": lambda: SequentialVAE(6, 2, 2, 4, criterion="per-step"),
}


def bits(n: int = 5) -> Tensor:
    return torch.bernoulli(torch.full((n, 6), 0.5))


def discrete(joint: Joint):
    """(model, guide): q(z | x) and the decoder q(x | z) of a joint."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(len(joint.codes))))
            pyro.sample("x", dist.Categorical(joint.decoder[z]), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(joint.encoder[x.long()]))

    return model, guide


def test_codes_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"decode: found codes of 'z1' of shape \(5, 3\), want \(5, 2\)"):
        decode(MODELS["vae"](), {"z1": torch.zeros(5, 3)}, bits())
    with pytest.raises(ValueError, match=r"decode: found codes of 'z2' of shape \(4, 3\), want \(5, 3\)"):
        decode(MODELS["hierarchical"](), {"z1": torch.zeros(5, 2), "z2": torch.zeros(4, 3)}, bits())


def test_a_chain_of_a_global_latent_is_refused():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0).expand([6]).to_event(1), obs=x)

    def guide(x):
        pyro.sample("mu", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="markov_chain: the latent 'mu' is outside the plate of the data"):
        markov_chain(model, guide, bits(), 3)


@pytest.mark.parametrize("seed", range(2))
def test_the_distribution_of_the_data_is_stationary_whatever_the_code(seed):
    table = torch.rand(5, 4, generator=torch.Generator().manual_seed(seed)).pow(3)
    joint = Joint(table / table.sum())
    x = torch.multinomial(joint.data, 20_000, True, generator=torch.Generator().manual_seed(9))
    states = markov_chain(*discrete(joint), x, 3).states
    assert states.shape == (4, 20_000)
    for state in states[1:]:
        found = torch.bincount(state.long(), minlength=5) / 20_000
        error = (joint.data * (1 - joint.data) / 20_000).sqrt()
        assert ((found - joint.data).abs() < 4.5 * error).all()  # 4.5 standard errors of each of five


def test_one_transition_is_that_of_the_joint():
    table = torch.rand(4, 3, generator=torch.Generator().manual_seed(3)).pow(2)
    joint = Joint(table / table.sum())
    for start in range(4):
        x = torch.full((20_000,), start)
        found = torch.bincount(markov_chain(*discrete(joint), x, 1).states[1].long(), minlength=4) / 20_000
        exact = joint.transition[start]
        assert ((found - exact).abs() < 4.5 * (exact * (1 - exact) / 20_000).sqrt() + 1e-9).all()


def test_where_codes_tell_all_data_apart_nothing_moves():
    joint = Joint(torch.eye(4) / 4)
    states = markov_chain(*discrete(joint), torch.arange(4), 5).states
    assert (states == torch.arange(4)).all()


@pytest.mark.parametrize("guide", [MeanField, BottomUp, SelfReflective])
@pytest.mark.parametrize("name", MODELS)
def test_every_pair_walks(name, guide):
    model, x = MODELS[name](), bits()
    q = guide(model, x, hidden=4)
    state = torch.random.get_rng_state()
    chain = markov_chain(model, q, x, steps=6, every=2)
    assert torch.equal(state, torch.random.get_rng_state()) and model.training
    assert chain.states.shape == (4, 5, 6) and torch.equal(chain.states[0], x)
    assert all(code.shape[:2] == (3, 5) for code in chain.codes.values())
    assert ((chain.states == 0) | (chain.states == 1)).all()
    assert torch.equal(chain.states, markov_chain(model, q, x, steps=6, every=2).states)
    drawn = ancestral(model, x)
    assert drawn.shape == (5, 6) and ((drawn == 0) | (drawn == 1)).all()


def test_a_code_is_drawn_once_a_transition_and_the_data_from_it():
    calls = []

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(10 * z, 1e-4).to_event(1), obs=x)

    def guide(x):
        calls.append(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0).to_event(1))

    x = torch.zeros(3, 2)
    chain = markov_chain(model, guide, x, steps=4)
    assert len(calls) == 4 + 1  # and one to look at the pair
    torch.testing.assert_close(chain.states[1:], 10 * chain.codes["z"], rtol=0, atol=1e-2)


def test_a_chain_may_begin_where_there_are_no_data():
    model = PixelVAE((1, 2, 3), 2, 4, 2)
    guide = MeanField(model, bits(), hidden=4)
    states = markov_chain(model, guide, torch.rand(5, 6), 2).states
    assert ((states[1:] == 0) | (states[1:] == 1)).all() and not ((states[0] == 0) | (states[0] == 1)).all()
    assert not guide.trace.nodes or all(n in ("_INPUT", "_RETURN") for n in guide.trace.nodes)  # nothing is kept


def test_an_image_is_drawn_once_where_it_has_no_mean(monkeypatch):
    model, drawn = PixelVAE((1, 2, 3), 2, 4, 2), []
    generate = PixelCNN.generate
    monkeypatch.setattr(PixelCNN, "generate", lambda self, *a: drawn.append(a) or generate(self, *a))
    ancestral(model, bits(), draws=False)
    assert len(drawn) == 1


def test_an_infused_chain_goes_from_data_to_data():
    model, x = Infusion(6, 3, 8), torch.rand(4, 6)
    assert markov_chain(model, Infused(model, x), x, 2).states.shape == (3, 4, 6)


def test_decoding_is_the_mean_given_the_codes():
    model = VAE(6, 2, 4)
    z = torch.randn(7, 2)
    torch.testing.assert_close(decode(model, {"z1": z}, bits()), model.decoder(z).sigmoid())
    pixel = PixelVAE((1, 2, 3), 2, 4, 2)  # which has no mean but by drawing
    assert set(decode(pixel, {"z1": z}, bits()).unique().tolist()) <= {0.0, 1.0}


def test_what_cannot_walk_is_refused():
    model, x = VAE(6, 2, 4), bits()
    guide = MeanField(model, x, hidden=4)
    for steps in (0, 2.5):
        with pytest.raises(ValueError, match=f"markov_chain: found steps={steps}, want an integer of at least 1"):
            markov_chain(model, guide, x, steps)
    with pytest.raises(ValueError, match="markov_chain: found steps=3, every=4, want integers, 1 <= "):
        markov_chain(model, guide, x, 3, every=4)
    with pytest.raises(ValueError, match="decode: found codes of 'z9', want some of the latents z1"):
        decode(model, {"z9": torch.zeros(3, 2)}, x)
    with pytest.raises(ValueError, match="decode: found no codes"):
        decode(model, {}, x)
    with pytest.raises(ValueError, match="are model and guide in this order"):
        markov_chain(guide, model, x, 1)


# Mixing


def autoregressive(rho: float, steps: int = 2000, chains: int = 6) -> Chain:
    noise = torch.randn(steps, chains, 2, generator=torch.Generator().manual_seed(0))
    z = torch.zeros(steps, chains, 2)
    for t in range(1, steps):
        z[t] = rho * z[t - 1] + (1 - rho**2) ** 0.5 * noise[t]
    return Chain(torch.zeros(steps + 1, chains, 1), {"z": z})


@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_mixing_of_a_chain_that_is_known(rho):
    found = mixing(autoregressive(rho), burn=200)
    assert found.draws == 6 * 1800 and found.rhat < 1.02
    assert np.abs(found.autocorrelation[:4] - rho ** np.arange(4)).max() < 0.05
    time = (1 + rho) / (1 - rho)
    assert 0.7 * found.draws / time < found.ess < 1.2 * found.draws / time
    assert abs(found.time / time - 1) < 0.4
    thinned = mixing(replace(autoregressive(rho), every=5), burn=200)
    assert abs(thinned.time - 5 * found.time) < 1e-9 and "R-hat" in str(found)


def test_autocorrelation_of_several_chains_by_hand():
    codes = autoregressive(0.5, steps=100, chains=3).codes["z"][:, :, :1]
    z = codes[:, :, 0].double().numpy()
    centred = z - z.mean(0)
    within = z.var(0, ddof=1).mean()
    pooled = within * 99 / 100 + z.mean(0).var(ddof=1)
    products = [(centred[t:] * centred[: 100 - t]).sum(0).mean() / 99 for t in range(6)]
    expected = [1 - (within - product) / pooled for product in products]
    found = mixing(Chain(torch.zeros(101, 3, 1), {"z": codes}), lags=5).autocorrelation
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_chains_that_never_meet_are_told():
    chain = autoregressive(0.3)
    found = mixing(Chain(chain.states, {"z": chain.codes["z"] + 10 * torch.arange(6)[:, None]}))
    assert found.rhat > 2 and found.autocorrelation[1:50].min() > 0.9 and found.time > 200
    frozen = mixing(Chain(chain.states, {"z": torch.arange(6.0)[:, None].expand(2000, 6, 2)}))
    np.testing.assert_allclose(frozen.autocorrelation, 1.0)
    with pytest.raises(ValueError, match="mixing: found 1 chains of 2000 transitions"):
        mixing(Chain(chain.states, {"z": chain.codes["z"][:, :1]}))


def test_the_chain_of_an_exact_posterior_keeps_a_gaussian_model():
    """z ~ p(z | x), x ~ p(x | z): Gibbs sampling of the joint, whose x have the model's covariance."""
    model = LinearGaussian(3, (2,), generator=torch.Generator().manual_seed(0)).requires_grad_(False)

    def guide(x):
        exact = model.posterior(x)
        posterior = dist.MultivariateNormal(exact.loc, scale_tril=exact.scale_tril)
        with pyro.plate("data", len(x)):
            pyro.sample("z1", posterior)

    torch.manual_seed(0)
    x = model(n=4000)
    chain = markov_chain(model, guide, torch.zeros(4000, 3), 30)
    torch.testing.assert_close(torch.cov(chain.states[-1].T), torch.cov(x.T), rtol=0.15, atol=0.15)
