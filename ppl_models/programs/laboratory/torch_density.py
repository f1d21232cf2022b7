"""`TorchDensity`: a log density over torch with its derivatives, in NumPy's arrays; what it is made with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..pyro import kind_of


class TorchDensity:
    """A log density over torch as `laboratory.density.Density` wants it, by automatic differentiation.

    Args:
        log_density: (D,) in double precision to a scalar, differentiable twice.
    """

    def __init__(self, log_density: Callable[[Tensor], Tensor]) -> None:
        self.log_density = log_density

    def __call__(self, v: np.ndarray) -> float:
        """The density of a vector."""
        return float(self.log_density(torch.from_numpy(v)))

    @torch.enable_grad()
    def gradient(self, v: np.ndarray) -> np.ndarray:
        """(D,)."""
        return torch.autograd.functional.jacobian(self.log_density, torch.from_numpy(v)).numpy()

    @torch.enable_grad()
    def hessian(self, v: np.ndarray) -> np.ndarray:
        """(D, D)."""
        return torch.autograd.functional.hessian(self.log_density, torch.from_numpy(v)).numpy()


def placing(
    values: Mapping[str, np.ndarray],
    places: Mapping[Any, tuple],
    entries: Mapping[Any, np.ndarray],
    leaves: Sequence[np.ndarray],
) -> Callable[[Tensor], tuple[dict[str, Tensor], list[Tensor]]]:
    """A function of a vector to values of sites and arguments that hold its parts, with gradients.

    Args:
        values: of the sites.
        places: (site, copy) -> the index of its part in the value of the site.
        entries: of some of these nodes, where the part goes instead: places in all leaves, laid end to end.
        leaves: the arrays among the arguments.
    """
    whole = {name: torch.from_numpy(np.array(value)) for name, value in values.items()}
    given = [torch.from_numpy(np.array(leaf)) for leaf in leaves]
    starts = np.cumsum([0, *(leaf.size for leaf in leaves)])

    def placed(v: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        held, arguments, start = dict(whole), list(given), 0
        for node, at in places.items():
            size = entries[node].size if node in entries else whole[node[0]][at].numel()
            part, start = v[start : start + size], start + size
            if node in entries:
                k = int(np.searchsorted(starts, entries[node][0], side="right")) - 1
                flat = arguments[k].reshape(-1)
                flat = flat.index_put((torch.from_numpy(entries[node] - starts[k]),), part.to(flat))
                arguments[k] = flat.reshape(arguments[k].shape)
            else:
                held[node[0]] = held[node[0]].clone()
                held[node[0]][at] = part.to(held[node[0]]).reshape(whole[node[0]][at].shape)
        return held, arguments

    return placed


class Summed(Messenger):
    """Hold tensors, gradients and all, and add up the log densities of all sites."""

    def __init__(self, held: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.held, self.total = held, torch.zeros(())

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.held:
            msg["value"], msg["done"] = self.held[msg["name"]], True

    def _pyro_post_sample(self, msg: dict) -> None:
        if kind_of(msg) != "subsample":
            density = scale_and_mask(msg["fn"].log_prob(msg["value"], *msg["args"]), msg["scale"], msg["mask"])
            self.total = self.total + density.sum()
