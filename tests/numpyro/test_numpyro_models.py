"""The models in JAX: names, densities, gradients, factorizations and refusals are torch's, and weights cross over."""

from functools import cache, partial

import numpy as np
import pytest

pytest.importorskip("numpyro")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import torch
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO
from pyro import poutine
from torch import Tensor, nn

import ppl_models
from ppl_models import numpyro as ports
from ppl_models.factorization import factorization
from ppl_models.numpyro.parts.program import Program, named_constants, named_parameters, with_parameters
from ppl_models.numpyro.weights import from_torch, like_torch, to_torch
from tests.helpers.cases import few

pytestmark = pytest.mark.usefixtures("wide")

KEY = jax.random.key(0)
BUILD = {
    "vae": ("VAE", (12, 3), {"hidden": 8, "depth": 2}),
    "vae, linear": ("VAE", (12, 3), {"depth": 0, "likelihood": "gaussian:0.3"}),
    "vae, convolutional": ("VAE", ((3, 9, 5), 3), {"hidden": 16, "network": "conv", "likelihood": "gaussian"}),
    "dlgm": ("DLGM", (12, (3, 2, 2)), {"hidden": 8, "likelihood": "logistic:16"}),
    "dlgm, one layer": ("DLGM", ((3, 2, 2), 3), {"hidden": 8, "depth": 0}),
    "hierarchical": ("HierarchicalVAE", (12, (2, 3, 4)), {"hidden": (8, 6, 4), "likelihood": "gaussian:0.3"}),
    "hierarchical, skips": ("HierarchicalVAE", (12, (2, 3)), {"hidden": 8, "skip": True, "likelihood": "logistic"}),
    "self-reflective": ("SeReVAE", (13, 3, 2), {"hidden": 16}),
    "self-reflective, no feedback": ("SeReVAE", (7, 3, 2), {"hidden": 8, "feedback": False}),
    "self-reflective, no coupling": ("SeReVAE", (7, 3, 2), {"hidden": 8, "coupling": False}),
    "self-reflective, convolutional": (
        "SeReVAE",
        ((2, 5, 3), 2, 2),
        {"hidden": 16, "network": "conv", "likelihood": "gaussian"},
    ),
    "pixels": ("PixelVAE", ((1, 3, 4), 2), {"hidden": 4, "depth": 3, "window": 1}),
    "pixels, coloured": (
        "PixelVAE",
        ((3, 2, 3), 2),
        {"hidden": 4, "depth": 2, "radius": 1, "likelihood": "logistic:16", "components": 2},
    ),
    "pixels, real": ("PixelVAE", ((2, 2, 2), 2), {"hidden": 4, "depth": 1, "likelihood": "gaussian:0.3"}),
    "pixels, two levels": ("HierarchicalPixelVAE", ((1, 3, 5), (2, 2)), {"hidden": 4, "depth": 2, "radius": 1}),
    "sequential": (
        "SequentialVAE",
        (12, 3, 2),
        {"hidden": 8, "predictor": True, "shared": True, "likelihood": "gaussian:0.3"},
    ),
    "sequential, convolutional": (
        "SequentialVAE",
        ((2, 15, 3), 2, (2, 1)),
        {"hidden": 16, "network": "conv", "likelihood": "gaussian"},
    ),
    "infusion": ("Infusion", (12, 2, 8), {}),
    "linear": ("LinearGaussian", (), {}),
    "linear, parents": ("LinearGaussian", (2, (3, 1, 2), {"z3": ("z2", "z1"), "x": ("z3", "z1")}), {}),
}
every_model = pytest.mark.parametrize("name", BUILD)
OFTEN = (*("vae, convolutional", "hierarchical, skips", "self-reflective", "pixels, coloured", "linear, parents"),)
most_models = pytest.mark.parametrize("name", few(BUILD, lambda name: name in OFTEN))


