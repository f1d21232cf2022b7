"""`model_page`, `guide_page`: a page each, made of the code: formula, picture, verdicts, sizes, source, port, results.

Pairs are those of `benchmarks/collection.py`, in small; the picture and the report are what the inspector says of them
while the site is built, and the build ends where that is not what `collection.py` states.
"""

import inspect
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.collection import GUIDES, MODELS, expected, hole
from benchmarks.matrix import cell, table
from ppl_models.factorization import Report, compare
from ppl_models.parts.sizes import all_sizes
from ppl_models.runs import names
from ppl_models.runs.recipe_files import read_recipe
from ppl_models.runs.results import HEADINGS, cells, recorded, rows_of

HOME = {"model": "collection/models", "guide": "collection/guides"}
PACKAGE = {"model": "ppl_models", "guide": "guides"}
SHOWN_WITH = {  # guide -> the model that its page shows it with, where that is not a chain of latents
    "bidirectional": "biva",
    "infused": "infusion",
    "merging": "matnet",
    "recurrent": "draw",
    "self-reflective": "sere-vae",
}


class Page(NamedTuple):
    """A page in Markdown, and the picture that it shows, "" for none."""

    text: str
    picture: str = ""


def pages() -> dict[str, str]:
    """File of every model and guide -> its page."""
    return {
        f"{PACKAGE[kind]}/{name.replace('-', '_')}.py": f"{HOME[kind]}/{name}.md"
        for kind, known in (("model", MODELS), ("guide", GUIDES))
        for name in known
    }


