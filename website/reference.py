"""`reference`: pages of the public names, by package, from their docstrings; `undocumented`: names that have none.

Public is what a package's face gives: its `.pyi`, or its `__init__.py` where it has none. Nothing is imported.
"""

import ast
from functools import cache
from typing import NamedTuple

import griffe

from .docstrings import markdown
from .paths import ROOT

FACES = {  # package -> what it is for
    "ppl_models.factorization": "Recover factorizations from running programs, and judge a guide.",
    "ppl_models.inference": "Train, evaluate, and bound what a pair is worth; objectives and schedules.",
    "ppl_models.runs": "Run folders: load a trained pair, go on with its training.",
    "ppl_models.data": "Data sets by name, array files, and transforms.",
    "ppl_models.views": "Figures, and draws as ArviZ objects.",
    "ppl_models": "The models.",
    "guides": "The guides, and what guides of your own are made of.",
    "ppl_models.numpyro": "The ports of the models, with `fit`, `evaluate` and `nuts` for NumPyro.",
    "ppl_models.inference.numpyro": "Training and evaluation of NumPyro pairs.",
    "guides.numpyro": "The ports of the guides.",
}
INDEX = "reference/index.md"


class Public(NamedTuple):
    """A public name: where it is defined, and the package whose name it is again, "" for none."""

    defined: str
    shared: str = ""

    @property
    def constant(self) -> bool:
        """Whether it is a value and no function or class."""
        return self.defined.rpartition(".")[2].isupper()


def page_of(package: str) -> str:
    """The page of a package."""
    return f"reference/{package}.md"


def pages() -> dict[str, str]:
    """The face of every package -> its page; that of the models -> the list of all packages."""
    faces = {f"{package.replace('.', '/')}/__init__.pyi": page_of(package) for package in FACES}
    return faces | {"ppl_models/__init__.pyi": INDEX}


@cache
def public(package: str) -> dict[str, Public]:
    """The names that a package gives."""
    folder, found, modules = ROOT / package.replace(".", "/"), {}, {}
    face = folder / "__init__.pyi"
    for node in ast.parse((face if face.exists() else folder / "__init__.py").read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            found |= {each.asname: Public(f"{package}.{node.module}.{each.name}") for each in node.names if each.asname}
        elif isinstance(node, ast.Import):
            modules |= {each.asname: each.name for each in node.names}
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
            home = modules[node.value.value.id]
            given = public(home)[node.value.attr]
            for target in node.targets:
                found[target.id] = Public(given.defined, given.shared or home)
    return dict(sorted(found.items(), key=lambda item: (item[0].lower(), item[0])))


@cache
def docstring(defined: str) -> str:
    """The docstring of what is defined there, "" where there is none."""
    found = _code()[defined].docstring
    return found.value if found else ""


@cache
def _code() -> griffe.ModulesCollection:
    loader = griffe.GriffeLoader(search_paths=[ROOT], allow_inspection=False)
    for package in ("ppl_models", "guides"):
        loader.load(package, try_relative_path=False)
    return loader.modules_collection


def undocumented() -> list[str]:
    """Public functions and classes without a docstring, by the names under which they are given."""
    return [
        f"{package}.{name}"
        for package in FACES
        for name, each in public(package).items()
        if not each.constant and not docstring(each.defined)
    ]


def words() -> str:
    """A table of every public name and what it means: the first sentence of its docstring."""
    found: dict[str, tuple[str, str]] = {}
    for package in FACES:
        for name, each in public(package).items():
            if not each.constant and "numpyro" not in each.defined:
                found.setdefault(name, (package, docstring(each.defined).partition("\n")[0]))
    rows = sorted(found.items(), key=lambda item: item[0].lower())
    lines = [
        f"| [`{name}`][{package}.{name}] | `{package}` | {markdown(what).replace('|', chr(92) + '|')} |"
        for name, (package, what) in rows
    ]
    return "\n".join(["| in code | from | meaning |", "|---|---|---|", *lines, ""])


def reference(package: str, pages: dict[str, str]) -> str:
    """The page of a package; names that are told of elsewhere are links.

    Args:
        package: which.
        pages: dotted name -> the page that tells of it, where that is another one.
    """
    blocks, links, constants = [], [], []
    for name, each in public(package).items():
        dotted = f"{package}.{name}"
        if dotted in pages:
            links.append(f"* [`{name}`](../{pages[dotted]})")
        elif each.shared:
            links.append(f"* [`{name}`][{each.shared}.{name}] of `{each.shared}`")
        elif each.constant:
            constants.append(f"`{name}`")
        else:
            blocks += [f"::: {dotted}", ""]
    listed = [*links, ""] if links else []
    listed += [f"Constants: {', '.join(constants)}.", ""] if constants else []
    return "\n".join([f"# {package}", "", FACES[package], "", *listed, *blocks])


def index() -> str:
    """The page that lists the packages."""
    rows = [f"| [`{package}`]({package}.md) | {what} | {_names(package)} |" for package, what in FACES.items()]
    head = ["# Reference", "", "Public names, by the package that gives them; the search finds each by its name.", ""]
    return "\n".join([*head, "| package | what it is for | names |", "|---|---|---|", *rows, ""])


def _names(package: str) -> str:
    return ", ".join(f"`{name}`" for name in public(package))
