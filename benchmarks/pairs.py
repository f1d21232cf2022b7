"""A training step of every pair of the collection: Pyro, eager and compiled, and NumPyro, in turns.

    python -m benchmarks.pairs                                   # every model and guide, on one core
    python -m benchmarks.pairs --model vae --guide ladder --threads all --rounds 5
    python -m benchmarks.pairs --json pairs.json                 # and the table: python -m benchmarks.table pairs.json

Both sides run the same weights on the same rows: those of the port are carried over from the Pyro pair. A step draws
its noise, takes the gradient of the ELBO with divergences in closed form and updates with Adam; nobody clips or
averages. NumPyro's steps are those of `ppl_models.numpyro.fit`, all of a block in one call of the device. Ratios are
medians over the rounds of ratios within a round, to Pyro's eager step.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from ppl_models.inference import training_step
from ppl_models.inference.config import FitConfig
from ppl_models.runs.naming import names

from .table import pairs_table
from .timing import cores, in_turns, machine, on_threads, ratio, without_caches

LR, BATCH, PIXELS = 1e-3, 64, 784
SIZES = {
    "vae": {"event": PIXELS, "latent": 32, "hidden": 128},
    "vamp-vae": {"event": PIXELS, "latent": 16, "layers": 2, "hidden": 128, "components": 100},
    "dlgm": {"event": PIXELS, "latent": (16, 16, 16), "hidden": 128},
    "hierarchical-vae": {"event": PIXELS, "latent": (8, 16, 32), "hidden": 128},
    "biva": {"event": PIXELS, "latent": (8, 16, 32), "hidden": 128},
    "matnet": {"event": PIXELS, "latent": (16, 16, 16), "hidden": 128},
    "sere-vae": {"event": PIXELS, "layers": 4, "latent": 10, "hidden": 128},
    "linear-gaussian": {"event": 32, "latent": (8, 8, 8)},
    "pixel-vae": {"event": (1, 28, 28), "latent": 10, "hidden": 16, "depth": 4},
    "hierarchical-pixel-vae": {"event": (1, 28, 28), "latent": (10, 4), "hidden": 16},
    "sere-maf": {"event": PIXELS, "layers": 4, "latent": 10, "hidden": 128},
    "sequential-vae": {"event": PIXELS, "steps": 4, "latent": 8, "hidden": 128},
    "draw": {"event": PIXELS, "steps": 4, "latent": 8, "hidden": 128},
    "infusion": {"event": PIXELS, "steps": 4, "hidden": 128},
}
WIDTH = 128  # of the guides' networks


def build(model: str, guide: str) -> tuple:
    """((model, guide), rows) in Pyro; the same for the same names."""
    torch.manual_seed(0)
    event = SIZES[model]["event"]
    width = prod(event) if isinstance(event, tuple) else event
    x = torch.randn(BATCH, width) if model == "linear-gaussian" else torch.bernoulli(torch.rand(BATCH, width))
    program = names.catalogue("model")[model](**SIZES[model])
    sizes = {} if guide == "infused" else {"hidden": WIDTH}
    return (program, names.catalogue("guide")[guide](program, x[:3], **sizes)), x


def pyro_steps(model: str, guide: str, compile: bool) -> Callable[[int], None]:
    """So many steps of the Pyro pair."""
    pair, x = build(model, guide)
    step = training_step(*pair, (x,), compile=compile, lr=LR)

    def run(steps: int) -> None:
        for _ in range(steps):
            step(x)
        for note in step.notes:  # it fell back, and would be timed for what it is not
            raise NotImplementedError(note)

    return run


def numpyro_steps(model: str, guide: str) -> Callable[[int], None]:
    """So many steps of the ports, with the Pyro pair's weights."""
    import jax
    import numpyro

    from ppl_models.inference.numpyro.engine.parameters import find
    from ppl_models.inference.numpyro.engine.step import Blocks, Step, begun
    from ppl_models.inference.numpyro.feeding.batches import Order, columns_of
    from ppl_models.inference.objectives.bounds import elbo
    from ppl_models.numpyro import like_torch

    numpyro.enable_validation(False)
    (first, second), x = build(model, guide)
    rows, keys = x.numpy(), jax.random.split(jax.random.key(0), 4)
    program = like_torch(names.catalogue("model", "numpyro")[model](**SIZES[model], key=keys[0]), first)
    sizes = {} if guide == "infused" else {"hidden": WIDTH}
    port = names.catalogue("guide", "numpyro")[guide](program, rows[:3], **sizes, key=keys[1])
    port = like_torch(port, second)
    config = FitConfig(
        objective=elbo, steps=10**6, batch_size=BATCH, lr=LR, schedule="constant", weight_decay=0.0, clip=None, ema=None
    )
    free, parameters, _ = find(program, port, (rows,), keys[2])
    step = Step(program, port, parameters, columns_of(rows, "rows"), config, keys[3])
    blocks, state, done = Blocks(step, Order(BATCH, BATCH, 0), config.steps), begun(free, False), 0

    def run(steps: int) -> None:
        nonlocal state, done
        state, _ = blocks(state, done, steps)
        done += steps
        jax.block_until_ready(state)

    return run


