"""`ppl-models train`: train a pair into a run folder, or go on with one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, fields
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppl_models.inference.checkpoint_file import CHECKPOINT
from ppl_models.runs import names
from ppl_models.runs.options import EPOCHS, Training, kinds_of, zero_is_none

from .app import (
    Backend,
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

if TYPE_CHECKING:
    from ppl_models.data import Data, Table
    from ppl_models.inference.pyro.feeding.distributed import Group
    from ppl_models.runs import LoadedRun

# what a resumed run is not told by its folder
ANEW = {"resume", "evaluate", "trust", "threads", "device", "quiet", "debug"}


def option_of(each: Field) -> Parameter:
    """The option of a command line for one of a training."""
    dashed, kinds, default = each.name.replace("_", "-"), kinds_of(each), each.default
    kind = next(known for known in (bool, int, float, str) if known in kinds)
    if {float, str} <= {*kinds}:  # a number or a word: `training_of` tells them apart
        kind, default = str, str(default)
    words = f"--{dashed}/--no-{dashed}" if kind is bool and default is not False else f"--{dashed}"
    text = each.metadata["help"].replace("None", "0" if zero_is_none(each) else "by default")
    told = {"metavar": {int: "N", float: "X", str: "WORD"}.get(kind), "help": f"{text[0].upper()}{text[1:]}."}
    annotation = Annotated[kind | None, opt(words, rich_help_panel="Training", **told)]
    return Parameter(
        each.name, Parameter.KEYWORD_ONLY, default=default if type(default) is kind else None, annotation=annotation
    )


def with_training(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Training`, which it takes as keywords."""
    own = signature(command)
    given = [each for each in own.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
    command.__signature__ = own.replace(parameters=given + [option_of(each) for each in fields(Training)])
    return command


def training_of(chosen: Mapping[str, Any]) -> Training:
    """The options that a command line was given; None is for those that it left open."""
    found = {name: value for name, value in chosen.items() if value is not None}
    for each in fields(Training):
        if {float, str} <= {*kinds_of(each)} and each.name in found:
            found[each.name] = _number(found[each.name])
    found |= {each.name: None for each in fields(Training) if zero_is_none(each) and found[each.name] == 0}
    return Training(**{} if found.keys() & {"epochs", "steps"} else {"epochs": EPOCHS}, **found)


def _number(word: str) -> float | str:
    """A number where a word is one."""
    try:
        return float(word)
    except ValueError:
        return word


@app.command(no_args_is_help=True)
@with_training
def train(
    ctx: typer.Context,
    model: ModelName = None,
    guide: Annotated[
        list[str] | None,
        opt("-g", "--guide", metavar="NAME|KEY=VALUE", help="Name of the guide, and its sizes; repeatable."),
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
    backend: Annotated[Backend, opt(help="Language of the pair: the collection's, or its NumPyro ports.")] = "pyro",
    seed: Seed = 0,
    transform: Annotated[
        str, opt(metavar="WORD", help="default, binarize, dequantize, logit, redraw or none.")
    ] = "default",
    image_size: Annotated[
        int | None, count(metavar="N", help="Side of images of folder:PATH.", show_default="32")
    ] = None,
    validation: Annotated[bool, opt(help="Hold validation data out and record the bound on them.")] = False,
    folder: Annotated[
        Path | None, opt("--out", metavar="PATH", help="Folder of the run.", show_default="runs/NAMES_TIME")
    ] = None,
    resume: Annotated[
        Path | None, opt(metavar="RUN", help="Go on with the run in this folder instead, as it was started.")
    ] = None,
    evaluate: Annotated[
        int,
        count(
            min=0,
            metavar="K",
            help="Importance samples of the evaluation on all test data afterwards; 0 for none.",
        ),
    ] = 100,
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
    same end bit for bit (on a CPU of the same kind, with the same versions).

    On several CPUs or GPUs: torchrun --nproc-per-node N -m ppl_models train ... With --max-restarts it goes on by
    itself with the run in --out.

    With --backend numpyro the ports are trained, by one process; either backend evaluates what the other has trained.

    Example: [bold]ppl-models train sere-vae -g self-reflective --data mnist -m layers=10 -g hidden=200[/]
    """
    import pyro

    from ppl_models.inference.pyro.feeding import distributed
    from ppl_models.runs.configuration import configuration, load_for
    from ppl_models.runs.folder import read_config
    from ppl_models.runs.training import resume as run_resume, train as run_train

    with reported(debug):
        pyro.clear_param_store()
        group = distributed.current(device)
        if group is not None and not group.is_main:
            quiet, out.quiet = True, True
        if resume is not None and (others := others_given(ctx)):
            raise ValueError(f"--resume: found {', '.join(others)} too, but {resume} says it all; leave it out")
        trust_typed(trust)
        config = {} if resume is None else read_config(resume)
        if resume is not None:
            folder, parts, begin = resume, None, partial(run_resume, resume, threads=threads)
            told = f"going on with {resume}"
            if not quiet:
                say_path(config)
        else:
            set_threads(threads, backend)
            if model is None:
                raise ValueError("train: found neither a MODEL nor --resume RUN, want one of them; try ppl-models list")
            named, guide_sizes = names.parse(guide or (), "-g")
            model_sizes = names.parse_sizes(sizes or (), "-m", f", the model is {model!r} already")
            if len(named) != 1 and guide:
                found = f"{len(named)} names ({', '.join(named)})" if named else "no name"
                known = ", ".join(names.catalogue("guide", backend))
                raise ValueError(f"-g: found {found} of a guide, want one of {known}")
            trust_typed(None, model, *named)
            chosen = training_of(training)
            how = {"validation": validation, "transform": transform, "size": image_size}
            parts = load_for(model, backend, data, **how)
            config = configuration(
                model=(model, model_sizes),
                guide=(named[0], guide_sizes) if named else None,
                data=data,
                parts=parts,
                training=chosen,
                seed=seed,
                transform=transform,
                validation=validation,
                image_size=image_size,
                processes=1 if group is None else group.world,
                backend=backend,
                refine=refine,
            )
            folder = folder or Path("runs") / names.stamped(model, *named, data)
            begin = partial(run_train, config, parts, folder)
            rows = ", ".join(f"{count} {part}" for part, count in config["data"]["rows"].items())
            told = f"{' with '.join([model, *named])} on {data} ({rows}), seed {seed}; to be written to {folder}"
        if not quiet:
            say(told)
        with kept(folder, group, config):
            run = begin(device=device, progress=not quiet)
        distributed.shut_down()  # the others are done: what follows is rank 0's
        if group is None or group.is_main:
            finish(run, (parts or run.load_data())[-1], evaluate, quiet)


@contextmanager
def kept(folder: Path, group: "Group | None", config: Mapping[str, Any]) -> Iterator[None]:
    """Say of a training that ends early, but has saved something, how to go on."""
    from ppl_models.runs.configuration import command

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


def others_given(ctx: typer.Context) -> list[str]:
    """The options that a resumed run takes from its folder, as they are written on a command line."""
    sources = {p: ctx.get_parameter_source(p.name) for p in ctx.command.params if p.name not in ANEW}
    given = [p for p, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    return [p.opts[0] if p.param_type_name == "option" else p.name.upper() for p in given]


def finish(run: "LoadedRun", test: "Data | Table", particles: int, quiet: bool) -> None:
    """Evaluate and picture a run that is trained, and say what could come next."""
    import pyro

    from ppl_models.runs.configuration import command
    from ppl_models.runs.pictures import picture_run
    from ppl_models.runs.training import evaluate_run

    if particles:
        say(str(evaluate_run(run, test, particles, progress=not quiet)))
    pyro.set_rng_seed(run.config["seed"])
    for note in picture_run(run, test[:20]):
        say(note, style="dim")
    say("run  ", (str(run.folder), "bold"))
    if not quiet:
        say(f"next: {command('evaluate', run.folder, '--particles', 1000, config=run.config)}", style="dim")
        say(f"      {command('sample', run.folder, '--n', 100, config=run.config)}", style="dim")
