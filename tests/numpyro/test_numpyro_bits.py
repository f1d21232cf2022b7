"""Relaxed bits in NumPyro against torch's: densities, draws, bits themselves, sums over them, masks, training."""

import numpy as np
import pytest

pytest.importorskip("numpyro")

import jax
import jax.numpy as jnp
import torch
from numpyro import handlers

import guides.parts.families.bits as torch_families
import ppl_models.parts.bits as torch_parts
from guides import MeanField
from guides.numpyro import MeanField as MeanFieldPort
from guides.numpyro.parts.bits import AutoregressiveBits, Bits
from guides.parts.parents import needed_entries
from ppl_models import BitVAE
from ppl_models.inference.numpyro import evaluate, fit, terms
from ppl_models.inference.pyro.passes.messengers import Substitute
from ppl_models.inference.pyro.passes.terms import terms as torch_terms
from ppl_models.numpyro import BitVAE as Port, like_torch
from ppl_models.numpyro.parts import DependentBits, Discretized, RelaxedBits
from ppl_models.numpyro.parts.bits import LOGIT
from ppl_models.numpyro.parts.flows.autoregressive import MaskedNet

KEY = jax.random.key(0)
READS = ((False, False, False), (True, False, False), (True, False, False))


def pair(family: object, port_family: object) -> tuple:
    """(model, guide), (port, port's guide) of the same weights, data."""
    torch.manual_seed(0)
    model = BitVAE(5, 3, hidden=8).double()
    x = torch.bernoulli(torch.full((6, 5), 0.4)).double()
    guide = MeanField(model, x[:3], family=family, hidden=8).double()
    for parameter in (*model.parameters(), *guide.parameters()):
        parameter.data += 0.5 * torch.randn_like(parameter)
    port = like_torch(Port(5, 3, hidden=8, key=KEY), model)
    port_guide = MeanFieldPort(port, x[:3].numpy(), family=port_family, hidden=8, key=KEY)
    return (model, guide), (port, like_torch(port_guide, guide)), x


def test_densities_are_those_of_torch(wide):
    a, y = np.linspace(-4, 4, 9)[:, None], np.linspace(-9, 9, 31)
    for t in (0.1, 2 / 3):
        mine, theirs = RelaxedBits(jnp.asarray(a), t), torch_parts.RelaxedBits(torch.tensor(a), t)
        np.testing.assert_allclose(mine.log_prob(jnp.asarray(y)), theirs.log_prob(torch.tensor(y)), rtol=1e-12)
        np.testing.assert_allclose(mine.mean, theirs.mean, rtol=1e-12)
        np.testing.assert_allclose(mine.variance, theirs.variance, rtol=1e-12)
        hard = mine.hard()
        np.testing.assert_allclose(hard.log_prob(LOGIT), theirs.hard().log_prob(torch.tensor(LOGIT)), rtol=1e-12)
        np.testing.assert_allclose(hard.mean, theirs.hard().mean, rtol=1e-12)
        np.testing.assert_allclose(hard.variance, theirs.hard().variance, rtol=1e-9)


def test_draws_and_gradients(x64):
    """The share above zero within 5 standard errors at every temperature; gradients go through relaxed draws alone."""
    a = jnp.array([-6.0, -1.0, 0.0, 2.0])
    p = jax.nn.sigmoid(a)
    for t in (0.1, 1.0, 0.0):
        share = (RelaxedBits(a, t).sample(KEY, (100_000,)) > 0).mean(0)
        assert (jnp.abs(share - p) < 5 * jnp.sqrt(p * (1 - p) / 100_000)).all()
    slope = jax.grad(lambda a: RelaxedBits(a, 0.25).sample(KEY).sum())(a)
    np.testing.assert_allclose(slope, 4.0)
    assert not RelaxedBits(a, 0.0).has_rsample and RelaxedBits(a, 0.5).has_rsample
    assert RelaxedBits(a, 0.0).support.is_discrete
    assert (jnp.abs(RelaxedBits(a, 0.0).sample(KEY)) == LOGIT).all()


