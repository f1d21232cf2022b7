"""Hierarchies with a deterministic state: their densities by hand, the models they are in special cases, images."""

import pytest
import torch
from pyro import poutine
from torch import Tensor

from guides import Bidirectional, Merging
from ppl_models import BIVA, VAE, MatNet
from ppl_models.inference import elbo
from ppl_models.inference.pyro.passes.terms import terms

IMAGE = (1, 12, 9)


def binary(n: int, width: int) -> Tensor:
    return torch.bernoulli(torch.full((n, width), 0.5, dtype=torch.double))


def shaken(model):
    for parameter in model.double().parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def traced(model, x: Tensor) -> poutine.Trace:
    trace = poutine.trace(model).get_trace(x)
    trace.compute_log_prob()
    return trace


def normal(z: Tensor, loc: Tensor | float = 0.0, scale: Tensor | float = 1.0) -> Tensor:
    return torch.distributions.Normal(loc, scale).log_prob(z).sum(-1)


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("least", [1.0, 0.0])
def test_biva_density(network, least):
    model, x = shaken(BIVA(IMAGE, (2, 3, 4), hidden=16, network=network, least=least)), binary(5, 108)
    sites = traced(model, x).nodes
    assert [n for n in sites if n not in ("data", "_INPUT", "_RETURN")] == ["top", "td2", "bu2", "td1", "bu1", "x"]
    d = model.entries[0](sites["top"]["value"])
    torch.testing.assert_close(sites["top"]["log_prob"], normal(sites["top"]["value"]))
    for i, layer in ((1, 2), (2, 1)):
        td, bu = (sites[f"{way}{layer}"] for way in ("td", "bu"))
        assert td["value"].shape == bu["value"].shape == (5, i + 2)
        numbers = model.heads[i - 1](d).chunk(4, -1)
        for site, loc, log_scale in ((td, *numbers[:2]), (bu, *numbers[2:])):
            variance = least + (10 * torch.tanh(log_scale / 5)).exp()
            torch.testing.assert_close(site["log_prob"], normal(site["value"], loc, variance.sqrt()))
        first = model.entries[i].first
        d = model.states[i - 1](d) + first[0](td["value"]) + first[1](bu["value"])
    logits = model.decoder(d)
    torch.testing.assert_close(sites["x"]["log_prob"], torch.distributions.Bernoulli(logits=logits).log_prob(x).sum(-1))


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_matnet_density(network):
    model, x = shaken(MatNet(IMAGE, (2, 3, 4), hidden=16, network=network)), binary(5, 108)
    sites = traced(model, x).nodes
    z = [sites[name]["value"] for name in ("z1", "z2", "z3")]
    torch.testing.assert_close(sites["z1"]["log_prob"], normal(z[0]))
    h = model.entries[0](z[0])
    for i in (1, 2):
        loc, log_scale = model.heads[i - 1](h).chunk(2, -1)
        scale = (5 * torch.tanh(log_scale / 5)).exp()
        torch.testing.assert_close(sites[f"z{i + 1}"]["log_prob"], normal(z[i], loc, scale))
        h = model.states[i - 1](h) + model.entries[i](z[i])
    logits = model.decoder(h)
    torch.testing.assert_close(sites["x"]["log_prob"], torch.distributions.Bernoulli(logits=logits).log_prob(x).sum(-1))


def test_of_one_layer_biva_is_a_vae():
    """With A for the first linear map of the decoder of a VAE, and the rest of it behind."""
    model, vae, x = shaken(BIVA(6, 3, hidden=8)), VAE(6, 3, hidden=8).double(), binary(4, 6)
    vae.decoder.load_state_dict(model.decoder.state_dict() | model.entries[0].state_dict())
    model.decoder.first[0].load_state_dict({"weight": torch.eye(8), "bias": torch.zeros(8)})
    own = traced(model, x)
    other = traced(poutine.condition(vae, {"z1": own.nodes["top"]["value"]}), x)
    for site, name in (("top", "z1"), ("x", "x")):
        torch.testing.assert_close(own.nodes[site]["log_prob"], other.nodes[name]["log_prob"], rtol=0, atol=1e-10)


def test_the_published_biva_has_eleven_latents_of_328_units():
    model = BIVA()
    sites = poutine.trace(model).get_trace(n=2).nodes
    sizes = [sites[name]["value"].shape[-1] for name in sites if name[:2] in ("to", "td", "bu")]
    assert sizes == [8, 16, 16, 24, 24, 32, 32, 40, 40, 48, 48] and sum(sizes) == 328


@pytest.mark.parametrize(("make", "guide"), [(BIVA, Bidirectional), (MatNet, Merging)])
@pytest.mark.parametrize("image", [(1, 28, 28), (3, 6, 5)])
def test_convolutional_forms_train_on_images(make, guide, image):
    """Finite bounds and a gradient for every parameter, with particles, at sizes that halve and one that does not."""
    model = make(image, (2, 3, 2, 3), hidden=32, network="conv", likelihood="gaussian")
    x = torch.rand(2, *image).flatten(1)
    assert model(n=3).shape == (3, x.shape[1])
    pair = torch.nn.ModuleList([model, guide(model, x, hidden=16, encoder="conv", image=image)])
    for particles in (1, 3):
        pair.zero_grad()
        bound = elbo(terms(*pair, (x,), particles=particles, nesting=1))
        bound.backward()
        assert torch.isfinite(bound)
        assert not [n for n, p in pair.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
