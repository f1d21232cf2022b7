"""Matrix products in bfloat16: what a training gains in time, and what it costs in the bound.

    python -m benchmarks.precision                                 # the VAE of the step's benchmark, 2,000 steps
    python -m benchmarks.precision --workload sere-vae --json precision.json

Both trainings begin with the same weights and take the same batches of dynamic MNIST on one thread; the bound is that
of `evaluate` (K = 10) of 1,000 test images in single precision. Times are whole trainings without their compilation:
the first `--every` steps do not count.
"""

import argparse
import json
from pathlib import Path

import pyro
import torch

from ppl_models import data
from ppl_models.inference import evaluate, fit

from .table import table
from .timing import machine
from .workloads import WORKLOADS


def main() -> None:
    """Train in both precisions, and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=WORKLOADS, default="vae")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, test = data.load("mnist")
    rows = {}
    for precision in ("float32", "bfloat16"):
        pyro.set_rng_seed(0)
        model, guide, _ = WORKLOADS[args.workload].build()
        how = {"steps": args.steps, "every": args.every, "precision": precision, "compile": True, "seed": 0}
        run = fit(model, guide, train, progress=False, **how)
        seconds = run.history[-1]["seconds"] - run.history[0]["seconds"]
        found = evaluate(model, guide, test[0:1000], particles=10, seed=1, progress=False)
        rows[precision] = {"ms": 1e3 * seconds / (args.steps - args.every), "elbo": found.elbo, "nll": found.nll}
        rows[precision]["notes"] = run.notes
    lines = [[name, f"{r['ms']:.1f} ms", f"{-r['elbo']:.2f}", f"{r['nll']:.2f}"] for name, r in rows.items()]
    print(table([f"{args.workload}, {args.steps} steps", "a step", "negative ELBO", "NLL, K = 10"], lines))
    if args.json:
        about = {**machine(), "threads": 1, "device": "cpu"}
        args.json.write_text(json.dumps({"about": about, "workload": args.workload, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
