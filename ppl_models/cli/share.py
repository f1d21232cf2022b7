"""`ppl-models share`: a folder with a trained pair to be given away, and a page about it."""

from pathlib import Path
from typing import Annotated

import typer

from .app import Debug, Quiet, RunFolder, Trust, app, reported, say, trust_typed


@app.command(no_args_is_help=True)
def share(
    run: RunFolder,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write it.")],
    trust: Trust = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the weights of a run with a page about them to a folder that others can load, without its training state.

    Example: [bold]ppl-models share runs/mine shared[/]
    """
    from ppl_models.runs import load_run, save_pair

    with reported(debug):
        trust_typed(trust)
        say("written  ", (str(save_pair(load_run(run), folder)), "bold"))
        if not quiet:
            say(f"put it on the Hugging Face Hub with: hf upload OWNER/NAME {folder}", style="dim")
            say("others have it by load_run('hf://OWNER/NAME'), or by the path of a copy", style="dim")
