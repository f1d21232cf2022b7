"""Rows by way of their codes: closed forms of a Gaussian chain, the other backend, and what is refused."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_models.inference import ancestral, decode, encode, interpolate, reconstruct, traverse

pytestmark = pytest.mark.usefixtures("double")


def chain(x):
    """z1 ~ N(0, 1), z2 ~ N(2 z1, 3), x ~ N(z1 + z2, 1), of two entries each."""
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        z2 = pyro.sample("z2", dist.Normal(2 * z1, 3.0).to_event(1))
        pyro.sample("x", dist.Normal(z1 + z2, 1.0).to_event(1), obs=x)


def sure(x):
    """A guide without noise to speak of, z1 = x, z2 = -x."""
    with pyro.plate("data", len(x)):
        pyro.sample("z1", dist.Normal(x, 1e-9).to_event(1))
        pyro.sample("z2", dist.Normal(-x, 1e-9).to_event(1))


def stretched(x):
    """A prior behind a bijection and a scale that depends on the layer above: z2 = exp(z1 + (1 + z1^2) e)."""
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        z2 = pyro.sample("z2", dist.LogNormal(z1, 1 + z1**2).to_event(1))
        pyro.sample("x", dist.Normal(z2, 1.0).to_event(1), obs=x)


def positive(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z1", dist.Normal(x, 1e-9).to_event(1))
        pyro.sample("z2", dist.Normal(torch.full_like(x, 2.0), 1e-9).to_event(1))


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


X = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)


def test_draws_of_codes_are_those_of_the_guide():
    found = encode(chain, lambda x: chain_guide(x), X.repeat(2000, 1), draws=True)
    assert [*found] == ["z1", "z2"] and found["z1"].shape == (4000, 2)
    # standard error of a mean 1 / sqrt(4000) = 0.016, five of these
    torch.testing.assert_close((found["z1"] - X.repeat(2000, 1)).mean(0), torch.zeros(2), atol=0.08, rtol=0)
    assert not torch.equal(found["z1"][:2], found["z1"][2:4])  # one draw each
    torch.testing.assert_close(found["z2"], 2 * found["z1"], atol=1e-6, rtol=0)  # and of all latents at once


def chain_guide(x):
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(x, 1.0).to_event(1))
        pyro.sample("z2", dist.Normal(2 * z1, 1e-9).to_event(1))


def test_a_reconstruction_is_the_mean_given_the_codes():
    torch.testing.assert_close(reconstruct(chain, sure, X), torch.zeros(2, 2), atol=1e-7, rtol=0)


def test_layer_by_layer_the_model_draws_what_is_not_the_guides():
    """Given z1 = x alone, E[x'] is 3 x + 3 e; given nothing it is 3 e1 + 3 e2."""
    rows = X.repeat(4000, 1)
    for latents, factor, deviation in ((["z1"], 3.0, 3.0), ([], 0.0, 18**0.5)):
        found = reconstruct(chain, sure, rows, latents=latents) - factor * rows
        # standard errors 0.034 and 0.047 of the mean, 0.024 and 0.034 of the deviation; five of the larger
        assert abs(found.mean().item()) < 0.24 and abs(found.std().item() - deviation) < 0.17


def test_a_line_between_codes_is_straight_in_all_latents():
    found = interpolate(stretched, positive, X, X.flip(0), steps=3)
    assert found.shape == (3, 2, 2)
    torch.testing.assert_close(found, torch.full((3, 2, 2), 2.0), atol=1e-6, rtol=0)
    found = interpolate(chain, partial(scaled, 2.0), X, X.flip(0), steps=5)
    line = torch.stack([(1 - t) * X + t * X.flip(0) for t in torch.linspace(0, 1, 5)])
    torch.testing.assert_close(found, 2 * line, atol=1e-6, rtol=0)


def scaled(by, x):
    with pyro.plate("data", len(x)):
        pyro.sample("z1", dist.Normal(by * x, 1e-9).to_event(1))
        pyro.sample("z2", dist.Normal(0 * x, 1e-9).to_event(1))


def test_what_depends_on_the_moved_unit_keeps_its_noise():
    """z1 = x, z2 = -x = 2 x + 3 e: with z1 at v, z2 = 2 v - 3 x, so that the data are at 3 v - 3 x."""
    found = traverse(chain, sure, X, "z1", units=[1], values=[-1.0, 2.0])
    assert found.shape == (1, 2, 2, 2)
    for value, rows in zip((-1.0, 2.0), found[0], strict=True):
        torch.testing.assert_close(rows[:, 0], torch.zeros(2), atol=1e-6, rtol=0)
        torch.testing.assert_close(rows[:, 1], 3 * value - 3 * X[:, 1], atol=1e-6, rtol=0)
    # what does not depend on it stays: of z2 the place is its mean 2 x plus three times the value
    found = traverse(chain, sure, X, "z2", units=[0], values=[1.0])[0, 0]
    torch.testing.assert_close(found, torch.stack([3 * X[:, 0] + 3.0, 0 * X[:, 1]], -1), atol=1e-6, rtol=0)


def test_noise_is_that_inside_of_bijections():
    noise = (np.log(2.0) - X) / (1 + X**2)
    found = traverse(stretched, positive, X, "z1", units=[0], values=[0.5])[0, 0]
    torch.testing.assert_close(found[:, 0], (0.5 + 1.25 * noise[:, 0]).exp(), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, 1], torch.full((2,), 2.0), atol=1e-6, rtol=0)


