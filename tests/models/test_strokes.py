"""DRAW and the guide `Recurrent`: the window and every density by the paper's equations, and what others got wrong."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.functional import softplus

from guides import Recurrent, SelfReflective
from ppl_models import DRAW, VAE, HierarchicalVAE
from ppl_models.factorization import compare
from ppl_models.inference.pyro.passes.terms import terms
from ppl_models.parts import LSTM, Window

IMAGE = (1, 4, 4)
WINDOWS = ({}, {"window": 3}, {"window": 4})


def shaken(module: nn.Module) -> nn.Module:
    """In float64, and moved away from what starts at zero."""
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def binary(n: int, d: int = 16) -> Tensor:
    return torch.bernoulli(torch.full((n, d), 0.5, dtype=torch.double))


def pair(model: dict | None = None, guide: dict | None = None, n: int = 5) -> tuple[DRAW, Recurrent, Tensor]:
    p, x = shaken(DRAW(IMAGE, 3, 2, 6, **(model or {}))), binary(n)
    return p, shaken(Recurrent(p, x, hidden=5, image=IMAGE, **(guide or {}))), x


# The window.


def test_filters_are_those_of_the_paper():
    """Sections 3.2 and 3.3, number by number, counted from 1; an image that is no square, of two channels."""
    height, width, size = 5, 7, 3
    window, h = shaken(Window(4, (2, height, width), size)), torch.randn(2, 4, dtype=torch.double)
    rows, columns, intensity = (t.detach().numpy() for t in window(h))
    image, patch = torch.randn(2, 2 * height * width).double(), torch.randn(2, 2 * size**2).double()
    read, written = window.read(h, image).detach().numpy(), window.write(h, patch).detach().numpy()
    for k, (gx, gy, spread, stride, log_intensity) in enumerate(window.numbers(h).detach().numpy()):
        gx, gy = (width + 1) / 2 * (gx + 1), (height + 1) / 2 * (gy + 1)
        stride = (max(width, height) - 1) / (size - 1) * np.exp(stride)
        fx, fy = np.zeros((size, width)), np.zeros((size, height))
        for i in range(1, size + 1):
            for f, center, length in ((fx, gx, width), (fy, gy, height)):
                middle = center + (i - size / 2 - 0.5) * stride
                f[i - 1] = [np.exp(-((a - middle) ** 2) / (2 * np.exp(spread))) for a in range(1, length + 1)]
                f[i - 1] /= f[i - 1].sum()
        np.testing.assert_allclose(columns[k, 0], fx, rtol=1e-10)
        np.testing.assert_allclose(rows[k, 0], fy, rtol=1e-10)
        scale = np.exp(log_intensity)
        np.testing.assert_allclose(intensity[k].item(), scale, rtol=1e-12)
        for c in range(2):
            x, w = image[k].reshape(2, height, width)[c].numpy(), patch[k].reshape(2, size, size)[c].numpy()
            np.testing.assert_allclose(read[k].reshape(2, size, size)[c], scale * fy @ x @ fx.T, rtol=1e-10)
            np.testing.assert_allclose(written[k].reshape(2, height, width)[c], fy.T @ w @ fx / scale, rtol=1e-10)


@pytest.mark.parametrize("size", [2, 5])
def test_a_window_starts_over_the_middle_of_an_image(size):
    """From the corners, where those of N = 2 lie at d~ = 1, it reads nothing of a digit, and learns nothing."""
    window = Window(256, (1, 28, 28), size)
    rows, columns, _ = (t.detach() for t in window(torch.zeros(256)))
    places = torch.arange(1.0, 29)
    for filters in (rows[0], columns[0]):
        middles = filters @ places
        assert (middles > 4).all() and (middles < 25).all() and filters[:, 7:21].sum() / size > 0.5


def identity(window: Window) -> None:
    """Stride 1, in the middle, as narrow as can be, of intensity 1: where N = A = B each filter is one pixel."""
    with torch.no_grad():
        window.numbers.weight.zero_()
        window.numbers.bias.copy_(torch.tensor([0.0, 0.0, -9.0, 0.0, 0.0]))


def test_a_window_as_large_as_the_image_is_the_identity():
    window, h = Window(4, (3, 6, 6), 6).double(), torch.randn(5, 4, dtype=torch.double)
    identity(window)
    x = torch.randn(5, 3 * 36, dtype=torch.double)
    torch.testing.assert_close(window.read(h, x), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(window.write(h, window.read(h, x)), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(window.read(h, x, -x), torch.cat([x, -x], -1), rtol=0, atol=1e-12)


def test_such_windows_leave_the_plain_pair():
    """Without attention: the same bound to the last digits, with the same weights and the same noise."""
    p, q, x = pair()
    wide, reads = DRAW(IMAGE, 3, 2, 6, window=4).double(), {"hidden": 5, "window": 4, "image": IMAGE}
    r = Recurrent(wide, x, **reads).double()
    wide.load_state_dict({**wide.state_dict(), **p.state_dict()})
    own = {k: v for k, v in q.state_dict().items() if not k.startswith("factors.cell.first.")}
    first = [layer.weight for layer in q.factors.cell.first]
    merged = {"factors.cell.first.0.weight": torch.cat(first[:2], -1), "factors.cell.first.1.weight": first[2]}
    bias = {"factors.cell.first.0.bias": q.factors.cell.first[0].bias}
    r.load_state_dict({**r.state_dict(), **own, **merged, **bias})
    identity(wide.window)
    identity(r.factors.window)
    found = []
    for model, guide in ((p, q), (wide, r)):
        torch.manual_seed(3)
        found.append(terms(model, guide, (x,)))
    for name in found[0].kl:
        torch.testing.assert_close(found[0].kl[name], found[1].kl[name], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found[0].log_likelihood["x"], found[1].log_likelihood["x"], rtol=1e-10, atol=1e-10)


# Densities by hand.


def steps(cell: LSTM, inputs: list[Tensor], state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """An LSTM by torch's own."""
    own = nn.LSTMCell(sum(x.shape[-1] for x in inputs), len(cell.beginning) // 2).double()
    weights = torch.cat([layer.weight for layer in cell.first], -1)
    for name, value in (("weight_ih", weights), ("weight_hh", cell.recurrent.weight), ("bias_ih", cell.first[0].bias)):
        getattr(own, name).data = value.detach()
    own.bias_hh.data.zero_()
    return own(torch.cat(inputs, -1), state)


@pytest.mark.parametrize("windows", WINDOWS)
def test_the_densities_are_those_of_the_paper(windows):
    """log p(x | z) and every q(z_t | z_<t, x) by torch's LSTM cell and section 2.1, at the draws of a run."""
    p, q, x = pair(windows, windows)
    model, guide = (t.nodes for t in (q(x), q.get_traces())[1])
    canvas, f = p.canvas.expand(5, -1), q.factors
    decoder, encoder = (tuple(t.expand(5, -1) for t in cell.beginning.chunk(2)) for cell in (p.decoder, f.cell))
    for t in range(1, 4):
        error, h = x - canvas.sigmoid(), decoder[0]
        read = [x, error] if f.window is None else [f.window.read(h, x), f.window.read(h, error)]
        encoder = steps(f.cell, [*read, h], encoder)
        loc, log_scale = f.head(encoder[0]).chunk(2, -1)
        fn = guide[f"z{t}"]["fn"].base_dist
        torch.testing.assert_close(fn.loc, loc, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(fn.scale, (5 * (log_scale / 5).tanh()).exp(), rtol=1e-10, atol=1e-12)
        z = guide[f"z{t}"]["value"]
        decoder = steps(p.decoder, [z], decoder)
        stroke = p.stroke(decoder[0])
        canvas = canvas + (stroke if p.window is None else p.window.write(decoder[0], stroke))
    expected = (x * canvas - softplus(canvas)).sum(-1)
    torch.testing.assert_close(model["x"]["fn"].log_prob(x), expected, rtol=1e-10, atol=1e-10)


def test_the_rate_is_that_of_gaussians():
    """0.5 (m^2 + s^2 - 1 - log s^2), summed over entries and steps: each entry has its own -1/2."""
    p, q, x = pair()
    torch.manual_seed(1)
    kl = terms(p, q, (x,)).kl
    torch.manual_seed(1)
    q(x)
    for name in ("z1", "z2", "z3"):
        fn = q.trace.nodes[name]["fn"].base_dist
        expected = 0.5 * (fn.loc**2 + fn.scale**2 - 1 - 2 * fn.scale.log()).sum(-1)
        torch.testing.assert_close(kl[name].squeeze(0), expected)


def test_every_step_draws_noise_of_its_own():
    """Standardized draws of different steps are uncorrelated: within 5 standard errors over 4000 data."""
    p, q, _ = pair()
    with torch.no_grad():
        q(binary(4000))
    noise = torch.cat(
        [
            (n["value"] - n["fn"].base_dist.loc) / n["fn"].base_dist.scale
            for n in (q.trace.nodes[f"z{t}"] for t in (1, 2, 3))
        ],
        -1,
    )
    found = torch.corrcoef(noise.T) - torch.eye(6, dtype=torch.double)
    assert found.abs().max() < 5 / 4000**0.5


def test_one_step_is_a_vae():
    """T = 1: a VAE whose decoder is one step of the LSTM and a stroke, with the same guide."""
    p, x = shaken(DRAW(IMAGE, 1, 2, 6)), binary(5)
    q = shaken(Recurrent(p, x, hidden=5))

    class Stroke(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return p.canvas + p.write(p.decoder(p.decoder.start(), z)[0])

    vae = VAE(16, 2).double()
    vae.decoder = Stroke()
    codes = poutine.trace(q).get_trace(x).nodes["z1"]["value"].detach()
    logs = [
        poutine.trace(poutine.condition(model, {"z1": codes})).get_trace(x).log_prob_sum().item() for model in (p, vae)
    ]
    assert logs[0] == pytest.approx(logs[1], rel=1e-12)


# What the guide reads.


def test_the_state_is_read_and_not_computed_again():
    """A pass of the pair runs the decoder T times."""
    p, q, x = pair({"window": 3}, {"window": 2})
    calls = []
    p.decoder.register_forward_hook(lambda *args: calls.append(1))
    terms(p, q, (x,))
    assert len(calls) == p.steps


def test_handlers_around_see_latents_alone():
    p, q, x = pair()
    assert [*poutine.trace(q).get_trace(x).stochastic_nodes] == ["data", "z1", "z2", "z3"]


def test_plates_around_hold_what_the_model_tells():
    """Pyro's own vectorized particles, in a plate around both programs, are those of its loop."""
    p, q, x = pair()
    plate = {"max_plate_nesting": 1, "vectorize_particles": True}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = pyro.infer.Trace_ELBO(400, **plate).loss(p, q, x)
        one_by_one = pyro.infer.Trace_ELBO(100).loss(p, q, x)
    assert found == pytest.approx(one_by_one, rel=0.03)
    with pyro.plate("particles", 5, dim=-2):
        q(x)
    told = q.get_traces()[0].nodes["state2"]
    assert told["value"].shape[0] == 5 and [f.name for f in told["cond_indep_stack"]] == ["particles", "data"]


@pytest.mark.parametrize("windows", WINDOWS)
def test_the_guide_is_faithful(windows):
    p, q, x = pair(windows, windows)
    report = compare(p, q, x)
    assert (str(report.guide), report.verdict) == (
        "q(z1 | x) q(z2 | z1, x) q(z3 | z1, z2, x)",
        "faithful, minimal, perfect",
    )


@pytest.mark.parametrize("family", ["rank-one", "full", "flow", "iaf:hidden=6,context=3"])
def test_it_takes_any_family(family):
    p, x = DRAW(IMAGE, 3, 2, 6, window=2), binary(5).float()
    q = Recurrent(p, x, family=family, hidden=5)
    found = terms(p, q, (x,), particles=3, nesting=1)
    sum(t.sum() for t in (*found.kl.values(), *found.log_likelihood.values())).backward()
    assert not [n for module in (p, q) for n, t in module.named_parameters() if t.grad is None]
    assert all(t.shape in ((3, 5), (1, 5)) for t in found.kl.values())


def test_a_pyro_function_may_tell_its_state():
    """A random walk that tells where it is, and what it expects of x: read under the names of the sites."""

    def walk(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            at = torch.zeros(len(x), 2)
            for t in range(3):
                pyro.deterministic(f"mean of {t}", at.repeat(1, 2), event_dim=1)
                pyro.deterministic(f"at{t}", at, event_dim=1)
                at = at + pyro.sample(f"step{t}", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(at.repeat(1, 2), 1.0).to_event(1), obs=x)

    q = Recurrent(walk, torch.randn(4, 4), hidden=8)
    assert q.factors.reading.means["step1"] == ("mean of 1",) and q.factors.reading.states["step1"] == ("at1",)
    assert compare(walk, q, torch.randn(4, 4)).verdict == "faithful, minimal, perfect"


def test_what_is_told_may_be_of_any_shape_and_type():
    """A number, a matrix and a count, with particles and without; what lies outside the data is not read."""

    def walk(x: Tensor) -> None:
        pyro.deterministic("two", torch.tensor(2.0))
        with pyro.plate("data", len(x)):
            at = torch.zeros(len(x), 2)
            for t in range(3):
                pyro.deterministic(f"sum{t}", at.sum(-1), event_dim=0)
                pyro.deterministic(f"square{t}", at.unsqueeze(-1) * at.unsqueeze(-2), event_dim=2)
                pyro.deterministic(f"step{t}", torch.full((len(x),), t), event_dim=0)
                at = at + pyro.sample(f"z{t}", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(at, 1.0).to_event(1), obs=x)

    q, x = Recurrent(walk, torch.randn(4, 2), hidden=8), torch.randn(5, 2)
    assert q.factors.reading.state == 6 and "two" not in q.factors.reading.told
    assert terms(walk, q, (x,), particles=3, nesting=1).kl["z2"].shape == (3, 5)
    assert compare(walk, q, x).verdict == "faithful, minimal, perfect"


def test_a_window_reads_images_with_particles_and_without():
    """Placed by a state that has none; as if all had them."""
    window, h, x, error = Window(2, IMAGE, 3), torch.randn(5, 2), torch.randn(5, 16), torch.randn(3, 5, 16)
    torch.testing.assert_close(window.read(h, x, error), window.read(h, x.expand(3, 5, 16), error))


def test_what_is_told_of_no_datum_is_refused():
    def walk(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            at = torch.zeros(2)
            for t in range(2):
                pyro.deterministic(f"at{t}", at, event_dim=1)
                at = at + pyro.sample(f"z{t}", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(at, 1.0).to_event(1), obs=x)

    with pytest.raises(ValueError, match=r"found shape \(2,\) at the site 'at0', want 4 along the plate 'data'"):
        Recurrent(walk, torch.randn(4, 2))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (partial(HierarchicalVAE, 16, (2, 3), 8), {}, "latents alike in shape and plates.*try SelfReflective"),
        (partial(DRAW, 16, 2, 2, 8), {"window": 2}, "found window=2 and image=None, want the image"),
        (partial(DRAW, 16, 2, 2, 8), {"window": 2, "image": (1, 2, 4)}, "of the 16 observed values"),
        (partial(DRAW, 16, 2, 2, 8), {"window": 1}, "an integer of at least 2"),
        (partial(DRAW, 16, 2, 2, 8), {"family": "none"}, "found family 'none'"),
    ],
)
def test_what_does_not_fit_is_refused(make, options, message):
    with pytest.raises(ValueError, match=f"Recurrent: .*{message}"):
        Recurrent(make(), binary(3).float(), **options)


def test_a_window_needs_the_shape_of_an_image():
    with pytest.raises(ValueError, match="DRAW: found event=784, a window wants event"):
        DRAW(window=5)


def test_sites_before_some_latents_alone_are_refused():
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.deterministic("told", a, event_dim=1)
            b = pyro.sample("b", dist.Normal(a, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(b, 1.0).to_event(1), obs=x)

    with pytest.raises(ValueError, match=r"tells {} before 'a' and {'told': 2} before 'b'"):
        Recurrent(model, torch.randn(3, 2))


def test_other_guides_do_not_read_what_is_told():
    p, _, x = pair()
    assert compare(p, SelfReflective(p, x, hidden=8), x).verdict == "faithful, minimal, perfect"
