"""`ppl-models ablate`: one model with several guides, trained alike; what each lacks, and by how many nats."""

from pathlib import Path
from typing import Annotated, Any

from rich.text import Text

from ppl_models.runs.naming import names

from .app import (
    DataName,
    Debug,
    Device,
    ModelName,
    ModelSizes,
    Quiet,
    Threads,
    Trust,
    app,
    count,
    opt,
    out,
    reported,
    say,
    set_threads,
    table_of,
    trust_typed,
)
from .training_options import ImageSize, PairBackend, Transform, Validation, training_of, with_training

GUIDES = "mean-field,bottom-up,ladder,self-reflective"
SEEDS = 100  # more are a mistake


@app.command(no_args_is_help=True)
@with_training
def ablate(
    model: ModelName,
    guides: Annotated[
        str, opt(metavar="NAMES", help="Guides, with commas between; others are compared with the first.")
    ] = GUIDES,
    data: DataName = "digits",
    sizes: ModelSizes = None,
    guide_sizes: Annotated[
        list[str] | None, opt("-g", "--guide", metavar="KEY=VALUE", help="A size of every guide; repeatable.")
    ] = None,
    seeds: Annotated[int, count(max=SEEDS, metavar="N", help="Trainings of each guide, by the seeds 0 ... N-1.")] = 3,
    evaluate: Annotated[
        int, count(metavar="K", help="Importance samples a test datum, to bound its likelihood.")
    ] = 100,
    backend: PairBackend = "pyro",
    transform: Transform = "default",
    image_size: ImageSize = None,
    validation: Validation = False,
    folder: Annotated[
        Path | None,
        opt("--out", metavar="PATH", help="Folder of the runs.", show_default="runs/ablate_NAMES_TIME"),
    ] = None,
    trust: Trust = None,
    threads: Threads = None,
    device: Device = "cpu",
    quiet: Quiet = False,
    debug: Debug = False,
    **training: Any,
) -> None:
    """Train a model with one guide after the other, alike, and compare their bounds on the same test data.

    What each guide lacks is read off by the inspector. Differences are paired, datum by datum, and their errors are
    over the data and over the seeds. Writes a run folder for each training, ablation.json and ablation.png. The same
    command again with --out takes what is trained as it is, and goes on with the rest.

    Example: [bold]ppl-models ablate sere-vae --guides mean-field,ladder,self-reflective --seeds 3 --steps 2000[/]
    """
    from ppl_models.runs.ablation import HEADINGS, PICTURE, RESULTS, ablate as run_ablation, cells
    from ppl_models.runs.folders.configuration import configuration, load_for

    with reported(debug):
        set_threads(threads, backend)
        chosen = [name.strip() for name in guides.split(",")]
        if twice := [name for name in chosen if not name or chosen.count(name) > 1]:
            raise ValueError(f"--guides: found {twice[0]!r} in {guides!r}, want names of guides, each once")
        model_sizes = names.parse_sizes(sizes or (), "-m", f", the model is {model!r} already")
        shared = names.parse_sizes(guide_sizes or (), "-g", "; guides are named by --guides")
        trust_typed(trust)
        trust_typed(None, model, *chosen)
        how = {"validation": validation, "transform": transform}
        parts = load_for(model, backend, data, size=image_size, **how)
        how |= {"training": training_of(training), "image_size": image_size, "backend": backend, "data": data}
        plans = {
            guide: [
                configuration(model=(model, model_sizes), guide=(guide, shared), parts=parts, seed=seed, **how)
                for seed in range(seeds)
            ]
            for guide in chosen
        }
        folder = folder or Path("runs") / names.stamped("ablate", model, data)
        rows = run_ablation(plans, parts, folder, evaluate, device, not quiet, (lambda line: None) if quiet else say)
        table = table_of(*HEADINGS)
        for column in table.columns[2:]:
            column.justify, column.no_wrap = "right", True
        for row in rows:
            table.add_row(*map(Text, cells(row, rows[0])))
        out.print(table)
        if not quiet:
            say(f"nats per test datum, errors over {rows[0].nlls.shape[1]} data and {seeds} seeds", style="dim")
        say("written  ", (str(folder / RESULTS), "bold"), "  ", (str(folder / PICTURE), "bold"))
