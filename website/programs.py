"""`model_page`, `guide_page`: a page each, made of the code: formula, picture, verdicts, sizes, source, port, results.

Pairs are those of `benchmarks/collection.py`, in small; the picture and the report are what the inspector says of them
while the site is built, and the build ends where that is not what `collection.py` states.
"""

import inspect
import re
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.collection import GUIDES, MODELS, Model, expected, hole
from benchmarks.matrix import cell, table
from ppl_models.factorization import Report, compare
from ppl_models.parts.arguments.sizes import all_sizes
from ppl_models.runs.naming import names
from ppl_models.runs.recipes.recipe import read_recipe
from ppl_models.runs.recipes.results import HEADINGS, cells, recorded, rows_of

from .docstrings import markdown

HOME = {"model": "collection/models", "guide": "collection/guides"}
PACKAGE = {"model": "ppl_models", "guide": "guides"}
SHOWN_WITH = {  # guide -> the model that its page shows it with, where that is not a chain of latents
    "bidirectional": "biva",
    "infused": "infusion",
    "merging": "matnet",
    "recurrent": "draw",
    "self-reflective": "sere-vae",
}
ABOUT = {
    "model": "Densities p(x, z) as Pyro programs, each with a NumPyro port. A page shows the formula, the picture of "
    "the model beside its exact posterior and the guide of its paper, sizes, and recorded results.",
    "guide": "Structures of q(z | x), for any model. A page shows who conditions on whom, the verdict with every model "
    "of the collection, and the arguments. `Refined(guide)` goes on from the draws of any of them: see "
    "[Guides](../../guides.md).",
}


class Page(NamedTuple):
    """A page in Markdown, and the picture that it shows, "" for none."""

    text: str
    picture: str = ""


def file_of(kind: str, name: str) -> str:
    """The file that defines a model or guide."""
    return f"{PACKAGE[kind]}/{name.replace('-', '_')}.py"


def pages() -> dict[str, str]:
    """File of every model and guide -> its page."""
    every = [*(("model", name) for name in MODELS), *(("guide", name) for name in GUIDES)]
    return {file_of(kind, name): f"{HOME[kind]}/{name}.md" for kind, name in every}