VARIANTS = {
    "ours-eager": lambda model, guide: pyro_steps(model, guide, compile=False),
    "ours-compiled": lambda model, guide: pyro_steps(model, guide, compile=True),
    "numpyro-port": numpyro_steps,
}


def measure(model: str, guide: str, rounds: int, steps: int) -> dict:
    """variant -> ms, ratio to Pyro's eager step and seconds of set-up, or a note."""
    runs, rows = {}, {}
    for name, variant in VARIANTS.items():
        start = perf_counter()
        try:
            runs[name] = variant(model, guide)
            runs[name](steps)
        except (NotImplementedError, ValueError) as error:
            runs.pop(name, None)
            rows[name] = {"note": " ".join(str(error).split())}
            continue
        rows[name] = {"setup_s": perf_counter() - start}
    times = in_turns({name: lambda run=run: run(steps) for name, run in runs.items()}, rounds)
    for name, seconds in times.items():
        rows[name]["ms"] = 1e3 * median(seconds) / steps
        if "ours-eager" in times:
            rows[name]["ratio"] = ratio(seconds, times["ours-eager"])
    return rows


def options() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=SIZES, help="repeatable; all by default")
    parser.add_argument("--guide", action="append", choices=names.catalogue("guide"), help="repeatable; all by default")
    parser.add_argument("--threads", default="1", help="a number, or all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20, help="steps of a block")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # this process is confined to so many cores
    return parser


def main() -> None:
    """Measure in a process confined to its cores, pair by pair."""
    args = options().parse_args()
    models, guides = args.model or list(SIZES), args.guide or list(names.catalogue("guide"))
    if args.worker is None:
        threads = cores() if args.threads == "all" else int(args.threads)
        words = [f"--model={name}" for name in models] + [f"--guide={name}" for name in guides]
        words += [f"--rounds={args.rounds}", f"--steps={args.steps}", f"--worker={threads}"]
        with tempfile.TemporaryDirectory() as folder:
            words += [f"--json={args.json.absolute()}"] if args.json else []
            on_threads(threads, "benchmarks.pairs", words, without_caches(folder))
        return
    torch.set_num_threads(args.worker)
    about = {**machine(), "threads": args.worker, "device": "cpu", "rounds": args.rounds, "steps": args.steps}
    found: dict[str, dict] = {}
    for model in models:
        for guide in guides:
            found.setdefault(model, {})[guide] = measure(model, guide, args.rounds, args.steps)
            print(pairs_table({"about": about, "pairs": {model: {guide: found[model][guide]}}}), flush=True)
            if args.json:
                args.json.write_text(json.dumps({"pairs": [{"about": about, "pairs": found}]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
