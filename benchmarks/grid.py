"""Short trainings of hierarchical pairs over layers, rates and seeds: none may collapse.

    python -m benchmarks.grid                             # all 18 cells of the SeRe-VAE, an hour of a core
    python -m benchmarks.grid --pair ladder --layers 5 --lr 0.004 --seed 0 --json grid.json

The networks between the codes of the SeRe-VAE are as wide as all others: at the usual quarter of the width nothing was
seen to collapse. A cell is 600 steps of 128 rows of dynamic MNIST on one thread; its bound and likelihood (K = 10) are
those of 1,000 test images. Collapsed is a pair whose codes tell at most 1 nat of the data.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from guides import BottomUp, Ladder, SelfReflective
from ppl_models import DLGM, HierarchicalVAE, SeReVAE, data
from ppl_models.inference import evaluate, fit

from .table import table
from .timing import machine

HOW = {"steps": 600, "warmup": 300, "clip": 5.0, "weight_decay": 1e-4, "ema": 0.999}
WIDTH, LATENT = 256, 10


def sere_vae(layers: int) -> nn.Module:
    """The SeRe-VAE, the networks between its codes of the full width."""
    model, wide = SeReVAE(layers=layers, latent=LATENT, hidden=WIDTH), SeReVAE(4 * layers, layers, LATENT, 4 * WIDTH)
    model.priors, model.bijectors = wide.priors, wide.bijectors
    return model


PAIRS: dict[str, tuple[Callable[[int], nn.Module], type[nn.Module], dict]] = {
    "sere-vae": (sere_vae, SelfReflective, {"encoder": "shared"}),
    "ladder": (lambda n: HierarchicalVAE(latent=(LATENT,) * n, hidden=WIDTH), Ladder, {}),
    "ladder-skip": (lambda n: HierarchicalVAE(latent=(LATENT,) * n, hidden=WIDTH, skip=True), Ladder, {}),
    "reflected": (lambda n: HierarchicalVAE(latent=(LATENT,) * n, hidden=WIDTH), SelfReflective, {}),
    "dlgm": (lambda n: DLGM(latent=(LATENT,) * n, hidden=WIDTH), BottomUp, {}),
}


def main() -> None:
    """Train and evaluate each cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", choices=PAIRS, default="sere-vae")
    parser.add_argument("--layers", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3])
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, test = data.load("mnist")
    build, guide_of, sizes = PAIRS[args.pair]
    cells: list[dict] = []
    for layers, lr, seed in ((n, lr, seed) for n in args.layers for lr in args.lr for seed in args.seed):
        torch.manual_seed(seed)
        model = build(layers)
        guide = guide_of(model, train[:3], hidden=WIDTH, **sizes)
        run = fit(model, guide, train, lr=lr, seed=seed, progress=False, compile=True, **HOW)
        found = evaluate(model, guide, test[0:1000], particles=10, seed=1, progress=False)
        kl = sum(found.kl.values())
        cell = {"layers": layers, "lr": lr, "seed": seed, "nll": found.nll, "elbo": found.elbo, "kl": kl}
        cells.append(cell | {"notes": list(run.notes)})
        print(cells[-1], flush=True)
        if args.json:
            about = {**machine(), "threads": 1, "device": "cpu"}
            args.json.write_text(json.dumps({"about": about, "pair": args.pair, "cells": cells}, indent=1) + "\n")
    lines = [
        [
            f"{c['layers']} layers, {c['lr']:g}, seed {c['seed']}",
            f"{c['nll']:.1f}",
            f"{-c['elbo']:.1f}",
            f"{c['kl']:.1f}",
        ]
        for c in cells
    ]
    print(table([f"{args.pair}, {HOW['steps']} steps", "NLL, K = 10", "negative ELBO", "KL"], lines))


if __name__ == "__main__":
    main()
