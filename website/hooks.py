"""What MkDocs calls while it builds the site: pages made of code are added, links rewritten, stale pages refused.

on_config          refuses stale notebooks and tables, and public names without a docstring
on_files           adds the pages of models, guides, notebooks, packages, room READMEs, and sources that are linked to
on_page_markdown   rewrites links between files into links between pages
on_page_content    formulas become MathML; names of other libraries become links to their documentation
"""

import re
from dataclasses import fields
from pathlib import Path
from textwrap import dedent

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from benchmarks import matrix
from benchmarks.collection import GUIDES, MODELS
from ppl_models.inference import FitConfig
from ppl_models.runs.naming import names
from ppl_models.runs.recipes import results
from website import formulas, outside, programs, reference, tutorials
from website.docstrings import markdown
from website.paths import COPIES, ROOT, Paths

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PATHS = Paths(
    programs.pages()
    | reference.pages()
    | {programs.PACKAGE[kind]: f"{home}/index.md" for kind, home in programs.HOME.items()}
    | {f"notebooks/{each.name}": f"tutorials/{each.stem}.md" for each in NOTEBOOKS}
)
WIDE = ("benchmarks.md", "collection.md", "contributing.md", "names.md", "results.md")
WORDS = """
## Every public name

{names}
## Options of `fit`

Fields of [`FitConfig`][ppl_models.inference.FitConfig]; `ppl-models train` has them as `--option`.

{options}
"""
DRAWING = re.compile(r'<img alt="([^"]*)" src="([^"]*\.svg)" ?/?>')
PRINTED = re.compile(r"^(```python\n(?:(?!```).*\n)*```\n)\n((?: {4}.*\n|\n(?= {4}))+)", re.M)
FILES: dict[str, str] = {page: file for file, page in COPIES.items()}  # page -> the file whose links are its own


def troubles() -> list[str]:
    """Why the site is not to be built: what is stored is stale, or a public name is not documented."""
    found = [why for why in map(tutorials.stale, NOTEBOOKS) if why]
    collection, recorded = (ROOT / "docs/collection.md").read_text(), (ROOT / "docs/results.md").read_text()
    if any(f"\n{text}\n" not in collection for text in (matrix.systems(), matrix.matrix())):
        found.append("docs/collection.md is stale; put in what `python -m benchmarks.matrix` prints")
    if recorded != results.markdown():
        found.append("docs/results.md is stale; `ppl-models results --markdown` prints it")
    return found + [f"{name} has no docstring" for name in reference.undocumented()]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Refuse what is stale; put the pages that are made of code where the navigation names their folder."""
    if found := troubles():
        raise PluginError("\n".join(["the site is not built:", *found]))
    folders = {f"{home}/": [*GUIDES] if kind == "guide" else [*MODELS] for kind, home in programs.HOME.items()}
    folders["reference/"] = [*reference.FACES]

    def filled(entry):  # noqa: ANN001, ANN202
        if isinstance(entry, dict):
            return {title: filled(below) for title, below in entry.items()}
        if isinstance(entry, list):
            return [filled(each) for each in entry]
        return [f"{entry}index.md", *(f"{entry}{name}.md" for name in folders[entry])] if entry in folders else entry

    config.nav = filled(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of something else."""

    def add(page: str, content: str | bytes, inclusion: InclusionLevel = InclusionLevel.UNDEFINED) -> None:
        files.append(File.generated(config, page, content=content, inclusion=inclusion))

    for file, page in COPIES.items():
        add(page, (ROOT / file).read_text())
    for kind, known, made in (("model", MODELS, programs.model_page), ("guide", GUIDES, programs.guide_page)):
        home = programs.HOME[kind]
        add(f"{home}/index.md", programs.index(kind))
        for name in known:
            page = made(name)
            add(f"{home}/{name}.md", page.text.replace("](picture.svg)", f"]({name}.svg)"))
            if page.picture:
                add(f"{home}/{name}.svg", page.picture)
    for notebook in NOTEBOOKS:
        page = f"tutorials/{notebook.stem}.md"
        FILES[page] = f"notebooks/{notebook.name}"
        text, pictures = tutorials.tutorial(notebook)
        add(page, text)
        for name, content in pictures.items():
            add(f"tutorials/{name}", content)
    add(reference.INDEX, reference.index())
    own = {f"{package}.{cls.__name__}": page for package, cls, page in _programs()}
    for package in reference.FACES:
        add(reference.page_of(package), reference.reference(package, own))
    _add_linked(files, config)
    return files


def _programs() -> list[tuple[str, type, str]]:
    """(package, class, page) of every model and guide, and of their ports."""
    found = []
    for kind in ("model", "guide"):
        for name, cls in names.catalogue(kind).items():
            page, package = f"{programs.HOME[kind]}/{name}.md", programs.PACKAGE[kind]
            found += [(package, cls, page), (f"{package}.numpyro", cls, page)]
    return found


def _add_linked(files: Files, config: MkDocsConfig) -> None:
    """Add the files of the repository that some page links to, as pages of their source."""
    for file in files.documentation_pages():
        PATHS.rewritten(file.content_string, _file(file.src_uri), file.src_uri)
    for source in sorted(PATHS.sources | {*programs.pages()}):
        text = (ROOT / source).read_text()
        fence = "`" * 8
        language = {".py": "python", ".toml": "toml", ".md": "markdown"}.get(Path(source).suffix, "text")
        page = f"---\nsearch:\n  exclude: true\n---\n# `{source}`\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"
        files.append(File.generated(config, f"source/{source}.md", content=page, inclusion=InclusionLevel.NOT_IN_NAV))
    for picture in sorted(PATHS.pictures):
        files.append(File.generated(config, f"pictures/{picture}", abs_src_path=str(ROOT / picture)))


def _file(page: str) -> str:
    """The file whose place its links are relative to."""
    return FILES.get(page, f"docs/{page}")


def on_page_markdown(text: str, /, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between files become links between pages; Names has every word of the code; wide tables have room."""
    uri = page.file.src_uri
    if uri in WIDE:
        page.meta["hide"] = ["toc"]
    if uri == "names.md":
        text += WORDS.format(names=reference.words(), options=_options())
    return text if uri.startswith("source/") else PRINTED.sub(_printed, PATHS.rewritten(text, _file(uri), uri))


def _options() -> str:
    """A table of the options of a training."""
    rows = []
    for each in fields(FitConfig):
        default = getattr(each.default, "__name__", repr(each.default))
        rows.append((f"`{each.name}`", f"`{default}`", markdown(each.metadata["help"]).replace("|", "\\|")))
    return matrix.table(("option", "default", "meaning"), *rows)


def _printed(found: re.Match) -> str:
    """What stands indented below a block of Python is what it prints: marked as that."""
    return f"{found[1]}\n```{{ .text .output }}\n{dedent(found[2]).rstrip()}\n```\n"


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Formulas as MathML, names of other libraries as links, pictures that can be touched; sources are not searched."""
    if page.file.src_uri.startswith("source/"):
        return html
    html = html.replace('class="mkdocstrings-source"', 'class="mkdocstrings-source" data-search-exclude')
    return DRAWING.sub(_object, outside.linked(formulas.mathml(html)))


def _object(found: re.Match) -> str:
    """A drawing as a document of its own, whose nodes and edges answer, and which has the reader's scheme."""
    alt, source = found[1], found[2]
    return f'<object type="image/svg+xml" data="{source}" aria-label="{alt}"><img alt="{alt}" src="{source}"></object>'
