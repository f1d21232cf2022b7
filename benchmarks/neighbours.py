"""Short trainings of the published systems on digits: who is ahead of whom, image by image, and in how many seeds.

    python -m benchmarks.neighbours --seeds 0 1 --json benchmarks/results/neighbours.json
    python -m benchmarks.neighbours --table benchmarks/results/neighbours.json

Every pair is trained alike, 2,000 steps of 128 images of 8 x 8 binarized pixels, and evaluated on the 300 of the test
by 100 importance samples, in nats. A comparison is of two rows and the order that was published; its difference is of
the same images, with its standard error, seed by seed. One thread.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from guides import Bidirectional, BottomUp, Ladder, MeanField, Merging, Recurrent, SelfReflective
from ppl_models import (
    BIVA,
    DRAW,
    VAE,
    HierarchicalPixelVAE,
    HierarchicalVAE,
    MatNet,
    PixelVAE,
    SeReVAE,
    VampVAE,
    data,
)
from ppl_models.inference import fit, rewo, terms, vhp
from ppl_models.inference.objectives.bounds import importance_weighted

from .timing import machine

STEPS, PARTICLES, IMAGE = 2000, 100, (1, 8, 8)
HOW = {"batch_size": 128, "lr": 2e-3, "warmup": 300, "clip": 5.0, "ema": 0.999, "progress": False}


class Row(NamedTuple):
    """A system: how the pair is built from example rows, and what the training of it has of its own."""

    model: Callable[[torch.Tensor], Any]
    guide: Callable[[Any, torch.Tensor], Any]
    how: dict[str, Any] = {}


def _hierarchy(x: torch.Tensor) -> Any:
    return HierarchicalVAE(64, latent=(4, 8, 12), hidden=64)


def _two(x: torch.Tensor) -> Any:
    return HierarchicalVAE(64, latent=(6, 12), hidden=64)


def _vamp(x: torch.Tensor) -> Any:
    model = VampVAE(64, latent=12, hidden=64, components=100)
    model.prior.rows.data.copy_(x[:100])  # nearly alike otherwise, they stay together in so short a training
    return model


def _of(guide: Callable, **sizes: Any) -> Callable[[Any, torch.Tensor], Any]:
    return lambda model, x: guide(model, x[:3], hidden=64, **sizes)


def _biva(x: torch.Tensor) -> Any:
    return BIVA(64, latent=(4, 8, 12), hidden=64)


def _sere(x: torch.Tensor, feedback: bool = True) -> Any:
    return SeReVAE(64, layers=4, latent=6, hidden=64, feedback=feedback)


def _plain(x: torch.Tensor) -> Any:
    return VAE(64, latent=12, hidden=64)


ROWS = {
    "VAE": Row(_plain, _of(MeanField)),
    "VAE, IAF": Row(_plain, _of(MeanField, family="iaf")),
    "IWAE, K = 5": Row(_plain, _of(MeanField), {"objective": importance_weighted, "particles": 5}),
    "VampPrior": Row(_vamp, _of(MeanField)),
    "two layers": Row(_two, _of(BottomUp)),
    "VHP, 8 inner draws": Row(_two, _of(BottomUp), {"objective": vhp(inner=8)}),
    "VHP, REWO": Row(_two, _of(BottomUp), {"objective": rewo(tolerance=16.0, inner=8, rate=5e-3)}),
    "ladder": Row(_hierarchy, _of(Ladder)),
    "three layers, mean field": Row(_hierarchy, _of(MeanField)),
    "BIVA": Row(_biva, _of(Bidirectional, family="diagonal:least=1")),
    "BIVA, with the edge": Row(_biva, _of(Bidirectional, parents="needed", family="diagonal:least=1")),
    "MatNet": Row(lambda x: MatNet(64, latent=(4, 8, 12), hidden=64), _of(Merging)),
    "DRAW": Row(lambda x: DRAW(IMAGE, steps=6, latent=4, hidden=64), _of(Recurrent)),
    "DRAW, attention": Row(
        lambda x: DRAW(IMAGE, steps=6, latent=4, hidden=64, window=5), _of(Recurrent, window=5, image=IMAGE)
    ),
    "SeRe-VAE": Row(_sere, _of(SelfReflective, encoder="shared")),
    "SeRe-VAE, mean field": Row(_sere, _of(MeanField, encoder="shared")),
    "no feedback": Row(lambda x: _sere(x, False), _of(SelfReflective, encoder="shared")),
    "no feedback, mean field": Row(lambda x: _sere(x, False), _of(MeanField, encoder="shared")),
    "PixelVAE": Row(lambda x: PixelVAE(IMAGE, latent=8, hidden=12, depth=3), _of(MeanField)),
    "PixelVAE, two levels": Row(
        lambda x: HierarchicalPixelVAE(IMAGE, latent=(8, 4), hidden=12, depth=3), _of(MeanField, encoder="shared")
    ),
    "PixelVAE, two levels, with the edge": Row(
        lambda x: HierarchicalPixelVAE(IMAGE, latent=(8, 4), hidden=12, depth=3), _of(BottomUp, encoder="shared")
    ),
}
AHEAD = (  # (the one that is ahead as published, or as the inspector would have it, the other)
    ("VAE, IAF", "VAE"),
    ("IWAE, K = 5", "VAE"),
    ("VampPrior", "VAE"),
    ("two layers", "VAE"),
    ("VHP, 8 inner draws", "two layers"),
    ("ladder", "three layers, mean field"),
    ("BIVA", "ladder"),
    ("BIVA, with the edge", "BIVA"),
    ("DRAW, attention", "DRAW"),
    ("SeRe-VAE", "SeRe-VAE, mean field"),
    ("SeRe-VAE", "no feedback"),
    ("no feedback", "no feedback, mean field"),
    ("PixelVAE", "VAE"),
    ("PixelVAE, two levels, with the edge", "PixelVAE, two levels"),
)


def trained(row: Row, seed: int, steps: int, particles: int) -> torch.Tensor:
    """log p(x) of each test image."""
    train, test = data.load("digits")
    torch.manual_seed(seed)
    model = row.model(train[:100])
    guide = row.guide(model, train[:3])
    fit(model, guide, train, steps=steps, seed=seed, **(HOW | row.how))
    torch.manual_seed(0)
    with torch.no_grad():
        log_w = terms(model, guide, (test[:],), particles=particles).log_w
    return log_w.logsumexp(0) - torch.tensor(float(particles)).log()


def measured(seeds: list[int], steps: int, particles: int) -> dict[str, Any]:
    """NLL of each row and seed, and the differences of `AHEAD`, each with its standard error over images."""
    found: dict[str, Any] = {"about": machine(), "steps": steps, "particles": particles, "rows": {}, "ahead": {}}
    for seed in seeds:
        each = {}
        for name, row in ROWS.items():
            each[name] = -trained(row, seed, steps, particles)
            found["rows"].setdefault(name, []).append(each[name].mean().item())
            print(f"seed {seed}  {name:36s} {each[name].mean():7.2f}", flush=True)
        for one, other in AHEAD:
            gap = each[other] - each[one]
            told = gap.mean().item(), gap.std().item() / len(gap) ** 0.5
            found["ahead"].setdefault(f"{one} | {other}", []).append(told)
    return found


def table(found: dict[str, Any]) -> str:
    """Both as Markdown."""
    lines = ["| system | NLL, nats |", "|---|---|"]
    lines += [f"| {name} | {', '.join(f'{v:.2f}' for v in values)} |" for name, values in found["rows"].items()]
    lines += ["", "| ahead | of | by, nats |", "|---|---|---|"]
    for pair, values in found["ahead"].items():
        told = ", ".join(f"{mean:.2f} ± {error:.2f}" for mean, error in values)
        lines.append(f"| {' | '.join(pair.split(' | '))} | {told} |")
    return "\n".join(lines)


def main() -> None:
    """Train and tell, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--particles", type=int, default=PARTICLES)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="print the tables of this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(args.table.read_text()) if args.table else measured(args.seeds, args.steps, args.particles)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
