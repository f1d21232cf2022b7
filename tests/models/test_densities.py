"""Models without latents: bijections, volumes, integrals, starts, capture, folders, and the guide that is None."""

import copy
import json
from functools import partial

import pyro
import pytest
import torch
import zuko
from torch import Tensor, nn
from torch.distributions import AffineTransform, Normal

from guides import MeanField
from ppl_models import MAF, NSF, VAE, Glow, PixelCNN, PixelVAE, RealNVP, data
from ppl_models.factorization import compare
from ppl_models.inference import ancestral, evaluate, fit
from ppl_models.runs import load_run
from ppl_models.runs.folders.configuration import configuration
from ppl_models.runs.naming import names
from ppl_models.runs.naming.options import Training
from ppl_models.runs.training import train
from tests.helpers.cases import few
from tests.helpers.collection import DENSITIES, SIZES, data_of
from tests.helpers.flows import shake, to_noise

FLOWS = [name for name in DENSITIES if name != "pixel-cnn"]
# flows of vectors with weights that are mild: a sum over a grid sees the corners of a spline's slope
SMALL = {
    "maf": lambda n: MAF(n, 2, hidden=8),
    "nsf": lambda n: NSF(n, 2, hidden=8, bins=4),
    "nsf, coupling": lambda n: NSF(n, 2, hidden=8, bins=4, passes=2),
    "real-nvp": lambda n: RealNVP(n, 4, hidden=8),
}
every_model, every_flow = (pytest.mark.parametrize("name", found) for found in (DENSITIES, FLOWS))


def build(name: str, shaken: float = 0.1) -> nn.Module:
    """A small model; shaken, so that layers that start at zero do not hide a mistake."""
    torch.manual_seed(0)
    return shake(names.catalogue("model")[name](**SIZES[name]).eval(), shaken)


@every_flow
def test_there_and_back(name, double):
    model, x = build(name), data_of(name, 5)
    e, volume = to_noise(model, x)
    back = e.clone()
    for step in reversed(model.data.flow.transforms()):
        back = step.inv(back)
    torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-10)
    jacobian = torch.autograd.functional.jacobian(lambda v: to_noise(model, v[None])[0][0], x[2])
    torch.testing.assert_close(volume[2], torch.linalg.slogdet(jacobian)[1], rtol=1e-10, atol=1e-10)
    own = Normal(torch.zeros(()), 1.0).log_prob(e).sum(-1) + volume
    torch.testing.assert_close(model.data().log_prob(x), own, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("passes", [None, 2])
def test_masks_of_vectors(passes, double):
    """Noise of an entry reads no later entries, or of a coupling those of the first half and itself."""
    torch.manual_seed(0)
    model = shake(NSF(4, 1, hidden=16, bins=3, passes=passes), 0.3)
    jacobian = torch.autograd.functional.jacobian(lambda v: to_noise(model, v[None])[0][0], torch.randn(4))
    earlier = torch.ones(4, 4).tril().bool()
    if passes == 2:
        earlier = torch.eye(4).bool() | (torch.arange(4)[:, None] >= 2) & (torch.arange(4) < 2)
    assert torch.equal(jacobian != 0, earlier)


def test_pixel_cnn_is_what_pixel_vae_decodes_by(double):
    """With weights of the code at zero the density is that of the decoder."""
    torch.manual_seed(0)
    alone, pair = PixelCNN((1, 4, 4), 4, 2), PixelVAE((1, 4, 4), 2, 4, 2)
    alone.network.load_state_dict({k: v for k, v in pair.decoder.state_dict().items() if "bias.weight" not in k})
    for layer in pair.decoder.layers:
        nn.init.zeros_(layer.bias.weight)
    x = torch.bernoulli(torch.full((5, 16), 0.5))
    traces = [pyro.poutine.trace(model).get_trace(x) for model in (alone, pair)]
    mine, theirs = (trace.nodes["x"]["fn"].log_prob(x) for trace in traces)
    torch.testing.assert_close(mine, theirs)


def test_pixel_cnn_sums_to_one(double):
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6)
    density = pyro.poutine.trace(build("pixel-cnn")).get_trace(x).nodes["x"]["fn"].log_prob(x)
    assert density.exp().sum().item() == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RealNVP((1, 6, 6), levels=2),
            "RealNVP: found an image .1, 6, 6., want sides that can be halved 2 times",
        ),
        (lambda: Glow((1, 7, 7)), "Glow: found an image .1, 7, 7., want sides that can be halved once; pad it"),
        (lambda: Glow(64), "Glow: found event=64, want event .channels, height, width."),
        (lambda: PixelCNN(64), "PixelCNN: found event=64, want event .channels, height, width."),
        (lambda: NSF(4, passes=0), "NSF: found passes=0, want"),
    ],
)
def test_sizes_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "n"), few([(name, n) for name in SMALL for n in (1, 2)], lambda name, n: "nsf" not in name or n == 1)
)
def test_densities_integrate_to_one(name, n, double):
    torch.manual_seed(0)
    model = shake(SMALL[name](n), 0.01)
    grid = torch.linspace(-9, 9, 20001 if n == 1 else 1001)
    with torch.no_grad():
        density = model.data().log_prob(torch.cartesian_prod(*[grid] * n).reshape(-1, n)).exp()
    assert abs(density.sum().item() * (grid[1] - grid[0]).item() ** n - 1) < 1e-6


