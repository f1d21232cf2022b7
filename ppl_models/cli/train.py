"""ppl-models train."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import pyro
import typer
from rich.text import Text

from ppl_models import data as datasets
from ppl_models.inference.checkpoint_file import CHECKPOINT
from ppl_models.inference.pyro.feeding import distributed
from ppl_models.inference.pyro.feeding.distributed import Group
from ppl_models.runs import LoadedRun, Training, names
from ppl_models.runs.backends import backend_of
from ppl_models.runs.configuration import configuration, launcher
from ppl_models.runs.folder import read_config
from ppl_models.runs.pictures import picture_run
from ppl_models.runs.training import evaluate_run, resume as run_resume, train as run_train

from .app import (
    Backend,
    DataName,
    Debug,
    Device,
    ModelSizes,
    Quiet,
    Seed,
    Threads,
    app,
    opt,
    out,
    reported,
    set_threads,
)

USUAL = Training()
N = {"min": 1, "metavar": "N", "rich_help_panel": "Training"}
X = {"min": 0, "metavar": "X", "rich_help_panel": "Training"}
EPOCHS = 25  # where neither epochs nor steps are given
ANEW = {"resume", "evaluate", "threads", "device", "quiet", "debug"}  # what a resumed run is not told by its folder


@app.command(no_args_is_help=True)
def train(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(help="A short name (`ppl-models list`) or mypkg.module:Name.", show_default=False),
    ] = None,
    guide: Annotated[
        list[str] | None,
        opt(
            "-g",
            "--guide",
            metavar="NAME|KEY=VALUE",
            help="Name of the guide, and its sizes; repeatable.",
            show_default=False,
        ),
    ] = None,
    data: DataName = "digits",
    sizes: ModelSizes = None,
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
    objective: Annotated[
        str,
        opt(
            metavar="WORD[:KEY=VALUE,...]",
            rich_help_panel="Training",
            help="What is maximized: elbo, free-bits, soft-free-bits, adaptive-free-bits, importance-weighted, "
            "unregularized, info-vae or moment-matching, with options: info-vae:alpha=1,lambda=100,kernel=imq.",
        ),
    ] = USUAL.objective,
    beta: Annotated[float, opt(**X, help="Weight of the divergences after the warm-up.")] = USUAL.beta,
    weight_decay: Annotated[float, opt(**X, help="Of AdamW.")] = USUAL.weight_decay,
    clip: Annotated[float, opt(**X, help="Bound on the norm of the gradient; 0 for none.")] = USUAL.clip,
    ema: Annotated[float, opt(**X, max=1, help="Decay of the average of weights; 0 for none.")] = USUAL.ema,
    particles: Annotated[int, opt(**N, help="Draws a step.")] = USUAL.particles,
    accumulate: Annotated[int, opt(**N, help="Batches a step, whose gradients are averaged.")] = USUAL.accumulate,
    skip: Annotated[
        float | None, opt(**X, help="Leave steps out whose gradient has a larger norm.", show_default="none")
    ] = USUAL.skip,
    precision: Annotated[
        Literal["float32", "bfloat16"],
        opt(metavar="WORD", rich_help_panel="Training", help="Of matrix products: float32 or bfloat16."),
    ] = USUAL.precision,
    compile: Annotated[
        bool | None,
        opt(
            "--compile/--no-compile",
            rich_help_panel="Training",
            help="Capture the step once and replay it compiled.",
            show_default="where it pays",
        ),
    ] = None,
    every: Annotated[int | None, opt(**N, help="Steps between records.", show_default="an epoch")] = USUAL.every,
    workers: Annotated[int, opt(**N | {"min": 0}, help="Processes that make batches; 0 for none.")] = USUAL.workers,
    patience: Annotated[
        int | None,
        opt(**N, help="Stop after so many records without a better bound on --validation.", show_default="never"),
    ] = USUAL.patience,
    tensorboard: Annotated[
        bool, opt("--tensorboard", rich_help_panel="Training", help="Write curves to RUN/tensorboard.")
    ] = USUAL.tensorboard,
    backend: Annotated[Backend, opt(help="Language of the pair: the collection's, or its NumPyro ports.")] = "pyro",
    seed: Seed = 0,
    transform: Annotated[str, opt(metavar="WORD", help="default, binarize, dequantize, logit or none.")] = "default",
    image_size: Annotated[
        int | None, opt(min=1, metavar="N", help="Side of images of folder:PATH.", show_default="32")
    ] = None,
    validation: Annotated[bool, opt(help="Hold validation data out and record the bound on them.")] = False,
    folder: Annotated[
        Path | None, opt("--out", metavar="PATH", help="Folder of the run.", show_default="runs/NAMES_TIME")
    ] = None,
    resume: Annotated[
        Path | None,
        opt(metavar="RUN", help="Go on with the run in this folder instead, as it was started.", show_default=False),
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

    A run that was stopped or killed goes on with --resume from its last checkpoint, to the same end bit for bit (CPU).

    On several CPUs or GPUs: torchrun --nproc-per-node N -m ppl_models train ... With --max-restarts it goes on by
    itself with the run in --out.

    With --backend numpyro the ports are trained, by one process; either backend evaluates what the other has trained.

    Example: [bold]ppl-models train sere-vae -g self-reflective --data mnist -m layers=10 -g hidden=200[/]
    """
    with reported(debug):
        pyro.clear_param_store()
        group = distributed.current(device)
        if group is not None and not group.is_main:
            quiet, out.quiet = True, True
        if resume is not None:
            if others := others_given(ctx):
                raise ValueError(f"--resume: found {', '.join(others)} too, but {resume} says it all; leave it out")
            set_threads(threads, backend_of(read_config(resume)))
            if not quiet:
                out.print(f"going on with {resume}")
            with kept(resume, group):
                run = run_resume(resume, device, progress=not quiet)
            distributed.shut_down()  # the others are done: what follows is rank 0's
            if group is None or group.is_main:
                finish(run, run.load_data()[-1], run.config["seed"], evaluate, quiet)
            return
        set_threads(threads, backend)
        if model is None:
            raise ValueError("train: found neither a MODEL nor --resume RUN, want one of them; try ppl-models list")
        named, guide_sizes = names.parse(guide or (), "-g")
        extra, model_sizes = names.parse(sizes or (), "-m")
        if len(named) != 1:
            found = f"{len(named)} names ({', '.join(named)})" if named else "no name"
            raise ValueError(
                f"-g: found {found} of a guide, want one of {', '.join(names.catalogue('guide', backend))}"
            )
        if extra:
            raise ValueError(f"-m {extra[0]!r}: want key=value, the model is {model!r} already")
        training = Training(
            epochs=EPOCHS if epochs is None and steps is None else epochs,
            steps=steps,
            batch_size=batch_size,
            lr=lr,
            schedule=schedule,
            weight_decay=weight_decay,
            warmup=warmup,
            clip=clip or None,
            ema=ema or None,
            particles=particles,
            accumulate=accumulate,
            skip=skip,
            precision=precision,
            compile="auto" if compile is None else compile,
            workers=workers,
            patience=patience,
            tensorboard=tensorboard,
            objective=objective,
            beta=beta,
            every=every,
        )
        parts = datasets.load(data, validation=validation, transform=transform, size=image_size)
        config = configuration(
            model=(model, model_sizes),
            guide=(named[0], guide_sizes),
            data=data,
            parts=parts,
            training=training,
            seed=seed,
            transform=transform,
            validation=validation,
            image_size=image_size,
            processes=1 if group is None else group.world,
            backend=backend,
        )
        folder = folder or Path("runs") / names.stamped(model, named[0], data)
        if not quiet:
            rows = ", ".join(f"{count} {part}" for part, count in config["data"]["rows"].items())
            out.print(f"{model} with {named[0]} on {data} ({rows}), seed {seed}; to be written to {folder}")
        with kept(folder, group):
            run = run_train(config, parts, folder, device, progress=not quiet)
        distributed.shut_down()  # the others are done: what follows is rank 0's
        if group is None or group.is_main:
            finish(run, parts[-1], seed, evaluate, quiet)


