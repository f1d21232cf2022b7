"""The guides in JAX: equal to torch's for the same weights and latents, in double precision; and in NumPyro's tools."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numpyro")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions
import optax
import pyro
import pyro.distributions
import torch
import zuko
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro import poutine
from torch import Tensor, nn

import guides as torch_guides
import guides.numpyro as guides
import ppl_models as torch_models
import ppl_models.numpyro as models
from guides import families as torch_families
from guides.numpyro import families
from guides.numpyro.guide import with_model
from guides.numpyro.splines import MonotonicSpline
from ppl_models.factorization import compare
from ppl_models.numpyro.parts.nets import Linear
from ppl_models.numpyro.parts.program import named_parameters, with_parameters
from ppl_models.numpyro.weights import like_torch

KEY = jax.random.key(0)
GUIDES = ("MeanField", "BottomUp", "Ladder", "SelfReflective", "Faithful")
WIDTH, IMAGE = 16, (1, 4, 4)
MODELS: dict[str, tuple[str, tuple, dict]] = {
    "vae": ("VAE", (WIDTH, 4, 8), {}),
    "vae-conv": ("VAE", (IMAGE, 3, 16), {"network": "conv"}),
    "dlgm": ("DLGM", (WIDTH, (3, 4), 8), {}),
    "hierarchical": ("HierarchicalVAE", (WIDTH, (2, 3, 4), 8), {}),
    "hierarchical-skip": ("HierarchicalVAE", (WIDTH, (2, 3, 4), 8), {"skip": True}),
    "sere": ("SeReVAE", (WIDTH, 3, 3, 8), {}),
    "sere-conv": ("SeReVAE", (IMAGE, 2, 3, 16), {"network": "conv"}),
    "linear": ("LinearGaussian", (WIDTH, (2, 3, 2), {"x": ("z3", "z1"), "z3": ("z2", "z1")}), {}),
}


@pytest.fixture(autouse=True)
def in_double(double: None) -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def shaken(module: nn.Module) -> nn.Module:
    """So that what starts at zero does not hide a mistake."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def of_torch(value: Any) -> Any:
    return jnp.asarray(value.detach().numpy()) if isinstance(value, Tensor) else value


def built(name: str) -> tuple[nn.Module, eqx.Module]:
    """A model of the collection and its port, of the same weights."""
    kind, args, options = MODELS[name]
    options = options if kind == "LinearGaussian" else {**options, "likelihood": "gaussian"}
    theirs = shaken(getattr(torch_models, kind)(*args, **options))
    return theirs, like_torch(getattr(models, kind)(*args, **options, key=KEY), theirs)


def data(n: int = 4) -> Tensor:
    return 2 * torch.rand(n, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.double) - 1