@pytest.mark.slow
def test_bits_that_read_others(x64):
    """Each entry of a draw is its own noise given those that it reads; under jit, too."""
    net = MaskedNet(np.array(READS), 1, (2,), 12, 1, 3.0, key=KEY)
    q = DependentBits(jnp.zeros((4, 3)), net, (jnp.ones((4, 2)),), 0.4)
    y = jax.jit(lambda q: q.sample(KEY, (6,)))(q)
    u = jax.random.uniform(KEY, (6, 4, 3))
    np.testing.assert_allclose(0.4 * y, q._given(y) + jnp.log(u) - jnp.log1p(-u), rtol=1e-9, atol=1e-9)
    jacobian = jax.jacobian(lambda y: DependentBits(jnp.zeros(3), net, (jnp.ones(2),), 0.4)._given(y))(y[0, 0])
    np.testing.assert_array_equal(jacobian != 0, READS)
    np.testing.assert_allclose(jax.jit(lambda q, y: q.log_prob(y))(q, y), q.log_prob(y), rtol=1e-9)
    assert q.expand((2, 4)).sample(KEY).shape == (2, 4, 3)


FAMILIES = [
    pytest.param("bits", "bits", marks=pytest.mark.slow),
    (torch_families.AutoregressiveBits(READS, hidden=9), AutoregressiveBits(READS, hidden=9)),
]


@pytest.mark.parametrize(("family", "port_family"), FAMILIES)
@pytest.mark.slow
def test_discretized_pairs_are_those_of_torch(wide, family, port_family):
    """Sums over all states, and terms of the bits themselves at the same values, to 1e-10."""
    (model, guide), (port, port_guide), x = pair(family, port_family)
    data = jnp.asarray(x.numpy())
    np.testing.assert_allclose(port.log_joint(data), model.log_joint(x).detach(), rtol=1e-10)
    np.testing.assert_allclose(port.log_evidence(data), model.log_evidence(x).detach(), rtol=1e-10)
    np.testing.assert_array_equal(port.states(), model.states())
    z = model.states()[torch.arange(6)]
    with Substitute({"z1": z}), torch.no_grad():
        of_bits = torch_parts.Discretized(model), torch_parts.Discretized(guide)
        theirs = torch_terms(*of_bits, (x,), analytic=False)
    held = handlers.substitute(Discretized(port_guide), data={"z1": jnp.asarray(z.numpy())})
    mine = terms(Discretized(port), held, (data,), key=KEY)
    for kind in ("log_p", "log_q", "log_likelihood"):
        (name,) = found = getattr(mine, kind)
        np.testing.assert_allclose(found[name], getattr(theirs, kind)[name], rtol=1e-10, err_msg=kind)


@pytest.mark.slow
def test_a_training_and_an_evaluation(wide):
    """Relaxed steps, then the NLL of the bits: within 4 standard errors of about 0.02 of the exact sum."""
    _, (port, guide), x = pair(torch_families.Bits(0.5), Bits(0.5))
    data = x.numpy()
    run = fit(port, guide, data, steps=3, batch_size=3, progress=False)
    assert np.isfinite(run.history[-1]["loss"])
    found = evaluate(Discretized(run.model), Discretized(run.guide), data, particles=20_000, progress=False)
    assert found.nll == pytest.approx(-run.model.log_evidence(jnp.asarray(data)).mean().item(), abs=0.08)
    assert not found.notes


@pytest.mark.slow
def test_masks_of_a_port_are_those_of_the_model():
    port = Port(4, 3, hidden=8, key=KEY)
    assert needed_entries(port, np.eye(4, dtype=np.float32)[:3]) == tuple(
        tuple(j < i for j in range(3)) for i in range(3)
    )


def test_errors():
    port, x = Port(4, 3, hidden=4, key=KEY), np.eye(4, dtype=np.float32)[:3]
    guide = MeanFieldPort(port, x, hidden=4, key=KEY)
    with pytest.raises(ValueError, match="Discretized: found no relaxed bits .the program draws 'z1' from other"):
        evaluate(Discretized(port), Discretized(guide), x, progress=False)
    for family in (Bits(), AutoregressiveBits().over(3, key=KEY)):
        with pytest.raises(ValueError, match="which has no product with a prior"):
            family.precision_weighted(jnp.zeros(3), jnp.zeros(3), jnp.ones(3))
    with pytest.raises(ValueError, match="BitVAE: found 17 bits, want at most 16"):
        Port(4, 17, hidden=4, key=KEY).states()
