"""Models without latents in JAX: torch's densities, gradients, volumes and inverses; draws, training and evaluation."""

from functools import partial

import numpy as np
import pytest

pytest.importorskip("numpyro")

import equinox as eqx
import jax
import jax.numpy as jnp
import pyro
import torch
from numpyro import handlers
from torch import nn

from ppl_models import data
from ppl_models.inference import evaluate as torch_evaluate
from ppl_models.inference.numpyro import terms
from ppl_models.numpyro import evaluate, fit, from_torch, like_torch, to_torch
from ppl_models.numpyro.parts.program import named_constants, named_parameters
from ppl_models.parts.arguments.kinds import no_guide
from ppl_models.runs import load_run
from ppl_models.runs.folders.configuration import configuration
from ppl_models.runs.naming import names
from ppl_models.runs.naming.options import Training
from ppl_models.runs.training import train
from tests.helpers.cases import few
from tests.helpers.collection import DENSITIES, SIZES, data_of
from tests.helpers.precision import close, jnps, quick, shaken

KEY = jax.random.key(0)
FLOWS = [name for name in DENSITIES if name != "pixel-cnn"]
every_model, every_flow = (
    pytest.mark.parametrize("name", few(found, lambda name: name in ("maf", "glow"))) for found in (DENSITIES, FLOWS)
)
OTHER = {  # what the sizes of the collection leave out
    "pixel-cnn": [{"likelihood": "gaussian"}, {"event": (2, 3, 2), "likelihood": "logistic:2", "window": 1}],
    "real-nvp": [{"event": 5}, {"event": (3, 4, 8), "levels": 2, "depth": 1}],
    "glow": [{"event": (2, 4, 8), "levels": 2, "depth": 2}],
    "nsf": [{"event": 5, "passes": 2, "depth": 2, "bound": 1.0}],
    "maf": [{"event": (2, 3), "depth": 2}],
}
CASES = [(name, more) for name in DENSITIES for more in ({}, *OTHER.get(name, ()))]


def port(name: str, **more: object) -> eqx.Module:
    return names.catalogue("model", "numpyro")[name](**{**SIZES[name], **more}, key=KEY)


def built(name: str, **more: object) -> tuple[nn.Module, eqx.Module, torch.Tensor]:
    """Both models of the same weights, none of them zero; data."""
    torch.manual_seed(0)
    theirs = shaken(names.catalogue("model")[name](**{**SIZES[name], **more}).eval())
    x = torch.randn(5, theirs.event)
    return theirs, like_torch(port(name, **more), theirs), x if name in FLOWS else (x > 0).to(x.dtype)


