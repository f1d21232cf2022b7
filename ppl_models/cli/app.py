"""`app`: the application of the command line, with the options and the reporting of errors that its commands share."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ppl_models.parts.arguments.kinds import LARGEST, MOST_THREADS
from ppl_models.programs.blame import is_ours, raised
from ppl_models.programs.legible import brief, legible
from ppl_models.runs.backends import BACKENDS, backend
from ppl_models.runs.naming import names, trust as trusted

from . import completion

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Deep generative models as Pyro programs, with swappable guides.\n\n"
    "Start with [bold]ppl-models demo[/], or [bold]ppl-models train sere-vae -g self-reflective --data digits[/].",
)
out = Console(highlight=False, soft_wrap=True)
opt = typer.Option
count = partial(opt, min=1, max=LARGEST)  # a count beyond it is a mistake, and would never end

Debug = Annotated[bool, opt("--debug", help="Show the whole traceback of an error.")]
Device = Annotated[str, opt(metavar="NAME", help="Where to compute: cpu, cuda, cuda:1, mps.")]
Threads = Annotated[
    int | None, opt(min=1, max=MOST_THREADS, metavar="N", help="CPU threads; the backend's own choice by default.")
]
Backend = Literal[BACKENDS]
Quiet = Annotated[bool, opt("--quiet", "-q", help="Print results alone: no progress, no advice.")]
Seed = Annotated[int, opt(min=0, max=2**32 - 1, metavar="N", help="Of weights, noise and shuffling.")]
ModelName = Annotated[
    str | None,
    typer.Argument(help="A short name (`ppl-models list`) or mypkg.module:Name.", autocompletion=completion.models),
]
ModelSizes = Annotated[
    list[str] | None, opt("-m", "--model", metavar="KEY=VALUE", help="A size of the model; repeatable.")
]
DataName = Annotated[
    str,
    opt(
        "--data",
        "-d",
        metavar="NAME",
        help="A data set (`ppl-models list data`), folder:PATH, or a .npy or .npz file.",
        autocompletion=completion.data,
    ),
]
RunFolder = Annotated[
    str,
    typer.Argument(metavar="RUN", help="The folder of a run, or the address of one that was shared, hf://owner/name."),
]
Trust = Annotated[
    list[str] | None,
    opt(
        "--trust",
        metavar="MODULE",
        help="A module whose programs the files may name, and whose code is run; repeatable.",
    ),
]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ppl-models {version('ppl-models')}")
        raise typer.Exit


def paragraphs(command: Callable[..., None] | None) -> str:
    """The docstring of a command, a line a paragraph: a terminal breaks lines where it is at its own end."""
    return "\n\n".join(" ".join(part.split()) for part in (inspect.getdoc(command) or "").split("\n\n"))


@app.callback()
def main(
    version: Annotated[
        bool, opt("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before any command."""


def trust_typed(trust: Sequence[str] | None, *programs: str) -> None:
    """Allow the modules of --trust, and programs that were typed; the current directory is searched for these alone."""
    trusted.allow(trust or (), typed=True)
    trusted.received(*programs, typed=True)


def say(*parts: str | tuple[str, str], style: str = "") -> None:
    """Print text as it is, brackets and all, without what would steer a terminal; a part may have a style."""
    pairs = [part if isinstance(part, tuple) else (part, "") for part in parts]
    out.print(Text.assemble(*((legible(text), own) for text, own in pairs), style=style))


def say_path(config: Mapping[str, Any]) -> None:
    """Name the file or folder of data that a run is about to read because its own file says so."""
    if names.is_path(data := config["data"]["name"]):
        say(f"reading {data}, the data of the run", style="dim")


@contextmanager
def reported(debug: bool) -> Iterator[None]:
    """Turn an error into one red line, of the user's own code with its place, and exit code 1; Ctrl-C into 130.

    A warning is one yellow line.
    """
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.showwarning = _warned
            yield
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted", style="red")
        raise typer.Exit(130) from None
    except Exception as error:
        if debug or isinstance(error, typer.Exit):
            raise
        text = brief(legible(f"error: {raised(error) or _told(error)}"))
        Console(stderr=True, soft_wrap=True, highlight=False).print(Text(text, "red"))
        raise typer.Exit(1) from None


def _warned(message: Warning | str, *where: Any) -> None:
    """Print a warning as one line; Python prints a path and a line of code beside it."""
    text = brief(legible(f"warning: {' '.join(str(message).split())}"))
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(text, "yellow"))


def _told(error: Exception) -> str:
    """An error of this library's in one line; of one about a file, which one, and what the system objects to."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror.lower()}; try another path, or mend what is there"
    kind = "" if isinstance(error, (ValueError, OSError)) or is_ours(error) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split()) or type(error).__name__}"


def set_threads(threads: int | None, language: str = "pyro") -> None:
    """CPU threads of a backend, its own choice for None."""
    if threads is not None:
        backend(language).set_threads(threads)


def table_of(*columns: str) -> Table:
    """An empty table without rules."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i == 0)
    return table
