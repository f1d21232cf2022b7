"""Setting up a compiled step of deep programs: seconds, memory, and milliseconds a step, each in a process of its own.

    python -m benchmarks.depth --json depth.json                  # all, on one thread, nothing compiled before
    python -m benchmarks.depth --family sequence --size 200       # one of them
    python -m benchmarks.depth --threads all

Layers of the self-reflective pair and of the ladder at width 64 on 784 pixels, batches of 32, and the deep Markov model
of `sequences.py` by its time steps. Set-up is all until the first step is taken, whose part are the capture and the
compilation; the peak of the resident set is that of the process.
"""

import argparse
import json
import resource
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from ppl_models.inference import training_step
from ppl_models.inference.pyro.engine import function

from .sequences import sequences
from .table import depth_table
from .timing import cores, machine, on_threads, without_caches
from .workloads import ladder, sere_vae

SIZES = {"sere-vae": (10, 28, 56, 112, 196), "ladder": (10, 28, 56, 112, 196), "sequence": (32, 200)}


def pair(family: str, size: int) -> tuple[nn.Module, nn.Module, Tensor]:
    """(model, guide, x)."""
    if family == "sequence":
        return sequences(size)
    made = sere_vae(layers=size, hidden=64, batch=32) if family == "sere-vae" else ladder("", size, 10, 64, 32)
    return made.build()


def measure(family: str, size: int, steps: int) -> dict:
    """Set-up and steps of one pair, in this process, which must be fresh."""
    seconds, captured = {"capture": 0.0, "compile": 0.0}, [0]

    def timed(kind, work):
        def run(*args, **kwargs):
            start = perf_counter()
            found = work(*args, **kwargs)
            seconds[kind] += perf_counter() - start
            captured[0] += len(found[0].graph.nodes) if kind == "capture" else 0
            return found

        return run

    function.capture = timed("capture", function.capture)
    make = function.Function.__init__

    def init(self, *args):  # (self, function, inputs, buffers, compile, whole)
        make(self, *args[:3], timed("compile", args[3]), *args[4:])

    function.Function.__init__ = init
    model, guide, x = pair(family, size)
    start = perf_counter()
    step = training_step(model, guide, (x,), compile="xla", lr=1e-4)
    step(x)
    whole, times = perf_counter() - start, []
    for _ in range(steps):
        start = perf_counter()
        step(x)
        times.append(perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {"operations": captured[0], **seconds, "setup": whole, "ms": 1e3 * median(times), "peak_gb": peak}
    return found | {"notes": step.notes}


def main() -> None:
    """Start a process for each size of each family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", action="append", choices=SIZES, help="repeatable; all by default")
    parser.add_argument("--size", action="append", type=int, help="repeatable; those above by default")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--threads", default="1", help="a number, or all")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        torch.set_num_threads(args.worker)
        args.json.write_text(json.dumps(measure(args.family[0], args.size[0], args.steps)))
        return
    count = cores() if args.threads == "all" else int(args.threads)
    found: dict = {"about": {**machine(), "threads": count, "device": "cpu"}, "families": {}}
    for family in args.family or SIZES:
        found["families"][family] = {}
        for size in args.size or SIZES[family]:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "found.json")
                given = [f"--family={family}", f"--size={size}", f"--steps={args.steps}", f"--worker={count}"]
                on_threads(count, "benchmarks.depth", [*given, f"--json={file}"], without_caches(folder))
                found["families"][family][str(size)] = json.loads(file.read_text())
            if args.json:  # whatever ends a long run, what was measured is kept
                args.json.write_text(json.dumps({"depth": [found]}, indent=1) + "\n")
    print(depth_table(found))


if __name__ == "__main__":
    main()
