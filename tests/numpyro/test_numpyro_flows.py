"""Autoregressive steps in JAX: torch's numbers, calls of networks, shared maps; guides and priors made of them."""

import pytest

pytest.importorskip("numpyro")

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import torch
from numpyro import handlers
from numpyro.distributions.kl import kl_divergence

import guides
import guides.numpyro as port_guides
import ppl_models
import ppl_models.numpyro as ports
from guides.numpyro.parts.flows import Autoregressive, Steps
from ppl_models.factorization import compare
from ppl_models.inference.numpyro import evaluate, fit, terms
from ppl_models.numpyro.parts.bijectors import bijection
from ppl_models.numpyro.parts.distributions import diagonal_normal
from ppl_models.numpyro.parts.flows.autoregressive import AutoregressiveFlow, MaskedNet
from ppl_models.numpyro.parts.flows.priors import prior
from ppl_models.numpyro.parts.program import named_constants, named_parameters
from ppl_models.numpyro.weights import like_torch
from ppl_models.parts.flows import autoregressive as torch_flows, priors as torch_priors
from tests.helpers.cases import few
from tests.helpers.counting import counted_traces
from tests.helpers.precision import close, jnps, quick

KEY = jax.random.key(0)
GUIDES = ("MeanField", "BottomUp", "Ladder", "SelfReflective", "Faithful")
FAMILIES = ("iaf", "maf", "nsf:steps=1")
PERFECT = "faithful, minimal, perfect"
X = np.random.default_rng(0).integers(0, 2, (16, 6)).astype(np.float32)


def pair(guide: str, family: object = "iaf", **sizes: str) -> tuple:
    """A small SeRe-VAE and a guide."""
    model = ports.SeReVAE(event=6, layers=2, latent=3, hidden=8, **sizes, key=KEY)
    return model, getattr(port_guides, guide)(model, X[:3], family=family, hidden=8, key=KEY)


# The steps


STEPS = [(kind, passes) for kind in ("affine", "gate", "shift", "spline") for passes in (None, 2)]


