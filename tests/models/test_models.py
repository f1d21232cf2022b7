"""The models: every density recomputed by hand, generation, particles, and errors for what they cannot have made."""

import copy
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_models import DLGM, VAE, HierarchicalVAE, LinearGaussian, SeReVAE
from ppl_models.parts.likelihoods import bounded_exp
from ppl_models.parts.nets import ConvEncoder, ConvNet, Net

LIKELIHOODS = ("bernoulli", "gaussian", "gaussian:0.3", "logistic:16")
BUILD = {
    "vae": lambda **k: VAE(12, 3, hidden=16, **k),
    "vae-conv": lambda **k: VAE((3, 2, 2), 3, hidden=64, network="conv", **k),
    "dlgm": lambda **k: DLGM(12, (3, 2), hidden=16, **k),
    "hierarchical": lambda **k: HierarchicalVAE(12, (2, 3, 4), hidden=(16, 12, 8), **k),
    "hierarchical-skip": lambda **k: HierarchicalVAE(12, (2, 3), hidden=16, skip=True, **k),
    "sere": lambda **k: SeReVAE(12, layers=5, latent=3, hidden=16, **k),
    "sere-conv": lambda **k: SeReVAE((3, 4, 1), layers=2, latent=3, hidden=64, network="conv", **k),
}
every_model = pytest.mark.parametrize("name", BUILD)


def build(name: str, likelihood: str = "bernoulli", shaken: bool = True) -> nn.Module:
    """A small model in float64; shaken, so that blocks and biases that start at zero do not hide a mistake."""
    model = BUILD[name](likelihood=likelihood).double()
    if shaken:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def traced(model, *args, **kwargs) -> poutine.Trace:
    trace = poutine.trace(model).get_trace(*args, **kwargs)
    trace.compute_log_prob()
    return trace


def value(trace: poutine.Trace, site: str) -> Tensor:
    return trace.nodes[site]["value"]


def log_prob(trace: poutine.Trace, site: str) -> Tensor:
    return trace.nodes[site]["log_prob"]


def latent_sites(trace: poutine.Trace) -> list[str]:
    return [n for n, s in trace.nodes.items() if s["type"] == "sample" and not s["is_observed"] and n != "data"]


def normal(z: Tensor, loc: Tensor | float = 0.0, scale: Tensor | float = 1.0) -> Tensor:
    return dist.Normal(loc, scale).log_prob(z).sum(-1)


def bits(logits: Tensor, x: Tensor) -> Tensor:
    """log Bernoulli(x; sigmoid(logits)) = x l - softplus(l)."""
    return (x * logits - softplus(logits)).sum(-1)


def binary(n: int, d: int) -> Tensor:
    return torch.bernoulli(torch.full((n, d), 0.5, dtype=torch.double))


# Densities by hand.


@pytest.mark.parametrize("name", ["vae", "vae-conv"])
def test_vae_density(name):
    model, x = build(name), binary(6, 12)
    trace = traced(model, x)
    assert latent_sites(trace) == ["z1"]
    z = value(trace, "z1")
    assert z.shape == (6, 3)
    torch.testing.assert_close(log_prob(trace, "z1"), normal(z))
    torch.testing.assert_close(log_prob(trace, "x"), bits(model.decoder(z), x))


def test_dlgm_density():
    model, x = build("dlgm"), binary(6, 12)
    trace = traced(model, x)
    assert latent_sites(trace) == ["z1", "z2"]
    z1, z2 = value(trace, "z1"), value(trace, "z2")
    assert z1.shape == (6, 3) and z2.shape == (6, 2)
    h = model.states[0](model.noise[0](z1)) + model.noise[1](z2)
    torch.testing.assert_close(log_prob(trace, "z1"), normal(z1))
    torch.testing.assert_close(log_prob(trace, "z2"), normal(z2))
    torch.testing.assert_close(log_prob(trace, "x"), bits(model.decoder(h), x))


