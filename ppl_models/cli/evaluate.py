"""`ppl-models evaluate`, `ppl-models sample`: bounds and pictures of a trained run."""

from pathlib import Path
from typing import Annotated

from . import completion
from .app import (
    Backend,
    Debug,
    Device,
    Quiet,
    RunFolder,
    Seed,
    Threads,
    Trust,
    app,
    count,
    opt,
    reported,
    say,
    say_path,
    set_threads,
    trust_typed,
)

AsBackend = Annotated[
    Backend | None,
    opt(help="Have the pair in this language, with the same weights.", show_default="that of the training"),
]


@app.command(no_args_is_help=True)
def evaluate(
    folder: RunFolder,
    particles: Annotated[int, count(help="Importance samples a datum.")] = 1000,
    data: Annotated[str | None, opt(help="Other data than it was trained on.", autocompletion=completion.data)] = None,
    backend: AsBackend = None,
    information: Annotated[
        int,
        count(
            min=0,
            metavar="ROWS",
            help="Bracket the mutual information of codes and so many test rows; 0: do not.",
        ),
    ] = 0,
    probe: Annotated[
        int,
        count(min=0, metavar="LABELS", help="Read so many labels off the codes, and try it on test rows; 0: do not."),
    ] = 0,
    units: Annotated[
        int,
        count(min=0, metavar="ROWS", help="Count the units of each latent that tell of so many test rows; 0: do not."),
    ] = 0,
    calibrate: Annotated[
        int,
        count(min=0, metavar="SIMULATIONS", help="Calibrate the guide on so many data of the model's own; 0: do not."),
    ] = 0,
    refine: Annotated[
        int,
        count(
            min=0,
            metavar="STEPS",
            help="Let the guide's draws go on by so many Hamiltonian steps, with nothing learned; 0: do not.",
        ),
    ] = 0,
    trust: Trust = None,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "cpu",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Bound the log-likelihood of all test data under a trained run: ELBO, NLL, divergence of each layer.

    Writes evaluation.json in the run's folder (evaluation_NAME.json for other data, in another backend, or refined),
    and likewise information.json with --information (Pyro runs), units.json with --units, calibration.json with
    --calibrate (amortized simulation-based calibration), and probe.json with --probe, of data with labels.

    Example: [bold]ppl-models evaluate runs/mine --particles 1000[/]
    """
    from ppl_models.runs.backends import backend_of
    from ppl_models.runs.evaluating import (
        calibrate_run,
        check_guided,
        check_informative,
        check_probe,
        evaluate_run,
        inform_run,
        probe_run,
        units_run,
    )
    from ppl_models.runs.folders.folder import load_run, read_config

    with reported(debug):
        trust_typed(trust)
        language = backend or backend_of(read_config(folder))
        set_threads(threads, language)
        if information:
            check_informative(language, information)
        run = load_run(folder, device, backend=backend)
        if data is None and not quiet:
            say_path(run.config)
        parts = run.load_data(data)
        test = parts[-1]
        if probe:
            check_probe(run, parts, probe)
        if units:
            check_guided(run, "--units", "units to count")
        if calibrate:
            check_guided(run, "--calibrate", "a guide to judge")
        say(str(evaluate_run(run, test, particles, seed, data, progress=not quiet, refine=refine)))
        if information:
            say(str(inform_run(run, test, information, seed, data, progress=not quiet)))
        if units:
            say(str(units_run(run, test, units, seed, data)))
        if probe:
            say(str(probe_run(run, parts, probe, seed, data)))
        if calibrate:
            say(str(calibrate_run(run, test, calibrate, seed, data, progress=not quiet)))


@app.command(no_args_is_help=True)
def sample(
    folder: RunFolder,
    n: Annotated[int, count("--n", "-n", help="How many images.")] = 64,
    chain: Annotated[
        int | None,
        count(metavar="STEPS", help="Draw by the chain x -> z -> x from noise, and show it."),
    ] = None,
    draws: Annotated[
        bool | None, opt("--draws/--means", help="Draws of the likelihood, or its means.", show_default="means")
    ] = None,
    file: Annotated[
        Path | None, opt("--out", help="The picture.", show_default="RUN/samples.png, or chain.png")
    ] = None,
    backend: AsBackend = None,
    trust: Trust = None,
    seed: Seed = 0,
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Draw images from the model of a trained run.

    With --chain, n chains run side by side from noise, x -> z ~ q(z | x) -> x ~ p(x | z): for a model whose codes are
    not those of its prior. The picture is a film strip of eight of them, and a diagnosis of the mixing is printed.

    Example: [bold]ppl-models sample runs/mine --n 100 --seed 1 --out samples.png[/]
    """
    import pyro

    from ppl_models.inference.storage.files import check_writable
    from ppl_models.runs.folders.folder import load_run
    from ppl_models.runs.pages.pictures import picture_chain, picture_samples

    with reported(debug):
        if chain is not None and draws is not None:
            word = "draws" if draws else "means"
            raise ValueError(f"--chain {chain}: found --{word}, want neither: a chain is of draws")
        if file is not None:
            check_writable(file)
        trust_typed(trust)
        run = load_run(folder, device, backend=backend)
        pyro.set_rng_seed(seed)
        if chain is None:
            say(str(picture_samples(run, n, file or run.folder / "samples.png", bool(draws))))
            return
        path, told = picture_chain(run, n, chain, file or run.folder / "chain.png", seed)
        say(told)
        say(str(path))
