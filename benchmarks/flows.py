"""Flows: a step of the IAF family against the diagonal one, and of a MAF against zuko's, in turns on one thread.

    python -m benchmarks.flows                          # both tables
    python -m benchmarks.flows --rounds 3 --json flows.json

The pair of the first table is the SeRe-VAE of the step's benchmark (10 layers of 10 latents, width 256, batch 128), its
guide with family "diagonal", with two steps of width 100 ("iaf:steps=2,hidden=100"), and with ten; compiled and eager.
The MAFs of the second have five networks of one hidden layer over 784 values (batch 128); zuko's is trained as its
documentation does, by torch's Adam, ours by `training_step`. Zuko's networks have ReLUs and ours SiLUs.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
import zuko
from torch import Tensor

from guides import SelfReflective
from ppl_models import MAF, SeReVAE
from ppl_models.inference import training_step

from .table import table
from .timing import in_turns, machine, ratio

FAMILIES = "diagonal", "iaf:steps=2,hidden=100", "iaf:steps=10,hidden=100"
VALUES, BATCH, NETWORKS = 784, 128, {"steps": 5, "hidden": 512}


def of_family(family: str, compiled: bool) -> tuple[Callable, tuple[Tensor, ...]]:
    """A step of the SeRe-VAE whose guide has a family."""
    torch.manual_seed(0)
    x = torch.bernoulli(torch.rand(BATCH, VALUES))
    model = SeReVAE(VALUES, layers=10, latent=10)
    guide = SelfReflective(model, x[:3], family=family)
    return training_step(model, guide, (x,), compile=compiled), (x,)


def of_zuko() -> tuple[Callable, tuple[Tensor, ...]]:
    """A step of zuko's MAF, eager, as its documentation trains it."""
    flow = zuko.flows.MAF(VALUES, transforms=NETWORKS["steps"], hidden_features=(NETWORKS["hidden"],))
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)

    def step(x: Tensor) -> float:
        loss = -flow().log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, (torch.randn(BATCH, VALUES),)


def of_ours(compiled: bool) -> tuple[Callable, tuple[Tensor, ...]]:
    """A step of our MAF."""
    x = torch.randn(BATCH, VALUES)
    return training_step(MAF(VALUES, **NETWORKS), None, (x,), compile=compiled), (x,)


def timed(work: dict[str, tuple[Callable, tuple[Tensor, ...]]], rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Milliseconds a step, and the median over the rounds of the ratio to the first one."""

    def several(step: Callable, args: tuple[Tensor, ...]) -> None:
        for _ in range(steps):
            told = step(*args)
        float(told)

    times = in_turns({name: partial(several, *each) for name, each in work.items()}, rounds, warm=2)
    first = next(iter(times.values()))
    return {name: {"ms": 1e3 * median(found) / steps, "ratio": ratio(found, first)} for name, found in times.items()}


def main() -> None:
    """Time both, print the tables, and write them if asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for compiled in (True, False):
        work = {family: of_family(family, compiled) for family in FAMILIES}
        found["compiled" if compiled else "eager"] = timed(work, args.rounds, args.steps)
    work = {"zuko, eager": of_zuko(), "ours, eager": of_ours(False), "ours, compiled": of_ours(True)}
    found["MAF"] = timed(work, args.rounds, args.steps)
    for title, rows in found.items():
        lines = [[name, f"{row['ms']:.2f} ms, {row['ratio']:.2f}"] for name, row in rows.items()]
        print(table([title, "a step, and its ratio to the first"], lines), end="\n\n")
    if args.json:
        about = {**machine(), "threads": 1, "device": "cpu"}
        args.json.write_text(json.dumps({"about": about, "flows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
