"""`inspect_pair(model, guide, data)`: build a pair by names, compare its factorizations; `write_report`: as files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from ppl_models.factorization import Report, compare
from ppl_models.inference.storage.files import write_atomically

from .backends import backend, columns
from .folders.configuration import EXAMPLE_ROWS, Chosen, configuration, load_for
from .naming import names, trust
from .naming.options import Training


def inspect_pair(
    model: Chosen,
    guide: Chosen | None,
    data: str,
    rows: int = 3,
    level: Literal["site", "element"] = "site",
    seed: int = 0,
) -> Report:
    """Build a pair by its names, untrained, and compare their factorizations on the first rows of some data.

    Args:
        model, guide, data, seed: as for a run; the data tell the model its event and likelihood.
        rows: how many of them to run on; all, if the pair takes all and no fewer.
        level: see `ppl_models.factorization.compare`.

    Raises:
        ValueError: names or sizes that are not there, or programs that cannot be compared.
    """
    trust.received(*(name for name, _ in filter(None, (model, guide))))
    parts, transform = load_for(model[0], "pyro", data), "default"
    if getattr(names.resolve("model", model[0]), "of_reals", False) and getattr(parts[0], "levels", None):
        transform = "logit"  # as a density of real numbers wants grey levels
        parts = load_for(model[0], "pyro", data, transform=transform)
    training = Training(steps=1)
    config = configuration(
        model=model, guide=guide, data=data, parts=parts, training=training, seed=seed, transform=transform
    )
    ours, few, taken = backend("pyro"), parts[0][:rows], config["data"]["example"]
    if taken > EXAMPLE_ROWS and not ours.takes(config, few, rows):
        few = parts[0][:taken]
    *pair, example = ours.build(config, few, "cpu")
    return compare(*pair, *columns(example), level=level)


def write_report(report: Report, folder: str | Path) -> list[Path]:
    """Write report.txt, report.json, report.svg and report.html, and return their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"txt": f"{report}\n", "json": report.to_json(), "svg": report.svg(), "html": report.to_html()}
    for ending, text in texts.items():
        write_atomically(
            folder / f"report.{ending}", partial(Path.write_text, data=text, encoding="utf-8", errors="replace")
        )
    return [folder / f"report.{ending}" for ending in texts]
