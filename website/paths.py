"""`Paths`: where a file of the repository is on the site, and links between files as links between pages.

Pages under docs/, room READMEs and CONTRIBUTING link to files as they lie in the repository. On the site such a link
leads to the page that shows the file: its own page, that of its model or guide, its tutorial, or its source.
"""

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = "docs"

COPIES = {  # file of the repository -> the page that shows it as it is
    "ppl_models/programs/README.md": "how-it-works/programs.md",
    "ppl_models/factorization/probing/README.md": "how-it-works/inspection.md",
    "ppl_models/inference/README.md": "how-it-works/training.md",
    "ppl_models/inference/pyro/engine/README.md": "how-it-works/engine.md",
    "ppl_models/inference/pyro/evaluation/README.md": "how-it-works/evaluation.md",
    "ppl_models/numpyro/README.md": "how-it-works/ports.md",
    "tests/README.md": "how-it-works/tests.md",
    "benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}

LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\()(?!https?://|mailto:|#)([^\s()#]+)(#[^\s()]*)?\)")
QUOTED = re.compile(r"(?<![\[`])`((?:[\w.-]+/)*[\w.-]+\.(?:py|md|toml|ipynb))`(?![`\]])")
FENCE = re.compile(r"^(?:```.*?^```|~~~.*?^~~~)[^\n]*$|(?:^(?: {4}|\t)[^\n]*\n?)+", re.S | re.M)


class Paths:
    """Files of the repository, and the pages of the site that show them.

    Args:
        own: file -> page, of files that have a page of their own besides `COPIES` and docs/.
    """

    def __init__(self, own: dict[str, str]) -> None:
        self.own = {**COPIES, **own}
        self.sources: set[str] = set()  # files that are linked to and shown as source
        self.pictures: set[str] = set()

    def page(self, file: str) -> str | None:
        """The page or picture of a file, by its path from the root; None where there is no such file."""
        if file in self.own:
            return self.own[file]
        if not (ROOT / file).is_file():
            return None
        if file.startswith(f"{DOCS}/"):
            return file.removeprefix(f"{DOCS}/")
        if file.endswith((".png", ".svg")):
            self.pictures.add(file)
            return f"pictures/{file}"
        self.sources.add(file)
        return f"source/{file}.md"

    def rewritten(self, text: str, file: str, page: str) -> str:
        """The Markdown of a file, whose links lead from this page to pages.

        Links to what is no file stay as they are, so that MkDocs names them; so do blocks of code.
        """

        def link(found: re.Match) -> str:
            start, target, anchor = found[1], found[2], found[3] or ""
            there = self.page(posixpath.normpath(posixpath.join(posixpath.dirname(file), target)))
            return found[0] if there is None else f"{start}{_relative(there, page)}{anchor})"

        def quoted(found: re.Match) -> str:
            beside = posixpath.normpath(posixpath.join(posixpath.dirname(file), found[1]))
            there = next(filter(None, map(self.page, _files((found[1], beside)))), None)
            return found[0] if there in (None, page) else f"[{found[0]}]({_relative(there, page)})"

        def prose(piece: str) -> str:
            return QUOTED.sub(quoted, LINK.sub(link, piece))

        return _outside(FENCE, text, prose)


def _files(names: Iterable[str]) -> Iterable[str]:
    return (name for name in names if (ROOT / name).is_file())


def _relative(there: str, page: str) -> str:
    return posixpath.relpath(there, posixpath.dirname(page) or ".")


def _outside(pattern: re.Pattern, text: str, change) -> str:  # noqa: ANN001
    """A text whose pieces between matches are changed."""
    pieces, at = [], 0
    for found in pattern.finditer(text):
        pieces += [change(text[at : found.start()]), found[0]]
        at = found.end()
    return "".join([*pieces, change(text[at:])])
