"""`ppl-models compare-runs`: by how many nats one trained run is ahead of another on the same data."""

from pathlib import Path
from typing import Annotated

import typer

from .app import Debug, Device, Quiet, Seed, Threads, Trust, app, count, reported, say, set_threads, trust_typed

Other = Annotated[Path, typer.Argument(metavar="OTHER", help="The folder of the run to compare it with.")]
First = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]


@app.command("compare-runs", no_args_is_help=True)
def compare_runs(
    first: First,
    second: Other,
    particles: Annotated[int, count(help="Importance samples a datum.")] = 1000,
    trust: Trust = None,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "cpu",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Bound the log-likelihood of the test data under two runs, and say by how much they differ, datum by datum.

    The error is that of the differences, which is the smaller the more alike the runs are. Writes evaluation.json in
    both folders.

    Example: [bold]ppl-models compare-runs runs/one runs/other --particles 100[/]
    """
    from ppl_models.runs.backends import backend_of
    from ppl_models.runs.folder import load_run, read_config
    from ppl_models.runs.training import evaluate_run

    with reported(debug):
        trust_typed(trust)
        configs = {folder: read_config(folder)["data"] for folder in (first, second)}
        told = [{key: data[key] for key in ("name", "shape", "applied")} for data in configs.values()]
        if told[0] != told[-1]:
            key = next(key for key in told[0] if told[0][key] != told[1][key])
            raise ValueError(
                f"compare-runs: found data.{key} = {told[0][key]!r} of {first} and {told[1][key]!r} of {second}, "
                "want runs of the same data"
            )
        found = []
        for folder in (first, second):
            set_threads(threads, backend_of(read_config(folder)))
            run = load_run(folder, device)
            found.append(evaluate_run(run, run.load_data()[-1], particles, seed, progress=not quiet))
            say((f"{folder}  ", "bold"), f"NLL {found[-1].nll:.3f} +- {found[-1].nll_error:.3f} nats per datum")
        say(f"{first} minus {second}  ", (str(found[0] - found[1]), "bold"))
