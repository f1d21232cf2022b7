"""The notebooks: their sources run, and what is committed beside them is what the sources give."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

from website.notebooks import executed

FOLDER = Path(__file__).parents[2] / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))
# a machine's own: home and work folders, temporary files, drives, and what IPython calls a cell's file
PATHS = re.compile(r"(?<![\w.])/(home|root|Users|work|tmp|var|usr|opt|mnt)/|\b[A-Z]:\\|ipykernel_\d+|site-packages")

ids = [source.stem for source in SOURCES]
every_source = pytest.mark.parametrize("source", SOURCES, ids=ids)


def cells(path: Path, kind: str = "code") -> list:
    return [cell for cell in jupytext.read(path).cells if cell.cell_type == kind]


def texts(output: dict) -> list[str]:
    """All that an output says: streams, representations, tracebacks."""
    found = [output.get("text", ""), *output.get("traceback", [])]
    return found + [text for kind, text in output.get("data", {}).items() if not kind.startswith("image/png")]


def test_every_notebook_has_a_source() -> None:
    assert SOURCES
    assert [path.stem for path in sorted(FOLDER.glob("*.ipynb"))] == [source.stem for source in SOURCES]


# The ports' notebook compiles samplers, minutes of them; the others take some seconds each.
@pytest.mark.parametrize(
    "source",
    [pytest.param(each, marks=pytest.mark.slow if each.stem.startswith("04") else ()) for each in SOURCES],
    ids=ids,
)
def test_source_runs(source: Path, tmp_path: Path) -> None:
    settings = {"PPL_MODELS_FAST": "1", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    # a bare expression shows nothing in a script, and a figure shown without a display warns: neither is the notebook's
    command = [sys.executable, "-W", "ignore:FigureCanvasAgg is non-interactive", str(source)]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Warning" not in done.stderr
    assert not list(tmp_path.iterdir())  # nothing is left on the disk


NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")
WITHIN = re.compile(r"^# numbers within (\d*\.\d+)$", re.MULTILINE)  # what a cell states of itself
USUAL = 0.05


def numbers(cell: dict) -> list[float]:
    """All numbers that a cell has printed."""
    printed = "".join(output.get("text", "") for output in cell["outputs"])
    return [float(number) for number in NUMBER.findall(printed)]


@pytest.mark.slow  # minutes each
@every_source
def test_the_stored_numbers_can_be_had_again(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in full, every number that a cell prints is the stored one, within what the cell states or a twentieth.

    The difference counts relative to the number, or to 1 where that is smaller.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    again = [cell for cell in executed(source, tmp_path).cells if cell.cell_type == "code"]
    for stored, cell in zip(cells(source.with_suffix(".ipynb")), again, strict=True):
        found, want = numbers(cell), numbers(stored)
        tolerance = float(stated[1]) if (stated := WITHIN.search(cell.source)) else USUAL
        assert len(found) == len(want), cell.source
        for one, other in zip(found, want, strict=True):
            assert abs(one - other) <= tolerance * max(1, abs(other)), (one, other, cell.source)


@every_source
@pytest.mark.parametrize("kind", ["code", "markdown"])
def test_notebook_is_in_step_with_its_source(source: Path, kind: str) -> None:
    written = [cell.source for cell in cells(source, kind)]
    assert [cell.source for cell in cells(source.with_suffix(".ipynb"), kind)] == written, "run `make notebooks`"


@every_source
def test_notebook_is_executed_and_clean(source: Path) -> None:
    executed = cells(source.with_suffix(".ipynb"))
    assert [cell.execution_count for cell in executed] == list(range(1, len(executed) + 1)), "run `make notebooks`"
    outputs = [output for cell in executed for output in cell.outputs]
    assert any(output.output_type == "stream" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        for text in texts(output):
            assert not PATHS.search(text), text
            assert "Warning" not in text


@every_source
def test_every_cell_that_prints_or_draws_has_an_output(source: Path) -> None:
    for cell in cells(source.with_suffix(".ipynb")):
        if re.search(r"^(print|plt\.show|message|image_grid|reconstructions)\(", cell.source, re.MULTILINE):
            assert cell.outputs, cell.source
