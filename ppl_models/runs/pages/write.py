"""`write_page`: one file of HTML about a run, or about two side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ppl_models.data import Data, Table
from ppl_models.inference.storage.files import check_writable, write_atomically

from ..folders.loaded import LoadedRun
from ..naming import names
from . import about, draws, learning
from .html import columns, missing, page, shown
from .subject import Subject

PAGE = "report.html"
Part = tuple[str, Callable[..., str]]
OF_ALL: list[Part] = [("Learning curves", learning.learning), ("Bounds", learning.bounds)]
OF_EACH: list[Part] = [("Samples", draws.samples)]
OF_LATENTS: list[Part] = [
    ("Reconstructions", draws.reconstructions),
    ("Layer by layer", draws.layers),
    ("Interpolations", draws.interpolations),
    ("Traversals", draws.traversals),
    ("Structure", about.structure),
]
PATIENCE = 60.0  # seconds after which the page of a run that was just trained leaves out what its model has to draw
DIVERGENCES = "Divergence of each layer"
HALVES = "Bounds", DIVERGENCES, "Samples", "Reconstructions", "Layer by layer", "Interpolations"


def write_page(
    runs: Sequence[LoadedRun],
    path: Path | None = None,
    *,
    test: Data | Table | None = None,
    patience: float | None = None,
) -> Path:
    """Write the page of a run, or of two side by side, and return its path.

    It stands alone: pictures are inside, nothing is fetched and no script is run. A part that cannot be drawn is
    replaced by the reason.

    Args:
        runs: one or two, each with its folder.
        path: of the file; by default report.html in the folder of the first, report_NAME.html for two.
        test: data of a single run, where they are at hand; by default those that its configuration names.
        patience: seconds after which what the model has to draw is left out; None for as long as it takes.

    Raises:
        ValueError: no run, or more than two; a path that cannot be written to.
    """
    if len(runs) not in (1, 2):
        raise ValueError(f"report: found {len(runs)} runs, want one or two")
    if path is None:
        other = f"_{names.slug(runs[1].folder.absolute().name)}" if len(runs) > 1 else ""
        path = runs[0].folder / f"{Path(PAGE).stem}{other}.html"
    check_writable(path)
    labels = _labels(runs)
    subjects = [Subject(run, label, patience, test) for run, label in zip(runs, labels, strict=True)]
    sections = [(heading, _together(draw, subjects)) for heading, draw in OF_ALL]
    latent = any(run.config["guide"] is not None for run in runs)
    if latent:
        sections.append((DIVERGENCES, _together(learning.divergences, subjects)))
    for heading, draw in OF_EACH + (OF_LATENTS if latent else []):
        sections.append((heading, columns([(s.name, s.attempt(draw, costly=True)) for s in subjects])))
    sections.append(("Configuration", _together(about.made, subjects)))
    heads = [run.title for run in runs]
    named = heads[0] if len(runs) == 1 else " beside ".join(dict.fromkeys(heads))
    text = page(named, _lead(subjects), sections, HALVES if len(runs) == 1 else ())
    write_atomically(path, partial(Path.write_text, data=text, encoding="utf-8", errors="replace"))
    return path


def _together(draw: Callable[[Sequence[Subject]], str], subjects: Sequence[Subject]) -> str:
    """What a section shows of all runs, or why it does not."""
    try:
        return draw(subjects)
    except Exception as error:  # noqa: BLE001 (files of anyone's)
        return missing(" ".join(str(error).split()) or type(error).__name__)


def _labels(runs: Sequence[LoadedRun]) -> list[str]:
    """The names of the folders, or A and B where they are one."""
    found = [run.folder.absolute().name for run in runs]
    return found if len(set(found)) == len(found) else ["A", "B"]


def _lead(subjects: Sequence[Subject]) -> str:
    """A line about each run."""
    lines = []
    for subject in subjects:
        run, told = subject.run, []
        records = subject.attempt(lambda s: _end(s.run))
        told += [] if records.startswith("<") else [records]
        told += [f"backend {run.backend}", f"seed {run.config['seed']}"]
        told += ["no latents, and so no codes"] if run.config["guide"] is None else []
        name = f"<b>{shown(subject.name)}</b>: {shown(run.title)}, " if len(subjects) > 1 else ""
        lines.append(f"<p>{name}{shown(', '.join(told))}</p>")
    return "".join(lines)


def _end(run: LoadedRun) -> str:
    """Steps and seconds of a training."""
    last = run.history[-1]
    return f"{last['step']:g} steps in {last['seconds']:.1f} s" if "seconds" in last else f"{last['step']:g} steps"