@contextmanager
def kept(folder: Path, group: Group | None) -> Iterator[None]:
    """Say of a training that ends early, but has saved something, how to go on."""
    path = folder / CHECKPOINT
    before = path.stat().st_mtime_ns if path.is_file() else None
    try:
        yield
    except BaseException:
        if path.is_file() and path.stat().st_mtime_ns != before:
            words = shlex.join([*launcher(1 if group is None else group.world), "train", "--resume", str(folder)])
            out.print(f"the last checkpoint before the end is kept in {folder}", markup=False)
            out.print(f"go on from it with: {words}", markup=False, style="dim")
        raise


def others_given(ctx: typer.Context) -> list[str]:
    """What the command line has that a resumed run takes from its folder, as it is written there."""
    sources = {p: ctx.get_parameter_source(p.name) for p in ctx.command.params if p.name not in ANEW}
    given = [p for p, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    return [p.opts[0] if p.param_type_name == "option" else p.name.upper() for p in given]


def finish(run: LoadedRun, test: datasets.Data, seed: int, particles: int, quiet: bool) -> None:
    """Evaluate and picture a run that is trained, and say what could come next."""
    if particles:
        out.print(str(evaluate_run(run, test, particles, progress=not quiet)), markup=False)
    pyro.set_rng_seed(seed)
    for note in picture_run(run, test[:20]):
        out.print(note, markup=False, style="dim")
    out.print(Text.assemble("run  ", (str(run.folder), "bold")))
    if not quiet:
        out.print(f"next: ppl-models evaluate {run.folder} --particles 1000", style="dim")
        out.print(f"      ppl-models sample {run.folder} --n 100", style="dim")