def quick(function: Callable) -> Callable:
    """Compiled without much thought: it runs once."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


class Substitute(poutine.messenger.Messenger):
    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.values:
            msg["value"], msg["done"] = self.values[msg["name"]], True


def check(theirs: Callable, model: Callable, args: tuple, guide: str, **options: Any) -> Any:
    """Build both guides, carry the weights over, and compare names, structure, densities and gradients."""
    q = shaken(getattr(torch_guides, guide)(theirs, *args, **options))
    given = tuple(of_torch(a) for a in args)
    port = getattr(guides, guide)(model, *given, **options, key=KEY)
    assert port.layout.factorization == q.layout.factorization
    assert tuple(port.order) == tuple(q.order) and dict(port.factors.parents) == q.factors.parents
    shapes = {name: tuple(p.shape) for name, p in q.named_parameters()}
    assert {name: p.shape for name, p in named_parameters(port).items()} == shapes
    port = like_torch(port, q)

    drawn = poutine.trace(q).get_trace(*args)
    values = {name: drawn.nodes[name]["value"].detach() for name in q.layout.latents}
    with Substitute(values):
        trace = poutine.trace(q).get_trace(*args)
    trace.compute_log_prob()
    expected = {name: trace.nodes[name]["log_prob"] for name in values}
    sum(e.sum() for e in expected.values()).backward()
    slopes = {name: p.grad for name, p in q.named_parameters() if p.grad is not None}
    held = {name: of_torch(value) for name, value in values.items()}
    own, fixed = eqx.partition(port.own(), eqx.is_inexact_array)

    def log_densities(own: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        run = handlers.substitute(handlers.seed(port.restored(eqx.combine(own, fixed)), KEY), data=held)
        sites = handlers.trace(run).get_trace(*given)
        found = {name: sites[name]["fn"].log_prob(sites[name]["value"]) for name in values}
        return sum(each.sum() for each in found.values()), found

    gradients, found = quick(jax.grad(log_densities, has_aux=True))(own)
    for name in values:
        np.testing.assert_allclose(found[name], expected[name].detach(), rtol=1e-10, atol=1e-12, err_msg=name)
        assert found[name].shape == expected[name].shape
    for name, gradient in named_parameters(gradients).items():
        wanted = slopes[name].numpy() if name in slopes else np.zeros(gradient.shape)
        np.testing.assert_allclose(gradient, wanted, rtol=1e-8, atol=1e-8, err_msg=name)
    return port


# ---- the collection


@pytest.mark.parametrize(
    ("name", "guide", "family"),
    [
        ("hierarchical-skip", "Ladder", "full"),
        ("sere", "SelfReflective", "rank-one"),
        ("dlgm", "BottomUp", "flow"),
        ("vae", "MeanField", "diagonal"),
        ("linear", "Faithful", "diagonal"),
    ],
)
def test_a_guide_is_its_twin(name, guide, family):
    check(*built(name), (data(),), guide, family=family, hidden=8)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["diagonal", "rank-one", "full", "flow"])
@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("name", MODELS)
def test_every_guide_is_its_twin_on_every_model(name, guide, family):
    if (guide, family) != ("Ladder", "flow"):  # which cannot be
        check(*built(name), (data(),), guide, family=family, hidden=8)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["separate", "shared", "bottom-up", "conv", "linear"])
@pytest.mark.parametrize("name", MODELS)
def test_every_encoder_is_its_twin(name, encoder):
    check(*built(name), (data(),), "Ladder", encoder=encoder, hidden=8, depth=2, image=IMAGE)


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("name", MODELS)
def test_the_verdict_is_the_same(name, guide):
    theirs, model = built(name)
    x = data(3)
    q = getattr(torch_guides, guide)(theirs, x, hidden=8)
    report = compare(theirs, q, x)
    port = getattr(guides, guide)(model, of_torch(x), hidden=8, key=KEY)
    found = compare(model, port, of_torch(x))
    assert (found.verdict, str(found.model), str(found.guide)) == (
        report.verdict,
        str(report.model),
        str(report.guide),
    )


# ---- plain programs: one function for both languages


TORCH = SimpleNamespace(
    sample=pyro.sample, plate=pyro.plate, dist=pyro.distributions, ones=torch.ones, mask=lambda m: poutine.mask(mask=m)
)
JAX = SimpleNamespace(
    sample=numpyro.sample,
    plate=numpyro.plate,
    dist=numpyro.distributions,
    ones=jnp.ones,
    mask=lambda m: handlers.mask(mask=m),
)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)


def schools(x, s, p):
    mu = p.sample("mu", p.dist.Normal(0 * p.ones(1), 10 * p.ones(1)))
    tau = p.sample("tau", p.dist.HalfCauchy(25 * p.ones(1)))
    eta = p.sample("eta", p.dist.Normal(0 * p.ones(8), p.ones(8)))
    p.sample("obs", p.dist.Normal(mu + tau * eta, s), obs=x)


def schools_in_a_plate(x, s, p):
    mu = p.sample("mu", p.dist.Normal(0.0, 5.0))
    tau = p.sample("tau", p.dist.HalfCauchy(5.0))
    with p.plate("schools", len(x)):
        eta = p.sample("eta", p.dist.Normal(0.0, 1.0))
        p.sample("y", p.dist.Normal(mu + tau * eta, s), obs=x)


def groups(x, y, p):
    center = p.sample("center", p.dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    spread = p.sample("spread", p.dist.HalfNormal(1.0).expand([2]).to_event(1))
    scale = p.sample("scale", p.dist.HalfNormal(1.0))
    with p.plate("groups", len(y)):
        b = p.sample("b", p.dist.Normal(center[..., None, :], spread[..., None, :]).to_event(1))
        p.sample("y", p.dist.Normal((x * b[..., None, :]).sum(-1), scale[..., None, None]).to_event(1), obs=y)


def chains(x, p):
    step, z = p.sample("step", p.dist.HalfNormal(1.0)), 0.0
    with p.plate("data", len(x)):
        for t in range(x.shape[1]):
            z = p.sample(f"z{t}", p.dist.Normal(z, step))
            p.sample(f"x{t}", p.dist.Normal(z, 1.0), obs=x[:, t])


def copies(x, p):
    chains(x + 1.0, p)


def one_chain(x, p):
    z = 0.0
    for t in range(len(x)):
        z = p.sample(f"z{t}", p.dist.Normal(z, 1.0))
        p.sample(f"x{t}", p.dist.Normal(z, 1.0), obs=x[t])


def topics(x, p):
    with p.plate("topics", 2):
        phi = p.sample("phi", p.dist.Dirichlet(p.ones(5)))
    with p.plate("documents", len(x)):
        theta = p.sample("theta", p.dist.Dirichlet(p.ones(2)))
        rate = (theta[..., None, :] @ phi)[..., 0, :]
        p.sample("x", p.dist.Normal(rate, 0.1).to_event(1), obs=x)


def bounded(x, p):
    a = p.sample("a", p.dist.Beta(2.0, 2.0))
    u = p.sample("u", p.dist.Uniform(-p.ones(2), 3 * p.ones(2)).to_event(1))
    with p.plate("data", len(x)):
        z = p.sample("z", p.dist.Uniform(0.0, 1.0))
        p.sample("x", p.dist.Normal((a + z)[..., None] * u[..., None, :], 1.0).to_event(1), obs=x)


def covariates(x, t, p):
    with p.plate("data", len(x)):
        a = p.sample("a", p.dist.Normal(t, 1.0))
        b = p.sample("b", p.dist.Normal(a, 1.0))
        p.sample("x", p.dist.Normal(b, 1.0), obs=x)


def partly(x, p):
    """The last column is a covariate."""
    with p.plate("data", len(x)):
        a = p.sample("a", p.dist.Normal(x[:, 2], 1.0))
        p.sample("x0", p.dist.Normal(a, 1.0), obs=x[:, 0])
        p.sample("x1", p.dist.Normal(a, 1.0), obs=x[:, 1])


def inner(x, p):
    with p.plate("data", len(x), dim=-2):
        u = p.sample("u", p.dist.LogNormal(0.0, 1.0))
        with p.plate("time", x.shape[1], dim=-1):
            v = p.sample("v", p.dist.Normal(u, 1.0))
            p.sample("x", p.dist.Normal(v, 1.0), obs=x)


def within(x, p):
    """A latent with copies of its own for each datum."""
    with p.plate("data", len(x), dim=-1):
        w = p.sample("w", p.dist.Normal(0.0, 1.0))
        with p.plate("copies", 3, dim=-2):
            v = p.sample("v", p.dist.LogNormal(w, 1.0))
        p.sample("x", p.dist.Normal(v.sum(-2), 1.0), obs=x)


def masked(x, p):
    with p.plate("data", len(x)):
        with p.mask(x > 0):
            z = p.sample("z", p.dist.Normal(0.0, 1.0))
        p.sample("x", p.dist.Normal(z, 1.0), obs=x)


ORDERED = ("BottomUp", "Faithful")
TOP_DOWN = ("MeanField", "SelfReflective")
PLAIN = {
    "schools": (schools, (noise(8), 1 + noise(8).abs()), ORDERED),
    "schools-plate": (schools_in_a_plate, (noise(8), 1 + noise(8).abs()), (*TOP_DOWN, *ORDERED)),
    "groups": (groups, (noise(6, 4, 2), noise(6, 4)), (*TOP_DOWN, *ORDERED)),
    "chains": (chains, (noise(6, 3),), (*TOP_DOWN, *ORDERED)),
    "copies": (copies, (noise(6, 3),), (*TOP_DOWN, *ORDERED)),
    "one-chain": (one_chain, (noise(3),), (*TOP_DOWN, *ORDERED)),
    "topics": (topics, (noise(6, 5).abs(),), (*TOP_DOWN, *ORDERED)),
    "bounded": (bounded, (noise(6, 2),), (*TOP_DOWN, *ORDERED)),
    "covariates": (covariates, (noise(6), noise(6)), (*TOP_DOWN, *ORDERED)),
    "partly": (partly, (noise(6, 3),), (*TOP_DOWN, *ORDERED)),
    "inner": (inner, (noise(4, 3),), ("Ladder", *TOP_DOWN, *ORDERED)),
    "within": (within, (noise(4),), ("Ladder", *TOP_DOWN, *ORDERED)),
    "masked": (masked, (noise(6),), ("Ladder", *TOP_DOWN)),
}
TWINS = [(name, guide) for name, (*_, kinds) in PLAIN.items() for guide in kinds]
FEW = [(name, kinds[i % len(kinds)]) for i, (name, (*_, kinds)) in enumerate(PLAIN.items())]


@pytest.mark.parametrize(
    ("name", "guide"), [pytest.param(*twin, marks=() if twin in FEW else pytest.mark.slow) for twin in TWINS]
)
def test_a_guide_of_a_plain_program_is_its_twin(name, guide):
    program, args, _ = PLAIN[name]
    check(partial(program, p=TORCH), partial(program, p=JAX), args, guide, hidden=4)


# ---- what a guide is built of


def test_the_spline_is_zukos():
    raw = [torch.randn(3, 8), torch.randn(3, 8), torch.randn(3, 7)]
    x = torch.linspace(-7.0, 7.0, 51)[:, None].expand(51, 3)
    theirs, ours = zuko.transforms.MonotonicRQSTransform(*raw), MonotonicSpline(*map(of_torch, raw))
    y, log_slope = theirs.call_and_ladj(x)
    found, intermediates = ours.call_with_intermediates(of_torch(x))
    np.testing.assert_allclose(found, y, rtol=1e-12)
    np.testing.assert_allclose(ours.log_abs_det_jacobian(of_torch(x), found, intermediates), log_slope, atol=1e-12)
    np.testing.assert_allclose(ours.log_abs_det_jacobian(of_torch(x), found), log_slope, atol=1e-12)
    np.testing.assert_allclose(ours.inv(of_torch(y)), theirs.inv(y), rtol=1e-10)
    np.testing.assert_allclose(ours.inv(found), of_torch(x), rtol=1e-9, atol=1e-9)
    leaves, structure = jax.tree.flatten(ours)
    assert jax.tree.unflatten(structure, leaves) == ours != MonotonicSpline(*(1 + of_torch(r) for r in raw))


@pytest.mark.parametrize("kind", ["Diagonal", "RankOne", "Full", "Flow"])
def test_families_are_those_of_torch(kind):
    theirs, ours = getattr(torch_families, kind)(), getattr(families, kind)()
    loc, scale, value = torch.randn(5, 3), torch.rand(5, 3) + 0.5, torch.randn(5, 3)
    for merged in (False, True) if kind != "Flow" else (False,):
        assert (n := ours.count(3, merged)) == theirs.count(3, merged)
        raw = torch.randn(5, n)
        cases = [("merged", loc, scale)] if merged else [("around", loc, scale), ("around", 0.0, 0.1)]
        for name, center, spread in cases:
            expected = getattr(theirs, name)(raw, center, spread).log_prob(value)
            q = getattr(ours, name)(of_torch(raw), of_torch(center), of_torch(spread))
            np.testing.assert_allclose(q.log_prob(of_torch(value)), expected, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="no product with a prior"):
        families.Flow().merged(jnp.zeros(3), jnp.zeros(1), jnp.ones(1))


def two(x, names=("a", "b")):
    with numpyro.plate("data", len(x)):
        first = numpyro.sample(names[0], numpyro.distributions.Normal(jnp.zeros(2), 1.0).to_event(1))
        second = numpyro.sample(names[1], numpyro.distributions.Normal(first, 1.0).to_event(1))
        numpyro.sample("x", numpyro.distributions.Normal(second, 1.0).to_event(1), obs=x)


X = np.linspace(-1.0, 1.0, 10).reshape(5, 2)


@pytest.mark.parametrize("names", [("a.b", "a_b"), ("a.b", "dotted_a~1b"), ("a~1.b", "a.~1b"), ("fn", "a")])
def test_every_latent_has_a_network_of_its_own(names):
    guide = guides.SelfReflective(partial(two, names=names), X, hidden=4, key=KEY)
    assert len({name.split(".")[1] for name in named_parameters(guide)} - {"encoders"}) == 2
    assert set(handlers.seed(guide, KEY)(X)) == set(names)
    plain = guides.MeanField(two, X, hidden=4, key=KEY)
    assert {name.split(".")[1] for name in named_parameters(plain)} == {"encoders", "q_a", "q_b"}


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_knows_its_model_but_does_not_own_it(guide):
    _, model = built("vae")
    q = getattr(guides, guide)(model, of_torch(data()), hidden=8, key=KEY)
    assert q.model is model and not set(named_parameters(model)) & set(named_parameters(q))
    assert with_model(q, two).model is two and q.restored(q.own()).model is model
    with handlers.seed(rng_seed=0), handlers.trace() as trace:
        q(of_torch(data()))
    expected = {"z1", f"{guide}$params"} | ({"VAE$params"} if guide not in ("BottomUp", "Faithful") else set())
    assert set(trace) - {"data"} == expected  # what is observed stays within


def test_a_guide_is_made_in_the_dtype_of_its_model():
    narrow = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, built("vae")[1])
    dtypes = {
        jnp.float32: (narrow, of_torch(data()).astype(jnp.float32)),
        jnp.float64: (two, X),
    }
    for dtype, (model, x) in dtypes.items():
        q = guides.MeanField(model, x, hidden=4, key=KEY)
        assert {p.dtype for p in named_parameters(q).values()} == {jnp.dtype(dtype)}
    q = guides.MeanField(two, X.astype(jnp.float32), hidden=4, key=KEY)
    assert {p.dtype for p in named_parameters(q).values()} == {jnp.dtype(jnp.float32)}


class Half(eqx.Module):
    inner: Linear
    output: int = eqx.field(static=True)

    def __call__(self, x):
        return self.inner(x)


def test_an_encoder_of_the_users():
    q = guides.MeanField(two, X, encoder=Half(Linear(2, 3, key=KEY), 3), hidden=4, key=KEY)
    assert named_parameters(q)["factors.encoders.0.trunk.inner.weight"].shape == (3, 2)
    with pytest.raises(ValueError, match="encoder Linear lacks the attribute `output`"):
        guides.MeanField(two, X, encoder=Linear(2, 3, key=KEY), key=KEY)


# ---- what is refused


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"family": {"z9": "full"}}, "family names the site 'z9', want one of the latents a, b"),
        ({"family": None}, "found family None, want one of 'diagonal', 'rank-one', 'full', 'flow', an object"),
        ({"parents": {"a": "b", "b": "a"}}, r"found parents\['a'\] = 'b', want a tuple of names; try \('b',\)"),
        ({"parents": None}, "found parents=None, want one of"),
        ({"hidden": 0}, "found hidden=0, want an integer of at least 1"),
        ({"depth": -1}, "found depth=-1, want an integer of at least 0"),
        ({"encoder": "cnn"}, "found encoder 'cnn', want 'separate'"),
        ({"encoder": "conv", "image": (1, 3, 3)}, "encoder 'conv' reads rows of 2 values as images"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(guide, sizes, text):
    if "parents" in sizes and guide in ("MeanField", "Faithful"):
        return  # which have none to choose
    with pytest.raises(ValueError, match=f"guide {guide}: {text}"):
        getattr(guides, guide)(two, X, **sizes, key=KEY)


def normal(name, *args, **options):
    return numpyro.sample(name, numpyro.distributions.Normal(*args), **options)


def unobserved(x):
    normal("z", 0.0, 1.0)


def without_latents(x):
    normal("x", 0.0, 1.0, obs=x)


def discrete(x, **options):
    with numpyro.plate("data", len(x)):
        k = numpyro.sample("k", numpyro.distributions.Bernoulli(0.5), **options)
        normal("x", normal("z", k, 1.0), 1.0, obs=x[:, 0])


def no_plate_for_all(x):
    with numpyro.plate("data", len(x)):
        normal("x", normal("z", jnp.zeros((3, 1)), 1.0).sum(0), 1.0, obs=x[:, 0])


def moving(x):
    with numpyro.plate("data", len(x)):
        low = normal("low", 0.0, 1.0)
        z = numpyro.sample("z", numpyro.distributions.Uniform(low, low + 1))
        normal("x", z, 1.0, obs=x[:, 0])


def improper(x):
    real = numpyro.distributions.constraints.real
    normal("x", numpyro.sample("z", numpyro.distributions.ImproperUniform(real, (), ())), 1.0, obs=x)


def in_a_scan(x):
    def step(z, x):
        z = normal("z", z, 1.0)
        normal("x", z, 1.0, obs=x)
        return z, None

    scan(step, 0.0, x[:, 0])


def half_normal(x):
    with numpyro.plate("data", len(x)):
        normal("x", numpyro.sample("z", numpyro.distributions.HalfNormal(1.0)), 1.0, obs=x[:, 0])


def weighted(x):
    with numpyro.plate("data", len(x)):
        with handlers.scale(scale=0.5):
            z = normal("z", 0.0, 1.0)
        normal("x", z, 1.0, obs=x[:, 0])


@pytest.mark.parametrize(
    ("model", "guide", "text"),
    [
        (unobserved, "MeanField", "the model observed nothing on the example .it drew 'z'.; pass the data"),
        (without_latents, "MeanField", "the model has no latent site to infer .observed: .'x'.."),
        (discrete, "MeanField", r"site 'k' is discrete \(Bernoulli.*TraceEnum_ELBO"),
        (partial(discrete, infer={"enumerate": "parallel"}), "Ladder", "found the enumerated site 'k', want none"),
        (no_plate_for_all, "Ladder", r"site 'z' has batch shape \(3, 5\), of which dim -2 is in no plate"),
        (moving, "BottomUp", r"site 'z' \(Uniform\) has a support whose lower bound differs between data or runs"),
        (improper, "MeanField", "the model cannot be run.*give the site a proper prior"),
        (half_normal, "Ladder", "site 'z' has a HalfNormal prior, precision weighting wants a diagonal Gaussian"),
        (weighted, "Faithful", "site 'z' has a scale in the model, which a guide with an order of its own cannot"),
        (partial(masked, p=JAX), "BottomUp", "site 'z' has a mask in the model, which a guide with an order of its"),
    ],
)
def test_models_that_have_no_such_guide_are_refused(model, guide, text):
    x = X[:, 0] if isinstance(model, partial) and model.func is masked else X
    with pytest.raises(ValueError, match=text):
        getattr(guides, guide)(model, x, key=KEY)


def test_a_scan_is_refused_by_guides_that_run_the_model():
    with pytest.raises(ValueError, match="found the site 'z' in a scan"):
        guides.MeanField(in_a_scan, X[:1], key=KEY)
    with pytest.raises(ValueError, match="take a guide with an order of its own"):
        guides.MeanField(in_a_scan, X, key=KEY)
    q = guides.BottomUp(in_a_scan, X, hidden=4, key=KEY)
    trace = handlers.trace(handlers.seed(q, KEY)).get_trace(X)
    scored = handlers.trace(handlers.replay(handlers.seed(in_a_scan, KEY), {"z": trace["z"]})).get_trace(X)
    np.testing.assert_array_equal(scored["z"]["value"], trace["z"]["value"])


def test_a_model_has_to_be_a_program():
    with pytest.raises(TypeError, match="guide MeanField: found the model 3, want a NumPyro program"):
        guides.MeanField(3, X, key=KEY)


@pytest.mark.parametrize("guide", ["SelfReflective", "BottomUp"])
def test_data_that_a_guide_was_not_built_for_are_refused(guide):
    q = getattr(guides, guide)(two, X, hidden=4, key=KEY)
    with pytest.raises(ValueError, match=r"found 3 observed values a datum \(sites x\), built for 2; build it on"):
        handlers.seed(q, KEY)(jnp.zeros((4, 3)))

    def either(x=None):
        with numpyro.plate("data", 5):
            normal("x", normal("z", 0.0, 1.0), 1.0, obs=x)

    q = getattr(guides, guide)(either, X[:, 0], hidden=4, key=KEY)
    with pytest.raises(ValueError, match="site 'x' was not observed in this run; a guide needs the data"):
        handlers.seed(q, KEY)()
    extra = guides.SelfReflective(two, X, hidden=4, key=KEY)
    with pytest.raises(ValueError, match="the model drew the site 'c', which it did not draw on the example"):
        handlers.seed(with_model(extra, lambda x: (two(x), normal("c", 0.0, 1.0))), KEY)(X)


# ---- NumPyro's own tools


@pytest.mark.parametrize("guide", ["Ladder", "SelfReflective", "BottomUp"])
def test_svi_improves(guide):
    model, x = models.VAE(2, 2, 4, 0, "gaussian", key=KEY), jnp.asarray(X)
    q = getattr(guides, guide)(model, x, hidden=4, depth=0, key=KEY)
    result = SVI(model, q, optax.adam(5e-2), Trace_ELBO(num_particles=2)).run(KEY, 100, x, progress_bar=False)
    assert result.losses[-10:].mean() < 0.8 * result.losses[:10].mean()
    assert set(result.params) == {q.param, model.param}
    draws = Predictive(q, params=result.params, num_samples=3)(KEY, x[:4])
    assert {name: value.shape for name, value in draws.items()} == {"z1": (3, 4, 2)}
    assert Predictive(model, guide=q, params=result.params, num_samples=3)(KEY, x)["x"].shape == (3, 5, 2)


def test_the_analytic_elbo_agrees_in_mean():
    q = guides.Ladder(two, X, hidden=4, depth=0, key=KEY)
    losses = [loss(num_particles=4000).loss(KEY, {}, two, q, X) for loss in (Trace_ELBO, TraceMeanField_ELBO)]
    np.testing.assert_allclose(*losses, rtol=2e-2)


@pytest.mark.parametrize("guide", ["SelfReflective", "Faithful"])
def test_guides_are_compiled_once(guide):
    runs = 0

    @eqx.filter_jit
    def draw(q, x, key):
        nonlocal runs
        runs += 1
        return handlers.seed(q, key)(x)

    q = getattr(guides, guide)(two, X, hidden=4, key=KEY)
    first = draw(q, X, KEY)
    second = draw(like_numbers(q), X, KEY)
    assert runs == 1 and first["a"].shape == (5, 2) and not np.array_equal(first["a"], second["a"])
    many = jax.vmap(lambda key: handlers.seed(q, key)(X)["b"])(jax.random.split(KEY, 7))
    assert many.shape == (7, 5, 2) and len(np.unique(many[:, 0, 0])) == 7


def like_numbers(q: eqx.Module) -> eqx.Module:
    """The guide with other parameters."""
    return jax.tree.map(lambda leaf: 1.1 * leaf if eqx.is_inexact_array(leaf) else leaf, q)


@pytest.mark.parametrize("guide", ["SelfReflective", "Ladder"])
def test_both_traces_of_one_run(guide):
    model, x = models.SeReVAE(2, 2, 2, 4, likelihood="gaussian", key=KEY), jnp.asarray(X)
    q = getattr(guides, guide)(model, x, family="full", hidden=8, key=KEY)
    with handlers.seed(rng_seed=0):
        found, drawn = q.traces(x)
    expected = handlers.trace(handlers.substitute(handlers.seed(model, KEY), drawn_values(drawn))).get_trace(x)
    assert set(drawn) == set(q.layout.latents) and set(found) == set(expected)
    for site, node in expected.items():
        if node["type"] == "sample":
            log_p = node["fn"].log_prob(node["value"])
            with_inverse, without = (found[site]["fn"].log_prob(*v) for v in ((node["value"],), of_site(found[site])))
            np.testing.assert_allclose(with_inverse, log_p, rtol=1e-10)
            np.testing.assert_allclose(without, log_p, rtol=1e-10)
    assert found["z2"]["intermediates"] and not found["x2"]["intermediates"]  # the bijection is shared


def drawn_values(trace: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {name: node["value"] for name, node in trace.items()}


def of_site(node: Mapping[str, Any]) -> tuple:
    return (node["value"], node["intermediates"]) if node["intermediates"] else (node["value"],)


@pytest.mark.parametrize("guide", ["SelfReflective", "BottomUp"])
def test_a_guide_reads_the_subsample_that_is_scored(guide):
    """z is known from x, and x is the number of its row: what is drawn tells the rows that the evidence is read at."""

    def model(x):
        with numpyro.plate("data", len(x), subsample_size=3) as rows:
            normal("x", normal("z", 0.0, 100.0), 1e-3, obs=x[rows])

    x = jnp.arange(8.0)
    q = getattr(guides, guide)(model, x, encoder="linear", depth=0, key=KEY)
    assert q.layout.draws_subsamples
    weight, bias = (
        jnp.array([[1.0], [0.0]]),
        jnp.array([0.0, -100.0]),
    )  # the mean is x, and the scale e^-5 of the family's
    q = with_parameters(q, {"factors.q_z.first.0.weight": weight, "factors.q_z.first.0.bias": bias})
    seen = set()
    for seed in range(3):
        trace = handlers.trace(handlers.seed(q, seed)).get_trace(x)
        rows = trace["data"]["value"]
        seen |= {tuple(rows.tolist())}
        scale = (100 if guide == "SelfReflective" else 1) * np.exp(-5)
        np.testing.assert_allclose(trace["z"]["value"], rows, atol=5 * scale)
        assert trace["z"]["scale"] == 8 / 3
        replayed = handlers.trace(handlers.replay(handlers.seed(model, 9), trace)).get_trace(x)
        np.testing.assert_array_equal(replayed["x"]["value"], rows)
    assert len(seen) == 3
    loss = Trace_ELBO(num_particles=2)
    assert jnp.isfinite(loss.loss(KEY, {}, model, q, x))


def test_masks_and_scales_of_the_model_are_those_of_the_guide():
    x = X[:, 0]
    program = partial(masked, p=JAX)
    q = guides.SelfReflective(program, x, hidden=4, key=KEY)
    site = handlers.trace(handlers.seed(q, KEY)).get_trace(x)["z"]
    assert ((site["fn"].log_prob(site["value"]) == 0) == (x <= 0)).all()
    site = handlers.trace(handlers.seed(guides.MeanField(weighted, X, key=KEY), KEY)).get_trace(X)["z"]
    assert site["scale"] == 0.5 and site["infer"]["prior"].batch_shape == site["fn"].batch_shape == (5,)
