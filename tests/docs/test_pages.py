"""The pages of the site: every block of Python runs and prints what stands below it; nothing stale is shown."""

import doctest
import re
import shlex
import shutil
from math import isclose
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_readme import RUN_HERE, blocks

from tests.helpers.command_lines import commands

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ELSEWHERE = {ROOT / name for name in RUN_HERE}
PAGES = [page for page in sorted(DOCS.glob("**/*.md")) if blocks(page) and page not in ELSEWHERE]
QUICK = ("index.md",)  # the others train, or run the inspector many times
NUMBER = re.compile(r"-?\d+\.\d+")
BLOCK = re.compile(r"^```python\n((?:(?!```).*\n)*)```\n(?:\n((?: {4}.*\n|\n(?= {4}))+))?", re.M)


def marked(page: Path):
    name = str(page.relative_to(DOCS))
    return pytest.param(page, id=name, marks=[] if name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("page", [*map(marked, PAGES)])
def test_a_page_prints_what_it_says(page, capsys, tmp_path, monkeypatch):
    """Words exactly; numbers with a point within a tenth, or 0.1: trainings differ from one machine to another."""
    if "numpyro" in page.name:
        pytest.importorskip("jax")
    monkeypatch.chdir(tmp_path)
    scope: dict = {"__name__": "page"}
    for block, said in BLOCK.findall(page.read_text()):
        exec(compile(block, page.name, "exec"), scope)
        printed = capsys.readouterr().out.rstrip()
        stated = "\n".join(line[4:] for line in said.rstrip().splitlines())
        assert NUMBER.sub("0.0", printed) == NUMBER.sub("0.0", stated)
        for found, number in zip(NUMBER.findall(printed), NUMBER.findall(stated), strict=True):
            assert isclose(float(found), float(number), rel_tol=0.1, abs_tol=0.1), (found, number)


NUMBERS = "K", "N", "LABELS", "ROWS", "STEPS", "SIMULATIONS"
SHELL = re.compile(r"^ {4}(?:\S+ )?ppl-models (.+)$|`ppl-models (\w[^`\n]*)`", re.M)


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.glob("**/*.md"))], ids=lambda page: page.name)
def test_every_line_for_a_shell_has_commands_and_options_that_there_are(page):
    for whole, mentioned in SHELL.findall(page.read_text()):
        name, *words = shlex.split(whole or mentioned, comments=True)
        if name.startswith("-") or "..." in words:
            continue
        command = commands()[name]
        known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
        assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known, whole or mentioned
        if whole:
            command.make_context(name, ["1" if word in NUMBERS else word for word in words])


def test_the_navigation_names_every_page():
    config = (ROOT / "mkdocs.yml").read_text()
    made = ("benchmarks.md", "changelog.md", "contributing.md", "tutorials/", "how-it-works/")
    named = set(re.findall(r"(?<=[ :]) ?(\w[\w/-]+\.md)$", config, re.M))
    written = {str(page.relative_to(DOCS)) for page in DOCS.glob("**/*.md")} - {"recipes/README.md"}
    assert {page for page in named if not page.startswith(made)} == written


def test_the_build_is_strict():  # with --quiet MkDocs counts no warning, and lets broken links pass
    assert "\nstrict: true\n" in (ROOT / "mkdocs.yml").read_text()
    assert re.findall(r"mkdocs build.*", (ROOT / "Makefile").read_text()) == ["mkdocs build"]


def test_every_test_that_the_proposition_names_is_there():
    named = re.findall(r"`(test_\w+)`", (DOCS / "proposition.md").read_text())
    there = re.findall(r"^def (test_\w+)", (ROOT / "tests/factorization/test_proposition.py").read_text(), re.M)
    assert len(named) == len(there) and {*named} == {*there}


# What is made of the code; needs the extra `docs`


@pytest.fixture
def hooks():
    pytest.importorskip("mkdocstrings_handlers.python")
    from website import hooks

    return hooks


