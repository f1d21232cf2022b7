"""What a capture refuses, what it puts back, and what it takes for constants."""

import random
from copy import copy, deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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


OUTSIDE = torch.ones(3)


def drawn_into_a_constant(x: Tensor) -> Tensor:
    constant = torch.zeros(3)
    view = constant[0]
    constant.normal_()
    return x * float(view)


def dropped_out_twice(x: Tensor) -> Tensor:
    """A checkpoint runs forward again for the gradient, from the state of the generator of then."""
    y = x.detach().requires_grad_()
    half = partial(nn.functional.dropout, p=0.5)
    return torch.autograd.grad(checkpoint(lambda z: half(z.exp()), y, use_reentrant=False).sum(), y)[0]


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
    "numbers of a tensor": (lambda x: torch.tensor([x[0], x[1]]), LEAVES),
    "a new one of them": (lambda x: x.new_tensor([x[0], 1.0]), LEAVES),
    "a parameter of them": (lambda x: nn.Parameter(x * 2) * 1, "another's memory"),
    "a subclass": (lambda x: (x * 2).as_subclass(nn.Buffer) * 1, "another's memory"),
    "a storage": (lambda x: x.untyped_storage()[0], "has no static graph|leave for Python"),
    "a shallow copy": (lambda x: copy(x * 2) + 1, "has no static graph|another's memory"),
    "a draw of then": (drawn_into_a_constant, "_local_scalar_dense"),
    "a seed": (lambda x: (torch.manual_seed(12345), x + torch.randn(3))[1], "set torch's generator"),
    "dropout done again": (dropped_out_twice, "set torch's generator"),
    "a shape": (lambda x: OUTSIDE.unsqueeze_(0) * 1, "lies outside"),
    "a generator": (lambda x: x + torch.empty(3).normal_(generator=torch.Generator()), "generator of their own"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_values_is_refused(name):
    function, said = REFUSED[name]
    before = random.getstate()
    with pytest.raises(NotCapturable, match=said):
        capture(lambda x: [(random.random(), function(x))[1]], [torch.tensor([1.0, 2.0, 3.0])])
    assert random.getstate() == before and OUTSIDE.shape == (3,)


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


def test_what_writes_stays_though_nobody_reads_it():
    """A normalization that is called for its running moments alone, twice."""
    norm, x = nn.BatchNorm1d(2), torch.tensor([[1.0, 2.0], [3.0, 5.0]])

    def function(x: Tensor) -> list[Tensor]:
        norm(x)
        norm(x + 1)
        return [x * 2]

    graph, held = capture(function, [x])
    graph(x, *held)
    found = norm.running_mean.clone()
    norm.reset_running_stats()
    function(x)
    torch.testing.assert_close(found, norm.running_mean)


def test_the_allocator_decides_nothing():
    """Memory into which an input was written may be that of a constant later."""

    def function(x: Tensor) -> list[Tensor]:
        for _ in range(50):
            t = torch.zeros(()) + 0
            t.add_(x.sum())
            del t
            x = x * float(torch.tensor(1.0))
        return [x]

    capture(function, [torch.ones(3)])


def test_a_range_of_a_profiler_and_what_is_kept():
    kept = []

    def function(x: Tensor) -> list[Tensor]:
        with torch.profiler.record_function("doubled"):
            kept.append(x * 2)
        return [kept[-1] + 1]

    graph, _ = capture(function, [torch.ones(2)])
    assert graph(torch.zeros(2))[0].tolist() == [1, 1]
    assert deepcopy(kept[0]).tolist() == [2, 2]
