"""Long graphs in pieces: the numbers of the graph, and as many different pieces however many layers there are."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from guides import Ladder, SelfReflective
from ppl_models import SeReVAE
from ppl_models.inference.pyro.engine import flat_parameters
from ppl_models.inference.pyro.engine.capture import capture
from tests.helpers.cases import few
from tests.inference.test_compiled import GUIDES, MODELS, OPTIONS, PROGRAMS, collection, images
from tests.inference.test_xla import alike, compiled, double, drawn, written_through_views

pytest.importorskip("jax")
from ppl_models.inference.pyro.engine.xla import cutting, executable, pieces, translation  # noqa: E402 (they import JAX)


@pytest.fixture(autouse=True)
def _cut(monkeypatch):
    """Every graph is cut, into pieces of a few operations."""
    monkeypatch.setattr(executable, "suits", lambda *args: False)
    monkeypatch.setattr(executable, "LONG", 0)
    monkeypatch.setattr(cutting, "SIZE", 25)


@pytest.mark.parametrize("name", few(OPTIONS, lambda name: name in ("accumulate", "everything")))
def test_the_same_numbers_whatever_the_arguments(name):
    alike(double, **OPTIONS[name])


@pytest.mark.parametrize("name", few([n for n in PROGRAMS if n != "functions"], lambda name: name == "batch norm"))
def test_programs_of_users(name):
    make, data = PROGRAMS[name]
    alike(make, data, 1e-4)


def pair(guide: type, layers: int = 6) -> tuple[nn.Module, nn.Module]:
    model = SeReVAE(12, layers, 2, 8)
    return model.double(), guide(model, torch.ones(2, 12, dtype=torch.float64), hidden=8)


@pytest.mark.parametrize("many", [1, 10_000])
@pytest.mark.parametrize("guide", [SelfReflective, Ladder])
def test_layers(guide, many, monkeypatch):
    """With a buffer a layer, and with one for all."""
    monkeypatch.setattr(flat_parameters, "MANY", many)
    data = (torch.rand(30, 12, generator=torch.Generator().manual_seed(0)) > 0.5).double()
    alike(partial(pair, guide), data, 1e-8, clip=1.0, ema=0.9)


@pytest.mark.parametrize("function", [written_through_views, drawn])
def test_writes_and_draws_are_torchs(function):
    x = torch.arange(12.0, dtype=torch.float64).reshape(4, 3)
    own = x.clone()
    torch.manual_seed(3)
    expected, after = function(own), torch.get_rng_state()
    torch.manual_seed(3)
    found, (written,) = compiled(function, x)
    assert torch.equal(torch.get_rng_state(), after)
    torch.testing.assert_close(found, list(expected))
    torch.testing.assert_close(written, own)


def test_outputs_that_no_piece_computes():
    """An input, a view of one, a constant and a draw."""
    x = torch.arange(6.0).reshape(2, 3)
    torch.manual_seed(0)
    found, _ = compiled(lambda x: (x, x.t(), torch.ones(2), torch.randn(2), x.t()[1] + 1), x)
    torch.manual_seed(0)
    torch.testing.assert_close(found, [x, x.t(), torch.ones(2), torch.randn(2), x[:, 1] + 1])


def chain(layers: int, weights: list[Tensor], x: Tensor) -> list[Tensor]:
    """Loss and gradients of equal layers."""
    weights = [w.detach().requires_grad_() for w in weights]
    h = x
    for w in weights:
        mean, spread = nn.functional.layer_norm(h @ w, (4,)).exp().chunk(2, -1)
        h = torch.cat([mean.tanh(), spread.sigmoid().square()], -1) + h
    return [h.sum(), *torch.autograd.grad(h.sum(), weights)]


def test_equal_layers_are_compiled_once():
    distinct = set()
    for layers in (12, 24):
        weights, x = [torch.eye(4) + i / 100 for i in range(layers)], torch.rand(5, 4)
        graph, _ = capture(lambda *given: chain(len(given) - 1, list(given[:-1]), given[-1]), [*weights, x])
        with executable.wide():
            found = pieces._pieces(translation.Translation(graph, [*weights, x]))
        distinct.add(len({piece.key() for piece in found}))
        assert len(found) > layers
        numbers, _ = compiled(lambda *given: chain(len(given) - 1, list(given[:-1]), given[-1]), *weights, x)
        torch.testing.assert_close(numbers, chain(layers, weights, x))
    assert len(distinct) == 1


@pytest.mark.parametrize("seed", range(20))
def test_cuts_are_ordered_and_leave_nothing_out(seed, monkeypatch):
    """Of any sequence of kinds, with and without stretches that repeat."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda n, most: torch.randint(most, (n,), generator=g)  # noqa: E731
    kinds = torch.cat([draw(30, 5), draw(11, 9).repeat(7), draw(60, 3), draw(40, 9).repeat(2)]).numpy()
    monkeypatch.setattr(cutting, "_kinds", lambda nodes: kinds)
    found = cutting.cuts([None] * len(kinds))
    assert found[0] == 0 and found[-1] == len(kinds)
    assert all(a < b for a, b in zip(found, found[1:], strict=False))
    assert max(b - a for a, b in zip(found, found[1:], strict=False)) <= 40


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("guide", GUIDES)
def test_pairs_of_the_collection(name, guide):
    alike(partial(collection, name, guide, "diagonal"), images(name).double(), 1e-8, steps=4)
