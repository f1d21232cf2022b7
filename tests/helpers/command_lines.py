"""`lines`: command lines of which one word is wrong, from the declarations of the command line itself; `complaint`."""

import os
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import typer
from typer.testing import CliRunner, Result

from ppl_models.cli import app
from ppl_models.runs.naming import names

GOLDEN = Path(__file__).parents[1] / "golden"
PAIR = ["vae", "-g", "mean-field", "-m", "latent=1", "-m", "hidden=2", "-g", "hidden=2", "--data", "rows.npz"]
SHORT = ["--steps", "1", "--evaluate", "0", "-q", "--out", "new"]
ABLATED = [
    "-m",
    "latent=1",
    "-m",
    "hidden=2",
    "-g",
    "hidden=2",
    "--data",
    "rows.npz",
    "--steps",
    "1",
    "--evaluate",
    "1",
]
ABLATED += ["-q", "--out", "new"]
RECIPE = """
experiment = "bounds"
[data]
name = "rows.npz"
[model]
name = "vae"
latent = 1
hidden = 2
[guide]
name = "mean-field"
hidden = 2
[training]
steps = 1
[analysis]
particles = 1
[runs.a]
"""
# command -> its arguments by position, and options, with which it is done in a blink
RIGHT = {
    "list": (["data"], []),
    "train": (PAIR[:1], [*PAIR[1:], *SHORT]),
    "evaluate": (["run"], ["--particles", "1", "-q"]),
    "report": (["run"], ["--out", "new.html"]),
    "compare-runs": (["run", "run"], ["--particles", "1", "-q"]),
    "share": (["run", "shared"], ["-q"]),
    "sample": (["run"], ["--n", "1", "--out", "new.png"]),
    "ablate": (PAIR[:1], ["--guides", "mean-field", "--seeds", "1", *ABLATED]),
    "inspect": (["vae", "mean-field"], ["-m", "latent=1", "-m", "hidden=2", "-g", "hidden=2", "--out", "new", "-q"]),
    "recipe": (["mine.toml"], ["--out", "new", "-q"]),
    "results": (["iaf"], []),
    "demo": ([], ["--steps", "1", "--out", "new", "-q"]),
}
BARE = "Traceback", "object is not", "has no attribute", "not supported between", "argument must be", "invalid literal"
BARE += "could not convert", "unhashable", "embedded null", "codec can't", "surrogates not allowed", "Errno", "errno"
BARE += "TypeError", "KeyError", "AttributeError", "IndexError", "ZeroDivisionError", "RuntimeError", "OverflowError"


def words() -> dict[str, str]:
    """Texts of many kinds, by what they are: none is right everywhere, and most are right nowhere."""
    return {
        "nothing": "",
        "a blank": " ",
        "a word": "elbow",
        "negative": "-1",
        "zero": "0",
        "half": "-0.5",
        "text after a number": "1e-3x",
        "nan": "nan",
        "inf": "inf",
        "minus inf": "-inf",
        "huge": str(2**70),
        "too large for a float": "1e400",
        "digits without end": "9" * 5000,
        "what steers a terminal": "\x1b[31mred",
        "two lines": "a\nb",
        "a lone surrogate": "\udcff",
        "from right to left": "\u202ea",
        "a null": "a\0b",
        "markup": "[bold]x[/]",
        "a long text": "x" * 5000,
        "a folder": "folder",
        "a pipe": "pipe",
        "a pipe of data": "pipe.npz",
        "a file": "file",
        "a file in a file": "file/x",
        "no such path": "no/such/place",
        "code": "__import__('os').system('true')",
        "a list": "[1, 2.5, 'a']",
        "a mapping": "{'a': nan}",
        "an option": "--steps",
        "an expression": "a=b=c",
        "None": "None",
        "true": "true",
    }


