"""What a step costs as a pair grows: in layers, latents, batch and particles, one at a time, with a plot.

    python -m benchmarks.scaling                                       # one thread; minutes, most of them compiling
    python -m benchmarks.scaling --variant ours-eager --axis layers    # without the compiled steps
    python -m benchmarks.scaling --json scaling.json --plot benchmarks/scaling.png

Two families of width 256 on 784 pixels, both of 5 layers of 20 latents, batch 32, one particle where nothing else is
said: the ladder pair and the self-reflective one. Sizes of one axis take turns in every round. Cost against layers gets
a least-squares line, its R^2 and the largest relative distance of a point from it.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch

from .table import WORDS, scaling_table
from .timing import cores, in_turns, machine, on_threads
from .variants import BASE, VARIANTS
from .workloads import ladder, sere_vae

FAMILIES = {"ladder": ladder, "sere-vae": sere_vae}
AXES = {
    "layers": (1, 2, 5, 10, 20, 40),
    "latents": (5, 10, 20, 50, 100, 200),
    "batch": (8, 16, 32, 64, 128, 256),
    "particles": (1, 2, 5, 10, 20),
}
NAMES = {"layers": "layers", "latents": "latent", "batch": "batch"}
START = {"layers": 5, "latent": 20, "hidden": 256, "batch": 32}


def sweep(
    family: str, axis: str, names: Sequence[str], rounds: int, steps: int, sizes: Sequence[int], **start: int
) -> dict:
    """Milliseconds of each variant at each size of an axis; along layers with a line through them."""
    work = {}
    for size in sizes:
        particles = size if axis == "particles" else 1
        made = {**START, **start} | ({NAMES[axis]: size} if axis in NAMES else {})
        workload = FAMILIES[family](**made)
        for name in names:
            try:
                run = VARIANTS[name](workload, "cpu", **({"particles": particles} if particles > 1 else {}))
            except NotImplementedError as error:
                print(f"{name}: {error}")
                continue
            work[name, size] = lambda run=run: run(steps)
    times = in_turns(work, rounds)
    ms = {name: [1e3 * median(times[name, s]) / steps for s in sizes] for name in names if (name, sizes[0]) in times}
    found = {"sizes": list(sizes), "ms": ms}
    if axis == "layers" and len(sizes) > 2:
        found["lines"] = {name: line(sizes, values) for name, values in ms.items()}
    return found


def line(sizes: Sequence[int], ms: Sequence[float]) -> dict[str, float]:
    """The least-squares line through costs: intercept, slope, R^2 and the largest relative distance of a point."""
    x, y = np.asarray(sizes, float), np.asarray(ms)
    slope, intercept = np.polyfit(x, y, 1)
    rest = y - (intercept + slope * x)
    r2 = 1 - (rest**2).sum() / ((y - y.mean()) ** 2).sum()
    return {"intercept": intercept, "slope": slope, "r2": r2, "worst": float((abs(rest) / y).max())}


def plot(found: dict, file: Path) -> None:
    """One small picture for each family and axis, both scales logarithmic."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    families = found["families"]
    axes = [axis for axis in AXES if any(axis in sweeps for sweeps in families.values())]
    figure = Figure((3.1 * len(axes), 2.9 * len(families) + 0.4), layout="constrained")
    panels = figure.subplots(len(families), len(axes), sharey=True, squeeze=False)
    names = list(dict.fromkeys(n for sweeps in families.values() for s in sweeps.values() for n in s["ms"]))
    for row, (family, sweeps) in zip(panels, families.items(), strict=True):
        for panel, axis in zip(row, axes, strict=True):
            if axis not in sweeps:
                panel.set_axis_off()
                continue
            for i, name in enumerate(names):
                if name in sweeps[axis]["ms"]:
                    values = sweeps[axis]["ms"][name]
                    panel.plot(sweeps[axis]["sizes"], values, "o-", color=f"C{i}", ms=3.5, lw=1.4, label=WORDS[name])
            panel.set(xscale="log", yscale="log", title=f"{family}: {axis}", xlabel=axis)
            panel.set_xticks(sweeps[axis]["sizes"], sweeps[axis]["sizes"])
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.xaxis.minorticks_off()
            panel.yaxis.set_major_formatter(ScalarFormatter())
            panel.grid(alpha=0.3, lw=0.5)
            panel.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("ms a step")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(file, dpi=150)


def main() -> None:
    """Measure in a process of so many threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", action="append", choices=FAMILIES, help="repeatable; both by default")
    parser.add_argument("--axis", action="append", choices=AXES, help="repeatable; all by default")
    parser.add_argument(
        "--variant", action="append", choices=(BASE, "hand-compiled", "ours-eager", "ours-compiled"), help="repeatable"
    )
    parser.add_argument("--largest", type=int, help="leave out larger sizes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", default="1", help="a number, or all")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="where to draw it, say benchmarks/scaling.png")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.family, args.axis = args.family or list(FAMILIES), args.axis or list(AXES)
    args.variant = args.variant or [BASE, "ours-eager", "ours-compiled"]
    if not args.worker:
        count = cores() if args.threads == "all" else int(args.threads)
        given = [f"--{key}={value}" for key in ("family", "axis", "variant") for value in getattr(args, key)]
        single = {key: getattr(args, key) for key in ("largest", "rounds", "steps", "json", "plot")}
        given += [f"--{key}={value}" for key, value in single.items() if value is not None]
        on_threads(count, "benchmarks.scaling", [*given, f"--worker={count}"])
        return
    torch.set_num_threads(args.worker)
    found = {"about": {**machine(), "threads": args.worker, "device": "cpu"}, "families": {}}
    for family in args.family:
        found["families"][family] = {}
        for axis in args.axis:
            sizes = [size for size in AXES[axis] if not args.largest or size <= args.largest]
            found["families"][family][axis] = sweep(family, axis, args.variant, args.rounds, args.steps, sizes)
            if args.json:  # whatever ends a long run, what was measured is kept
                args.json.write_text(json.dumps({"scaling": [found]}, indent=1) + "\n")
    print(scaling_table(found))
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    main()