@pytest.mark.parametrize(("name", "more"), few(CASES, lambda name, more: not more and name in ("maf", "nsf", "glow")))
def test_log_densities_and_their_gradients_are_torchs(wide, name, more):
    theirs, ours, x = built(name, **more)
    trace = pyro.poutine.trace(theirs).get_trace(x)
    trace.compute_log_prob()
    expected = trace.nodes["x"]["log_prob"]
    expected.sum().backward()

    def value(arrays: eqx.Module, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = terms(ours, no_guide, (x,), key=KEY, params={ours.param: arrays}).log_likelihood["x"]
        return found.sum(), found

    (_, found), slopes = quick(jax.value_and_grad(value, has_aux=True))(
        eqx.filter(ours, eqx.is_inexact_array), *jnps(x)
    )
    close(found[0], expected, rtol=1e-10, atol=1e-10)
    carried = from_torch({k: v.grad for k, v in theirs.named_parameters()})
    gradients = named_parameters(slopes)
    assert gradients.keys() == carried.keys()
    largest = max(float(abs(g).max()) for g in carried.values())
    for key, gradient in gradients.items():
        np.testing.assert_allclose(gradient, carried[key], rtol=1e-8, atol=1e-9 * largest, err_msg=key)


@pytest.mark.parametrize(
    ("name", "more"),
    few(
        [case for case in CASES if case[0] in FLOWS],
        lambda name, more: not more and name != "real-nvp",
    ),
)
def test_every_step_is_torchs_both_ways(wide, name, more):
    theirs, ours, x = built(name, **more)
    steps, e = theirs.data.flow.transforms(), torch.randn_like(x)

    def both(model: eqx.Module, x: jax.Array, e: jax.Array) -> list[tuple]:
        found = []
        for step, back in zip(model.data.flow.transforms(), model.data.flow.transforms(), strict=True):
            y, returned = step(x), back.inv(e)
            volumes = step.log_abs_det_jacobian(x, y), back.inv.log_abs_det_jacobian(e, returned)
            found.append((y, returned, *volumes))
            x = y
        return found

    for step, (y, returned, volume, shrunk) in zip(steps, quick(both)(ours, *jnps(x, e)), strict=True):
        expected = step(x)
        close(y, expected, rtol=1e-10, atol=1e-10)
        close(volume, step.log_abs_det_jacobian(x, expected), rtol=1e-10, atol=1e-10)
        back = step.inv(e)
        close(returned, back, rtol=1e-10, atol=1e-10)
        close(shrunk, -step.log_abs_det_jacobian(back, e), rtol=1e-10, atol=1e-10)
        x = expected


@every_flow
def test_draws_and_their_densities(wide, name):
    """A draw is noise taken back through the steps; its density from the draw's own calls is that of its value."""
    _, ours, _ = built(name)

    def both(model: eqx.Module) -> tuple:
        density = model.data()
        x, made = density.sample_with_intermediates(KEY, (3,))
        e = x
        for step in model.data.flow.transforms():
            e = step(e)
        return e, density.log_prob(x, made), density.log_prob(x + 0)

    e, own, other = quick(both)(ours)
    np.testing.assert_allclose(e, jax.random.normal(KEY, e.shape), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(own, other, rtol=1e-9, atol=1e-9)


@every_model
def test_generates_and_observes(name):
    theirs, ours, _ = built(name)
    x = handlers.seed(ours, KEY)(n=7)
    assert x.shape == (7, theirs.event) and x.dtype == jnp.float32 and np.isfinite(x).all()
    assert handlers.seed(ours, KEY)(x) is x and len(np.unique(np.asarray(x), axis=0)) == 7


@every_model
def test_starts_as_torchs_does(name):
    """Names, shapes and constants; a flow at the identity, so that x is standard normal."""
    theirs, ours = names.catalogue("model")[name](**SIZES[name]), port(name)
    found = to_torch(ours)
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    if name in FLOWS:
        x = data_of(name, 5)
        expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)
        close(ours.data().log_prob(*jnps(x)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", few(DENSITIES, lambda name: name == "maf"))
def test_fit_and_evaluate_without_a_guide(name):
    """The loss is -log p(x), exact, and torch's of the same weights."""
    theirs, ours, _ = built(name)
    x = data_of(name, 40)
    first = evaluate(ours, None, x.numpy(), particles=50, progress=False)
    assert first.nll == pytest.approx(torch_evaluate(theirs, None, x, progress=False).nll, rel=1e-5)
    assert first.elbo == pytest.approx(-first.nll, rel=1e-6) and first.particles == 1 and first.kl == {}
    assert "exact: there are no latents" in str(first)
    run = fit(
        ours, None, x.numpy(), steps=3, batch_size=40, every=1, seed=0, progress=False, ema=None, lr=1e-2,
    )  # fmt: skip
    assert not run.notes and run.history[0]["loss"] == pytest.approx(first.nll, rel=1e-4)
    assert run.history[-1]["loss"] < first.nll
    assert evaluate(run.model, run.guide, x.numpy(), progress=False).nll < first.nll


@every_flow
def test_data_that_a_flow_does_not_take(name):
    """With torch's words."""
    theirs, ours, _ = built(name)
    x = data_of(name, 400)
    for wrong in ((x > 0).float(), (x.sigmoid() * 255).round() / 255, x / 0, x[:, 1:], x[:0]):
        with pytest.raises(ValueError, match="site 'x'") as told:
            theirs(wrong)
        with pytest.raises(ValueError, match="site 'x'") as mine:
            handlers.seed(ours, KEY)(*jnps(wrong))
        assert str(mine.value) == str(told.value)


def test_fit_and_evaluate_refuse_a_few_levels():
    """Compiled, a model sees no values."""
    ours, x = port("maf"), jnp.round(255 * jax.nn.sigmoid(data_of("maf", 400).numpy())) / 255
    for call in (partial(fit, steps=1, batch_size=4), evaluate):
        with pytest.raises(ValueError, match="site 'x': found .* different values .*; dequantize"):
            call(ours, None, x, progress=False)


def test_the_sere_maf_refuses_a_few_levels():
    model = names.catalogue("model", "numpyro")["sere-maf"](4, layers=2, latent=2, hidden=4, code_hidden=4, key=KEY)
    with pytest.raises(ValueError, match="site 'x': found 2 different values among 16.*; dequantize"):
        handlers.seed(model, KEY)(jnp.eye(4))


def test_data_beyond_the_splines_are_told_of():
    """Of rows that the model sees, and before it is compiled."""
    ours, x = port("nsf"), jnp.asarray(10 + data_of("nsf", 8).numpy())
    for call in (handlers.seed(ours, KEY), partial(evaluate, ours, None, progress=False)):
        with pytest.warns(UserWarning, match=r"site 'x': more than half of the values lie outside of \[-5, 5\]"):
            call(x)


@pytest.mark.slow
@every_model
def test_a_run_folder(name, tmp_path):
    transform = "logit" if name in FLOWS else "default"
    parts = data.load("digits", transform=transform)
    sizes = {key: value for key, value in SIZES[name].items() if key != "event"}
    config = configuration(
        model=(name, sizes), guide=None, data="digits", parts=parts, training=Training(steps=3), seed=0,
        transform=transform, backend="numpyro",
    )  # fmt: skip
    run = train(config, parts, tmp_path / "run", progress=False)
    again = load_run(tmp_path / "run")
    mine, theirs = named_parameters(run.model), named_parameters(again.model)
    assert again.guide is no_guide and mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
    assert {k: v.shape for k, v in from_torch(load_run(tmp_path / "run", backend="pyro").model).items()} == {
        k: v.shape for k, v in {**mine, **named_constants(run.model)}.items()
    }
    assert evaluate(again.model, again.guide, parts[-1], progress=False).bits_per_dim > 0


@pytest.mark.parametrize("event", few([(5,), ((2, 4, 3),)], lambda event: event == 5))
def test_blocks_of_a_maf_are_torchs(wide, event):
    theirs, ours, x = built("maf", event=event, blocks=2)
    trace = pyro.poutine.trace(theirs).get_trace(x)
    trace.compute_log_prob()
    mine = handlers.trace(handlers.seed(ours, KEY)).get_trace(*jnps(x))
    for name in ("x1", "x2"):
        found = mine[name]["fn"].log_prob(mine[name]["value"])
        np.testing.assert_allclose(found, trace.nodes[name]["log_prob"].detach(), rtol=1e-10, atol=1e-10)
    assert handlers.seed(ours, KEY)(n=3).shape == (3, theirs.event)
