"""The workloads by name: which pair, how large, and which code written by hand or in NumPyro is its rival.

| name | model | guide | batch |
|---|---|---|---|
| sere-vae | `SeReVAE`, 784 pixels, 10 layers of 10 latents, width 256 | `SelfReflective`, width 256 | 128 |
| ladder-32, ladder-256 | `HierarchicalVAE`, 5 layers of 50 latents, width 400 | `Ladder`, width 400 | 32, 256 |
| vae | `VAE`, 50 latents, width 400 | `MeanField`, width 400 | 128 |
| toy | `HierarchicalVAE`, 10 layers of 8 latents, width 16 | `Ladder`, width 16 | 4 |

The networks are the collection's own, residual perceptrons of one block (784 -> 400, a block of two 400 x 400 layers,
400 -> 50), in each of the rivals alike.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guides import Ladder, MeanField, SelfReflective
from ppl_models import VAE, HierarchicalVAE, SeReVAE

from . import by_hand

PIXELS = 784


@dataclass(frozen=True)
class Workload:
    """A pair, its size and its rivals.

    Attributes:
        name: in the tables.
        batch: rows a step.
        model: makes the model.
        guide: makes the guide from the model and example rows.
        hand: the bound by hand, made from (model, guide).
        pixels: width of a row.
    """

    name: str
    batch: int
    model: Callable[[], nn.Module]
    guide: Callable[[nn.Module, Tensor], nn.Module]
    hand: Callable[[nn.Module, nn.Module], nn.Module]
    pixels: int = PIXELS

    def build(self, seed: int = 0, device: str = "cpu") -> tuple[nn.Module, nn.Module, Tensor]:
        """(model, guide, x), the same for the same seed."""
        torch.manual_seed(seed)
        x = torch.bernoulli(torch.rand(self.batch, self.pixels))
        model = self.model()
        guide = self.guide(model, x[:3])
        return model.to(device), guide.to(device), x.to(device)


def sere_vae(name="sere-vae", layers=10, latent=10, hidden=256, batch=128, pixels=PIXELS) -> Workload:
    """The self-reflective pair."""
    return Workload(
        name,
        batch,
        lambda: SeReVAE(pixels, layers, latent, hidden),
        lambda model, x: SelfReflective(model, x, hidden=hidden),
        by_hand.SelfReflectiveVAE,
        pixels,
    )


def ladder(name="ladder", layers=5, latent=50, hidden=400, batch=32, pixels=PIXELS) -> Workload:
    """The ladder pair."""
    return Workload(
        name,
        batch,
        lambda: HierarchicalVAE(pixels, (latent,) * layers, hidden),
        lambda model, x: Ladder(model, x, hidden=hidden),
        by_hand.LadderVAE,
        pixels,
    )


def vae(name="vae", latent=50, hidden=400, batch=128, pixels=PIXELS) -> Workload:
    """The pair of one latent layer."""
    return Workload(
        name,
        batch,
        lambda: VAE(pixels, latent, hidden),
        lambda model, x: MeanField(model, x, hidden=hidden),
        by_hand.MeanFieldVAE,
        pixels,
    )


WORKLOADS = {
    w.name: w
    for w in (
        sere_vae(),
        ladder("ladder-32"),
        ladder("ladder-256", batch=256),
        vae(),
        ladder("toy", layers=10, latent=8, hidden=16, batch=4),
    )
}
