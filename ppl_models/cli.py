"""The command line: list, train, evaluate, sample, demo."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import pyro
import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import data as datasets
from .runs import Training, load_run, names
from .runs.build import configuration
from .runs.demo import COMPARISON, PARTICLES, STEPS, demo as run_demo
from .runs.pictures import picture_run, picture_samples
from .runs.training import evaluate_run, train as run_train

USUAL = Training()
N = {"min": 1, "metavar": "N", "rich_help_panel": "Training"}
X = {"min": 0, "metavar": "X", "rich_help_panel": "Training"}
EPOCHS = 25  # where neither epochs nor steps are given

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Deep generative models as Pyro programs, with swappable guides.\n\n"
    "Start with [bold]ppl-models demo[/], or [bold]ppl-models train sere-vae -g self-reflective --data digits[/].",
)
out = Console(highlight=False, soft_wrap=True)
opt = typer.Option

Debug = Annotated[bool, opt("--debug", help="Show the whole traceback of an error.")]
Device = Annotated[str, opt(metavar="NAME", help="Where to compute: cpu, cuda, cuda:1, mps.")]
Threads = Annotated[int | None, opt(min=1, metavar="N", help="CPU threads; torch's own choice by default.")]
Quiet = Annotated[bool, opt("--quiet", "-q", help="Print results alone: no progress, no advice.")]
Seed = Annotated[int, opt(min=0, metavar="N", help="Of weights, noise and shuffling.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)]


ADVICE = """\
ELBO (more is better) is what model and guide reach together. NLL (less is better) is what the model alone is worth,
nearly: a guide that asserts too much independence also holds the model back. Nats per test digit; the standard errors
are those over the digits, which all rows share."""


@app.callback()
def main() -> None:
    """Let import strings reach what lies in the current directory."""
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())


@app.command("list")
def list_(
    what: Annotated[Literal["models", "guides", "data", "all"], typer.Argument(help="What to list.")] = "all",
) -> None:
    """List models, guides and data sets, with formulas and sources.

    Example: [bold]ppl-models list guides[/]
    """
    for kind in ("model", "guide"):
        if what in (f"{kind}s", "all"):
            table = _table(f"{kind}s", "")
            for name, program in names.catalogue(kind).items():
                first, formula, source = names.told(program)
                lines = [(first, ""), (formula, "cyan"), (source, "dim")]
                table.add_row(Text(name, "bold"), Text("\n").join(Text(line, style) for line, style in lines if line))
            out.print(table)
    if what in ("data", "all"):
        table = _table("data", "")
        for name in datasets.names():
            table.add_row(Text(name, "bold"), datasets.describe(name).removeprefix(f"{name}: "))
        table.add_row(Text("folder:PATH", "bold"), "the images of a directory, cut square and resized")
        table.add_row(Text("FILE.npy, .npz", "bold"), "arrays (N, D), (N, H, W) or (N, H, W, C)")
        out.print(table)
    if what != "data":
        out.print("Yours go by an import string, mypkg.module:Name; the current directory is importable.", style="dim")


@app.command(no_args_is_help=True)
def train(
    model: Annotated[str, typer.Argument(help="A short name (`ppl-models list`) or mypkg.module:Name.")],
    guide: Annotated[
        list[str],
        opt(
            "-g",
            "--guide",
            metavar="NAME|KEY=VALUE",
            help="Name of the guide, and its sizes; repeatable.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str, opt(metavar="NAME", help="A data set (`ppl-models list data`), folder:PATH, or a .npy or .npz file.")
    ] = "digits",
    sizes: Annotated[
        list[str] | None,
        opt("-m", "--model", metavar="KEY=VALUE", help="A size of the model; repeatable.", show_default=False),
    ] = None,
    epochs: Annotated[float | None, opt(**X, help="How long.", show_default=str(EPOCHS))] = None,
    steps: Annotated[int | None, opt(**N, help="How long, instead of --epochs.", show_default=False)] = None,
    batch_size: Annotated[int, opt(**N, help="Rows a step.")] = USUAL.batch_size,
    lr: Annotated[float, opt(**X, help="Learning rate of AdamW.")] = USUAL.lr,
    schedule: Annotated[
        Literal["cosine", "constant"],
        opt(metavar="WORD", rich_help_panel="Training", help="Its course: cosine or constant."),
    ] = USUAL.schedule,
    warmup: Annotated[
        int | None,
        opt(
            **N | {"min": 0}, help="Steps in which divergences rise to their weight.", show_default="4000, at most 1/4"
        ),
    ] = USUAL.warmup,
    weight_decay: Annotated[float, opt(**X, help="Of AdamW.")] = USUAL.weight_decay,
    clip: Annotated[float, opt(**X, help="Bound on the norm of the gradient; 0 for none.")] = USUAL.clip,
    ema: Annotated[float, opt(**X, max=1, help="Decay of the average of weights; 0 for none.")] = USUAL.ema,
    particles: Annotated[int, opt(**N, help="Draws a step.")] = USUAL.particles,
    seed: Seed = 0,
    transform: Annotated[str, opt(metavar="WORD", help="default, binarize, dequantize, logit or none.")] = "default",
    image_size: Annotated[
        int | None, opt(min=1, metavar="N", help="Side of images of folder:PATH.", show_default="32")
    ] = None,
    validation: Annotated[bool, opt(help="Hold validation data out and record the bound on them.")] = False,
    folder: Annotated[
        Path | None, opt("--out", metavar="PATH", help="Folder of the run.", show_default="runs/NAMES_TIME")
    ] = None,
    evaluate: Annotated[
        int,
        opt(min=0, metavar="K", help="Importance samples of the evaluation on all test data afterwards; 0 for none."),
    ] = 100,
    threads: Threads = None,
    device: Device = "cpu",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a model with a guide on data, and write a run folder.

    -g takes the guide's name and its sizes, -m the model's sizes; event, likelihood and image shape follow the data.

    Example: [bold]ppl-models train sere-vae -g self-reflective --data mnist -m layers=10 -g hidden=200[/]
    """
    with _reported(debug):
        _threads(threads)
        pyro.clear_param_store()
        named, guide_sizes = names.parse(guide, "-g")
        extra, model_sizes = names.parse(sizes or (), "-m")
        if len(named) != 1:
            found = f"{len(named)} names ({', '.join(named)})" if named else "no name"
            raise ValueError(f"-g: found {found} of a guide, want one of {', '.join(names.catalogue('guide'))}")
        if extra:
            raise ValueError(f"-m {extra[0]!r}: want key=value, the model is {model!r} already")
        training = Training(
            EPOCHS if epochs is None and steps is None else epochs,
            *(steps, batch_size, lr, schedule, weight_decay, warmup, clip or None, ema or None, particles),
        )
        parts = datasets.load(data, validation=validation, transform=transform, size=image_size)
        pair = (model, model_sizes, named[0], guide_sizes)
        config = configuration(*pair, data, parts, training, seed, transform, validation, image_size)
        folder = folder or Path("runs") / names.stamped(model, named[0], data)
        if not quiet:
            rows = ", ".join(f"{count} {part}" for part, count in config["data"]["rows"].items())
            out.print(f"{model} with {named[0]} on {data} ({rows}), seed {seed}; to be written to {folder}")
        try:
            run = run_train(config, parts, folder, device, progress=not quiet)
        except BaseException:
            if (folder / "checkpoint.safetensors").is_file():
                out.print(f"the last checkpoint before the end is kept in {folder}")
            raise
        if evaluate:
            out.print(str(evaluate_run(run, parts[-1], evaluate, progress=not quiet)), markup=False)
        pyro.set_rng_seed(seed)
        for note in picture_run(run, parts[-1][:20].to(device)):
            out.print(note, markup=False, style="dim")
        out.print(Text.assemble("run  ", (str(folder), "bold")))
        if not quiet:
            out.print(f"next: ppl-models evaluate {folder} --particles 1000", style="dim")
            out.print(f"      ppl-models sample {folder} --n 100", style="dim")