@pytest.mark.parametrize(("kind", "passes"), few(STEPS, lambda kind, passes: kind in ("gate", "shift")))
def test_steps_are_torchs(wide, kind, passes):
    """Both directions with log|det|, and densities of bases that are pushed either way, contexts broadcast."""
    torch.manual_seed(3)
    sizes = {"inputs": [4], "hidden": 12, "depth": 2, "gain": 2.0, "kind": kind, "passes": passes, "bins": 4}
    theirs = torch_flows.AutoregressiveFlow(5, 2, **sizes)
    ours = AutoregressiveFlow(5, 2, **sizes, key=KEY)
    assert {k: v.shape for k, v in named_parameters(ours).items()} == {
        k: tuple(v.shape) for k, v in theirs.state_dict().items()
    }
    assert named_constants(ours) == {} and len(jax.tree.leaves(ours)) == len(theirs.state_dict())
    x, c = torch.randn(3, 7, 5), torch.randn(7, 4)

    def both(flow: AutoregressiveFlow, x: jax.Array, c: jax.Array) -> tuple:
        base = dist.Normal(jnp.zeros(5), 1.0).to_event(1)
        ways = flow.transforms(c), [step.inv for step in reversed(flow.transforms(c))]
        first, pushed = flow.transforms(c)[0], [dist.TransformedDistribution(base, way) for way in ways]
        assert all(q.batch_shape == (7,) and q.event_shape == (5,) for q in pushed)
        y = first(x)
        back = first.inv(jnp.sin(x))
        volumes = first.log_abs_det_jacobian(x, y), first.inv.log_abs_det_jacobian(jnp.sin(x), back)
        draws = [q.sample_with_intermediates(KEY) for q in pushed]
        scores = [(q.log_prob(v, made), q.log_prob(v + 0)) for q, (v, made) in zip(pushed, draws, strict=True)]
        return y, back, *volumes, [q.log_prob(x) for q in pushed], [v for v, _ in draws], scores

    y, back, volume, shrunk, densities, draws, scores = quick(both)(like_torch(ours, theirs), *jnps(x, c))
    first, base = theirs.transforms(c)[0], torch.distributions.Normal(torch.zeros(5), 1.0)
    close(y, first(x), rtol=1e-10, atol=1e-11)
    close(back, first.inv(x.sin()), rtol=1e-10, atol=1e-10)
    close(volume, first.log_abs_det_jacobian(x, first(x)), rtol=1e-10, atol=1e-11)
    close(shrunk, -first.log_abs_det_jacobian(first.inv(x.sin()), x.sin()), rtol=1e-10, atol=1e-10)
    noise = torch.tensor(np.array(jax.random.normal(KEY, (7, 5))))
    ways = theirs.transforms(c), [step.inv for step in reversed(theirs.transforms(c))]
    for way, density, draw, (own, other) in zip(ways, densities, draws, scores, strict=True):
        q = torch.distributions.TransformedDistribution(torch.distributions.Independent(base, 1).expand((7,)), way)
        close(density, q.log_prob(x), rtol=1e-10, atol=1e-9)
        pushed = noise
        for step in way:
            pushed = step(pushed)
        close(draw, pushed, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(own, other, rtol=1e-10, atol=1e-9)


def test_shapes_and_types_of_contexts_count():
    flow = AutoregressiveFlow(3, 1, [2], hidden=6, key=KEY)
    (step,) = flow.transforms(jnp.zeros((6, 5, 2)))
    x = jnp.ones((5, 3), jnp.float16)
    assert step.forward_shape((5, 3)) == step.inverse_shape((5, 3)) == step(x).shape == step.inv(x).shape == (6, 5, 3)
    assert step.inv.forward_shape((3,)) == (6, 5, 3)
    assert step.log_abs_det_jacobian(x, step(x)).shape == (6, 5) and step.inv(x).dtype == jnp.float32


def test_steps_of_one_form_are_inverted_by_one_compiled_loop():
    """Outside of a compiled program, as an inspection runs them: other weights, contexts and rows are no other form."""
    traced = []
    for i in range(3):
        key = jax.random.key(i)
        flow = AutoregressiveFlow(7, 1, [2], 9, key=key)
        y, c = jax.random.normal(key, (5, 7)), jax.random.normal(key, (5, 2))
        with counted_traces(MaskedNet) as count:
            (step,) = flow.transforms(c)
            x = step.inv(y)
            traced.append(count())
        (again,) = flow.transforms(c)
        np.testing.assert_allclose(again(x), y, atol=1e-5)
    assert traced == [2, 1, 1]  # the loop's body, and the last pass, which is run as it is


@pytest.mark.slow
def test_one_map_of_one_context_is_one_map():
    """Divergences of bases that are pushed through one map keep their closed form."""
    layer, z = bijection("spline", 4, [3], 6, 1, key=KEY), jnp.ones((2, 3))
    for one, same, other in zip(layer.transforms(z), layer.transforms(z), layer.transforms(z + 0), strict=True):
        assert one == same and one != other and one.inv == same.inv and one != one.inv and one.eq(other)
    first, last = layer.transforms(z)
    assert first != last
    assert jax.tree.map(lambda a: a + 0, first) != first == jax.tree.map(lambda a: a, first)
    q, p, other = (
        dist.TransformedDistribution(diagonal_normal(jnp.full((2, 4), m), jnp.ones(4)), layer.transforms(c))
        for m, c in ((1.0, z), (0.0, z), (0.0, z + 0))
    )
    np.testing.assert_allclose(kl_divergence(q, p), [2.0, 2.0], rtol=1e-6)
    with pytest.raises(NotImplementedError):
        kl_divergence(q, other)


# Calls of networks


@pytest.mark.parametrize("guide", few(GUIDES, lambda guide: guide == "Ladder"))
@pytest.mark.slow
def test_calls_in_a_pass(guide):
    """One call a step of the flow where its own draws are scored, whatever the particles; a loop scores its draws, too.

    It is traced twice: its body, which is run once for each level but the last, and the last.
    """
    for family, particles, calls in (("iaf", 1, 4), ("iaf", 5, 4), ("maf", 1, 8)):
        model, q = pair(guide, family)
        with counted_traces(MaskedNet) as count:
            jax.eval_shape(lambda k, n=particles, m=model, q=q: terms(m, q, (X,), particles=n, key=k).log_w, KEY)
            assert count() == calls


@pytest.mark.slow
def test_calls_for_a_prior_and_for_shared_bijections():
    """A density under a prior is one call a step, and none more where the guide has drawn through the prior's own."""
    vae = ports.VAE(event=6, latent=3, hidden=8, prior="maf:hidden=6,steps=3", key=KEY)
    guide = port_guides.MeanField(vae, X[:3], hidden=8, key=KEY)
    for model, q, calls in ((vae, guide, 3), (*pair("SelfReflective", "diagonal", bijection="spline"), 4)):
        for analytic in (True, False):
            with counted_traces(MaskedNet) as count:
                jax.eval_shape(lambda k, m=model, q=q, a=analytic: terms(m, q, (X,), analytic=a, key=k).log_w, KEY)
                assert count() == calls


def test_calls_within_a_program_without_plates():
    """Of globals, too, whose factor `Spread` wraps and whose units are an affine map more."""

    def model(x: jax.Array) -> None:
        w = numpyro.sample("w", dist.Normal(jnp.zeros(3), 1.0))
        numpyro.sample("x", dist.Normal(w, 1.0), obs=x)

    guide = port_guides.Faithful(model, X[0, :3], family="iaf:hidden=6", hidden=4, key=KEY)
    with counted_traces(MaskedNet) as count:
        found = terms(model, guide, (X[0, :3],), key=KEY)
        assert count() == 2
    drawn = handlers.trace(handlers.seed(guide, KEY)).get_trace(X[0, :3])["w"]
    own = drawn["fn"].log_prob(drawn["value"], drawn["intermediates"])
    np.testing.assert_allclose(own, drawn["fn"].log_prob(drawn["value"] + 0), rtol=1e-4)
    assert found.log_w.shape == (1, 1)


# Priors


@pytest.mark.parametrize("word", ["maf", "maf-mean:steps=2", "nsf:passes=2,steps=2"])
def test_priors_are_torchs(wide, word):
    word = f"{word}{',' if ':' in word else ':'}hidden=12"
    torch.manual_seed(0)
    theirs, ours = torch_priors.prior("VAE", word, 3), prior("VAE", word, 3, key=KEY)
    z = torch.randn(6, 3)
    found = quick(lambda p, z: p().log_prob(z))(like_torch(ours, theirs), *jnps(z))
    close(found, theirs().log_prob(z), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("word", ["iaf", "maf:width=2", "nsf:steps=0", "maf:steps"])
def test_wrong_priors_are_called_as_torchs_are(word):
    for model in ("VAE", "PixelVAE"):
        event = (1, 2, 3)
        with pytest.raises(ValueError, match=r"steps|prior") as theirs:
            getattr(ppl_models, model)(event, latent=2, hidden=4, prior=word)
        with pytest.raises(ValueError, match=r"steps|prior") as ours:
            getattr(ports, model)(event, latent=2, hidden=4, prior=word, key=KEY)
        assert str(ours.value) == str(theirs.value)


# Guides


@pytest.mark.parametrize("family", ["iaf:width=2", "full:steps=2", "iff", "iaf:steps=0", None])
def test_wrong_families_are_called_as_torchs_are(family):
    with pytest.raises(ValueError, match="found") as theirs:
        guides.MeanField(ppl_models.VAE(event=6, latent=2, hidden=4), torch.tensor(X), family=family)
    with pytest.raises(ValueError, match="found") as ours:
        port_guides.MeanField(ports.VAE(event=6, latent=2, hidden=4, key=KEY), X, family=family, key=KEY)
    assert str(ours.value) == str(theirs.value)


def test_over_one_entry_and_sizes():
    """An affine flow of one entry is a Gaussian, taken for one, with its closed form; a spline is not."""
    model = ports.VAE(event=6, latent=1, hidden=8, key=KEY)
    for family, flows in (("iaf", 0), ("maf", 0), ("nsf", 1)):
        guide = port_guides.MeanField(model, X[:3], family=family, hidden=8, key=KEY)
        assert sum(isinstance(m, Steps) for m in guide.factors.children.values()) == flows
    _, guide = pair("MeanField", "iaf:steps=3,hidden=7,depth=2,context=5")
    _, given = pair("MeanField", Autoregressive("gate", steps=3, hidden=7, depth=2, context=5))
    assert jax.tree.structure(guide.factors.children) == jax.tree.structure(given.factors.children)
    assert len(guide.factors.family("z1").flow.nets) == 3
    assert named_parameters(guide)["factors.flow_q_z1.flow.nets.0.contexts.0.weight"].shape == (7, 5)


@pytest.mark.parametrize("family", few(("diagonal", "iaf", "maf", "nsf"), lambda family: family == "iaf"))
@pytest.mark.slow
def test_entries_of_a_site_are_a_clique(family):
    model = ports.VAE(event=6, latent=3, hidden=8, key=KEY)
    guide = port_guides.MeanField(model, X[:3], family=family, hidden=8, key=KEY)
    report = compare(model, guide, jnp.asarray(X[:3]), level="element")
    assert report.verdict == ("unfaithful" if family == "diagonal" else PERFECT)
    assert ("q(z1.2 | z1.0, z1.1, x.0..x.5)" in str(report)) == (family != "diagonal")


TRAINED = [
    ("SelfReflective", "iaf:hidden=6", {"bijection": "spline", "prior": "standard"}),
    ("Ladder", "maf:hidden=6,steps=1", {"bijection": "identity"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("guide", "family", "sizes"), TRAINED)
def test_training_and_evaluation(guide, family, sizes):
    model, q = pair(guide, family, **sizes)
    assert compare(model, q, jnp.asarray(X[:3])).verdict == PERFECT
    run = fit(model, q, X, steps=3, batch_size=8, particles=2, progress=False)
    assert np.isfinite(run.history[-1]["loss"])
    before, after = named_parameters(q), named_parameters(run.guide)
    moved = {name for name in after if not np.array_equal(before[name], after[name])}
    assert {name for name in after if ".flow_q_z" in name} <= moved
    found = evaluate(run.model, run.guide, X[:4], particles=4, progress=False)
    assert np.isfinite(found.nll)
