"""Peak memory of training: each variant of each workload in a process of its own.

    python -m benchmarks.memory                            # every workload and variant, on one thread
    python -m benchmarks.memory --workload toy --device cuda

On the CPU it is the resident set of the process above what it is once the variant has trained a tiny pair, so libraries
and compilers are loaded, and what counts is weights, optimizer, activations and what an allocator keeps. The peak of
the steps is taken after the set-up (Linux lets a process reset its peak); the other includes tracing and compiling, but
not the processes that a compiler starts. On CUDA it is what PyTorch's allocator handed out.
"""

import argparse
import ctypes
import json
import tempfile
from pathlib import Path

import torch

from .table import memory_table
from .timing import cores, machine, on_threads
from .variants import VARIANTS, absent
from .workloads import WORKLOADS, vae

TINY = vae("tiny", latent=2, hidden=4, batch=2, pixels=4)


def of_cuda() -> float:
    """MB that PyTorch's allocator had handed out at its peak."""
    return torch.cuda.max_memory_allocated() / 2**20


def resident() -> float:
    """MB of the resident set at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise ValueError("memory: /proc/self/status has no VmHWM; is this Linux?")


def forget_peak() -> None:
    """Give what is free back to the system, and let the peak of the resident set be what it is now."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def measure(workload: str, variant: str, steps: int, device: str) -> dict:
    """Peaks of one variant, in this process, which must be fresh."""
    note = absent(variant, device)
    if note is not None:
        return {"note": note}
    if variant.startswith("numpyro") and device == "cuda":
        return {"note": "JAX takes the device's memory by itself"}
    try:
        VARIANTS[variant](TINY, device)(2)
    except NotImplementedError as error:
        return {"note": str(error)}
    reset, peak = (torch.cuda.reset_peak_memory_stats, of_cuda) if device == "cuda" else (forget_peak, resident)
    reset()
    base = peak()
    run = VARIANTS[variant](WORKLOADS[workload], device)
    run(steps)
    whole = peak() - base
    reset()
    run(steps)
    return {"all_mb": whole, "step_mb": peak() - base}


def main() -> None:
    """Start a process for each variant of each workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="repeatable; all by default")
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="repeatable; all by default")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", default="1", help="a number, or all")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        torch.set_num_threads(args.worker)
        found = measure(args.workload[0], args.variant[0], args.steps, args.device)
        args.json.write_text(json.dumps(found))
        return
    count = cores() if args.threads == "all" else int(args.threads)
    results: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "found.json")
        for workload in args.workload or WORKLOADS:
            results[workload] = {}
            for variant in args.variant or VARIANTS:
                given = [f"--workload={workload}", f"--variant={variant}", f"--steps={args.steps}"]
                given += [f"--device={args.device}", f"--worker={count}", f"--json={file}"]
                on_threads(count, "benchmarks.memory", given)
                results[workload][variant] = json.loads(file.read_text())
    about = {**machine(args.device), "threads": count, "device": args.device}
    found = {"about": about, "workloads": results}
    print(memory_table(found))
    if args.json:
        args.json.write_text(json.dumps({"memory": [found]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
