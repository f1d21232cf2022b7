"""`shake`, `to_noise`: flows that are not at their start, and what their bijections make of data."""

import torch
from torch import Tensor, nn


def shake(model: nn.Module, size: float) -> nn.Module:
    """The model with noise on its parameters, so that layers that start at zero do not hide a mistake."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return model


def to_noise(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the bijections make of rows, and the log of the volume that they make of a unit."""
    total = torch.zeros(len(x))
    for step in model.data.flow.transforms():
        y = step(x)
        total, x = total + step.log_abs_det_jacobian(x, y), y
    return x, total
