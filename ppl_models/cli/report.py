"""`ppl-models report`: the page of a trained run, or of two side by side."""

from pathlib import Path
from typing import Annotated

import typer

from .app import Debug, Device, RunFolder, Threads, Trust, app, opt, reported, say, set_threads, trust_typed

Other = Annotated[str | None, typer.Argument(metavar="OTHER", help="A run to show beside it.")]


@app.command(no_args_is_help=True)
def report(
    first: RunFolder,
    second: Other = None,
    file: Annotated[Path | None, opt("--out", metavar="FILE", help="The page.", show_default="RUN/report.html")] = None,
    trust: Trust = None,
    threads: Threads = None,
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Write the page of a run: curves, bounds, samples, reconstructions, codes, structure, and how it was made.

    One file of HTML that stands alone, in light and dark, for narrow screens and wide ones. With a second run both
    stand side by side, and what differs in their configurations is marked.

    Example: [bold]ppl-models report runs/one runs/other[/]
    """
    from ppl_models.runs.backends import backend_of
    from ppl_models.runs.folders.folder import load_run, read_config
    from ppl_models.runs.pages.write import write_page

    with reported(debug):
        trust_typed(trust)
        runs = []
        for folder in (first, *(() if second is None else (second,))):
            set_threads(threads, backend_of(read_config(folder)))
            runs.append(load_run(folder, device))
        say(str(write_page(runs, file)))
