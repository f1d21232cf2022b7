"""`ppl-models demo`: train one model with three guides and print their bounds."""

from pathlib import Path
from typing import Annotated

from rich.text import Text

from ppl_models.runs import names

from .app import Debug, Quiet, Seed, Threads, app, count, opt, out, reported, say, set_threads, table_of

ADVICE = """\
ELBO (more is better) is what model and guide reach together. NLL (less is better) is what the model alone is worth,
nearly: a guide that asserts too much independence also holds the model back. Nats per test digit; the standard errors
are those over the digits, which all rows share."""


@app.command()
def demo(
    steps: Annotated[int | None, count(help="Steps of each training.", show_default="those of two minutes")] = None,
    folder: Annotated[Path | None, opt("--out", help="Where to write.", show_default="runs/demo_TIME")] = None,
    seed: Seed = 0,
    threads: Threads = 1,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """One generative model, three guides: what the structure of inference is worth, in two minutes.

    Example: [bold]ppl-models demo[/]
    """
    from ppl_models.runs.demo import COMPARISON, PARTICLES, demo as run_demo

    with reported(debug):
        set_threads(threads)
        folder = folder or Path("runs") / names.stamped("demo")
        if not quiet:
            say("A SeRe-VAE on 8x8 digits, trained from the same weights with one guide after the other.")
        table = table_of("guide", "ELBO", f"NLL (IWAE-{PARTICLES})", "KL", "seconds")
        for column in table.columns[1:]:
            column.justify = "right"

        def report(name: str, row: dict[str, float]) -> None:
            nll = f"{row['nll']:.2f} ± {row['nll_error']:.2f}"
            table.add_row(Text(name, "bold"), f"{row['elbo']:.2f}", nll, f"{row['kl']:.2f}", f"{row['seconds']:.0f}")
            if not quiet:
                say(f"{name}: ELBO {row['elbo']:.2f}, NLL {row['nll']:.2f} nats per test digit")

        run_demo(folder, steps, seed, not quiet, report)
        out.print(table)
        if not quiet:
            say(ADVICE, style="dim")
        say("look at  ", (str(folder / COMPARISON), "bold"))
        say(f"then at  {folder}/*/samples.png, */reconstructions.png, */history.png")