@pytest.mark.slow  # `make docs` asks it, too
def test_nothing_stale_or_undocumented_is_shown(hooks):
    assert hooks.troubles() == []


def test_what_is_stale_is_named(hooks, tmp_path, monkeypatch):
    stored = hooks.NOTEBOOKS[6]
    shutil.copy(stored, tmp_path)
    copy = tmp_path / stored.name
    source = stored.with_suffix(".py").read_text()
    copy.with_suffix(".py").write_text(source)
    assert hooks.tutorials.stale(copy) == ""
    copy.with_suffix(".py").write_text(f"{source}\n# %%\nprint(1)\n")
    assert "is not of its source" in hooks.tutorials.stale(copy)
    copy.with_suffix(".py").write_text(source)
    copy.write_text(re.sub(r'"execution_count": 2,', '"execution_count": null,', copy.read_text()))
    assert "was not run" in hooks.tutorials.stale(copy)
    copy.write_text(stored.read_text().replace('"name": "stdout"', '"name": "stderr"', 1))
    assert "was edited" in hooks.tutorials.stale(copy)


def test_drawings_of_notebooks_are_documents_of_their_own_which_have_the_scheme_of_the_site(hooks):
    page = hooks.tutorials.tutorial(hooks.NOTEBOOKS[2])
    named = re.findall(r'<img alt="model, exact posterior, guide" src="(03_\S+\.svg)">', page.text)
    assert len(named) == page.text.count('class="output-html"') > 0 and "<svg" not in page.text
    for name in named:
        assert ElementTree.fromstring(page.pictures[name]).tag == "{http://www.w3.org/2000/svg}svg"
        assert hooks.DRAWING.search(f'<img alt="model" src="{name}">')


@pytest.mark.slow
def test_a_public_name_without_a_docstring_is_named(hooks, monkeypatch):
    from website import reference

    bare = reference.Public("ppl_models.cli.app.Debug")  # an alias of a type, which has none
    monkeypatch.setattr(reference, "public", lambda package: {"Debug": bare} if package == "guides" else {})
    assert reference.undocumented() == ["guides.Debug"]


def test_links_between_files_become_links_between_pages(hooks):
    told = "[a](../ppl_models/vae.py) `guides/parts/parents.py` [b](results.md#x) [c](nowhere.md)\n\n    `README.md`\n"
    assert hooks.PATHS.rewritten(told, "docs/guides.md", "guides.md") == (
        "[a](collection/models/vae.md) [`guides/parts/parents.py`](source/guides/parts/parents.py.md) "
        "[b](results.md#x) [c](nowhere.md)\n\n    `README.md`\n"
    )
    room, page = "ppl_models/inference/README.md", "how-it-works/training.md"
    assert hooks.PATHS.rewritten("[e](pyro/engine/README.md)", room, page) == "[e](engine.md)"


def test_formulas_and_plain_text(hooks):
    from website import docstrings, formulas, outside

    for module in (docstrings, formulas, outside):
        assert doctest.testmod(module).failed == 0
    text = "What.\n\n    z_<l * 2\n\n>>> f(1)\n2\n\nThen z_<l."
    assert docstrings.markdown(text) == "What.\n\n    z_<l * 2\n\n```pycon\n>>> f(1)\n2\n```\n\nThen z\\_&lt;l."


def test_code_of_the_pages_of_models_runs(hooks, capsys):
    from website import programs

    for name in ("vae", "maf"):
        ((block, said),) = BLOCK.findall(programs.model_page(name).text)
        exec(compile(block, name, "exec"), {})
        assert capsys.readouterr().out.strip() == said.strip()


@pytest.mark.slow
def test_code_of_the_pages_of_all_models_runs(hooks, capsys):
    from website import programs

    for name in programs.MODELS:
        ((block, said),) = BLOCK.findall(programs.model_page(name).text)
        exec(compile(block, name, "exec"), {})
        assert capsys.readouterr().out.strip() == said.strip()