@app.command(no_args_is_help=True)
def evaluate(
    folder: RunFolder,
    particles: Annotated[int, opt(min=1, help="Importance samples a datum.")] = 1000,
    data: Annotated[str | None, opt(help="Other data than it was trained on.", show_default=False)] = None,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "cpu",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Bound the log-likelihood of all test data under a trained run: ELBO, NLL, divergence of each layer.

    Writes evaluation.json in the run's folder (evaluation_NAME.json for other data).

    Example: [bold]ppl-models evaluate runs/mine --particles 1000[/]
    """
    with _reported(debug):
        _threads(threads)
        run = load_run(folder, device)
        test = run.load_data(data)[-1]
        out.print(str(evaluate_run(run, test, particles, seed, data, progress=not quiet)), markup=False)


@app.command(no_args_is_help=True)
def sample(
    folder: RunFolder,
    n: Annotated[int, opt("--n", "-n", min=1, help="How many images.")] = 64,
    draws: Annotated[bool, opt("--draws/--means", help="Draws of the likelihood, or its means.")] = False,
    file: Annotated[Path | None, opt("--out", help="The picture.", show_default="RUN/samples.png")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Draw images from the model of a trained run.

    Example: [bold]ppl-models sample runs/mine --n 100 --seed 1 --out samples.png[/]
    """
    with _reported(debug):
        run = load_run(folder, device)
        pyro.set_rng_seed(seed)
        out.print(str(picture_samples(run, n, file or folder / "samples.png", draws)), markup=False)


@app.command()
def demo(
    steps: Annotated[int | None, opt(min=1, help="Steps of each training.", show_default=str(STEPS))] = None,
    folder: Annotated[Path | None, opt("--out", help="Where to write.", show_default="runs/demo_TIME")] = None,
    seed: Seed = 0,
    threads: Threads = 1,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """One generative model, three guides: what the structure of inference is worth, in two minutes.

    Example: [bold]ppl-models demo[/]
    """
    with _reported(debug):
        _threads(threads)
        folder = folder or Path("runs") / names.stamped("demo")
        if not quiet:
            out.print("A SeRe-VAE on 8x8 digits, trained from the same weights with one guide after the other.")
        table = _table("guide", "ELBO", f"NLL (IWAE-{PARTICLES})", "KL", "seconds")
        for column in table.columns[1:]:
            column.justify = "right"

        def report(name: str, row: dict[str, float]) -> None:
            nll = f"{row['nll']:.2f} ± {row['nll_error']:.2f}"
            table.add_row(Text(name, "bold"), f"{row['elbo']:.2f}", nll, f"{row['kl']:.2f}", f"{row['seconds']:.0f}")
            if not quiet:
                out.print(f"{name}: ELBO {row['elbo']:.2f}, NLL {row['nll']:.2f} nats per test digit")

        run_demo(folder, steps, seed, not quiet, report)
        out.print(table)
        if not quiet:
            out.print(ADVICE, style="dim")
        out.print(Text.assemble("look at  ", (str(folder / COMPARISON), "bold")))
        out.print(f"then at  {folder}/*/samples.png, */reconstructions.png, */history.png")


@contextmanager
def _reported(debug: bool) -> Iterator[None]:
    """Turn an error into one red line and exit code 1; Ctrl-C into 130."""
    try:
        yield
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted", style="red")
        raise typer.Exit(130) from None
    except Exception as error:
        if debug or isinstance(error, typer.Exit):
            raise
        kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
        text = f"error: {kind}{' '.join(str(error).split()) or type(error).__name__}"
        Console(stderr=True, soft_wrap=True, highlight=False).print(Text(text, "red"))
        raise typer.Exit(1) from None


def _threads(threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i == 0)
    return table
