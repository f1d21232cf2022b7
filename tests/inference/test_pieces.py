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
from tests.inference.test_compiled import GUIDES, MODELS, collection, images
from tests.inference.test_xla import alike, compiled, in_pieces

pytest.importorskip("jax")
from ppl_models.inference.pyro.engine.xla import cutting, executable, pieces, translation  # noqa: E402 (they import JAX)


@pytest.fixture(autouse=True)
def _cut(monkeypatch):
    in_pieces(monkeypatch)


def pair(guide: type, layers: int = 3) -> tuple[nn.Module, nn.Module]:
    model = SeReVAE(12, layers, 2, 8)
    return model.double(), guide(model, torch.ones(2, 12, dtype=torch.float64), hidden=8)


@pytest.mark.parametrize(
    ("many", "guide"),
    few([(m, g) for m in (1, 10_000) for g in (SelfReflective, Ladder)], lambda m, g: (m, g) == (1, SelfReflective)),
)
def test_layers(guide, many, monkeypatch):
    """With a buffer a layer, and with one for all."""
    monkeypatch.setattr(flat_parameters, "MANY", many)
    data = (torch.rand(30, 12, generator=torch.Generator().manual_seed(0)) > 0.5).double()
    alike(partial(pair, guide), data, 1e-8, clip=1.0, ema=0.9)


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


def over_time(weights: list[Tensor], x: Tensor) -> list[Tensor]:
    """Loss and gradients of equal steps, which read a tensor at one place after the other, from both ends."""
    weights = [w.detach().requires_grad_() for w in weights[:2]]
    h, told, keys = torch.zeros(5, 4, dtype=x.dtype), [], x @ weights[1]
    for t in range(x.shape[1]):
        h = (h @ weights[0] + keys[:, t] * keys[:, -t - 1]).tanh() + keys[1:2, t : t + 1, 1:].sum()
        told.append(h.square().sum())
    return [torch.stack(told), *torch.autograd.grad(sum(told), weights)]


def test_steps_of_time_are_compiled_once():
    distinct = set()
    for steps in (12, 24):
        weights, x = [torch.eye(4).double() + 0.1, torch.rand(3, 4).double()], torch.rand(5, steps, 3).double()
        graph, _ = capture(lambda *given: over_time(list(given[:2]), given[2]), [*weights, x])
        with executable.wide():
            found = pieces._pieces(translation.Translation(graph, [*weights, x]))
        distinct.add(len({piece.key() for piece in found}))
        numbers, _ = compiled(lambda *given: over_time(list(given[:2]), given[2]), *weights, x)
        torch.testing.assert_close(numbers, over_time(weights, x))
    assert max(distinct) < 20


READ = torch.arange(24.0).reshape(2, 3, 4)
AT = {
    "select": lambda x: x[:, 1],
    "from the end": lambda x: x[..., -1],
    "slice": lambda x: x[:, 1:3],
    "slice from the end": lambda x: x[..., -3:-1],
    "more than there is": lambda x: x[:, 1:99],
    "nothing": lambda x: x[:, 3:],
    "every other one": lambda x: x[..., ::2],
    "all": lambda x: x[:],
}


@pytest.mark.parametrize("name", AT)
def test_parts_and_their_gradients(name):
    def function(x: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        y = AT[name](x) ** 2
        return [y, *torch.autograd.grad(y.sum(), x)]

    torch.testing.assert_close(compiled(function, READ)[0], function(READ))


def test_equal_layers_are_compiled_once():
    distinct = set()
    for layers in (12, 24):
        weights, x = [torch.eye(4).double() + i / 100 for i in range(layers)], torch.rand(5, 4).double()
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
