"""`active_units`: units whose variance and divergence have closed forms, in both languages."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from ppl_models.inference import active_units

SCALES = torch.tensor([0.5**0.5, 1.0, 0.5])


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)


def guide(x: Tensor) -> None:
    """The first unit is the posterior's, the second the prior, the third the same for all data and not the prior."""
    loc = torch.stack([x / 2, torch.zeros_like(x), torch.ones_like(x)], -1)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, SCALES).to_event(1))


def correlated(x: Tensor) -> None:
    loc = torch.stack([x / 2, torch.zeros_like(x), torch.ones_like(x)], -1)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(loc, torch.eye(3)))


def test_they_are_those_of_closed_forms():
    x = torch.randn(700, generator=torch.Generator().manual_seed(0))  # more than one chunk
    found = active_units(model, guide, x)
    assert found.active["z"].tolist() == [True, False, False]
    assert found.active_by_kl["z"].tolist() == [True, False, True]
    assert found.variance["z"] == pytest.approx([x.var(correction=0).item() / 4, 0, 0], abs=1e-6)
    loc = np.array([(x**2).mean().item() / 4, 0, 1])
    scale = SCALES.numpy()
    assert found.kl["z"] == pytest.approx(0.5 * (scale**2 + loc - 1) - np.log(scale), abs=1e-6)
    assert "z         1 of 3, by KL 2" in str(found) and found.to_dict()["active"] == {"z": 1}


def test_a_factor_that_is_no_product_has_no_divergences_by_unit():
    found = active_units(model, correlated, torch.randn(9))
    assert found.kl == {} and "no divergences by unit" in str(found) and "by KL" not in str(found).splitlines()[1]


def chain(x: Tensor) -> None:
    """The second latent is drawn about the first one."""
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        z2 = pyro.sample("z2", dist.Normal(z1, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z2[..., 0], 1.0), obs=x)


def of_chain(x: Tensor, slope: float = 0.3) -> None:
    """The first unit of either latent follows the data, the second ignores them, whatever it is given."""
    first = torch.stack([slope * x, torch.zeros_like(x)], -1)
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(first, 1.0).to_event(1))
        pyro.sample("z2", dist.Normal(z1, 1.0).to_event(1))


def test_a_unit_that_follows_another_latent_and_no_data_is_not_active():
    """Var_x E_q[z2 | x] is (0.3^2 Var x, 0), where means of 16 draws of z1 have a variance of 1/16 more."""
    x = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    found = active_units(chain, of_chain, x)
    assert found.active["z2"].tolist() == [True, False] and not found.notes
    want = 0.09 * x.var(correction=0).item()
    # 4 standard errors: sqrt(2 / n) / 16 of the draws, and 2 sqrt(want / (16 n)) of both together
    assert found.variance["z2"] == pytest.approx([want, 0], abs=4 * (0.0020 + 0.0034))
    few = active_units(chain, of_chain, x[:20], particles=2)
    assert "variances of z2 are known to +- 0.1" in str(few)


@pytest.fixture
def port_of():
    """NumPyro, the arrays of JAX, and the port of `active_units`."""
    numpyro, jnp = pytest.importorskip("numpyro"), pytest.importorskip("jax.numpy")
    from ppl_models.inference.numpyro import active_units as count

    return numpyro, jnp, count


def test_the_ports_count_alike(port_of):
    numpyro, jnp, count = port_of

    def ported(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", numpyro.distributions.Normal(jnp.zeros(3), 1.0).to_event(1))
            numpyro.sample("x", numpyro.distributions.Normal(z[..., 0], 1.0), obs=x)

    def port(x):
        loc = jnp.stack([x / 2, jnp.zeros_like(x), jnp.ones_like(x)], -1)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", numpyro.distributions.Normal(loc, SCALES.numpy()).to_event(1))

    x = torch.randn(700, generator=torch.Generator().manual_seed(0))
    ours, theirs = active_units(model, guide, x), count(ported, port, x.numpy())
    assert theirs.variance["z"] == pytest.approx(ours.variance["z"], abs=1e-6)
    assert theirs.kl["z"] == pytest.approx(ours.kl["z"], abs=1e-6)


def test_the_ports_tell_data_from_other_latents(port_of):
    numpyro, jnp, count = port_of

    def ported(x):
        with numpyro.plate("data", len(x)):
            z1 = numpyro.sample("z1", numpyro.distributions.Normal(jnp.zeros(2), 1.0).to_event(1))
            z2 = numpyro.sample("z2", numpyro.distributions.Normal(z1, 1.0).to_event(1))
            numpyro.sample("x", numpyro.distributions.Normal(z2[..., 0], 1.0), obs=x)

    def port(x):
        with numpyro.plate("data", len(x)):
            first = jnp.stack([0.3 * x, jnp.zeros_like(x)], -1)
            z1 = numpyro.sample("z1", numpyro.distributions.Normal(first, 1.0).to_event(1))
            numpyro.sample("z2", numpyro.distributions.Normal(z1, 1.0).to_event(1))

    x = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    found = count(ported, port, x)
    assert found.active["z2"].tolist() == [True, False]
    assert found.variance["z2"] == pytest.approx([0.09 * x.var(), 0], abs=4 * (0.0020 + 0.0034))
