"""A guide goes through `torch.export`: the program is Pyro's no longer, and gives the codes of other data."""

import io

import pyro
import pyro.distributions as dist
import pytest
import torch

from guides import BottomUp, Faithful, Ladder, MeanField, SelfReflective
from ppl_models import DLGM, VAE, HierarchicalVAE, SeReVAE
from ppl_models.inference import encode, encoder

X = torch.bernoulli(torch.full((5, 9), 0.4), generator=torch.Generator().manual_seed(0))


def exported(module, x):
    program = torch.export.export(module, (x,), strict=False)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file).module()


def pair(Model, Guide, **sizes):
    torch.manual_seed(0)
    model = Model(9, hidden=4, **sizes)
    return model, Guide(model, X[:3], hidden=4)


@pytest.mark.slow
def test_the_codes_of_one_layer_are_the_means_of_encode():
    model, guide = pair(VAE, MeanField, latent=2)
    program = exported(encoder(guide), X)
    for x in (X, X.flip(0), 1 - X):
        torch.testing.assert_close(program(x), encode(model, guide, x))
    assert not any("pyro" in str(node.target) for node in program.graph.nodes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("Model", "Guide", "sizes"),
    [
        (DLGM, BottomUp, {"latent": (3, 2)}),
        (DLGM, Faithful, {"latent": (3, 2)}),
        (HierarchicalVAE, Ladder, {"latent": (3, 2)}),
        (SeReVAE, SelfReflective, {"latent": 2, "layers": 3}),
    ],
)
def test_guides_of_every_order_are_exported(Model, Guide, sizes):
    guide = pair(Model, Guide, **sizes)[1]
    module = encoder(guide)
    program = exported(module, X)
    with torch.no_grad():
        found, want = program(1 - X), module(1 - X)
    assert found.keys() == want.keys() and len(found) >= 2
    torch.testing.assert_close(found, want)


def test_a_code_is_where_the_noise_is_zero():
    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z1", dist.LogNormal(x[:, 0], 2.0))
            pyro.sample("z2", dist.Normal(3 * z, 1.0))

    found = encoder(guide)(X)
    torch.testing.assert_close(found, {"z1": X[:, 0].exp(), "z2": 3 * X[:, 0].exp()})
    torch.manual_seed(1)
    one, two = encoder(guide, draws=True)(X), encoder(guide, draws=True)(X)
    assert not torch.equal(one["z1"], two["z1"]) and (one["z1"] > 0).all()


def test_states_have_no_center():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("b", dist.Bernoulli(logits=x[:, 0]))

    with pytest.raises(ValueError, match="encoder: found a Bernoulli for 'b', which has no center; try draws=True"):
        encoder(guide)(X)
    assert set(encoder(guide, draws=True)(X)["b"].unique().tolist()) <= {0.0, 1.0}
