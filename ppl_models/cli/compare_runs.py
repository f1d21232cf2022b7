"""`ppl-models compare-runs`: by how many nats one trained run is ahead of another on the same data."""

from typing import Annotated

import typer

from .app import (
    Debug,
    Device,
    Quiet,
    RunFolder,
    Seed,
    Threads,
    Trust,
    app,
    count,
    reported,
    say,
    set_threads,
    trust_typed,
)

Other = Annotated[str, typer.Argument(metavar="OTHER", help="The run to compare it with.")]


@app.command("compare-runs", no_args_is_help=True)
def compare_runs(
    first: RunFolder,
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
    from ppl_models.runs.evaluating import evaluate_run
    from ppl_models.runs.folders.folder import load_run, read_config

    with reported(debug):
        trust_typed(trust)
        configs = read_config(first), read_config(second)
        for key in ("name", "shape", "applied"):
            one, other = (config["data"][key] for config in configs)
            if one != other:
                found = f"found data.{key} = {one!r} of {first} and {other!r} of {second}"
                raise ValueError(f"compare-runs: {found}, want runs of the same data")
        evaluations = []
        for folder, config in zip((first, second), configs, strict=True):
            set_threads(threads, backend_of(config))
            run = load_run(folder, device)
            evaluations.append(evaluate_run(run, run.load_data()[-1], particles, seed, progress=not quiet))
            say(
                (f"{folder}  ", "bold"),
                f"NLL {evaluations[-1].nll:.3f} +- {evaluations[-1].nll_error:.3f} nats per datum",
            )
        say(f"{first} minus {second}  ", (str(evaluations[0] - evaluations[1]), "bold"))
