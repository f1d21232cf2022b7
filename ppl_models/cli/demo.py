"""`ppl-models demo`: what the edges that a guide lacks cost, as the inspector says and as training measures."""

from pathlib import Path
from typing import Annotated

from rich.text import Text

from ppl_models.runs.naming import names

from .app import Debug, Quiet, Seed, Threads, app, count, opt, out, reported, say, set_threads, table_of

ADVICE = """\
Nats per datum, less is better. Above, the price is what the inspector says before any training: by so much the ELBO of
the best guide of this structure lies below the evidence, which is known there; training ends a little above it. Below,
one model learns the digits with each guide, once; differences from mean field are paired, datum by datum, with standard
errors over the 300 test digits. ppl-models ablate compares any guides so, of any model, over several seeds."""


@app.command()
def demo(
    steps: Annotated[int | None, count(help="Steps of each training.", show_default="those of two minutes")] = None,
    folder: Annotated[Path | None, opt("--out", help="Where to write.", show_default="runs/demo_TIME")] = None,
    seed: Seed = 0,
    threads: Threads = 1,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """What the edges of a guide are worth, said by the inspector and measured by training, in two minutes.

    Example: [bold]ppl-models demo[/]
    """
    from ppl_models.runs.ablation import HEADINGS, cells
    from ppl_models.runs.demo import DIGITS, PICTURE, demo as run_demo

    with reported(debug):
        set_threads(threads)
        folder = folder or Path("runs") / names.stamped("demo")
        if not quiet:
            say(
                "Seven short trainings: four guides of a model that is given, then three with which digits are learned."
            )
        found = run_demo(folder, steps, seed, not quiet, (lambda line: None) if quiet else say)
        table = table_of("guide", "lacks", "price", "measured", "verdict", "s")
        for name, row in found.given.items():
            nats = f"{row.price:.3f}", f"{row.measured:.3f} ±{row.error:.3f}"
            table.add_row(*map(Text, (name, row.lacks, *nats, row.report.verdict, f"{row.seconds:.0f}")))
        learned = table_of(*HEADINGS)
        for each in found.learned:
            learned.add_row(*map(Text, cells(each, found.learned[0])))
        for each in (*table.columns[2:4], table.columns[-1], *learned.columns[2:]):
            each.justify, each.no_wrap = "right", True
        out.print(table)
        out.print(learned)
        if not quiet:
            say(ADVICE, style="dim")
        say("look at  ", (str(folder / PICTURE), "bold"))
        say(f"then at  {folder}/{DIGITS}/*/samples.png, */reconstructions.png, */history.png")
