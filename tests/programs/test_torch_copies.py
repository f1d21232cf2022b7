"""Copies of many tensors in one piece of memory, and the numbers that move parameters."""

import pytest
import torch
from torch import Tensor, nn

from ppl_models.programs.state.jitter import Jitter
from ppl_models.programs.state.torch import ProgramSnapshot
from ppl_models.programs.state.torch_copies import ALIGNED, NOISE, noise_of, places_for, repeat

KINDS = torch.float32, torch.double, torch.bfloat16, torch.int64, torch.bool


def several(kind: torch.dtype) -> list[Tensor]:
    numbers = (10 * torch.randn(5, 7)).to(kind)
    return [numbers, numbers.T, numbers[0, 0], numbers[:0], numbers[:, :1].expand(5, 3), numbers[1:]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("double", [False, True])
def test_places_are_apart_and_hold_what_is_copied(kind, double):
    given = several(kind) + several(torch.float32)
    places = places_for(given, double)
    for place, tensor in zip(places, given, strict=True):
        place.copy_(tensor)
    for place, tensor in zip(places, given, strict=True):
        wide = double and tensor.is_floating_point()
        assert place.dtype == (torch.double if wide else tensor.dtype)
        assert place.shape == tensor.shape and torch.equal(place, tensor.to(place.dtype))
    assert places_for([]) == []


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")
def test_sparse_tensors_have_places_too():
    given = torch.eye(3).to_sparse_csr()
    (place,) = places_for([given], double=True)
    assert place.layout is torch.sparse_csr and torch.equal(place.to_dense(), torch.eye(3).double())


def test_places_begin_where_processors_read():
    places = places_for([torch.zeros(3), torch.zeros(5), torch.zeros(1)])
    assert all(place.storage_offset() % ALIGNED == 0 for place in places)


@pytest.mark.parametrize("start", [0, 5, NOISE - 1, NOISE + 5])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (300, 700)])
def test_numbers_are_repeated_from_anywhere(shape, start):
    noise, place = noise_of(0), torch.empty(shape)
    want = noise.roll(-start).repeat(4)[: place.numel()].view(shape)
    assert torch.equal(repeat(noise, start, place), want.float())
    across = torch.empty(shape[::-1]).permute(tuple(reversed(range(len(shape)))))
    assert torch.equal(repeat(noise, start, across), want.float())


@pytest.mark.parametrize("zeros", ["none", "some", "all"])
def test_jitter_moves_every_number_and_comes_back(zeros):
    weight = nn.Parameter(torch.randn(4, 6).T)
    with torch.no_grad():
        weight.mul_({"none": torch.ones(6, 4), "some": torch.rand(6, 4) < 0.5, "all": torch.zeros(6, 4)}[zeros])
    before, snapshot = weight.detach().clone(), ProgramSnapshot([lambda: weight], double=True)
    with snapshot.held():
        snapshot.settle()
        snapshot.jitter(Jitter(3, shrink=0.5))
        noise = noise_of(3)[: weight.numel()].view(weight.shape)
        want = torch.where(before == 0, 0.05 * noise, 0.5 * before * (0.3 * noise).exp())
        assert weight.dtype == torch.double and torch.allclose(weight.data, want, rtol=1e-12)
        snapshot.jitter(None)
        assert torch.equal(weight.data, before.double())
    assert torch.equal(weight, before) and weight.dtype == torch.float32