@pytest.mark.parametrize("name", ["hierarchical", "hierarchical-skip"])
def test_hierarchical_density(name):
    model, x = build(name), binary(6, 12)
    trace = traced(model, x)
    sites = latent_sites(trace)
    assert sites == [f"z{i + 1}" for i in range(len(model.latent))]
    z = [value(trace, site) for site in sites]
    torch.testing.assert_close(log_prob(trace, "z1"), normal(z[0]))
    for i in range(1, len(z)):
        loc, log_scale = model.priors[i - 1](z[i - 1]).split(model.latent[i], -1)
        scale = (5 * torch.tanh(log_scale / 5)).exp()
        torch.testing.assert_close(log_prob(trace, sites[i]), normal(z[i], loc, scale))
    logits = model.decoder(*z) if name == "hierarchical-skip" else model.decoder(z[-1])
    torch.testing.assert_close(log_prob(trace, "x"), bits(logits, x))
    # with skips x reads z1, without it does not
    changed = {"z1": z[0] + 1, **dict(zip(sites[1:], z[1:], strict=True))}
    moved = traced(poutine.condition(model, changed), x)
    assert torch.equal(log_prob(moved, "x"), log_prob(trace, "x")) == (name == "hierarchical")


def sere_by_hand(model: SeReVAE, trace: poutine.Trace, blocks: list[Tensor]) -> dict[str, Tensor]:
    """Change of variables: log p(z_l | z_{l-1}) = log N(eps_l; mu, sigma) - log|det|; block l read with block l - 1."""
    found, above = {}, []
    for i in range(model.layers):
        z = value(trace, f"z{i + 1}")
        loc, log_scale = model.priors[i](*above).chunk(2, -1)
        c, d, u = model.bijectors[i].net(*above).chunk(3, -1)
        d = softplus(d) + 1e-3
        a = (torch.diag_embed(d) + u.unsqueeze(-1) * u.unsqueeze(-2)).expand(len(z), model.latent, model.latent)
        eps = torch.linalg.solve(a, z - c)
        found[f"z{i + 1}"] = normal(eps, loc, bounded_exp(log_scale)) - torch.linalg.slogdet(a).logabsdet
        params = model.estimates[i](z)
        if i:
            params = params + model.corrections[i - 1](z, blocks[i - 1])
        found[f"x{i + 1}"] = bits(params, blocks[i])
        above = [z]
    return found


@pytest.mark.parametrize("name", ["sere", "sere-conv"])
def test_sere_vae_density_with_teacher_forcing(name):
    model, x = build(name), binary(6, 12)
    trace = traced(model, x)
    assert latent_sites(trace) == [f"z{i + 1}" for i in range(model.layers)]
    blocks = model.cut(x)
    for i, block in enumerate(blocks):
        assert torch.equal(value(trace, f"x{i + 1}"), block) and trace.nodes[f"x{i + 1}"]["is_observed"]
    for site, expected in sere_by_hand(model, trace, blocks).items():
        torch.testing.assert_close(log_prob(trace, site), expected)
    assert model(x) is x


@pytest.mark.parametrize("name", ["sere", "sere-conv"])
def test_sere_vae_generates_with_its_own_blocks(name):
    model = build(name)
    trace = traced(model, n=6)
    blocks = [value(trace, f"x{i + 1}") for i in range(model.layers)]
    assert [block.shape for block in blocks] == [(6, size) for size in model.blocks]
    for site, expected in sere_by_hand(model, trace, blocks).items():
        torch.testing.assert_close(log_prob(trace, site), expected)
    assert torch.equal(value(trace, "_RETURN"), model.join(blocks))


def test_sere_vae_layer_reads_only_its_code_and_the_block_before():
    """Item c of the proposition: x_l attaches to z_l and x_{l-1} alone, z_l to z_{l-1} alone."""
    model, x = build("sere"), binary(4, 12)
    trace = traced(model, x)
    z = {site: value(trace, site) for site in latent_sites(trace)}
    before = {site: log_prob(trace, site) for site in [*z, *(f"x{i + 1}" for i in range(5))]}
    moved = traced(poutine.condition(model, {**z, "z2": z["z2"] + 0.5}), x)
    changed = {site for site in before if not torch.allclose(before[site], log_prob(moved, site), rtol=0, atol=1e-9)}
    assert changed == {"z2", "z3", "x2"}
    other = x.clone()
    other[:, 2:4] = 1 - other[:, 2:4]  # block 2 of 2 + 2 + 2 + 2 + 4
    moved = traced(poutine.condition(model, z), other)
    changed = {site for site in before if not torch.allclose(before[site], log_prob(moved, site), rtol=0, atol=1e-9)}
    assert changed == {"x2", "x3"}


