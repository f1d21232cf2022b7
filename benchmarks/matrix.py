"""Every model of the collection with every guide: whether the pair fits, and whether the guide can be exact.

    python -m benchmarks.matrix                  # the tables of docs/collection.md

The rows are those of `collection.py`.
"""

import re
from string import ascii_lowercase

from ppl_models.runs.naming import names

from .collection import GUIDES, HOLES, MODELS, UNFAITHFUL, expected, hole


def table(*rows: tuple[str, ...]) -> str:
    """Rows in Markdown, the head first."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows).replace("\n", f"\n|{'---|' * len(rows[0])}\n", 1)


def cell(model: str, guide: str) -> str:
    """The verdict on a pair in short, or the letter of the sentence that says why there is none."""
    if (found := hole(model, guide)) is not None:
        return f"({ascii_lowercase[HOLES.index(found)]})"
    verdict, lacks = expected(model, guide)
    if verdict != UNFAITHFUL:
        return verdict.removeprefix("faithful, ").removeprefix("minimal, ")
    return "lacks " + "; ".join(f"{site}: {', '.join(us)}" for site, us in lacks.items())


def source(program: type) -> tuple[str, str]:
    """(year, authors with a link to the paper) of a program."""
    authors, year, rest = re.fullmatch(r"(?:[\w -]+: )?(.+?) (\d{4})(.*)", program.source, re.S).groups()
    number = re.search(r"\d{4}\.\d{4,5}", rest)
    return year, f"{authors}, [{number[0]}](https://arxiv.org/abs/{number[0]})" if number else authors


def systems() -> str:
    """Of every model its source, its files and the guide of its paper."""
    programs, guides, rows = names.catalogue("model"), names.catalogue("guide"), []
    for name, model in MODELS.items():
        year, authors = source(programs[name])
        file = f"{name.replace('-', '_')}.py"
        if model.guide is None:
            guide, verdict = ("`posterior(x)`" if model.latent else "`None`"), "exact"
        else:
            guide, verdict = f"`{guides[model.guide].__name__}`", cell(name, model.guide)
        links = f"[{file}](../ppl_models/{file})", f"[numpyro/{file}](../ppl_models/numpyro/{file})"
        density = model.density.replace("|", "\\|")
        rows.append((f"`{programs[name].__name__}`", density, year, authors, links[0], guide, verdict, links[1]))
    return table(("system", "density", "year", "source", "file", "guide", "verdict", "port"), *rows)


def matrix() -> str:
    """The verdict on every pair, and why those are refused that are."""
    programs, guides = names.catalogue("model"), names.catalogue("guide")
    rows = [(f"`{programs[model].__name__}`", *(cell(model, guide) for guide in GUIDES)) for model in MODELS]
    shown = table(("", *(f"`{guides[guide].__name__}`" for guide in GUIDES)), *rows)
    why = (f"* ({letter}) {each.why}" for letter, each in zip(ascii_lowercase, HOLES, strict=False))
    return "\n".join([shown, "", *why])


if __name__ == "__main__":
    print(systems(), matrix(), sep="\n\n")