def prepare(folder: Path) -> None:
    """Everything that the right lines need, and what the wrong words name, in a folder."""
    rows = np.random.default_rng(0).normal(size=(12, 3))
    np.savez(folder / "rows.npz", x_train=rows, x_test=rows)
    shutil.copytree(GOLDEN / "run-pyro", folder / "run")
    (folder / "mine.toml").write_text(RECIPE)
    (folder / "folder").mkdir()
    (folder / "file").touch()
    for pipe in ("pipe", "pipe.npz"):
        os.mkfifo(folder / pipe)


def commands() -> dict[str, click.Command]:
    """The commands of the command line by name."""
    return typer.main.get_command(app).commands


def lines() -> Iterator[tuple[str, str, list[str]]]:
    """(where, what, words) of every command line with one wrong word."""
    for name, command in commands().items():
        positional, options = RIGHT[name]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        for what, word in words().items():
            for i, argument in enumerate(arguments):
                changed = [*positional]
                changed[i : i + 1] = [word]
                yield f"{name} {argument.name}", what, [name, *options, "--", *changed]
            for option in command.params:
                if option.param_type_name == "argument" or getattr(option, "is_flag", False):
                    continue
                flag = option.opts[-1]
                rest = without(options, option.opts, {"--epochs": ["--steps"], "--resume": []}.get(flag, []))
                rest = ["-q"] if flag == "--resume" else rest
                first = [] if flag == "--resume" else positional
                yield f"{name} {flag}", what, [name, *first, *rest, f"{flag}={word}"]
                if option.multiple:
                    yield f"{name} {flag} a=", what, [name, *first, *options, f"{flag}=a={word}"]
    yield from sizes()


def sizes() -> Iterator[tuple[str, str, list[str]]]:
    """The same for the sizes of every model and guide."""
    for kind, flag in (("model", "-m"), ("guide", "-g")):
        for name, program in names.catalogue(kind).items():
            for size in names.sizes_of(program, 0 if kind == "model" else 2):
                for what, word in words().items():
                    pair = {"model": "vae", "guide": "mean-field", kind: name}
                    line = ["train", pair["model"], "-g", pair["guide"], "--data", "rows.npz", *SHORT]
                    yield f"{kind} {name} {size}", what, [*line, flag, f"{size}={word}"]


def without(options: list[str], flags: list[str], more: list[str]) -> list[str]:
    """Options without those of some flags."""
    found, left = [], iter(options)
    for word in left:
        if word in (*flags, *more) and word not in ("-m", "-g"):
            next(left)
            continue
        found.append(word)
    return found


def call(line: list[str]) -> Result:
    """What a command line comes to, in this process."""
    return CliRunner().invoke(app, line)


def fault(result: Result) -> str:
    """The reason why the end of a command line is none that a user should meet; "" where it is."""
    error: Any = result.exception
    if error is not None and not isinstance(error, SystemExit):
        return f"it ends in a bare {type(error).__name__}: {error}"
    if result.exit_code == 0:
        return ""
    told = result.stderr
    if result.exit_code == 2 and "Usage:" in told:
        return ""
    if result.exit_code != 1:
        return f"it ends with {result.exit_code}"
    if told.count("\n") != 1 or not told.startswith("error: ") or len(told) > 1500:
        return f"it says {told[:300]!r} of {told.count(chr(10))} lines, {len(told)} characters"
    if not told.strip().isprintable():
        return "it prints what does not print"
    while isinstance(error, (SystemExit, click.exceptions.Exit)) and error.__context__ is not None:
        error = error.__context__
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    home = str(frame.f_globals.get("__name__"))
    if home.partition(".")[0] not in ("ppl_models", "guides") and not getattr(error, "filename", None):
        return f"it was raised in {home}: {told[:200]}"
    return next((f"it says {words!r}" for words in BARE if words in told), "")


def held(folder: Path) -> dict[str, int]:
    """Every file below a folder, with its size."""
    return {str(p.relative_to(folder)): p.lstat().st_size for p in sorted(folder.rglob("*"))}
