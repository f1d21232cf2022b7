"""The guides in JAX: equal to torch's for the same weights and latents, in double precision; and in NumPyro's tools."""

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numpyro")

import equinox as eqx
import jax
import jax.numpy as jnp
import torch
import zuko
from numpyro import handlers
from pyro import poutine
from torch import Tensor, nn

import guides as torch_guides
import guides.numpyro as guides
import ppl_models as torch_models
import ppl_models.numpyro as models
from guides.numpyro.parts import families
from guides.parts.families import continuous as torch_families
from ppl_models.factorization import compare
from ppl_models.numpyro.parts.flows.splines import MonotonicSpline
from ppl_models.numpyro.parts.program import named_parameters
from ppl_models.numpyro.weights import like_torch
from tests.helpers.cases import few
from tests.helpers.numpyro_programs import JAX, PLAIN, TORCH
from tests.helpers.precision import quick, shaken

pytestmark = pytest.mark.usefixtures("wide")

KEY = jax.random.key(0)
GUIDES = ("MeanField", "BottomUp", "Ladder", "SelfReflective", "Faithful")
WIDTH, IMAGE, COLOUR = 16, (1, 4, 4), (3, 4, 4)
MODELS: dict[str, tuple[str, tuple, dict]] = {
    "vae": ("VAE", (WIDTH, 4, 8), {}),
    "vae-conv": ("VAE", (IMAGE, 3, 16), {"network": "conv"}),
    "dlgm": ("DLGM", (WIDTH, (3, 4), 8), {}),
    "hierarchical": ("HierarchicalVAE", (WIDTH, (2, 3, 4), 8), {}),
    "hierarchical-skip": ("HierarchicalVAE", (WIDTH, (2, 3, 4), 8), {"skip": True}),
    "sere": ("SeReVAE", (WIDTH, 3, 3, 8), {}),
    "sere-conv": ("SeReVAE", (IMAGE, 2, 3, 16), {"network": "conv"}),
    "linear": ("LinearGaussian", (WIDTH, (2, 3, 2), {"x": ("z3", "z1"), "z3": ("z2", "z1")}), {}),
    "pixels": ("PixelVAE", (IMAGE, 3, 4), {"depth": 2, "radius": 1}),
    "sequential": ("SequentialVAE", (WIDTH, 2, 3, 8), {"predictor": True}),
    "infusion": ("Infusion", (WIDTH, 2, 8), {}),
    "vae-colour": ("VAE", (COLOUR, 3, 16), {"network": "conv"}),
    "sere-colour": ("SeReVAE", (COLOUR, 2, 3, 16), {"network": "conv"}),
    "pixels-colour": ("PixelVAE", (COLOUR, 3, 4), {"depth": 2, "radius": 1}),
}
SHALLOW: dict[
    str, tuple[str, tuple, dict]
] = {  # what is compiled every time; those above, each with each guide, seldom
    "two-skip": ("HierarchicalVAE", (WIDTH, (2, 3), 8), {"skip": True}),
    "two-blocks": ("SeReVAE", (WIDTH, 2, 3, 8), {}),
    "dlgm": MODELS["dlgm"],
}
FIXED = ("LinearGaussian", "Infusion")  # models whose likelihood is no choice


def of_torch(value: Any) -> Any:
    return jnp.asarray(value.detach().numpy()) if isinstance(value, Tensor) else value


def built(name: str) -> tuple[nn.Module, eqx.Module]:
    """A model of the collection and its port, of the same weights."""
    kind, args, options = {**MODELS, **SHALLOW}[name]
    options = options if kind in FIXED else {**options, "likelihood": "gaussian"}
    theirs = shaken(getattr(torch_models, kind)(*args, **options))
    return theirs, like_torch(getattr(models, kind)(*args, **options, key=KEY), theirs)


def image_of(name: str) -> tuple[int, ...]:
    return COLOUR if name.endswith("colour") else IMAGE


def data(n: int = 4, width: int = WIDTH) -> Tensor:
    return 2 * torch.rand(n, width, generator=torch.Generator().manual_seed(1), dtype=torch.double) - 1


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
    # a spline of random weights is steep where it is inverted; and random covariances of sixteen pixels, condition 1e23
    steep = options.get("family") == "flow" or (options.get("family"), type(theirs).__name__) == ("full", "Infusion")
    rtol = 1e-8 if steep else 1e-10
    for name in values:
        np.testing.assert_allclose(found[name], expected[name].detach(), rtol=rtol, atol=1e-12, err_msg=name)
        assert found[name].shape == expected[name].shape
    for name, gradient in named_parameters(gradients).items():
        wanted = slopes[name].numpy() if name in slopes else np.zeros(gradient.shape)
        np.testing.assert_allclose(gradient, wanted, rtol=1e-8, atol=1e-8 * max(1, abs(wanted).max()), err_msg=name)
    return port


