"""`python -m website.notebooks FILE.py ...`: run notebooks, and store what they show in an .ipynb beside each.

A stored notebook has no times and no random names of cells, so that a second run changes what the code changed; and a
digest of its cells and outputs, by which one that was edited by hand is told from one that was run.
"""

import hashlib
import json
import sys
from pathlib import Path

import jupytext
import nbclient
import nbformat

PLACE = "ppl_models"  # of the digest, among a notebook's metadata


def digest(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 of the cells of a notebook, sources and outputs."""
    cells = [(cell.cell_type, cell.source, cell.get("outputs", [])) for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()


def stored_digest(notebook: nbformat.NotebookNode) -> str:
    """The digest that a notebook was stored with; "" without one."""
    return notebook.metadata.get(PLACE, {}).get("digest", "")


def sealed(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook, with its digest among its metadata."""
    notebook.metadata[PLACE] = {"digest": digest(notebook)}
    return notebook


def executed(source: Path, folder: Path) -> nbformat.NotebookNode:
    """A percent-format .py as a notebook that was run in a folder."""
    notebook = jupytext.read(source)
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
    client = nbclient.NotebookClient(notebook, kernel_name="python3", record_timing=False, coalesce_streams=True)
    return client.execute(cwd=str(folder))


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        nbformat.write(sealed(executed(path, path.parent)), path.with_suffix(".ipynb"))