@every_flow
def test_start(name, double):
    x = data_of(name, 5)
    density = build(name, shaken=0.0).data().log_prob(x)
    torch.testing.assert_close(density, Normal(torch.zeros(()), 1.0).log_prob(x).sum(-1))


@every_model
def test_generates_and_observes(name):
    model = build(name)
    x = model(n=7)
    assert x.shape == data_of(name, 7).shape and torch.isfinite(x).all() and model(x) is x
    assert ancestral(model, x).shape == ancestral(model, x, draws=False).shape == x.shape
    assert not torch.equal(*ancestral(model, x)[:2])


@pytest.mark.parametrize(
    ("compiled", "name"),
    few([(c, name) for name in DENSITIES for c in (False, True)], lambda c, name: not c or name == "maf"),
)
def test_fit_and_evaluate_without_a_guide(name, compiled):
    """The loss is -log p(x), and the captured steps are the eager ones."""
    x = data_of(name, 40)
    how = {"steps": 3, "batch_size": 40, "every": 1, "seed": 0, "progress": False, "ema": None, "lr": 1e-2}
    model, eager = build(name), build(name)
    first = evaluate(model, None, x, progress=False).nll
    run = fit(model, None, x, compile=compiled, **how)
    assert not run.notes and run.history[0]["loss"] == pytest.approx(first, rel=1e-4)
    assert run.history[-1]["loss"] < first
    fit(eager, None, x, compile=False, **how)
    for mine, theirs in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@every_model
def test_evaluation_is_exact(name):
    model, x = build(name), data_of(name, 9)
    found = evaluate(model, None, x, particles=50, progress=False)
    with torch.no_grad():
        trace = pyro.poutine.trace(model).get_trace(x)
    trace.compute_log_prob()
    assert found.nll == pytest.approx(-trace.nodes["x"]["log_prob"].mean().item(), rel=1e-5)
    assert found.elbo == pytest.approx(-found.nll, rel=1e-6)
    assert found.particles == 1 and found.kl == {} and "exact: there are no latents" in str(found)


AUTOREGRESSIVE = "p(x.0) p(x.1 | x.0) p(x.2 | x.0, x.1) p(x.3 | x.0, x.1, x.2)"


@pytest.mark.parametrize(
    ("make", "x", "expected"),
    [
        (lambda: MAF(4, 1, hidden=8), torch.randn(3, 4), AUTOREGRESSIVE),
        (lambda: NSF(4, 1, hidden=8, bins=3, passes=2), torch.randn(3, 4), AUTOREGRESSIVE.replace("x.1, x.2)", "x.1)")),
        (lambda: PixelCNN((1, 2, 2), 4, 2, radius=1), torch.eye(4)[:3], AUTOREGRESSIVE),
        (lambda: PixelCNN((1, 3, 1), 4, 2, window=1), torch.eye(3), "p(x.0) p(x.1 | x.0) p(x.2 | x.1)"),
    ],
)
def test_factorization_by_element(make, x, expected):
    """Each entry given those before it from which the others do not separate it."""
    torch.manual_seed(0)
    assert str(compare(make(), None, x, level="element").model) == expected


def test_a_pair_that_does_not_fit_is_told_so():
    x = torch.eye(4)
    for call in (partial(fit, steps=1), evaluate):
        with pytest.raises(ValueError, match=r"no factor for the site 'z1'.*the guide samples: nothing.*MeanField"):
            call(VAE(4, 2, hidden=4), None, x, progress=False)
    with pytest.raises(
        ValueError, match="never draws 'z1', a latent of the model; give a guide, .*by its name: mean-field"
    ):
        compare(VAE(4, 2, hidden=4), None, x)
    with pytest.raises(ValueError, match="the model has no latent site to infer"):
        MeanField(MAF(4, hidden=4), torch.randn(3, 4))