def report_of(model: str, guide: str | None) -> Report:
    """What the inspector says of a pair.

    Raises:
        ValueError: it is not what `benchmarks/collection.py` states.
    """
    sizes = dict(MODELS[model].sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        program, x = names.catalogue("model")[model](**sizes), _rows(model, sizes)
        made = guide and names.catalogue("guide")[guide](program, x, **GUIDES[guide])
        report = compare(program, made, x)
    if guide is not None and (report.verdict, {s: tuple(us) for s, us in report.missing.items()}) != expected(
        model, guide
    ):
        raise ValueError(
            f"{model} with {guide}: the inspector says {report.verdict}, benchmarks/collection.py does not"
        )
    return report


def _rows(model: str, sizes: dict[str, Any]) -> Tensor:
    """Three rows that a model takes."""
    shape = 3, prod(all_sizes(model, "event", sizes["event"]))
    return torch.randn(shape) if MODELS[model].data == "reals" else torch.bernoulli(torch.full(shape, 0.5))


def model_page(name: str) -> Page:
    """The page of a model."""
    program, known = names.catalogue("model")[name], MODELS[name]
    guide = known.guide or ("faithful" if known.latent else None)
    report = report_of(name, guide)
    shown = [
        ("source", _text(program.source)),
        ("with latents", "yes" if known.latent else "no: its guide is `None`, and its density is exact"),
        ("guide of its paper", _guide(known.guide) if known.guide else "none"),
        ("NumPyro port", f"`ppl_models.numpyro.{program.__name__}`, [below](#numpyro)"),
        ("code", f"`ppl_models/{name.replace('-', '_')}.py`"),
    ]
    verdicts = [
        (_guide(other), _verdict(name, other), hole(name, other).why if hole(name, other) else "") for other in GUIDES
    ]
    lines = [
        *_head(program, shown),
        *(_picture(name, known.guide, report) if known.latent else []),
        *(
            ["## Verdicts with every guide", "", table(("guide", "verdict", "why not"), *verdicts), ""]
            if known.latent
            else []
        ),
        "## Use",
        "",
        *_use(name, known, guide),
        *_results(name),
        *_reference(f"ppl_models.{program.__name__}", f"ppl_models.numpyro.{program.__name__}"),
    ]
    return Page("\n".join(lines), report.svg() if known.latent else "")


def guide_page(name: str) -> Page:
    """The page of a guide."""
    program, model = names.catalogue("guide")[name], SHOWN_WITH.get(name, "hierarchical-vae")
    report = report_of(model, name)
    shown = [
        ("source", _text(program.source)),
        ("NumPyro port", f"`guides.numpyro.{program.__name__}`, [below](#numpyro)"),
        ("code", f"`guides/{name.replace('-', '_')}.py`"),
    ]
    verdicts = [
        (_model(other), _verdict(other, name), hole(other, name).why if hole(other, name) else "")
        for other, known in MODELS.items()
        if known.latent
    ]
    lines = [
        *_head(program, shown),
        *_picture(model, name, report),
        "## Verdicts with every model",
        "",
        table(("model", "verdict", "why not"), *verdicts),
        "",
        "## Use",
        "",
        f"    ppl-models train {model} -g {name}",
        f"    ppl-models inspect {model} {name}",
        "",
        *_reference(f"guides.{program.__name__}", f"guides.numpyro.{program.__name__}"),
    ]
    return Page("\n".join(lines), report.svg())


def index(kind: str) -> str:
    """The page that lists the models or the guides."""
    known = {"model": MODELS, "guide": GUIDES}[kind]
    rows = []
    for name in known:
        program = names.catalogue(kind)[name]
        summary = inspect.getdoc(program).partition("\n")[0]
        rows.append((f"[`{program.__name__}`]({name}.md)", _text(summary), f"`{program.density}`".replace("|", "\\|")))
    about = {
        "model": "Densities p(x, z) as Pyro programs, each with a NumPyro port. A page shows the formula, the picture of "
        "the model beside its exact posterior and the guide of its paper, sizes, and recorded results.",
        "guide": "Structures of q(z | x), for any model. A page shows who conditions on whom, the verdict with every "
        "model of the collection, and the arguments.",
    }[kind]
    more = (
        ""
        if kind == "model"
        else "\n`Refined(guide)` goes on from the draws of any of them: see [Guides](../../guides.md).\n"
    )
    title = f"# {kind.title()}s"
    return f"{title}\n\n{about}\n{more}\n{table((kind, 'what it is', 'formula'), *rows)}\n"


def _head(program: type, shown: list[tuple[str, str]]) -> list[str]:
    summary = inspect.getdoc(program).partition("\n")[0]
    facts = [f"**{what}**: {told}  " for what, told in shown]
    return [f"# {program.__name__}", "", _text(summary), "", f"    {program.density}", "", *facts, ""]


def _picture(model: str, guide: str | None, report: Report) -> list[str]:
    of = names.catalogue("guide")[guide or "faithful"].__name__
    program = names.catalogue("model")[model].__name__
    note = "" if guide else " Its paper has none; `Faithful` is shown."
    return [
        f"## {program} with {of}",
        "",
        f"What the inspector reads off both programs, of {_small(model)}.{note} *Missing* edges are what the posterior",
        "has and the guide lacks; *superfluous* ones could go.",
        "",
        f"![{of} for {program}: {report.verdict}](picture.svg){{ .inspection }}",
        "",
        "```{ .text .output }",
        str(report),
        "```",
        "",
    ]


def _small(model: str) -> str:
    sizes = ", ".join(f"{key}={value!r}" for key, value in MODELS[model].sizes.items())
    return f"`{names.catalogue('model')[model].__name__}({sizes})`"


def _use(name: str, known: Any, guide: str | None) -> list[str]:
    program, sizes = names.catalogue("model")[name].__name__, known.sizes
    made = ", ".join(f"{key}={value!r}" for key, value in sizes.items())
    data = "randn(3, {})" if known.data == "reals" else "bernoulli(torch.full((3, {}), 0.5))"
    rows = data.format(prod(all_sizes(name, "event", sizes["event"])))
    lines = ["```python", "import torch"]
    if guide:
        cls = names.catalogue("guide")[guide].__name__
        lines += [f"from guides import {cls}"]
    lines += [f"from ppl_models import {program}", "", f"model, x = {program}({made}), torch.{rows}"]
    lines += [f"guide = {cls}(model, x)"] if guide else ["guide = None"]
    lines += ["print(model(n=2).shape)  # two draws of data", "```", ""]
    shell = f"    ppl-models train {name}" + (f" -g {guide}" if guide else "")
    return [*lines, "From the shell, with the sizes of its paper by default:", "", shell, ""]


def _results(name: str) -> list[str]:
    """The runs of recipes that trained a model, where an NLL was recorded."""
    rows = []
    for recipe_name, seeds in recorded().items():
        recipe = read_recipe(recipe_name)
        rows += [
            (f"`{recipe_name}`", *cells(row))
            for row in rows_of(recipe, seeds)
            if recipe.runs[row.run]["model"].get("name") == name
        ]
    if not rows:
        return ["## Recorded results", "", "None yet: see [Results](../../results.md).", ""]
    return [
        "## Recorded results",
        "",
        "Nats per datum; how they were had: [Results](../../results.md).",
        "",
        table(("recipe", *HEADINGS), *rows),
        "",
    ]


def _reference(name: str, port: str) -> list[str]:
    options = [
        "    options:",
        "      heading_level: 2",
        "      show_root_heading: true",
        "      show_root_full_path: true",
    ]
    twin = [
        "    options:",
        "      heading_level: 3",
        "      show_root_heading: true",
        "      show_root_full_path: true",
    ]
    return [f"::: {name}", *options, "", "## NumPyro", "", f"::: {port}", *twin, ""]


def _verdict(model: str, guide: str) -> str:
    if hole(model, guide) is not None:
        return "does not fit"
    said, lacks = expected(model, guide)
    return said if not lacks else f"unfaithful: {cell(model, guide)}"


def _guide(name: str) -> str:
    return f"[`{names.catalogue('guide')[name].__name__}`](../guides/{name}.md)"


def _model(name: str) -> str:
    return f"[`{names.catalogue('model')[name].__name__}`](../models/{name}.md)"


def _text(text: str) -> str:
    """Plain text, in a table's cell or a paragraph, with arXiv numbers as links."""
    import re

    from .docstrings import markdown

    return re.sub(r"(?:arXiv )(\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", markdown(text)).replace(
        "|", "\\|"
    )