def torchs(name: str) -> nn.Module:
    """The torch model, shaken so that what starts at zero does not hide a mistake."""
    cls, args, options = BUILD[name]
    model = getattr(ppl_models, cls)(*args, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def port(name: str) -> Program:
    """One for all tests: no value of it ever changes."""
    return made(name, jnp.result_type(float))


@cache
def made(name: str, dtype: jnp.dtype) -> Program:
    cls, args, options = BUILD[name]
    return getattr(ports, cls)(*args, **options, key=KEY)


def jnps(values: dict[str, Tensor]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(value.detach().numpy()) for name, value in values.items()}


def scored(model: nn.Module, latents: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """The log-probability of every site of a torch model."""
    trace = poutine.trace(poutine.condition(model, latents)).get_trace(x)
    trace.compute_log_prob()
    return {n: s["log_prob"] for n, s in trace.nodes.items() if s["type"] == "sample" and n != "data"}


def score(model: Program, latents: dict[str, jax.Array], x: jax.Array) -> dict[str, jax.Array]:
    """The same of a port."""
    trace = handlers.trace(handlers.substitute(model, latents)).get_trace(x)
    return {n: s["fn"].log_prob(s["value"]) for n, s in trace.items() if s["type"] == "sample"}


@most_models
def test_densities_and_gradients_are_torchs(name):
    theirs, ours = torchs(name), port(name)
    shapes = {n: tuple(p.shape) for n, p in theirs.named_parameters()}
    assert shapes == {n: p.shape for n, p in named_parameters(ours).items()}
    ours = like_torch(ours, theirs)
    # the same latents and data, with a row of particles before the data's
    drawn = poutine.trace(theirs).get_trace(n=4)
    x = drawn.nodes["_RETURN"]["value"].detach()
    sites = [n for n, s in drawn.nodes.items() if s["type"] == "sample" and n[0] == "z"]
    latents = {n: drawn.nodes[n]["value"].detach() + 0.1 * torch.randn(3, 1, 1) for n in sites}
    expected = scored(theirs, latents, x)
    sum(p.sum() for p in expected.values()).backward()

    arrays, rest = eqx.partition(ours, eqx.is_inexact_array)

    def joint(arrays: Program, latents: dict[str, jax.Array], x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        found = score(eqx.combine(arrays, rest), latents, x)
        return sum(p.sum() for p in found.values()), found

    grad = jax.jit(jax.grad(joint, has_aux=True), compiler_options={"xla_backend_optimization_level": 0})
    gradient, found = grad(arrays, jnps(latents), jnps({"x": x})["x"])
    assert found.keys() == expected.keys()
    for site, value in expected.items():
        assert found[site].shape == value.shape
        np.testing.assert_allclose(found[site], value.detach().numpy(), rtol=1e-10)
    for n, p in theirs.named_parameters():
        size = p.grad.abs().max().item()
        np.testing.assert_allclose(
            named_parameters(gradient)[n], p.grad.numpy(), rtol=1e-8, atol=1e-8 * size, err_msg=n
        )


@most_models
def test_weights_cross_over_bit_by_bit(name):
    theirs, ours = torchs(name), port(name)
    state = theirs.state_dict()
    # there and back
    assert {n: (a.dtype.name, a.shape) for n, a in from_torch(theirs).items()} == {
        n: ("float64", tuple(t.shape)) for n, t in state.items()
    }
    other = torchs(name)
    back = to_torch(with_parameters(ours, from_torch(theirs)))
    assert {n for n, t in back.items() if not torch.equal(t, state[n]) or t.dtype != state[n].dtype} == set()
    other.load_state_dict(back)
    assert all(torch.equal(t, state[n]) for n, t in other.state_dict().items())
    # and the other way round
    other.load_state_dict(to_torch(ours))
    again = like_torch(port(name), other)
    assert jax.tree.structure(again) == jax.tree.structure(ours)
    assert all((a == b).all() and a.dtype == b.dtype for a, b in zip(*map(jax.tree.leaves, (again, ours)), strict=True))
    assert from_torch(state).keys() == from_torch(theirs).keys() == {*named_parameters(ours), *named_constants(ours)}


@most_models
def test_generates_and_observes_what_it_generated(name):
    theirs, ours = torchs(name), port(name)
    sites = {n: s for n, s in poutine.trace(theirs).get_trace(n=5).nodes.items() if s["type"] == "sample"}
    seen = []

    @jax.jit
    def run(key: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        model = handlers.seed(ours, key)
        trace = handlers.trace(model).get_trace(n=5)
        x = model(n=5)
        observed = handlers.trace(model).get_trace(x)
        seen.extend((list(trace), [n for n, s in observed.items() if s.get("is_observed")], model(x) is x))
        return {n: s["value"] for n, s in trace.items() if n in sites}, x

    values, x = run(KEY)
    (param, plate, *names), observed, passed = seen
    assert param == ours.param == f"{type(ours).__name__}$params" and plate == "data"
    assert names == [n for n in sites if n != "data"] and observed == [n for n in names if n[0] == "x"] and passed
    assert x.shape == (5, ours.event)
    for site in names:
        assert values[site].shape == tuple(sites[site]["value"].shape) and values[site].dtype == jnp.float64
        assert jnp.isfinite(values[site]).all()


@pytest.mark.parametrize("name", few(["hierarchical, skips", "linear, parents"], lambda name: name[0] == "h"))
def test_factorizations_print_alike(name):
    theirs, ours = torchs(name), port(name)
    x = theirs(n=3).detach()
    assert str(factorization(ours, jnp.asarray(x.numpy()))) == str(factorization(theirs, x))


def test_single_precision():
    torch.set_default_dtype(torch.float)  # the fixture sets it back
    with jax.enable_x64(False):
        theirs = torchs("vae")
        ours = like_torch(port("vae"), theirs)
        assert {p.dtype.name for p in named_parameters(ours).values()} == {"float32"}
        x, z = torch.bernoulli(torch.full((4, 12), 0.5)), {"z1": torch.randn(4, 3)}
        found = score(ours, jnps(z), jnps({"x": x})["x"])
        for site, value in scored(theirs, z, x).items():
            assert found[site].dtype == jnp.float32
            np.testing.assert_allclose(found[site], value.detach().numpy(), rtol=1e-5)
        # data in double precision are what JAX takes them for
        assert handlers.seed(ours, KEY)(np.asarray(x.numpy(), np.float64)).dtype == np.float64


def test_svi_trains_every_parameter():
    model, x = port("vae, linear"), jnp.arange(48.0).reshape(4, 12) / 48

    def guide(x: jax.Array) -> None:
        with numpyro.plate("data", len(x)):
            numpyro.sample("z1", dist.Normal(jnp.zeros(3), 1.0).to_event(1))

    svi = SVI(model, guide, numpyro.optim.Adam(1e-2), Trace_ELBO())
    state = svi.init(KEY, x)
    assert list(svi.get_params(state)) == ["VAE$params"]
    state, loss = jax.jit(svi.update)(state, x)
    trained = named_parameters(svi.get_params(state)["VAE$params"])
    assert jnp.isfinite(loss) and trained.keys() == named_parameters(model).keys()
    assert all((trained[name] != value).all() for name, value in named_parameters(model).items())


# What they refuse


@pytest.mark.parametrize("name", ["vae", "dlgm, one layer", "self-reflective", "pixels"])
def test_wrong_data(name):
    model = handlers.seed(port(name), KEY)
    good = jnp.ones((3, port(name).event))
    for x, words in (
        (good[:, :-1], r"site 'x': found shape \(3, 1[12]\), want \(n, 1[23]\)"),
        (good[:0], "the batch is empty"),
        (good + 0.5, "a Bernoulli likelihood wants 0 or 1"),
        (good / 0, "NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=words):
            model(x)
    with pytest.raises(TypeError, match="want a float array"):
        model(good.astype(int))
    with pytest.raises(TypeError, match="found dtype float32, want the model's float64"):
        model(good.astype("float32"))
    for n in (0, -1, 1.5):
        with pytest.raises(ValueError, match="n: found .* want the number of data to generate"):
            model(n=n)


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("VAE", (12,), {"network": "transformer"}),
        ("VAE", (12,), {"network": "conv"}),
        ("VAE", (12, 0), {}),
        ("VAE", ((1, 4, 4),), {"depth": -1, "network": "conv"}),
        ("VAE", ("x",), {}),
        ("VAE", (12,), {"likelihood": "poisson"}),
        ("DLGM", (12, ()), {}),
        ("DLGM", (12, (3, 2)), {"hidden": 2.5}),
        ("HierarchicalVAE", (12, (2, 3)), {"hidden": (4, 5, 6)}),
        ("HierarchicalVAE", (12, (2, 3)), {"depth": None}),
        ("LinearGaussian", (3, "x"), {}),
        ("LinearGaussian", (3, (2, 2), {"y": ("z1",)}), {}),
        ("LinearGaussian", (3, (2, 2), {"x": "z1"}), {}),
        ("LinearGaussian", (3, (2, 2), {"z1": ("z2",)}), {}),
        ("LinearGaussian", (3, (2, 2), {"x": ("z1", "z1")}), {}),
        ("SeReVAE", (12, 0), {}),
        ("SeReVAE", (12, 13), {}),
        ("SeReVAE", ((1, 4, 9), 5), {"network": "conv"}),
        ("SeReVAE", (12, 2), {"depth": 0}),
        ("PixelVAE", (784,), {}),
        ("PixelVAE", ((1, 2, 2),), {"window": 0}),
        ("PixelVAE", ((1, 2, 2),), {"likelihood": "poisson"}),
        ("SequentialVAE", (12, 0), {}),
        ("SequentialVAE", (12,), {"criterion": "sum"}),
        ("SequentialVAE", ((1, 15, 3), 2, 1), {"network": "conv"}),
        ("SequentialVAE", ((1, 15, 3), 2, (1, 2, 3)), {"network": "conv"}),
        ("Infusion", (12,), {"criterion": "sum"}),
        ("Infusion", (12, 2.5), {}),
    ],
)
def test_wrong_sizes_are_called_as_torchs_are(name, args, options):
    with pytest.raises(ValueError, match=f"^{name}: ") as theirs:
        getattr(ppl_models, name)(*args, **options)
    with pytest.raises(ValueError, match=f"^{name}: ") as ours:
        getattr(ports, name)(*args, **options, key=KEY)
    assert str(ours.value) == str(theirs.value)


def test_any_integer_is_a_size_and_a_shape_is_an_event():
    narrow = [partial(cls, hidden=8) for cls in (ports.VAE, ports.DLGM, ports.HierarchicalVAE)]
    narrow += [partial(ports.SeReVAE, layers=2, hidden=8), partial(ports.SequentialVAE, steps=2, hidden=8)]
    for cls in (*narrow, ports.LinearGaussian):
        for event in (16, np.prod((4, 4)), (1, 4, 4), [16], np.array([1, 4, 4])):
            assert cls(event, latent=2, key=KEY).event == 16


# Blocks of the self-reflective model, and the closed forms of the linear one


@pytest.mark.parametrize("name", ["self-reflective", "self-reflective, convolutional"])
def test_blocks_are_torchs(name):
    theirs, ours = torchs(name), port(name)
    x = torch.randn(3, 4, theirs.event)
    blocks = ours.cut(jnp.asarray(x.numpy()))
    assert list(ours.blocks) == theirs.blocks == [block.shape[-1] for block in blocks]
    assert all((a == b.numpy()).all() for a, b in zip(blocks, theirs.cut(x), strict=True))
    assert (ours.join(blocks) == x.numpy()).all()


@pytest.mark.parametrize("name", few(["linear", "linear, parents"], lambda name: name == "linear, parents"))
def test_closed_forms_are_torchs(name):
    theirs = torchs(name).requires_grad_(False)
    ours = like_torch(port(name), theirs)
    x = theirs(n=5)
    given = jnp.asarray(x.numpy())

    @eqx.filter_jit
    def forms(ours: ports.LinearGaussian, x: jax.Array) -> tuple:
        q = ours.posterior(x)
        gaps = [ours.gap(s, f) for s in ports.linear_gaussian.STRUCTURES for f in ports.linear_gaussian.FAMILIES]
        return *ours.joint(), ours.log_evidence(x), q.loc, q.covariance_matrix[0], jnp.stack(gaps)

    q = theirs.posterior(x)
    gaps = [theirs.gap(s, f) for s in ports.linear_gaussian.STRUCTURES for f in ports.linear_gaussian.FAMILIES]
    expected = (*theirs.joint(), theirs.log_evidence(x), q.loc, q.covariance_matrix[0], torch.stack(gaps))
    for found, value in zip(forms(ours, given), expected, strict=True):
        np.testing.assert_allclose(found, value.numpy(), rtol=1e-10, atol=1e-12)
    assert ours.blocks() == theirs.blocks() and ours.parents == theirs.parents and ours.sizes == theirs.sizes
    assert ours.posterior(given).batch_shape == (5,)
    for words in ({"structure": "flat"}, {"family": "flow"}):
        with pytest.raises(ValueError, match="LinearGaussian.gap: found") as raised:
            theirs.gap(**words)
        with pytest.raises(ValueError, match="LinearGaussian.gap: found") as again:
            ours.gap(**words)
        assert str(again.value) == str(raised.value)


def test_linear_gaussian_starts_as_torchs():
    modules = eqx.filter_vmap(lambda key: ports.LinearGaussian(2, (3,), key=key))(jax.random.split(KEY, 3000))
    weight, variance = np.ravel(modules.weight["x_z1"]), np.exp(2 * np.ravel(modules.log_scale["z1"]))
    # moments of N draws within five standard errors
    assert abs(weight.mean()) < 5 * 0.9 / len(weight) ** 0.5
    assert abs(weight.std() - 0.9) < 5 * 0.9 / (2 * len(weight)) ** 0.5
    assert abs(variance.mean() - 0.8) < 5 * (1 / 12 / len(variance)) ** 0.5
    assert variance.min() >= 0.3 and variance.max() <= 1.3 and not modules.bias["x"].any()


# The converter


def test_types_are_kept():
    state = {"a": torch.randn(2, 3).T, "b": torch.randn(3).bfloat16(), "c": torch.tensor(0.3).half()}
    state["d"] = torch.randn(2).float()
    arrays = from_torch(state)
    assert [a.dtype.name for a in arrays.values()] == ["float64", "bfloat16", "float16", "float32"]
    back = to_torch(arrays)
    assert all(torch.equal(back[n], t) and back[n].dtype == t.dtype for n, t in state.items())
    back["d"].zero_()
    assert state["d"].any() and arrays["d"].any()
    with jax.enable_x64(False), pytest.raises(ValueError, match="'a' is float64, which JAX rounds; .*jax_enable_x64"):
        from_torch(state)


def test_a_constant_in_single_precision_crosses_over():
    torch.set_default_dtype(torch.float)  # the fixture sets it back
    theirs = ppl_models.VAE(4, 2, 8, likelihood="gaussian:0.3").double()
    ours = like_torch(ports.VAE(4, 2, 8, likelihood="gaussian:0.7", key=KEY), theirs)
    assert named_constants(ours) == {"likelihood.scale": np.float64(np.float32(0.3))}
    theirs.load_state_dict(to_torch(ours))
    assert theirs.likelihood.scale == torch.tensor(0.3)
    # of parameters alone it is not one
    assert named_constants(with_parameters(ours, named_parameters(ours))) == named_constants(ours)


def test_wrong_weights():
    theirs, small = ppl_models.VAE(4, 2, 8), ports.VAE(4, 3, 8, key=KEY)
    with pytest.raises(ValueError, match=r"VAE: parameter 'decoder.first.0.weight' is \(8, 2\), want \(8, 3\)"):
        like_torch(small, theirs)
    with pytest.raises(ValueError, match="VAE: found the parameter 'decoder.blocks.1.bias'; build the module with"):
        like_torch(ports.VAE(4, 2, 8, depth=2, key=KEY), theirs)


def test_without_a_key_one_is_asked_for():
    with pytest.raises(ValueError, match="VAE: found no random key to draw with, want one; try numpyro.handlers.seed"):
        ports.VAE(event=4, latent=2, hidden=4, key=jax.random.key(0))(n=2)