@every_flow
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: (x > 0).float(), "site 'x': found 2 different values among .* dequantize them"),
        (lambda x: (x.sigmoid() * 255).round() / 255, "different values among .*from 0.* dequantize them"),
        (lambda x: (3 * x).round(), "site 'x': found .* different values among .* dequantize them"),
        (lambda x: x / 0, "site 'x': NaN or infinite values"),
        (lambda x: x[:, 1:], "site 'x': found shape .*, want"),
        (lambda x: x[:0], "the batch is empty"),
    ],
)
def test_data_that_a_flow_does_not_take(name, wrong, message):
    with pytest.raises(ValueError, match=message):
        build(name)(wrong(data_of(name, 400)))


@every_flow
def test_data_that_a_flow_takes(name):
    model, x = build(name), data_of(name, 400)
    for right in (x, x.sigmoid(), torch.zeros_like(x[:1]), (3 * x).round() + 0.01 * x):
        model(right)


def test_data_beyond_the_splines_are_told_of():
    """There they are the identity, and the density N(0, I) whatever the weights; a larger bound takes them in."""
    x = 10 + data_of("nsf", 400)
    with pytest.warns(UserWarning, match=r"site 'x': more than half of the values lie outside of \[-5, 5\], where"):
        build("nsf")(x)
    density = build("nsf", shaken=0.3).data().log_prob(x)
    torch.testing.assert_close(density, Normal(0.0, 1.0).log_prob(x).sum(-1))
    torch.manual_seed(0)
    wide = shake(NSF(x.shape[1], 2, hidden=8, bins=3, bound=20), 0.3)
    wide(x)  # without a word
    assert (wide.data().log_prob(x) - density).abs().min() > 1e-3
    with pytest.raises(ValueError, match="NSF: found bound=0"):
        NSF(4, bound=0)


@every_model
def test_a_run_folder(name, tmp_path):
    transform = "logit" if name in FLOWS else "default"
    parts = data.load("digits", transform=transform)
    sizes = {key: value for key, value in SIZES[name].items() if key != "event"}
    config = configuration(
        model=(name, sizes), guide=None, data="digits", parts=parts, training=Training(steps=30, lr=1e-2), seed=0,
        transform=transform,
    )  # fmt: skip
    assert config["guide"] is None and "-g" not in config["command"]
    run = train(config, parts, tmp_path / "run", progress=False)
    assert json.loads((tmp_path / "run/config.json").read_text())["guide"] is None
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    again = load_run(tmp_path / "run")
    for mine, theirs in zip(run.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert evaluate(again.model, again.guide, parts[-1], progress=False).bits_per_dim > 0


def test_maf_equals_zukos(double):
    """Masks and weights of zuko's, and its squash of log scales in place of ours."""
    torch.manual_seed(0)
    theirs = zuko.flows.MAF(5, transforms=3, hidden_features=(14, 14), activation=nn.SiLU).double()
    model = MAF(5, 3, hidden=14, depth=2).double()
    for net, step in zip(model.data.flow.nets, theirs.transform.transforms, strict=True):
        for ours, other in zip((net.entries, *net.inner, net.last), [*step.hyper][::2], strict=True):
            with torch.no_grad():
                ours.weight.copy_(other.weight), ours.bias.copy_(other.bias), ours.mask.copy_(other.mask)
    bound = torch.tensor(1e-3).log().abs()

    def squashed(numbers: Tensor) -> AffineTransform:
        shift, scale = numbers.unbind(-1)
        return AffineTransform(shift, (scale / (1 + abs(scale / bound))).exp())

    model.data.flow.of = squashed
    x = torch.randn(9, 5)
    torch.testing.assert_close(model.data().log_prob(x), theirs().log_prob(x), rtol=1e-10, atol=1e-10)
    assert copy.deepcopy(model).data().log_prob(x).shape == (9,)


def test_blocks_of_a_maf_read_the_block_before(double):
    """log p(x) is the sum over blocks; those of an image are bands of rows; a draw and its density agree."""
    torch.manual_seed(0)
    model = MAF((2, 4, 3), steps=2, hidden=8, blocks=2).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    with torch.no_grad():
        x = model(n=3)
    trace = pyro.poutine.trace(model).get_trace(x)
    trace.compute_log_prob()
    first, second = model.stretches.cut(x)
    assert first.shape == (3, 12) and torch.equal(model.stretches.join([first, second], torch.cat), x)
    torch.testing.assert_close(trace.nodes["x1"]["log_prob"], model.data().log_prob(first))
    torch.testing.assert_close(trace.nodes["x2"]["log_prob"], model.rest[0](first).log_prob(second))
    slope = torch.autograd.functional.jacobian(lambda a: model.rest[0](a).log_prob(second), first)
    assert (slope.diagonal(dim1=0, dim2=1) != 0).all()
