"""What a capture refuses, what it puts back, and what it takes for constants."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from ppl_models.inference.pyro.engine.capture import capture
from ppl_models.inference.pyro.engine.recorder import NotCapturable

STATIC = "has no static graph"
LEAVES = "leave for Python"


def numbers(function) -> None:
    """The graph gives the function's numbers, and goes on doing so with other inputs."""
    x = torch.tensor([1.0, -2.0, 3.0])
    graph, held = capture(lambda x: [function(x)], [x])
    for given in (x, 2 * x - 1):
        torch.testing.assert_close(graph(given, *held)[0], function(given))


REFUSED = {
    "a number": (lambda x: x * x.sum().item(), "_local_scalar_dense"),
    "an if": (lambda x: x if x.sum() > 0 else -x, "_local_scalar_dense"),
    "equal": (lambda x: x * torch.equal(x, x), STATIC),
    "rows of a mask": (lambda x: x[x > 0], STATIC),
    "places": (lambda x: x.nonzero(), STATIC),
    "repeats": (lambda x: torch.repeat_interleave(x, x.int().abs()), STATIC),
    "a list": (lambda x: x.tolist(), LEAVES),
    "numpy": (lambda x: x.detach().numpy(), LEAVES),
    "dlpack": (torch.utils.dlpack.from_dlpack, LEAVES),
    "a copy": (lambda x: deepcopy(x), LEAVES),
    "another's memory": (lambda x: setattr(nn.Parameter(torch.ones(3)), "data", x), LEAVES),
    "a generator": (lambda x: x + torch.empty(3).normal_(generator=torch.Generator()), "generator of their own"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_values_is_refused(name):
    function, said = REFUSED[name]
    with pytest.raises(NotCapturable, match=said):
        capture(lambda x: [function(x)], [torch.tensor([1.0, 2.0, 3.0])])


def test_constants_may_be_read():
    """Numbers that depend on no input are the same at every run."""
    numbers(lambda x: x * torch.tensor(0.5).item())
    numbers(lambda x: x[: int(torch.arange(3).max())])
    numbers(lambda x: torch.repeat_interleave(x, x.detach().int().abs() * 0 + 1, output_size=3))


def test_a_constant_into_which_an_input_was_written_is_none():
    def function(x: Tensor) -> list[Tensor]:
        constant = torch.zeros(3)
        constant.view(3)[0:1].copy_(x[0:1])
        return [x * constant[0].item()]

    with pytest.raises(NotCapturable, match="_local_scalar_dense"):
        capture(function, [torch.ones(3)])


def test_what_is_written_is_put_back():
    """By views, twice, in place and by a normalization that does not say so; inputs and what lies outside."""
    x, outside, norm = torch.arange(4.0), torch.arange(6.0), nn.BatchNorm1d(2)

    def function(given: Tensor) -> list[Tensor]:
        part = outside[1:4]
        part.mul_(3)
        outside.add_(given.sum())
        given.view(2, 2)[0].zero_()
        return [norm(given.view(2, 2)) + outside[:2]]

    before = torch.get_rng_state()
    capture(function, [x])
    assert x.tolist() == [0, 1, 2, 3] and outside.tolist() == [0, 1, 2, 3, 4, 5]
    assert not norm.running_mean.any() and norm.num_batches_tracked == 0
    assert torch.equal(before, torch.get_rng_state())


def test_a_tensor_given_twice_is_two_inputs():
    x = torch.ones(2)
    graph, _ = capture(lambda a, b: [a - 2 * b], [x, x])
    assert graph(x, torch.zeros(2))[0].tolist() == [1, 1]


def test_gradients_and_writes_in_the_order_of_the_program():
    def function(x: Tensor) -> Tensor:
        y = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad((y.sin() * y.detach()).sum(), y)
        slope.exp_()
        slope[0] += 1
        return slope * slope.cumsum(0)

    numbers(function)
