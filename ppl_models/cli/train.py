"""`ppl-models train`: train a pair into a run folder, or go on with one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppl_models.inference.storage.checkpoint_file import CHECKPOINT
from ppl_models.runs.naming import names

from . import completion
from .app import (
    DataName,
    Debug,
    Device,
    ModelName,
    ModelSizes,
    Quiet,
    Seed,
    Threads,
    Trust,
    app,
    count,
    opt,
    out,
    reported,
    say,
    say_path,
    set_threads,
    trust_typed,
)
from .asked import ANEW, given, inherited, refuse, shortness, typed
from .training_options import ImageSize, PairBackend, Transform, Validation, WithPage, with_training

EVALUATION = "evaluation.json"

if TYPE_CHECKING:
    from ppl_models.data import Data, Table
    from ppl_models.inference.pyro.feeding.distributed import Group
    from ppl_models.runs import LoadedRun
    from ppl_models.runs.folders.continuing import Standing


@app.command(no_args_is_help=True)
@with_training
def train(
    ctx: typer.Context,
    model: ModelName = None,
    guide: Annotated[
        list[str] | None,
        opt(
            "-g",
            "--guide",
            metavar="NAME|KEY=VALUE",
            help="Name of the guide, and its sizes; repeatable.",
            autocompletion=completion.guides,
        ),
    ] = None,
    refine: Annotated[
        str | None,
        opt(
            metavar="WORD",
            help="Let the guide's draws go on by Hamiltonian steps, trained with it: dais or hvi, dais:steps=8.",
            show_default="as they are",
        ),
    ] = None,
    data: DataName = "digits",
    sizes: ModelSizes = None,
    backend: PairBackend = "pyro",
    seed: Seed = 0,
    transform: Transform = "default",
    image_size: ImageSize = None,
    validation: Validation = False,
    folder: Annotated[
        Path | None, opt("--out", metavar="PATH", help="Folder of the run.", show_default="runs/NAMES_TIME")
    ] = None,
    resume: Annotated[
        Path | None,
        opt(metavar="RUN", help="Go on with the run in this folder instead, as it was started; or to --steps in all."),
    ] = None,
    weights: Annotated[
        str | None,
        opt(metavar="RUN", help="Begin with the weights of this run: a new run, of its pair. hf://owner/name will do."),
    ] = None,
    evaluate: Annotated[
        int,
        count(
            min=0,
            metavar="K",
            help="Importance samples of the evaluation on all test data afterwards; 0 for none.",
        ),
    ] = 100,
    report: WithPage = True,
    trust: Trust = None,
    threads: Threads = None,
    device: Device = "cpu",
    quiet: Quiet = False,
    debug: Debug = False,
    **training: Any,
) -> None:
    """Train a model with a guide on data, and write a run folder.

    -g takes the guide's name and its sizes, -m the model's sizes; event, likelihood and image shape follow the data.
    A model without latents takes no guide: [bold]ppl-models train maf --transform logit[/]

    A run that was stopped or killed goes on with --resume from its last checkpoint, with its own threads, to the
    same end bit for bit (on a CPU of the same kind, with the same versions). With more --steps it goes on for longer,
    where its --schedule is constant; a learning rate that falls to zero has a fixed end.

    With --weights a new run begins with the weights of another one: its model and guide, and where you say nothing else
    its data and options: [bold]ppl-models train --weights runs/mine --lr 1e-4 --steps 1000[/]

    On several CPUs or GPUs: torchrun --nproc-per-node N -m ppl_models train ... With --max-restarts it goes on by
    itself with the run in --out.

    With --backend numpyro the ports are trained, by one process; either backend evaluates what the other has trained.

    Example: [bold]ppl-models train sere-vae -g self-reflective --data mnist -m layers=10 -g hidden=200[/]
    """
    import pyro

    from ppl_models.inference.pyro.feeding import distributed
    from ppl_models.runs.folders.configuration import configuration, load_for
    from ppl_models.runs.folders.continuing import standing
    from ppl_models.runs.folders.folder import opened
    from ppl_models.runs.training import resume as run_resume, train as run_train

    with reported(debug):
        pyro.clear_param_store()
        group = distributed.current(device)
        if group is not None and not group.is_main:
            quiet, out.quiet = True, True
        trust_typed(trust)
        words, before = given(ctx), None
        if resume is not None:
            refuse("--resume", resume, [word for name, word in words.items() if name not in ANEW])
            config, folder, parts = opened(resume), resume, None
            how_long = {name: training[name] for name in ("steps", "epochs") if name in words}
            before = standing(resume)
            if not how_long and before is not None and before.over:
                distributed.shut_down()
                if group is None or group.is_main:
                    complete(resume, config, before, evaluate, report, device, quiet)
                return
            begin = partial(run_resume, resume, threads=threads, **how_long)
            told = f"going on with {resume}"
            if not quiet:
                say_path(config)
        else:
            how = {"data": data, "transform": transform, "validation": validation, "image_size": image_size}
            how |= {"seed": seed, "backend": backend, "refine": refine}
            if weights is not None:
                asked = inherited(weights, words, training, **how)
            else:
                asked = typed(model, guide, sizes, training, **how)
            set_threads(threads, asked["backend"])
            named = [chosen[0] for chosen in names.programs_of(asked).values()]
            how = {"validation": asked["validation"], "transform": asked["transform"], "size": asked["image_size"]}
            parts = load_for(named[0], asked["backend"], asked["data"], **how)
            config = configuration(**asked, parts=parts, processes=1 if group is None else group.world)
            folder = folder or Path("runs") / names.stamped(*named, asked["data"])
            begin = partial(run_train, config, parts, folder)
            rows = ", ".join(f"{count} {part}" for part, count in config["data"]["rows"].items())
            first = "" if weights is None else f", from the weights of {weights}"
            pair = " with ".join(named)
            told = f"{pair} on {asked['data']} ({rows}), seed {asked['seed']}{first}; to be written to {folder}"
        if not quiet:
            say(told)
            if resume is None and (advice := shortness(words, config)):
                say(advice, style="dim")
        with kept(folder, group, config):
            run = begin(device=device, progress=not quiet)
        distributed.shut_down()  # the others are done: what follows is rank 0's
        if before is not None and before == standing(folder):  # of version 0.1, which did not say what it was to have
            complete(folder, config, before, evaluate, report, device, quiet)
        elif group is None or group.is_main:
            finish(run, (parts or run.load_data())[-1], evaluate, report, quiet)


@contextmanager
def kept(folder: Path, group: "Group | None", config: Mapping[str, Any]) -> Iterator[None]:
    """Say of a training that ends early, but has saved something, how to go on."""
    from ppl_models.runs.folders.configuration import command

    path = folder / CHECKPOINT
    before = path.stat().st_mtime_ns if path.is_file() else None
    try:
        yield
    except BaseException:
        if path.is_file() and path.stat().st_mtime_ns != before:
            world = 1 if group is None else group.world
            words = command("train", "--resume", folder, config=config, processes=world)
            say(f"the last checkpoint before the end is kept in {folder}")
            say(f"go on from it with: {words}", style="dim")
        raise


def complete(
    folder: Path, config: Mapping[str, Any], at: "Standing", particles: int, report: bool, device: str, quiet: bool
) -> None:
    """Make what is not there yet of a run that is finished, and say how it could go on."""
    from ppl_models.runs.folders.configuration import command
    from ppl_models.runs.folders.continuing import anew, is_bound
    from ppl_models.runs.folders.folder import load_run
    from ppl_models.runs.pages.pictures import missing_pictures
    from ppl_models.runs.pages.write import PAGE

    say(f"the run in {folder} is finished: {at.step} steps; nothing was trained, and nothing is overwritten")
    particles = 0 if (folder / EVALUATION).exists() else particles
    report = report and not (folder / PAGE).exists()
    if particles or report or missing_pictures(folder, config):
        run = load_run(folder, device)
        if not quiet:
            say_path(config)
        finish(run, run.load_data()[-1], particles, report, quiet, again=False)
    if not quiet and is_bound(config):
        say("its learning rate fell to zero at its end, which is fixed; a new run with its weights:", style="dim")
        say(f"      {anew(folder, config)}", style="dim")
    elif not quiet:
        words = "train", "--resume", folder, "--steps", "N"
        say(f"for longer: {command(*words, config=config, processes=at.processes)}", style="dim")


def finish(
    run: "LoadedRun", test: "Data | Table", particles: int, report: bool, quiet: bool, again: bool = True
) -> None:
    """Evaluate and picture a run that is trained, and say what could come next; not again what is there already."""
    import pyro

    from ppl_models.runs.evaluating import evaluate_run
    from ppl_models.runs.folders.configuration import command
    from ppl_models.runs.pages.pictures import picture_run
    from ppl_models.runs.pages.write import PATIENCE, write_page

    if particles:
        say(str(evaluate_run(run, test, particles, progress=not quiet)))
    pyro.set_rng_seed(run.config["seed"])
    for note in picture_run(run, test[:20], again):
        say(note, style="dim")
    say("run  ", (str(run.folder), "bold"))
    if report:
        say(f"page {write_page([run], test=test, patience=PATIENCE)}")
    if not quiet:
        say(f"next: {command('evaluate', run.folder, '--particles', 1000, config=run.config)}", style="dim")
        say(f"      {command('sample', run.folder, '--n', 100, config=run.config)}", style="dim")