def test_walks_may_begin_at_codes_of_ones_own():
    codes = {"z1": torch.zeros(2, 2), "z2": torch.zeros(2, 2)}
    found = traverse(chain, sure, X, "z1", units=[0], values=[1.0], codes=codes)[0, 0]
    torch.testing.assert_close(found, torch.tensor([[3.0, 0.0]] * 2), atol=1e-12, rtol=0)


def test_the_global_generator_is_as_before():
    state = torch.random.get_rng_state()
    for walk in (reconstruct, partial(interpolate, y=X, steps=2), partial(traverse, latent="z1")):
        one, two = walk(chain, chain_guide, x=X), walk(chain, chain_guide, x=X)
        assert torch.equal(one, two) and torch.equal(state, torch.random.get_rng_state())


def states(x):
    with pyro.plate("data", len(x)):
        b = pyro.sample("b", dist.Bernoulli(0.5 * torch.ones(2)).to_event(1))
        pyro.sample("x", dist.Normal(b, 1.0).to_event(1), obs=x)


def guessed(x):
    with pyro.plate("data", len(x)):
        pyro.sample("b", dist.Bernoulli(logits=x).to_event(1))


def bare(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: reconstruct(chain, sure, X, latents=["w"]), "reconstruct: found 'w', want some of the latents z1, z2"),
        (lambda: reconstruct(bare, lambda x: None, X), "reconstruct: found a model without latents"),
        (lambda: encode(bare, lambda x: None, X), "encode: found a model without latents"),
        (lambda: interpolate(states, guessed, X, X), "interpolate: found the discrete latent 'b'"),
        (lambda: interpolate(chain, sure, X, X[:1]), r"interpolate: found x \(2, 2\) and y \(1, 2\)"),
        (lambda: interpolate(chain, sure, X, X, steps=1), "interpolate: found steps=1, want an integer of at least 2"),
        (lambda: traverse(states, guessed, X, "b"), "traverse: found the latent 'b', which is discrete"),
        (lambda: traverse(chain, sure, X, "z3"), "traverse: found 'z3', want some of the latents z1, z2"),
        (lambda: traverse(chain, sure, X, "z1", units=[2]), "traverse: found the unit 2 of 'z1', want 0 to 1"),
        (lambda: traverse(chain, sure, X, "z1", units=[]), "traverse: found no units or no values"),
        (lambda: traverse(chain, sure, X, "z2", codes={"z2": X}), "traverse: found no code of 'z1'"),
        (lambda: decode(chain, {"z9": X}, X), "decode: found codes of 'z9', want some of the latents z1, z2"),
    ],
)
def test_what_has_no_codes_to_walk_among_is_refused(call, told):
    with pytest.raises(ValueError, match=told):
        call()


def test_discrete_codes_are_drawn():
    assert set(encode(states, guessed, X, draws=True)["b"].unique().tolist()) <= {0.0, 1.0}


@pytest.mark.slow
def test_numpyro_walks_alike():
    """The same weights, and codes without noise: what comes out is the same."""
    jax = pytest.importorskip("jax")
    import numpyro
    import numpyro.distributions as jdist

    from ppl_models.inference import numpyro as port

    def jchain(x):
        with numpyro.plate("data", len(x)):
            z1 = numpyro.sample("z1", jdist.Normal(np.zeros(2), 1.0).to_event(1))
            z2 = numpyro.sample("z2", jdist.LogNormal(2 * z1, 3.0).to_event(1))
            numpyro.sample("x", jdist.Normal(z1 + z2, 1.0).to_event(1), obs=x)

    def jsure(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("z1", jdist.Normal(x, 1e-6).to_event(1))
            numpyro.sample("z2", jdist.Normal(x**2, 1e-6).to_event(1))

    def tchain(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            z2 = pyro.sample("z2", dist.LogNormal(2 * z1, 3.0).to_event(1))
            pyro.sample("x", dist.Normal(z1 + z2, 1.0).to_event(1), obs=x)

    def tsure(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.Normal(x, 1e-6).to_event(1))
            pyro.sample("z2", dist.Normal(x**2, 1e-6).to_event(1))

    with jax.enable_x64(True):
        x = X.numpy()
        for ours, theirs in (
            (reconstruct(tchain, tsure, X), port.reconstruct(jchain, jsure, x)),
            (interpolate(tchain, tsure, X, X + 1), port.interpolate(jchain, jsure, x, x + 1)),
            (traverse(tchain, tsure, X, "z1"), port.traverse(jchain, jsure, x, "z1")),
            (traverse(tchain, tsure, X, "z2"), port.traverse(jchain, jsure, x, "z2")),
            (decode(tchain, {"z1": X, "z2": X}, X), port.decode(jchain, {"z1": x, "z2": x}, x)),
        ):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours.numpy(), np.asarray(theirs), rtol=1e-3, atol=1e-3)
        for latents in (["z1"], []):
            found = port.reconstruct(jchain, jsure, np.repeat(x, 8, 0), latents=latents)
            assert found.shape == (16, 2) and np.isfinite(np.asarray(found)).all()
        drawn = port.encode(jchain, jsure, x, draws=True)
        np.testing.assert_allclose(np.asarray(drawn["z2"]), x**2, atol=1e-4)
        assert port.ancestral(jchain, x).shape == ancestral(tchain, X).shape
        told = {
            "reconstruct: found 'w'": lambda: port.reconstruct(jchain, jsure, x, latents=["w"]),
            "traverse: found 'z3'": lambda: port.traverse(jchain, jsure, x, "z3"),
            "decode: found no codes": lambda: port.decode(jchain, {}, x),
        }
        for text, call in told.items():
            with pytest.raises(ValueError, match=text):
                call()
