"""`tutorial`: a stored notebook as a page, its cells and outputs as they are; `stale`: why one is not to be shown.

Nothing is run. A notebook is stored beside its source, a percent-format .py, from which `make notebooks` makes it.
"""

import base64
import re
from html import escape, unescape
from pathlib import Path
from typing import NamedTuple

import jupytext
import nbformat

from .notebooks import digest, stored_digest

DRAWING = re.compile(r"<svg.*?</svg>", re.DOTALL)


class Tutorial(NamedTuple):
    """A page in Markdown, and its pictures by name."""

    text: str
    pictures: dict[str, bytes]


def stale(notebook: Path) -> str:
    """What is wrong with a stored notebook: cells not its source's, not run, or edited since; "" if nothing is."""
    whole = nbformat.read(notebook, 4)
    source, stored = jupytext.read(notebook.with_suffix(".py")).cells, whole.cells
    if [(c.cell_type, c.source) for c in source] != [(c.cell_type, c.source) for c in stored]:
        return f"{notebook.name} is not of its source; run `make notebooks`"
    counts = [cell.execution_count for cell in stored if cell.cell_type == "code"]
    if counts != list(range(1, len(counts) + 1)):
        return f"{notebook.name} was not run from its first cell to its last; run `make notebooks`"
    if digest(whole) != stored_digest(whole):
        return f"{notebook.name} was edited after it was run; run `make notebooks`"
    return ""


def tutorial(notebook: Path) -> Tutorial:
    """The page of a notebook; pictures are named by their cell."""
    blocks, pictures = [], {}
    for i, cell in enumerate(nbformat.read(notebook, 4).cells):
        if cell.cell_type == "markdown":
            blocks.append(cell.source)
        elif cell.cell_type == "code":
            blocks.append(f"```python\n{cell.source}\n```")
            for k, output in enumerate(cell.outputs):
                blocks.append(_shown(output, name := f"{notebook.stem}-{i}-{k}.png", pictures, _alt(cell.source, name)))
    return Tutorial("\n\n".join(blocks) + "\n", pictures)


def _shown(output: dict, name: str, pictures: dict[str, bytes], alt: str) -> str:
    """An output of a cell; its picture is put among the others."""
    if output["output_type"] == "stream":
        return _text(output["text"])
    data = output.get("data", {})
    if "image/png" in data:
        pictures[name] = base64.b64decode(data["image/png"])
        return f"![{alt}]({name})"
    if "text/html" in data:
        html = data["text/html"]
        for k, drawing in enumerate(DRAWING.findall(html)):  # as a document of its own it has the scheme of the site
            file = f"{name.removesuffix('.png')}-{k}.svg"
            pictures[file] = drawing.encode()
            html = html.replace(drawing, f'<img alt="{escape(_titled(drawing))}" src="{file}">')
        lines = (line for line in html.splitlines() if line.strip())  # a blank one would end the block
        return "\n".join(['<div class="output-html">', *lines, "</div>"])
    return _text(data.get("text/plain", ""))


def _titled(drawing: str) -> str:
    """What a drawing says that it is."""
    found = re.search(r"<title[^>]*>(.*?)</title>", drawing, re.DOTALL)
    return unescape(found[1]) if found else "drawing"


def _text(text: str) -> str:
    fence = "````" if "```" in text else "```"
    return f"{fence}{{ .text .output }}\n{text.rstrip()}\n{fence}"


def _alt(source: str, name: str) -> str:
    """What a picture shows, as far as its cell says so: its title, or its axes."""
    said = re.findall(r"""(?:title|set_ylabel|ylabel|suptitle)\w*\(\s*f?["']([^"'{}]+)["']""", source)
    return re.sub(r"[\[\]()\\$]", "", ", ".join(dict.fromkeys(said))) or f"Picture {name.removesuffix('.png')}"
