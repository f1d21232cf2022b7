"""`energy_distance(one, other)`: how far two samples are from samples of one distribution, of thousands of images."""

import torch
from torch import Tensor


def energy_distance(one: Tensor, other: Tensor) -> float:
    """The energy distance of two samples, (m, D) and (n, D): unbiased, and zero in the mean for equal distributions.

        2 E|x - y| - E|x - x'| - E|y - y'|

    Its memory is that of m n numbers, where `mmd(x, y, kernel="energy")` takes m n D.
    """
    within = sum(torch.cdist(s, s).sum() / (len(s) * (len(s) - 1)) for s in (one, other))
    return (2 * torch.cdist(one, other).mean() - within).item()
