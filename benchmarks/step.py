"""One training step of every workload: Pyro's SVI, hand-written PyTorch, NumPyro and ours, in turns.

    python -m benchmarks.step                                      # every workload, on one thread and on all
    python -m benchmarks.step --workload toy --threads 1 --rounds 5
    python -m benchmarks.step --device cuda --json step-cuda.json
    python -m benchmarks.table step-cuda.json                      # the table for the README

A step draws its noise, takes the gradient of the loss and updates with Adam. Every variant has a pair of its own from
the same seed. In each round every variant runs a block of steps, in an order drawn anew; medians over the rounds. The
ratios are medians, too, of ratios within a round: to the hand-written eager step, and for our compiled one to the best
rival (hand-written with `torch.compile`, NumPyro's `jit(update)`, NumPyro's `lax.scan` over the block). "set-up" is
what passes before the second block can start: building the step, tracing and compiling with no cache, one block. The
floor is that of `floor.py`.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from .floor import floor
from .table import step_table
from .timing import cores, in_turns, machine, on_threads, ratio, without_caches
from .variants import BASE, OURS, RIVALS, VARIANTS, absent
from .workloads import WORKLOADS, Workload


def measure(workload: Workload, names: Sequence[str], rounds: int, steps: int, device: str = "cpu") -> dict:
    """The rows of one workload: variant -> ms, ratio to the eager step by hand, set-up seconds, or a note."""
    runs, rows = {}, {}
    for name in names:
        note = absent(name, device)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
        start = perf_counter()
        try:
            if note is None:
                runs[name] = VARIANTS[name](workload, device)
                runs[name](steps)
        except NotImplementedError as error:
            note = str(error)
        if note is not None:
            rows[name] = {"note": note}
            continue
        rows[name] = {"setup_s": perf_counter() - start}
        if device == "cuda" and not name.startswith("numpyro"):  # JAX takes memory by itself
            torch.cuda.reset_peak_memory_stats()
            runs[name](steps)
            rows[name]["peak_mb"] = (torch.cuda.max_memory_allocated() - held) / 2**20
    times = in_turns({name: lambda run=run: run(steps) for name, run in runs.items()}, rounds)
    for name, seconds in times.items():
        rows[name]["ms"] = 1e3 * median(seconds) / steps
        rows[name]["rounds_ms"] = [1e3 * t / steps for t in seconds]
        if BASE in times:
            rows[name]["ratio"] = ratio(seconds, times[BASE])
    rivals = [name for name in RIVALS if name in times]
    if device == "cpu":
        rows["floor"] = floor(workload)
        if BASE in times:
            rows["floor"]["ratio"] = rows["floor"]["ms"] / rows[BASE]["ms"]
    if OURS in times and rivals:
        best = min(rivals, key=lambda name: rows[name]["ms"])
        rows[OURS] |= {"best_rival": best, "ratio_best": ratio(times[OURS], times[best])}
    return rows


def options() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="repeatable; all by default")
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="repeatable; all by default")
    parser.add_argument("--threads", action="append", help="1, another number or all; repeatable; 1 and all by default")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20, help="steps of a block")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # this process is confined to so many cores
    return parser


def work(args: argparse.Namespace) -> None:
    """Measure in this process and write the JSON."""
    torch.set_num_threads(args.worker)
    about = {**machine(args.device), "threads": args.worker, "device": args.device}
    about |= {"rounds": args.rounds, "steps": args.steps}
    results = {}
    for name in args.workload:
        results[name] = measure(WORKLOADS[name], args.variant, args.rounds, args.steps, args.device)
        print(step_table({"about": about, "workloads": {name: results[name]}}), flush=True)
    args.json.write_text(json.dumps({"about": about, "workloads": results}))


def main() -> None:
    """Run each setting of threads in a process of its own, and write the numbers of all of them."""
    args = options().parse_args()
    args.workload, args.variant = args.workload or list(WORKLOADS), args.variant or list(VARIANTS)
    if args.worker:
        work(args)
        return
    # on a device the host's threads matter little: one setting, all of them
    wanted = args.threads or (["1", "all"] if args.device == "cpu" else ["all"])
    counts = list(dict.fromkeys(cores() if count == "all" else int(count) for count in wanted))
    common = [f"--workload={name}" for name in args.workload] + [f"--variant={name}" for name in args.variant]
    common += [f"--rounds={args.rounds}", f"--steps={args.steps}", f"--device={args.device}"]
    found = []
    for threads in counts:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "found.json")
            words = [*common, f"--worker={threads}", f"--json={file}"]
            on_threads(threads, "benchmarks.step", words, without_caches(folder))
            found.append(json.loads(file.read_text()))
    if args.json:
        args.json.write_text(json.dumps({"step": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
