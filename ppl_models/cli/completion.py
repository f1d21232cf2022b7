"""`models`, `guides`, `data`, `recipes`, `words`: what a shell offers when Tab is pressed.

They are read from the sources, as importing the collection would take seconds at every press.
"""

import ast
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten

from ppl_models.runs.recipes.recipe import recipe_names

OF_GUIDES = {"refined"}  # which are made of another guide, and go by --refine
WIDE = 50  # characters about each, that it stays a line
FOLDER = "folder:", "the images of a directory"
Item = tuple[str, str]  # what is offered, and a line about it


def offered(items: Callable[[], Iterable[Item]]) -> Callable[[str], list[Item]]:
    """A callback for the shell: of all items those that begin with what was typed."""
    return lambda incomplete: [
        (n, shorten(t, WIDE, placeholder=" ...")) for n, t in items() if n.startswith(incomplete)
    ]


def programs(package: str) -> Iterator[Item]:
    """Short name and first line of every program that the face of a package has from a file of its own."""
    home = _home(package)
    for node in ast.parse((home / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 1 and "." not in node.module:
            path, names = home / f"{node.module}.py", {alias.name for alias in node.names}
            found = [c for c in _parsed(path) if isinstance(c, ast.ClassDef) and c.name in names]
            if found and node.module not in OF_GUIDES:
                yield node.module.replace("_", "-"), (ast.get_docstring(found[0]) or "").partition("\n")[0]


def data_sets() -> Iterator[Item]:
    """Name and description of every data set of the catalogue."""
    for node in _parsed(_home("ppl_models") / "data" / "catalogue.py"):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            if [ast.unparse(target) for target in node.targets] == ["CATALOGUE"]:
                for key, value in zip(node.value.keys, node.value.values, strict=True):
                    text = value.args[0] if isinstance(value, ast.Call) and value.args else None
                    if isinstance(key, ast.Constant) and isinstance(text, ast.Constant):
                        yield str(key.value), str(text.value)
    yield FOLDER


def words(*known: str) -> Callable[[str], list[Item]]:
    """A callback that offers a few words."""
    return offered(lambda: [(word, "") for word in known])


models = offered(lambda: programs("ppl_models"))
guides = offered(lambda: programs("guides"))
data = offered(data_sets)
recipes = offered(lambda: ((name, "") for name in recipe_names()))
listed = offered(
    lambda: [
        *((kind, "") for kind in ("models", "guides", "objectives", "data", "all")),
        *programs("ppl_models"),
        *programs("guides"),
        *(item for item in data_sets() if item != FOLDER),
    ]
)


def _home(package: str) -> Path:
    """The folder of a package, which is not imported for that."""
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def _parsed(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []
