"""The published pairs of the collection: whether each guide can be exact, and what its structure costs where it cannot.

    python -m benchmarks.claim                   # the table of docs/collection.md

A row is a model with the guide of its paper, in small: the inspector's verdict, what each factor lacks, and the nats of
that on a linear-Gaussian twin. The twin has the model's factorization, two values a site, maps of 0.9 times standard
normal weights and noise of variance in (0.3, 1.3), as `LinearGaussian` has (seed 0). There the bound of the best guide
of the structure lies min E KL(q || p) below the evidence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from guides import Bidirectional, Faithful, Infused, Ladder, MeanField, Merging, Recurrent, SelfReflective
from ppl_models import (
    BIVA,
    DLGM,
    DRAW,
    VAE,
    HierarchicalPixelVAE,
    HierarchicalVAE,
    Infusion,
    MatNet,
    PixelVAE,
    SequentialVAE,
    SeReMAF,
    SeReVAE,
    VampVAE,
)
from ppl_models.factorization import compare
from ppl_models.factorization.graph import Factorization
from ppl_models.factorization.nats.gaussian import GaussianJoint, price
from ppl_models.factorization.report.report import Report
from ppl_models.parts import Composite

SIZE = 2  # values a site of the twin
Pair = Callable[[torch.Tensor], tuple[Any, Any]]


@dataclass(frozen=True)
class System:
    """A published pair: name, paper, and how model and guide are built, in small."""

    name: str
    paper: str
    model: Callable[[], Any]
    guide: Callable[..., Any]


def two_stage() -> Composite:
    """A second VAE in the place of the first one's prior."""
    return Composite(VAE(event=6, latent=2, hidden=4), VAE(event=2, latent=2, hidden=4, likelihood="shared-gaussian"))


SYSTEMS = (
    System("VAE", "1312.6114", partial(VAE, event=6, latent=2, hidden=4), MeanField),
    System(
        "IWAE and VHP, two layers",
        "1509.00519, 1905.04982",
        partial(HierarchicalVAE, event=6, latent=(2, 2), hidden=4),
        partial(Faithful, order="bottom-up"),
    ),
    System("two-stage VAE", "1903.05789", two_stage, partial(Faithful, order="bottom-up")),
    System("DLGM", "1401.4082", partial(DLGM, event=6, latent=(2, 2, 2), hidden=4), MeanField),
    System("ladder VAE", "1602.02282", partial(HierarchicalVAE, event=6, latent=(2, 2, 2), hidden=4), Ladder),
    System(
        "ladder VAE, x given all",
        "1602.02282",
        partial(HierarchicalVAE, event=6, latent=(2, 2, 2), hidden=4, skip=True),
        Ladder,
    ),
    System("PixelVAE, one level", "1611.05013", partial(PixelVAE, event=(1, 2, 3), latent=2, hidden=4), MeanField),
    System(
        "PixelVAE, two levels",
        "1611.05013",
        partial(HierarchicalPixelVAE, event=(1, 2, 3), latent=(2, 1), hidden=4, depth=2),
        MeanField,
    ),
    System(
        "VampPrior, two layers",
        "1705.07120",
        partial(VampVAE, event=6, latent=2, layers=2, hidden=4, components=3),
        SelfReflective,
    ),
    System("BIVA", "1902.02102", partial(BIVA, event=6, latent=(2, 2, 2), hidden=4), Bidirectional),
    System("MatNet", "1612.04739", partial(MatNet, event=6, latent=(2, 2, 2), hidden=4), Merging),
    System("DRAW", "1502.04623", partial(DRAW, event=6, steps=3, latent=2, hidden=4), Recurrent),
    System("sequential VAE", "1702.08658", partial(SequentialVAE, event=6, steps=3, latent=2, hidden=4), MeanField),
    System("infusion", "1703.06975", partial(Infusion, event=6, steps=3, hidden=4), partial(Infused, rate=0.4)),
    System("SeRe-VAE", "2007.05166", partial(SeReVAE, event=6, layers=3, latent=2, hidden=8), SelfReflective),
    System(
        "SeRe-VAE, no feedback",
        "2007.05166",
        partial(SeReVAE, event=6, layers=3, latent=2, hidden=8, feedback=False),
        MeanField,
    ),
    System("SeRe-MAF", "2007.05166", partial(SeReMAF, event=6, layers=3, latent=2, hidden=8), SelfReflective),
)


def twin(model: Factorization, observed: tuple[str, ...], seed: int = 0) -> GaussianJoint:
    """A linear-Gaussian joint of the factorization of a model, `SIZE` values a site."""
    draws, sites = np.random.default_rng(seed), [*model.parents]
    blocks = {site: slice(SIZE * i, SIZE * i + SIZE) for i, site in enumerate(sites)}
    maps = np.zeros((SIZE * len(sites),) * 2)
    for site, parents in model.items():
        for parent in parents:
            maps[blocks[site], blocks[parent]] = 0.9 * draws.standard_normal((SIZE, SIZE))
    out = np.linalg.inv(np.eye(len(maps)) - maps)
    covariance = (out * draws.uniform(0.3, 1.3, len(maps))) @ out.T
    return GaussianJoint((covariance + covariance.T) / 2, blocks, observed)


def inspected(system: System) -> tuple[Report, float]:
    """The report of a pair, and the nats a datum that its best bound lacks on the twin."""
    torch.manual_seed(0)
    model = system.model()
    x = torch.randn(3, 6) if system.name == "SeRe-MAF" else torch.bernoulli(torch.full((3, 6), 0.5))
    report = compare(model, system.guide(model, x), x)
    return report, price(twin(report.model, report.observed), report.guide).elbo


def row(system: System) -> str:
    """The line of a pair."""
    report, nats = inspected(system)
    formulas = (f"`{each}`".replace("|", "\\|") for each in (report.model, report.guide))
    lacks = "; ".join(f"{site}: {', '.join(us)}" for site, us in report.missing.items()) or "nothing"
    cells = f"{system.name} ({system.paper})", *formulas, report.verdict, lacks, f"{nats:.3f}"
    return "| " + " | ".join(cells) + " |"


def table() -> str:
    """All of them, as Markdown."""
    head = ["| system | p | the published q | verdict | lacks | nats on the twin |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *map(row, SYSTEMS)])


if __name__ == "__main__":
    print(table())
