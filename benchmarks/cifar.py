"""CIFAR-10 by flows: test log-likelihood of SeRe-MAF, of its blocks without codes and of one MAF, by steps and seconds.

    python -m benchmarks.cifar sere-maf --epochs 1 2 5 10 --out runs --json sere-maf.json     # goes on where it stopped
    python -m benchmarks.cifar maf-blocks --images 5625 --epochs 1 2 --out runs --json small.json
    python -m benchmarks.cifar --pair sere-maf maf-blocks --epochs 1 2 5 10 --out runs        # differences, and errors
    python -m benchmarks.cifar --plot benchmarks/cifar.png FILE ...

The units are those of Papamakarios et al. 2017: one dequantization, the logit with lambda = 0.05, 45,000 images for
training, 5,000 for validation, the 10,000 of the test; log p(x) in nats a datum (of SeRe-MAF the bound, one draw), and
bits a dimension. An epoch is 450 steps of 100 images, however many images there are. One thread; seconds are those
that the processor spent on the training.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from guides import SelfReflective
from ppl_models import MAF, SeReMAF, data
from ppl_models.data.transforms import Logit
from ppl_models.inference import fit, terms
from ppl_models.inference.pyro.passes.checks import evaluating

from .timing import machine

MODELS = "sere-maf", "maf-blocks", "maf-cifar10"
STEPS = 450  # of 100 images: those of 45,000
HOW = {
    "batch_size": 100,
    "lr": 2e-4,
    "schedule": "constant",
    "weight_decay": 1e-6,
    "clip": 50.0,
    "ema": 0.99,
    "seed": 0,
}


def pair(name: str, x: torch.Tensor) -> tuple[nn.Module, nn.Module | None]:
    """Model and guide."""
    if name == "sere-maf":
        model = SeReMAF()
        return model, SelfReflective(model, x, hidden=512, encoder="shared")
    steps, blocks = (2, 5) if name == "maf-blocks" else (10, 1)
    return MAF((3, 32, 32), steps, hidden=1024, blocks=blocks), None


def bounds(model: nn.Module, guide: nn.Module | None, x: torch.Tensor) -> torch.Tensor:
    """log p(x) of each row, or a draw of its bound."""
    torch.manual_seed(0)
    return torch.cat([terms(model, guide, (rows,)).log_w.reshape(-1).double() for rows in x.split(500)])


def curve(name: str, epochs: list[int], images: int, out: Path, file: Path | None) -> None:
    """Train to each number of epochs that the file does not tell yet, evaluate there, and tell."""
    torch.set_num_threads(1)
    train, validation, test = data.load("cifar10", validation=True, transform=Logit(256, 0.05, seed=42))
    train = train[:images]
    torch.manual_seed(0)
    model, guide = pair(name, train[:3])
    found = {"name": name, "images": images, "about": {**machine(), "threads": 1}, "points": []}
    if file and file.exists():
        found = json.loads(file.read_text())
    for each in sorted(set(epochs) - {point["epochs"] for point in found["points"]}):
        folder, begun = out / f"{name}-{images}", time.process_time()
        run = fit(model, guide, train, steps=STEPS * each, every=150, folder=folder, resume=True, progress=False, **HOW)
        seconds = time.process_time() - begun + max((point["seconds"] for point in found["points"]), default=0.0)
        with torch.no_grad(), evaluating(model, guide):
            values = bounds(model, guide, test[:])
            valid = bounds(model, guide, validation[:]).mean().item()
        np.save(out / f"{name}-{images}-{each}.npy", values.numpy())
        mean, error = values.mean().item(), values.std().item() / len(values) ** 0.5
        point = {"epochs": each, "seconds": seconds, "elbo": mean, "error": error, "validation": valid}
        bits = test.bits_per_dim(-values, test[:]).mean().item()
        found["points"].append(point | {"bits": bits, "loss": run.history[-1]["loss"]})
        print(found["points"][-1], flush=True)
        if file:
            file.write_text(json.dumps(found, indent=1) + "\n")


def paired(names: list[str], epochs: list[int], images: int, out: Path) -> None:
    """Differences of the first of `names` from the others on the same test images, with their standard errors."""
    for each in epochs:
        first, *others = (np.load(out / f"{name}-{images}-{each}.npy") for name in names)
        for name, other in zip(names[1:], others, strict=True):
            gap = first - other
            print(f"{each:3} epochs  {names[0]} - {name}: {gap.mean():.1f} +- {gap.std(ddof=1) / len(gap) ** 0.5:.1f}")


def stopped(found: dict) -> dict:
    """The point at which early stopping would end: that of the best bound on the validation images."""
    return max(found["points"], key=lambda point: point["validation"])


def plot(files: list[Path], path: Path) -> None:
    """Log-likelihoods by steps and by seconds of all images; of fewer, where there are such, by their number."""
    found = [json.loads(file.read_text()) for file in files]
    of_all = max(each["images"] for each in found)
    fewer = [each for each in found if each["images"] < of_all]
    least = min((max(point["epochs"] for point in each["points"]) for each in fewer), default=0)
    figure = Figure((12, 3.8), layout="constrained")
    panels = figure.subplots(1, 3 if fewer else 2)
    for i, name in enumerate(MODELS):
        mine = sorted((each for each in found if each["name"] == name), key=lambda each: each["images"])
        style = {"color": f"C{i}", "marker": "os^"[i], "label": name}
        for each in (each for each in mine if each["images"] == of_all):
            values = [point["elbo"] for point in each["points"]]
            panels[0].plot([STEPS * point["epochs"] for point in each["points"]], values, **style)
            panels[1].plot([point["seconds"] for point in each["points"]], values, **style)
        if len({each["images"] for each in mine}) > 1:
            for each in mine:
                each["points"] = [point for point in each["points"] if point["epochs"] <= least]
            panels[2].plot([each["images"] for each in mine], [stopped(each)["elbo"] for each in mine], **style)
            sizes = sorted({each["images"] for each in found})
            panels[2].set(xscale="log", xlabel="images of training", title=f"{STEPS * least} steps at most")
            panels[2].set_xticks(sizes, [f"{size:,}" for size in sizes])
            panels[2].minorticks_off()
    panels[0].set(xlabel="steps of 100 images", ylabel="test log-likelihood, nats a datum", title="all images")
    panels[1].set(xlabel="seconds of training, one thread", title="all images")
    panels[0].legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Train and evaluate, or plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", help=f"one of {', '.join(MODELS)}; or the files to plot")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 5, 10])
    parser.add_argument("--images", type=int, default=45_000)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where the trainings are kept")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pair", action="store_true", help="differences of trainings of --out, image by image")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    if args.plot:
        plot([Path(file) for file in args.what], args.plot)
    elif args.pair and len(args.what) > 1:
        paired(args.what, args.epochs, args.images, args.out)
    elif args.what[0] in MODELS and len(args.what) == 1:
        curve(args.what[0], args.epochs, args.images, args.out, args.json)
    else:
        parser.error(f"found {' '.join(args.what)}, want one of {', '.join(MODELS)}")


if __name__ == "__main__":
    main()