def test_sere_vae_blocks():
    model = SeReVAE(784, layers=10, latent=10, hidden=8)
    assert model.blocks == [78] * 9 + [82]
    conv = SeReVAE((3, 10, 5), layers=4, latent=2, hidden=64, network="conv")
    assert conv.blocks == [3 * 2 * 5] * 3 + [3 * 4 * 5]
    image = torch.arange(2 * 150.0).reshape(2, 3, 10, 5)
    bands = conv.cut(image.flatten(1))
    assert torch.equal(bands[1], image[:, :, 2:4].flatten(1)) and torch.equal(bands[3], image[:, :, 6:].flatten(1))
    for which in (model, conv):
        x = torch.randn(3, 4, which.event)  # particles to the left
        assert torch.equal(which.join(which.cut(x)), x)
        assert [b.shape[-1] for b in which.cut(x)] == which.blocks


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@every_model
def test_generates_and_observes_what_it_generated(name, likelihood):
    model = build(name, likelihood, shaken=False)
    x = model(n=7)
    assert x.shape == (7, 12) and x.dtype == torch.double and torch.isfinite(x).all()
    assert model().shape == (1, 12)
    assert model(x) is x
    trace = traced(model, x)
    assert all(log_prob(trace, s).shape == (7,) for s in trace.nodes if "log_prob" in trace.nodes[s] and s != "data")
    trace.log_prob_sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert sum(p.grad is not None for p in model.parameters()) > 0
    assert "data" in trace.nodes and trace.nodes["z1"]["cond_indep_stack"][0].dim == -1


@every_model
def test_every_parameter_matters(name):
    """Each parameter of a shaken model gets a gradient that is not zero."""
    model = build(name)
    traced(model, binary(20, 12)).log_prob_sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@every_model
def test_particles_to_the_left_equal_a_loop(name, likelihood):
    model = build(name, likelihood)
    x = build(name, likelihood, shaken=False)(n=4).detach()
    with pyro.plate("particles", 3, dim=-2):
        many = traced(model, x)
    sites = latent_sites(many)
    observed = [s for s, node in many.nodes.items() if node["type"] == "sample" and node["is_observed"]]
    for k in range(3):
        one = traced(poutine.condition(model, {s: value(many, s)[k] for s in sites}), x)
        for site in [*sites, *observed]:
            expected = log_prob(one, site)
            torch.testing.assert_close(log_prob(many, site).expand(3, 4)[k], expected, rtol=1e-9, atol=1e-9)
    with pyro.plate("particles", 3, dim=-2):
        assert model(n=4).shape == (3, 4, 12)


# What they refuse.


@every_model
@pytest.mark.parametrize("n", [0, -1, 1.5])
def test_wrong_counts(name, n):
    with pytest.raises(ValueError, match="n: found .* want the number of data to generate"):
        BUILD[name]()(n=n)
    with pytest.raises(ValueError, match="n: found .* want the number of data to generate"):
        LinearGaussian()(n=n)