def report_of(model: str, guide: str) -> Report:
    """What the inspector says of a pair.

    Raises:
        ValueError: it is not what `benchmarks/collection.py` states.
    """
    sizes = dict(MODELS[model].sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = 3, prod(all_sizes(model, "event", sizes["event"]))
        x: Tensor = torch.randn(shape) if MODELS[model].data == "reals" else torch.bernoulli(torch.full(shape, 0.5))
        program = names.catalogue("model")[model](**sizes)
        report = compare(program, names.catalogue("guide")[guide](program, x, **GUIDES[guide]), x)
    found = report.verdict, {site: tuple(lacks) for site, lacks in report.missing.items()}
    if found != expected(model, guide):
        raise ValueError(f"{model} with {guide}: the inspector says {found}, benchmarks/collection.py another thing")
    return report


def model_page(name: str) -> Page:
    """The page of a model."""
    program, known = names.catalogue("model")[name], MODELS[name]
    guide = known.guide or "faithful"
    latents = "" if known.latent else "none: the density is exact, and the guide is `None`"
    facts = {
        "latents": latents,
        "guide of its paper": _link("guide", known.guide) if known.guide else "",
        "port": f"`ppl_models.numpyro.{program.__name__}`, [below](#numpyro)",
    }
    lines, report = _head("model", name, facts), None
    if known.latent:
        report = report_of(name, guide)
        lines += _picture(name, guide, report)
        lines += [
            "## Verdicts with every guide",
            "",
            _verdicts((name, other, _link("guide", other)) for other in GUIDES),
        ]
    lines += ["", "## Use", "", *_use(name, known, guide if known.latent else None), *_results(name)]
    lines += _reference(f"ppl_models.{program.__name__}", f"ppl_models.numpyro.{program.__name__}")
    return Page("\n".join(lines), report.svg() if report else "")


def guide_page(name: str) -> Page:
    """The page of a guide."""
    program, model = names.catalogue("guide")[name], SHOWN_WITH.get(name, "hierarchical-vae")
    report = report_of(model, name)
    pairs = ((other, name, _link("model", other)) for other, known in MODELS.items() if known.latent)
    lines = [
        *_head("guide", name, {"port": f"`guides.numpyro.{program.__name__}`, [below](#numpyro)"}),
        *_picture(model, name, report),
        *("## Verdicts with every model", "", _verdicts(pairs), ""),
        *("## Use", "", f"    ppl-models train {model} -g {name}", f"    ppl-models inspect {model} {name}", ""),
        *_reference(f"guides.{program.__name__}", f"guides.numpyro.{program.__name__}"),
    ]
    return Page("\n".join(lines), report.svg())


def index(kind: str) -> str:
    """The page that lists the models or the guides."""
    rows = []
    for name in MODELS if kind == "model" else GUIDES:
        program = names.catalogue(kind)[name]
        rows.append((f"[`{program.__name__}`]({name}.md)", _text(_summary(program)), f"`{program.density}`"))
    return f"# {kind.title()}s\n\n{ABOUT[kind]}\n\n{table((kind, 'what it is', 'formula'), *rows)}\n"


def _head(kind: str, name: str, facts: dict[str, str]) -> list[str]:
    """Title, summary, formula, and what is known of a program."""
    program, file = names.catalogue(kind)[name], file_of(kind, name)
    told = {"source": _text(program.source), **facts, "code": f"[`{file}`](../../source/{file}.md)"}
    listed = [f"* **{what}**: {each}" for what, each in told.items() if each]
    return [f"# {program.__name__}", "", _text(_summary(program)), "", f"    {program.density}", "", *listed, ""]


def _picture(model: str, guide: str, report: Report) -> list[str]:
    """The inspector's picture and text of a pair."""
    program, of = (names.catalogue(kind)[name].__name__ for kind, name in (("model", model), ("guide", guide)))
    sizes = ", ".join(f"{key}={value!r}" for key, value in MODELS[model].sizes.items())
    return [
        f"## {program} with {of}",
        "",
        f"What the inspector reads off `{program}({sizes})` and this guide. Missing edges are what the exact posterior",
        "has and the guide lacks; superfluous ones could go.",
        "",
        f"![{of} for {program}: {report.verdict}](picture.svg)",
        "",
        "```{ .text .output }",
        str(report),
        "```",
        "",
    ]


def _verdicts(pairs: Any) -> str:
    """A table of (model, guide, link): the verdict, or why the two do not fit."""
    rows = []
    for model, guide, link in pairs:
        found = hole(model, guide)
        said = f"does not fit: {found.why}" if found else expected(model, guide)[0]
        lacks = "" if found or not expected(model, guide)[1] else f": {cell(model, guide)}"
        rows.append((link, said + lacks))
    return table(("with", "verdict"), *rows)


def _use(name: str, known: Model, guide: str | None) -> list[str]:
    """Code that runs, and a command."""
    program, sizes = names.catalogue("model")[name].__name__, known.sizes
    width = prod(all_sizes(name, "event", sizes["event"]))
    rows = f"torch.randn(3, {width})" if known.data == "reals" else f"torch.bernoulli(torch.full((3, {width}), 0.5))"
    cls = names.catalogue("guide")[guide].__name__ if guide else ""
    lines = [
        "```python",
        "import torch",
        *([f"from guides import {cls}"] if guide else []),
        f"from ppl_models import {program}",
        "",
        f"model = {program}({', '.join(f'{key}={value!r}' for key, value in sizes.items())})",
        f"x = {rows}",
        f"guide = {cls}(model, x)" if guide else "guide = None",
        "print(model(n=2).shape)  # two draws of data",
        "```",
        "",
        f"    torch.Size([2, {width}])",
    ]
    command = f"    ppl-models train {name}" + (f" -g {guide}" if guide else "")
    return [*lines, "", "From the shell:", "", command, ""]


def _results(name: str) -> list[str]:
    """The runs of recipes that trained a model, where an NLL was recorded."""
    rows = []
    for recipe_name, seeds in recorded().items():
        recipe = read_recipe(recipe_name)
        own = (row for row in rows_of(recipe, seeds) if recipe.runs[row.run]["model"].get("name") == name)
        rows += [(f"`{recipe_name}`", *cells(row)) for row in own]
    head = ["## Recorded results", ""]
    if not rows:
        return [*head, "No likelihood has been recorded; [Results](../../results.md) has those that were.", ""]
    told = "NLL in nats per datum; [Results](../../results.md) says how they were had."
    return [*head, told, "", table(("recipe", *HEADINGS), *rows), ""]


def _reference(name: str, port: str) -> list[str]:
    """The docstrings of a program and of its port."""

    def shown(dotted: str, level: int) -> list[str]:
        options = f"heading_level: {level}", "show_root_heading: true", "show_root_full_path: true"
        return [f"::: {dotted}", "    options:", *(f"      {option}" for option in options), ""]

    return [*shown(name, 2), "## NumPyro", "", *shown(port, 3)]


def _summary(program: type) -> str:
    return (inspect.getdoc(program) or "").partition("\n")[0]


def _link(kind: str, name: str) -> str:
    return f"[`{names.catalogue(kind)[name].__name__}`](../{kind}s/{name}.md)"


def _text(text: str) -> str:
    """Plain text for a paragraph or a table, arXiv numbers as links."""
    found = re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", markdown(text))
    return found.replace("|", "\\|")
