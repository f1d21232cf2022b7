"""Flows of images in scales: shapes, bijectivity, volumes, and masks by Jacobian pattern."""

import pytest
import torch

from ppl_models import Glow, RealNVP
from tests.helpers.flows import shake, to_noise

IMAGES = {
    "real-nvp": lambda shape, levels: RealNVP(shape, hidden=3, depth=1, levels=levels),
    "glow": lambda shape, levels: Glow(shape, 2, hidden=3, levels=levels),
}


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 8), (2, 8, 4)])
@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("name", IMAGES)
def test_scales(name, shape, levels, double):
    """Each squeeze leaves half of the numbers to the next scale, and none is left out or met twice."""
    torch.manual_seed(0)
    model = shake(IMAGES[name](shape, levels), 0.1)
    x = torch.randn(3, model.event)
    e, volume = to_noise(model, x)
    back = e
    for step in reversed(model.data.flow.transforms()):
        back = step.inv(back)
    torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-10)
    jacobian = torch.autograd.functional.jacobian(lambda v: to_noise(model, v[None])[0][0], x[0])
    torch.testing.assert_close(volume[0], torch.linalg.slogdet(jacobian)[1], rtol=1e-10, atol=1e-10)
    sizes = [step.places.numel() for step in model.data.flow.steps]
    left = model.event // 2**levels if name == "real-nvp" else model.event // 2 ** (levels - 1)
    assert sizes[0] == model.event and sizes[-1] == left and sorted(sizes, reverse=True) == sizes
    assert all(len(step.places.unique()) == step.places.numel() for step in model.data.flow.steps)


def test_masks_of_images(double):
    """A coupling changes the entries of its mask alone, and what it adds to them depends on the others alone."""
    torch.manual_seed(0)
    model = shake(RealNVP((2, 4, 4), hidden=16, levels=1), 0.3)
    steps = model.data.flow.steps
    color = (torch.arange(4)[:, None] + torch.arange(4)) % 2 == 1
    assert torch.equal(steps[0].changed.bool(), color.expand(2, 4, 4))
    assert torch.equal(steps[1].changed.bool(), ~color.expand(2, 4, 4))
    assert steps[3].changed.shape == (8, 2, 2) and torch.equal(
        steps[3].changed.mean((1, 2)), torch.arange(8) // 4 + 0.0
    )
    kept = torch.arange(32).reshape(2, 4, 4)[~color.expand(2, 4, 4)]  # the half that goes on lies on one color
    assert torch.equal(steps[6].places.flatten().sort().values, kept)
    for step in (steps[0], steps[4], steps[-1]):
        jacobian = torch.autograd.functional.jacobian(step, torch.randn(32)).abs().sum(1)
        changed = torch.zeros(32).index_copy(0, step.places.flatten(), step.changed.flatten()).bool()
        inside = torch.zeros(32).index_fill(0, step.places.flatten(), 1.0).bool()
        read = jacobian.any(0)
        assert torch.equal(jacobian.any(1), changed) and not (read & (changed | ~inside)).any()
        assert torch.equal(read, inside & ~changed)