@every_model
def test_wrong_data(name):
    model, good = BUILD[name](), binary(3, 12).float()
    for x, words in (
        (good[:, :-1], r"site 'x': found shape \(3, 11\), want \(n, 12\)"),
        (good.reshape(3, 2, 6), r"want \(n, 12\); try x.flatten\(1\)"),
        (good[:0], "the batch is empty"),
        (good + 0.5, "a Bernoulli likelihood wants 0 or 1"),
        (good / 0, "NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=words):
            model(x)
    with pytest.raises(TypeError, match="want a float tensor"):
        model(good.long())
    with pytest.raises(TypeError, match="want a float tensor; try torch.as_tensor"):
        model(good.numpy())
    with pytest.raises(TypeError, match="found dtype torch.float64, want the model's torch.float32"):
        model(good.double())
    assert model(good) is good


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VAE(12, network="transformer"), "VAE: found network='transformer'"),
        (lambda: VAE(12, network="conv"), "VAE: found event=12, network 'conv' wants event \\(channels, "),
        (lambda: VAE(12, latent=0), "VAE: found latent=0, want an integer of at least 1"),
        (lambda: VAE(12, latent=True), "VAE: found latent=True, want"),
        (lambda: VAE(12, hidden=0), "VAE: found hidden=0, want"),
        (lambda: VAE((1, 4, 4), hidden=0, network="conv"), "VAE: found hidden=0, want"),
        (lambda: VAE((1, 4, 4), depth=-1, network="conv"), "VAE: found depth=-1, want an integer of at least 0"),
        (lambda: VAE(0), "VAE: found event=0, want"),
        (lambda: VAE(()), "VAE: found event=\\(\\), want"),
        (lambda: VAE("x"), "VAE: found event='x', want"),
        (lambda: VAE(12, likelihood=nn.Linear(2, 2)), "VAE: likelihood: found a Linear, want a module with count"),
        (lambda: VAE(12, likelihood="poisson"), "likelihood: found 'poisson'"),
        (lambda: DLGM(12, ()), "DLGM: found latent=\\(\\), want an integer of at least 1, or several"),
        (lambda: DLGM(12, (3, 0)), "DLGM: found latent=\\(3, 0\\)"),
        (lambda: DLGM(12, (3, 2), hidden=2.5), "DLGM: found hidden=2.5, want"),
        (lambda: DLGM(12, (3, 2), depth=-1), "DLGM: found depth=-1, want"),
        (lambda: DLGM((1, 2.0, 3), (3, 2)), "DLGM: found event=\\(1, 2.0, 3\\), want"),
        (lambda: HierarchicalVAE(12, ()), "HierarchicalVAE: found latent=\\(\\)"),
        (lambda: HierarchicalVAE(12, (2, 3), hidden=(4, 5, 6)), "one width for all networks or one a latent"),
        (lambda: HierarchicalVAE(12, (2, 3), hidden="wide"), "HierarchicalVAE: found hidden='wide', want"),
        (lambda: HierarchicalVAE(12, (2, 3), depth=None), "HierarchicalVAE: found depth=None, want"),
        (lambda: LinearGaussian(3, "x"), "LinearGaussian: found latent='x', want"),
        (lambda: SeReVAE(12, layers=0), "SeReVAE: found layers=0, want an integer of at least 1"),
        (lambda: SeReVAE(12, layers=2.0), "SeReVAE: found layers=2.0, want an integer of at least 1"),
        (lambda: SeReVAE(12, layers=13), "found 13 layers for 12 rows or values, want 1 to 12"),
        (lambda: SeReVAE((1, 4, 9), layers=5, network="conv"), "found 5 layers for 4 rows"),
        (lambda: SeReVAE(12, layers=2, network="conv"), "wants event \\(channels, height, width\\)"),
        (lambda: SeReVAE(12, layers=2, network="linear"), "found network='linear'"),
        (lambda: SeReVAE(12, layers=2, depth=0), "SeReVAE: found depth=0, want an integer of at least 1"),
        (lambda: SeReVAE(12, layers=2, latent=0), "SeReVAE: found latent=0, want"),
    ],
)
def test_wrong_sizes(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("cls", [VAE, DLGM, HierarchicalVAE, LinearGaussian, partial(SeReVAE, layers=2)])
def test_any_integer_is_a_size_and_a_shape_is_an_event(cls):
    for event in (16, np.prod((4, 4)), torch.tensor(16), (1, 4, 4), [16], np.array([1, 4, 4])):
        model = cls(event, latent=np.int64(2))
        assert model.event == 16 and type(model.event) is int
        assert model(n=2).shape == (2, 16)
    sizes = {1: LinearGaussian(3, 2).sizes["z1"], 2: LinearGaussian(3, (2, 1)).sizes["z1"]}
    assert sizes == {1: 2, 2: 2} and DLGM(3, np.array([2, 1])).latent == (2, 1)


# As modules.


@every_model
def test_copies_dtypes_and_states(name):
    model = build(name)
    x = binary(5, 12)
    twin = copy.deepcopy(model)
    pyro.set_rng_seed(1)
    one = traced(model, x)
    pyro.set_rng_seed(1)
    two = traced(twin, x)
    assert one.log_prob_sum() == two.log_prob_sum()
    with torch.no_grad():
        next(twin.parameters()).add_(1.0)
    assert not torch.equal(next(twin.parameters()), next(model.parameters()))
    # a state goes into a fresh model, constants are not in it
    fresh = BUILD[name]().double()
    fresh.load_state_dict(model.state_dict())
    pyro.set_rng_seed(1)
    assert traced(fresh, x).log_prob_sum() == one.log_prob_sum()
    assert set(model.state_dict()) == {n for n, _ in model.named_parameters()}
    # float32 again: everything follows
    assert model.float()(n=2).dtype == torch.float32
    assert not list(pyro.get_param_store().keys())


@every_model
def test_the_default_dtype_is_followed(name):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.double)
    try:
        model = BUILD[name]()
    finally:
        torch.set_default_dtype(before)
    assert model(n=2).dtype == torch.double and model(binary(2, 12)).dtype == torch.double


