"""Cost of the systems of the self-reflective paper: weights, a step of training, samples, importance-weighted bounds.

    python -m benchmarks.cost sere-vae sere-iaf iaf pixel-vae --json ppl_models/recipes/costs/images-28.json
    python -m benchmarks.cost sere-maf maf --rounds 1 --json ppl_models/recipes/costs/cifar10.json
    python -m benchmarks.cost pixel-vae --eager --rounds 1

Each at the sizes of its recipe, random binary images of 28 x 28 or random numbers of 32 x 32 x 3, weights as they are
drawn, on one thread:

* weights: parameters of model and guide, in millions;
* ms a training step: a batch of 128, compiled by XLA (with --eager: not), AdamW, neither clipped nor averaged;
* seconds for 1000 samples by `ancestral`;
* seconds for the bound of 1000 images by 1000 importance samples, by `evaluate`; of a density without latents its exact
  likelihood.

Samples and bounds are taken of fewer images and scaled, in proportion; `samples` and `images` say of how many. Passes
of an evaluation run as they are: of 1000 images `evaluate` would compile them, which saves a third or so. The clock is
the processor's time of this process, so that what else the machine does is mostly left out; medians of the rounds.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time

import torch
from torch import Tensor, nn

from guides import MeanField, SelfReflective
from ppl_models import MAF, VAE, PixelVAE, SeReMAF, SeReVAE
from ppl_models.inference import ancestral, evaluate, training_step
from ppl_models.runs.recipes import costs, results

from .timing import in_turns, machine, on_threads

IMAGE, COLOUR, BATCH, WANTED, PARTICLES = (1, 28, 28), (3, 32, 32), 128, 1000, 1000
Pair = tuple[nn.Module, nn.Module | None]


@dataclass(frozen=True)
class System:
    """A pair of a row.

    Attributes:
        about: sizes, for the table.
        pair: (model, guide), made for example rows.
        samples, images: how many of each are timed, to be scaled to 1000; no samples where they would take an hour.
        binary: whether images are binary ones of 28 x 28; else real ones in colour.
    """

    about: str
    pair: Callable[[Tensor], Pair]
    samples: int = WANTED
    images: int = 20
    binary: bool = True

    def rows(self, count: int) -> Tensor:
        """Random images."""
        torch.manual_seed(1)
        shape = (count, 784) if self.binary else (count, 3072)
        return torch.bernoulli(torch.full(shape, 0.5)) if self.binary else torch.randn(shape)


def sere_vae(x: Tensor, family: str = "diagonal", prior: str = "learned") -> Pair:
    """10 layers of 10 latents, an encoder a layer as in the paper."""
    model = SeReVAE(784, layers=10, latent=10, hidden=256, prior=prior)
    return model, SelfReflective(model, x, hidden=256, family=family)


def iaf(x: Tensor) -> Pair:
    """A VAE with an inverse autoregressive posterior."""
    model = VAE(784, latent=100, hidden=512)
    return model, MeanField(model, x, hidden=512, family="iaf:steps=2,hidden=320,depth=2")


def pixel_vae(x: Tensor) -> Pair:
    """A code for a decoder that draws pixel by pixel."""
    model = PixelVAE(IMAGE, latent=16, hidden=16, depth=12, radius=2)
    return model, MeanField(model, x, encoder="conv", image=IMAGE)


def sere_maf(x: Tensor) -> Pair:
    """Five blocks of a flow, tied by codes."""
    model = SeReMAF(COLOUR)
    return model, SelfReflective(model, x, hidden=512, encoder="shared")


SYSTEMS = {
    "sere-vae": System("10 layers of 10 latents, width 256", sere_vae),
    "sere-iaf": System("the same, two IAF steps a layer", lambda x: sere_vae(x, "iaf:steps=2,hidden=100", "standard")),
    "iaf": System("VAE of 100 latents, width 512, two IAF steps", iaf),
    "pixel-vae": System("16 latents, 12 masked layers of 16 maps", pixel_vae, samples=100, images=1),
    "sere-maf": System("CIFAR-10: 5 blocks of 2 networks, 40 latents each", sere_maf, 64, 1, False),
    "maf": System("CIFAR-10: 10 networks of width 1024", lambda x: (MAF(COLOUR, 10, 1024), None), 0, 100, False),
}


def measure(name: str, rounds: int, steps: int, compile: str | bool = "xla") -> dict:
    """A row of the table: medians over the rounds."""
    system = SYSTEMS[name]
    torch.manual_seed(0)
    x = system.rows(BATCH)
    model, guide = system.pair(x[:3])
    found: dict = {"about": system.about, "samples": system.samples, "images": system.images}
    for kind, program in (("model", model), ("guide", guide)):
        found[f"{kind}_weights"] = 0 if program is None else sum(p.numel() for p in program.parameters())
    test = system.rows(system.images)
    particles = PARTICLES if guide is not None else 1

    def bound() -> None:
        evaluate(model, guide, test, particles=particles, progress=False)

    work = {"samples_s": lambda: ancestral(model, test[:1].expand(system.samples, -1)), "bound_s": bound}
    if not system.samples:
        del work["samples_s"]
    times = in_turns(work, rounds, warm=1 if system.binary else 0, clock=process_time)
    found["samples_s"] = median(times["samples_s"]) * WANTED / system.samples if system.samples else None
    found["bound_s"] = median(times["bound_s"]) * WANTED / system.images
    begun = process_time()
    step = training_step(model, guide, (x,), compile=compile)
    float(step(x))
    found["setup_s"] = process_time() - begun

    def several() -> None:
        for _ in range(steps):
            told = step(x)
        float(told)

    found["step_ms"] = 1e3 * median(in_turns({"step": several}, rounds, clock=process_time)["step"]) / steps
    found["notes"] = list(step.notes)
    return found


def table(rows: dict[str, dict]) -> str:
    """The rows as the README has them."""
    return results.table(costs.HEADINGS, *(costs.cells(name, row) for name, row in rows.items()))


def main() -> None:
    """Measure each system in a process of its own, confined to one core; rows of a file that are not asked for stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=f"all by default: {', '.join(SYSTEMS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="of a block that is timed")
    parser.add_argument("--eager", action="store_true", help="steps as they are, not compiled")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if wrong := [name for name in args.systems if name not in SYSTEMS]:
        parser.error(f"found {wrong[0]}, want some of {', '.join(SYSTEMS)}")
    if not args.worker:
        for name in args.systems or SYSTEMS:
            words = [name, f"--rounds={args.rounds}", f"--steps={args.steps}", "--worker", *["--eager"] * args.eager]
            on_threads(1, "benchmarks.cost", words + ([f"--json={args.json.absolute()}"] if args.json else []))
        if args.json:
            print(table(json.loads(args.json.read_text())["systems"]))
        return
    torch.set_num_threads(1)
    (name,) = args.systems
    row = measure(name, args.rounds, args.steps, False if args.eager else "xla")
    print(table({name: row}), flush=True)
    if args.json:
        clock = {
            "clock": "process time",
            "compile": "eager" if args.eager else "xla",
            "threads": 1,
            "rounds": args.rounds,
            "steps": args.steps,
            "batch": BATCH,
        }
        found = json.loads(args.json.read_text()) if args.json.is_file() else {"about": {}, "systems": {}}
        found["about"] = {**machine(), **clock, "particles": PARTICLES}
        systems = {**found["systems"], name: row}
        found["systems"] = {each: systems[each] for each in SYSTEMS if each in systems}
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
