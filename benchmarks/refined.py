"""Refined guides: a step of training with K Hamiltonian steps against K + 1 steps of the guide alone, in turns.

    python -m benchmarks.refined                        # both pairs, eager and compiled, one thread
    python -m benchmarks.refined --rounds 3 --json refined.json

The ratio is to 1.2 (K + 1) times a step of the guide itself, which is what a Hamiltonian step may cost: each is a
gradient of the pair, differentiated once more. The VAE has 784 values, 50 latents and layers of 256, as its guide
`MeanField`; the SeRe-VAE has 4 layers of 8 latents and its own guide. Batches are of 128 rows.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from guides import MeanField, Refined, SelfReflective
from ppl_models import VAE, SeReVAE
from ppl_models.inference import training_step

from .table import table
from .timing import in_turns, machine, ratio

STEPS, ALLOWED, BATCH = (1, 4, 8), 1.2, 128
PAIRS = {
    "VAE": lambda x: (model := VAE(784, latent=50, hidden=256), MeanField(model, x)),
    "SeRe-VAE": lambda x: (model := SeReVAE(784, layers=4, latent=8), SelfReflective(model, x)),
}


def step_of(pair: str, steps: int, method: str, compiled: bool) -> tuple[Callable, tuple[Tensor, ...]]:
    """A step of training of a pair, refined by so many steps; 0 for the guide itself."""
    torch.manual_seed(0)
    x = torch.bernoulli(torch.rand(BATCH, 784))
    model, guide = PAIRS[pair](x[:3])
    guide = Refined(guide, steps=steps, method=method) if steps else guide
    return training_step(model, guide, (x,), compile=compiled), (x,)


def timed(pair: str, method: str, compiled: bool, rounds: int, count: int) -> dict[int, dict[str, float]]:
    """K -> milliseconds a step, and the median over the rounds of the ratio to what is allowed."""

    def several(step: Callable, args: tuple[Tensor, ...]) -> None:
        for _ in range(count):
            told = step(*args)
        float(told)

    work = {str(k): partial(several, *step_of(pair, k, method, compiled)) for k in (0, *STEPS)}
    times = in_turns(work, rounds, warm=2)
    return {
        int(k): {"ms": 1e3 * median(found) / count, "ratio": ratio(found, times["0"]) / (ALLOWED * (int(k) + 1))}
        for k, found in times.items()
    }


def main() -> None:
    """Time all, print the table, and write it if asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--method", choices=("dais", "hvi"), default="dais")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found, lines = {}, []
    for pair in PAIRS:
        for compiled in (False, True):
            name = f"{pair}, {'compiled' if compiled else 'eager'}"
            found[name] = timed(pair, args.method, compiled, args.rounds, args.steps)
            told = [f"{found[name][k]['ms']:.1f} ms, {found[name][k]['ratio']:.2f}" for k in STEPS]
            lines.append([name, f"{found[name][0]['ms']:.1f} ms", *told])
    print(table([args.method, "the guide", *(f"K = {k}" for k in STEPS)], lines))
    if args.json:
        about = {**machine(), "threads": 1, "device": "cpu", "method": args.method}
        args.json.write_text(json.dumps({"about": about, "refined": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