@pytest.mark.parametrize("factor", [1.0, 5.0, 25.0])
def test_a_deep_chain_with_large_weights_stays_finite(factor):
    model = SeReVAE(784, layers=10, latent=10, hidden=64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    trace = traced(model, binary(20, 784).float())
    assert all(torch.isfinite(log_prob(trace, s)).all() for s in trace.nodes if "log_prob" in trace.nodes[s])
    trace.log_prob_sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert torch.isfinite(model(n=20)).all()


@pytest.mark.parametrize("name", ["dlgm", "hierarchical", "sere"])
def test_a_long_training_step_with_a_wild_first_batch_stays_finite(name):
    """Three steps of Adam at a rate of 0.1 on every parameter."""
    model, x = BUILD[name](), binary(32, 12).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss = -traced(model, x).log_prob_sum()
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)


# Networks.


def test_net_formula_and_broadcasting():
    net = Net([3, 2], 4, hidden=8, depth=2).double()
    for block in net.blocks:
        nn.init.normal_(block.outer.weight)
    a, b = torch.randn(5, 1, 3).double(), torch.randn(6, 2).double()
    h = a @ net.first[0].weight.T + b @ net.first[1].weight.T + net.first[0].bias
    for block in net.blocks:
        normed = (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        h = h + block.outer(nn.functional.silu(block.inner(normed)))
    torch.testing.assert_close(net(a, b), h @ net.last.weight.T + net.last.bias)
    assert net(a, b).shape == (5, 6, 4)
    assert net.bias is net.last.bias
    linear = Net([3, 2], 4, depth=0).double()
    assert not list(linear.blocks) and linear.bias is linear.first[0].bias
    torch.testing.assert_close(linear(a, b) - linear(0 * a, b), a @ linear.first[0].weight.T + 0 * b[:, :1])
    assert Net([], 4)().shape == (4,)
    with pytest.raises(ValueError, match="want positive widths"):
        Net([3], 4, depth=-1)
    with pytest.raises(ValueError):  # noqa: PT011 (a missing input)
        Net([3, 2], 4)(torch.randn(1, 3))


def test_normalized_net_is_bounded():
    net = Net([3], 4, hidden=8, norm=True)
    small, large = net(torch.randn(50, 3)), net(1e6 * torch.randn(50, 3))
    assert large.abs().max() < 10 * (1 + small.abs().max())


@pytest.mark.parametrize("image", [(1, 28, 28), (3, 5, 9), (2, 1, 20), (1, 1, 1)])
def test_convolutional_networks_take_any_image_and_any_batch(image):
    size = image[0] * image[1] * image[2]
    encoder, decoder = ConvEncoder(image, 6, channels=4).double(), ConvNet([6], image, channels=4).double()
    x = torch.randn(2, 3, size, dtype=torch.double)
    features = encoder(x)
    assert features.shape == (2, 3, 6)
    torch.testing.assert_close(features[1], encoder(x[1]))
    assert decoder(features).shape == (2, 3, size)
    torch.testing.assert_close(decoder(features)[1, 2], decoder(features[1, 2]))
    # an image as context, without the particles' dimension
    joined = ConvNet([6], image, context=(2, 3, 4), channels=4).double()
    context = torch.randn(3, 24, dtype=torch.double)
    out = joined(features, context)
    assert out.shape == (2, 3, size)
    torch.testing.assert_close(out[0], joined(features[0], context))
    assert joined(features[0, 0], context).shape == (3, size)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_convolutional_decoder_has_depth_blocks_at_each_size(depth):
    net = ConvNet([6], (1, 28, 20), context=(1, 3, 4), channels=4, depth=depth)  # 7 x 5, 14 x 10, 28 x 20
    assert len(net.blocks) == 3 * depth
    for block in net.blocks:
        nn.init.normal_(block.outer.weight)
    net(torch.randn(2, 6), torch.randn(2, 12)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_models_with_convolutions_have_their_depth():
    for make in (VAE, partial(SeReVAE, layers=2)):
        one, two = (make((1, 8, 8), latent=2, hidden=64, depth=depth, network="conv") for depth in (1, 2))
        assert sum("decoder.blocks" in n or "estimates.0.blocks" in n for n in one.state_dict()) == 8  # of 2 sizes
        assert sum("decoder.blocks" in n or "estimates.0.blocks" in n for n in two.state_dict()) == 16
        assert two(n=2).shape == (2, 64)