# ---- the collection


@pytest.mark.parametrize(
    ("name", "guide", "family"),
    few(
        [("two-skip", "Ladder", "full"), ("two-blocks", "SelfReflective", "rank-one"), ("dlgm", "BottomUp", "flow")],
        lambda name, guide, family: name == "two-blocks",
    ),
)
def test_a_guide_is_its_twin(name, guide, family):
    check(*built(name), (data(),), guide, family=family, hidden=8)


FLOWS = ("iaf:hidden=6,context=3,depth=2", "maf:hidden=6,context=3", "nsf:hidden=6,context=3,steps=1")


@pytest.mark.parametrize(
    ("guide", "family"),
    few(
        [(guide, family) for guide in GUIDES for family in FLOWS],
        lambda *case: case == ("Ladder", FLOWS[0]),
    ),
)
def test_a_guide_of_flows_is_its_twin(guide, family):
    """The density of values that no factor has drawn, which the slow direction of the steps gives, and its gradient."""
    check(*built("two-blocks"), (data(),), guide, family=family, hidden=8)


def test_an_infused_guide_is_its_twin():
    check(*built("infusion"), (data(),), "Infused", rate=0.3, width=0.1, image=(2, 2, 4))


@pytest.mark.slow
def test_a_guide_of_colour_images_in_bands_is_its_twin():
    x = data(width=prod(COLOUR))
    check(*built("sere-colour"), (x,), "SelfReflective", encoder="conv", hidden=8, image=COLOUR)


def test_a_pyramid_is_its_twin():
    check(*built("vae"), (data(),), "MeanField", encoder="pyramid", hidden=8, image=IMAGE)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["diagonal", "rank-one", "full", "flow"])
@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("name", MODELS)
def test_every_guide_is_its_twin_on_every_model(name, guide, family):
    if (guide, family) != ("Ladder", "flow"):  # which cannot be
        check(*built(name), (data(width=prod(image_of(name))),), guide, family=family, hidden=8)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["separate", "shared", "bottom-up", "conv", "pyramid", "linear"])
@pytest.mark.parametrize("name", MODELS)
def test_every_encoder_is_its_twin(name, encoder):
    x = data(width=prod(image_of(name)))
    check(*built(name), (x,), "Ladder", encoder=encoder, hidden=8, depth=2, image=image_of(name))


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("name", MODELS)
def test_the_verdict_is_the_same(name, guide):
    theirs, model = built(name)
    x = data(3, prod(image_of(name)))
    q = getattr(torch_guides, guide)(theirs, x, hidden=8)
    report = compare(theirs, q, x)
    port = getattr(guides, guide)(model, of_torch(x), hidden=8, key=KEY)
    found = compare(model, port, of_torch(x))
    assert (found.verdict, str(found.model), str(found.guide)) == (
        report.verdict,
        str(report.model),
        str(report.guide),
    )


# ---- plain programs


TWINS = [(name, guide) for name, (*_, kinds) in PLAIN.items() for guide in kinds]
FEW = (
    *(("schools-plate", "SelfReflective"), ("inner", "Ladder")),
    *(("computed", "SelfReflective"), ("in-time", "SelfReflective")),
)


@pytest.mark.parametrize(("name", "guide"), few(TWINS, lambda *twin: twin in FEW))
def test_a_guide_of_a_plain_program_is_its_twin(name, guide):
    program, args, _ = PLAIN[name]
    check(partial(program, p=TORCH), partial(program, p=JAX), args, guide, hidden=4)


# ---- what a guide is built of


def test_the_spline_is_zukos():
    raw = [torch.randn(3, 8), torch.randn(3, 8), torch.randn(3, 7)]
    x = torch.linspace(-7.0, 7.0, 52)[:, None].expand(52, 3)  # not at 0, where no error is small relative to the value
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
        cases = [("precision_weighted", loc, scale)] if merged else [("residual", loc, scale), ("residual", 0.0, 0.1)]
        for name, center, spread in cases:
            expected = getattr(theirs, name)(raw, center, spread).log_prob(value)
            q = getattr(ours, name)(of_torch(raw), of_torch(center), of_torch(spread))
            np.testing.assert_allclose(q.log_prob(of_torch(value)), expected, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="no product with a prior"):
        families.Flow().precision_weighted(jnp.zeros(3), jnp.zeros(1), jnp.ones(1))
