"""`ablate(plans, parts, folder)`: one model with one guide after the other; what each lacks, and by how many nats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import floor, inf, log10
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ppl_models.data import Data, Table
from ppl_models.factorization import Report, compare
from ppl_models.inference import Difference
from ppl_models.inference.storage.files import write_atomically, write_json
from ppl_models.views import plots, structures

from .backends import backend, backend_of, columns
from .begun import carried_through, is_begun
from .evaluating import evaluate_run
from .folders.configuration import Parts
from .folders.folder import LoadedRun, load_run
from .machine import commit, machine
from .naming import names

RESULTS, PICTURE, BOUNDS = "ablation.json", "ablation.png", "ablation.safetensors"
SHOWN = 3  # missing edges that a table has room for
Plans = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Ablated:
    """One guide of an ablation, trained once for each seed.

    Attributes:
        name: of the guide.
        report: on its structure, of the pair that the first seed trained.
        negative_elbos, nlls: bounds of each test datum, (seeds, n), in nats.
        particles: importance samples a datum.
        seconds: of each training.
        commands: that make the runs.
    """

    name: str
    report: Report
    negative_elbos: np.ndarray
    nlls: np.ndarray
    particles: int
    seconds: tuple[float, ...]
    commands: tuple[str, ...]

    @property
    def lacks(self) -> str:
        """The edges that its factors lack, in words."""
        if self.report.faithful is None:
            return "cannot certify"
        edges = [f"{u}→{z}" for z, missing in self.report.missing.items() for u in missing]
        more = f", ... {len(edges)} in all" if len(edges) > SHOWN else ""
        once = [f"{row.site} is one draw for all" for row in self.report.rows if row.once]
        return ", ".join([*edges[:SHOWN], *once]) + more or "nothing"

    def minus(self, other: Ablated) -> dict[str, Difference]:
        """By how much the two bounds differ from those of another guide, over the same data and seeds."""
        return {
            "negative_elbo": Difference.of(self.negative_elbos, other.negative_elbos),
            "nll": Difference.of(self.nlls, other.nlls),
        }

    def to_dict(self, first: Ablated) -> dict[str, Any]:
        """All of it but the numbers of each datum, and the differences from the first guide, ready for JSON."""
        n = self.nlls.shape[1]
        return {
            "factorization": str(self.report.guide),
            "verdict": self.report.verdict,
            "missing": {site: list(missing) for site, missing in self.report.missing.items()},
            "gap": self.report.gap and vars(self.report.gap),
            "negative_elbo": self.negative_elbos.mean(1).tolist(),
            "nll": self.nlls.mean(1).tolist(),
            "nll_error": float(self.nlls.mean(0).std(ddof=1) / n**0.5) if n > 1 else None,
            "minus": {first.name: {key: each.to_dict() for key, each in self.minus(first).items()}},
            "seconds": list(self.seconds),
            "commands": list(self.commands),
        }


def ablate(
    plans: Plans,
    parts: Parts,
    folder: str | Path,
    particles: int = 100,
    device: str = "cpu",
    progress: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> list[Ablated]:
    """Train a model with each guide, alike; bound the same test data, and write ablation.json and ablation.png.

    Every pair is built before the first is trained. Each training is a run folder GUIDE-SEED in the folder: the same
    call again takes those that are done as they are, and goes on with one that was stopped.

    Args:
        plans: guide -> the configurations of its trainings, one a seed, with the same seeds for all.
        parts: the data of all of them.
        folder: where to write.
        particles: importance samples a test datum.
        device, progress: as for `train`.
        report: is told what is done, line by line.

    Returns:
        The guides in their order.

    Raises:
        ValueError: what the programs or the data object to; a folder that holds other runs; data that count as one.
    """
    folder = Path(folder)
    for name, configs in plans.items():
        for config in configs:
            if not is_begun(config, folder / _named(name, config)):
                try:
                    backend(backend_of(config)).build(config, parts[0][: config["data"]["example"]], "cpu")
                except ValueError as error:
                    raise ValueError(f"guide {name}: {error}") from error
    found: dict[str, list[_Trained]] = {name: [] for name in plans}
    for k in range(max(map(len, plans.values()))):  # a table of all guides is there after the first seed
        for name, configs in plans.items():
            report(f"{name}, seed {configs[k]['seed']}")
            place = folder / _named(name, configs[k])
            found[name].append(_trained(configs[k], parts, place, particles, device, progress))
    rows = [_row(name, each, particles) for name, each in found.items()]
    configs = next(iter(plans.values()))
    results = {
        "model": configs[0]["model"],
        "data": configs[0]["data"]["name"],
        "training": configs[0]["training"],
        "seeds": [each["seed"] for each in configs],
        "particles": particles,
        "n": rows[0].nlls.shape[1],
        "machine": machine(device),
        "commit": commit(),
        "guides": {row.name: row.to_dict(rows[0]) for row in rows},
    }
    write_json(folder / RESULTS, results)
    title = f"{configs[0]['model']['name']} on {names.short(configs[0]['data']['name'])}"
    plots.save_figure(structures.ablation({row.name: drawn(row, rows[0]) for row in rows}, title), folder / PICTURE)
    return rows


@dataclass(frozen=True)
class _Trained:
    run: LoadedRun
    seconds: float
    negative_elbos: np.ndarray
    nlls: np.ndarray


def _trained(
    config: Mapping[str, Any], parts: Parts, folder: Path, particles: int, device: str, progress: bool
) -> _Trained:
    """A run that is trained to its end, and the bounds of the test data, computed or as they were written."""
    known, data = _read(folder / BOUNDS), _checksum(parts[-1])  # there once a training is done
    if known is not None and int(known["of"][-1]) != data:
        known = None  # what the run says of data that have changed is asked once more
    run = carried_through(config, parts, folder, device, progress) if known is None else load_run(folder, device)
    last = run.history[-1]
    of = np.array([last["step"], particles, data])
    if known is None or not np.array_equal(known["of"], of):
        bounds = evaluate_run(run, parts[-1], particles, progress=progress)
        if bounds.nlls is None or bounds.elbos is None:
            raise ValueError(f"ablate: found all data of {folder} as one datum, want a model with a plate of the data")
        known = {"negative_elbos": -bounds.elbos, "nlls": bounds.nlls, "of": of}
        write_atomically(folder / BOUNDS, partial(Path.write_bytes, data=save(known)))
    return _Trained(run, float(last["seconds"]), known["negative_elbos"], known["nlls"])


def _checksum(part: Data | Table) -> int:
    """Of the values of data, by which it is told that a file of them has changed."""
    arrays, found = part.columns.values() if isinstance(part, Table) else (part.values,), 0
    for array in arrays:
        found = crc32(np.ascontiguousarray(array.numpy()).data, found)
    return found


def _row(name: str, each: Sequence[_Trained], particles: int) -> Ablated:
    pair = each[0].run
    report = compare(pair.model, pair.guide, *columns(pair.example))
    bounds = (np.stack([getattr(one, kind) for one in each]) for kind in ("negative_elbos", "nlls"))
    seconds = tuple(one.seconds for one in each)
    return Ablated(name, report, *bounds, particles, seconds, tuple(one.run.config["command"] for one in each))


def drawn(row: Ablated, first: Ablated) -> dict[str, Any]:
    """A row as `structures.ablation` takes it."""
    minus = {key: (each.nll, each.total_error) for key, each in row.minus(first).items()} if row is not first else {}
    bounds = {"negative_elbo": row.negative_elbos.mean(1), "nll": row.nlls.mean(1)}
    verdict = row.report.verdict
    return {
        "note": f"{verdict}: lacks {row.lacks}" if row.report.faithful is False else verdict,
        **bounds,
        "minus": minus,
    }


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a file; None where there is none, or no whole one."""
    try:
        found = load_file(path)
    except (OSError, SafetensorError):
        return None
    return found if found.keys() == {"negative_elbos", "nlls", "of"} else None


def _named(name: str, config: Mapping[str, Any]) -> str:
    return f"{names.slug(name)}-{config['seed']}"


HEADINGS = "guide", "lacks", "-ELBO", "minus first", "NLL", "minus first", "s"


def cells(row: Ablated, first: Ablated) -> tuple[str, ...]:
    """A row in words, see `HEADINGS`; errors are over data and seeds, seconds the mean of the trainings."""
    minus, (elbo, nll) = row.minus(first), (each.mean() for each in (row.negative_elbos, row.nlls))
    differences = {key: "" if row is first else _told(each) for key, each in minus.items()}
    bounds = f"{elbo:.2f}", differences["negative_elbo"], f"{nll:.2f}", differences["nll"]
    return row.name, row.lacks, *bounds, f"{sum(row.seconds) / len(row.seconds):.0f}"


def _told(found: Difference) -> str:
    """A difference to two digits of its error."""
    error = found.total_error
    digits = max(1 - floor(log10(error)), 0) if 0 < error < inf else 3
    return f"{found.nll:+.{digits}f} ±{error:.{digits}f}"
