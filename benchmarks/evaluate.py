"""Images a second of a bound by 1000 importance samples: `evaluate` against loops by hand, in torch and JAX, in turns.

    python -m benchmarks.evaluate                          # vae and sere-vae, one thread
    python -m benchmarks.evaluate --profile --rounds 1     # and where the time of `evaluate` goes

All take the same rows (datum times particle) through the same networks at once, without gradients. The loops compute
the bound alone; `evaluate` checks the pair and the data, and gives the ELBO and the divergence of each latent as well.
JAX compiles its loop in every round, `evaluate` its passes where there are forty or more (`--images 1000`).
"""

import argparse
import json
from math import log
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ppl_models.inference import evaluate

from .table import evaluate_table
from .timing import cores, in_turns, machine, on_threads, ratio
from .variants import absent
from .workloads import PIXELS, WORKLOADS


@torch.no_grad()
def by_hand(bound: nn.Module, x: Tensor, particles: int, rows: int) -> float:
    """The negative bound in nats per datum."""
    total = 0.0
    for images in x.split(max(rows // particles, 1)):
        log_w = bound(images, particles, analytic=False)
        total += (log(particles) - torch.logsumexp(log_w, 0)).sum()
    return float(total) / len(x)


def measure(workload: str, images: int, particles: int, rows: int, rounds: int, device: str, show: bool) -> dict:
    """Images a second of both, the ratio of their times, and the bounds they found."""
    model, guide, _ = WORKLOADS[workload].build(device=device)
    bound = WORKLOADS[workload].hand(model, guide)
    torch.manual_seed(0)
    x = torch.bernoulli(torch.rand(images, PIXELS)).to(device)
    found = {}

    def of_ours():
        found["nll_evaluate"] = evaluate(model, guide, x, particles=particles, rows=rows, progress=False).nll

    def of_hand():
        found["nll_hand"] = by_hand(bound, x, particles, rows)

    def of_numpyro():
        from .by_numpyro import evaluated

        found["nll_numpyro"] = evaluated(model, guide, x, particles, rows)

    work = {"hand": of_hand, "evaluate": of_ours}  # all read their numbers, which waits for them
    if device == "cpu" and absent("numpyro", device) is None:
        work["numpyro"] = of_numpyro
    times = in_turns(work, rounds)
    if show:
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            of_ours()
        print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=20))
    speeds = {name: images / median(seconds) for name, seconds in times.items()}
    ratios = {"ratio": ratio(times["evaluate"], times["hand"])}
    if "numpyro" in times:
        ratios["ratio_numpyro"] = ratio(times["evaluate"], times["numpyro"])
    return {**speeds, **ratios, "images": images, **found}


def main() -> None:
    """Measure in a process of so many threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="repeatable; vae, sere-vae")
    parser.add_argument("--images", type=int, default=80)
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=20_000, help="rows of a pass, those of `evaluate`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="1", help="a number, or all")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.worker:
        count = cores() if args.threads == "all" else int(args.threads)
        given = [f"--{key}={getattr(args, key)}" for key in ("images", "particles", "rows", "rounds", "device")]
        given += [f"--workload={name}" for name in args.workload or ("vae", "sere-vae")]
        given += ["--profile"] * args.profile + ([f"--json={args.json}"] if args.json else [])
        on_threads(count, "benchmarks.evaluate", [*given, f"--worker={count}"])
        return
    torch.set_num_threads(args.worker)
    sizes = args.images, args.particles, args.rows, args.rounds, args.device, args.profile
    found = {"about": {**machine(args.device), "threads": args.worker, "device": args.device}, "workloads": {}}
    found["about"] |= {"particles": args.particles, "rows": args.rows, "rounds": args.rounds}
    for name in args.workload:
        found["workloads"][name] = measure(name, *sizes)
    print(evaluate_table(found))
    if args.json:
        args.json.write_text(json.dumps({"evaluate": [found]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
