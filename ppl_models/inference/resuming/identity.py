"""`Identity`: what a run was started with, by which it is told on resume whether it is to go on as another one."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ppl_models.programs.legible import cut, legible, listed
from ppl_models.programs.pairs import Pair
from ppl_models.programs.record import Site

from ..config import FitConfig, compared
from ..storage.checkpoint_file import CHECKPOINT
from .code import Traits, sources, traits
from .fingerprint import Fingerprint
from .training_record import usable

SHOWN = 3  # places that a note names


@dataclass(frozen=True)
class Identity:
    """Arguments, data, programs and versions of a run.

    Attributes:
        config: the options of the training.
        factorization: of the programs, by `factorization_of`.
        programs: model and guide.
        data: "data" and "validation" -> their fingerprints, None where there are none.
        packages: names of those whose versions matter.
        threads: of the CPU, None where it does not compute.
    """

    config: FitConfig
    factorization: Mapping[str, Any]
    programs: tuple[Callable, Callable]
    data: Mapping[str, Fingerprint | None]
    packages: Sequence[str]
    threads: int | None

    @cached_property
    def told(self) -> dict[str, Any]:
        """All of it as JSON, for a checkpoint."""
        return {
            "settings": self.config.to_dict(),
            **{name: each and each.text for name, each in self.data.items()},
            "functions": {name: asdict(each) for name, each in self._functions.items()},
            "factorization": self.factorization,
            "sources": self._sources,
            "versions": versions(self.packages),
            "threads": self.threads,
        }

    @cached_property
    def _functions(self) -> dict[str, Traits]:
        values = {each.name: getattr(self.config, each.name) for each in fields(FitConfig)}
        odd = {name: v for name, v in values.items() if not isinstance(v, (type(None), bool, int, float, str))}
        return {name: traits(value, name) for name, value in odd.items()}

    @cached_property
    def _sources(self) -> list[dict[str, str]]:
        return [sources(program) for program in self.programs]

    def compared(self, then: Mapping[str, Any], folder: Path | None) -> list[str]:
        """What one should know of a run that goes on with these; nothing where all is as it was.

        Args:
            then: what the checkpoint says; an older one says less.
            folder: of the run.

        Raises:
            ValueError: other arguments, functions, data or sites.
        """
        with usable(Path(folder or ".") / CHECKPOINT):
            return self._compared(then, folder)

    def _compared(self, then: Mapping[str, Any], folder: Path | None) -> list[str]:
        compared(self.config.to_dict(), then["settings"])
        notes = []
        for name, words in (("data", "data"), ("validation", "validation data")):
            now, was = self.data[name], then[name]
            if (was is not None) if now is None else not now.matches(was):
                raise ValueError(
                    f"fit: the {words} are not those that the run in {folder} was started with; resume with the same, "
                    "or choose another folder"
                )
            notes += [] if now is None else now.note(words, was)
        for name, now in self._functions.items():
            notes += _same_function(name, now, then.get("functions", {}).get(name), folder)
        self._check_sites(then.get("factorization"), folder)
        if "sources" in then:
            for label, now, was in zip(("model", "guide"), self._sources, then["sources"], strict=True):
                if changed := [name for name in {**was, **now} if was.get(name) != now.get(name)]:
                    notes.append(f"the code of the {label} is not that of then: {_listed(changed)}")
        if (was := then.get("threads")) and self.threads and was != self.threads:
            notes.append(
                f"the run was started on {was} CPU threads and goes on with {self.threads}: its end will not be that "
                f"of an uninterrupted one bit for bit; set {was} for that"
            )
        was, now = then.get("versions", {}), versions(self.packages)
        if other := [f"{name} {was[name]}, now {now.get(name)}" for name in was if was[name] != now.get(name)]:
            notes.append(f"the run was started with {'; '.join(other)}: its end need not be the same bit for bit")
        return notes

    def _check_sites(self, then: Mapping[str, Any] | None, folder: Path | None) -> None:
        for label, sites in self.factorization.items():
            was = (then or self.factorization)[label]
            for name in {**was, **sites}:
                if (one := was.get(name)) != (other := sites.get(name)):
                    raise ValueError(
                        f"fit: the {label} is not that of the run in {folder}: its site {cut(repr(name), 80)} was "
                        f"{_of_site(one)}, and is {_of_site(other)}; resume with the same programs, or choose another "
                        "folder"
                    )


def factorization_of(pair: Pair) -> dict[str, Any]:
    """The sites of both programs: kind, family, shape of an event, plates, and the sizes of all but the data's."""

    def told(site: Site) -> list[Any]:
        plates = [[p.name, None if p.name == pair.plate else p.full_size] for p in site.plates]
        return [site.kind, site.family, list(site.event_shape), plates]

    both = {"model": pair.model, "guide": pair.guide}
    return {label: {site.name: told(site) for site in run.values()} for label, run in both.items()}


def cpus() -> int:
    """CPUs that this process may run on, of which XLA takes a thread each."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Name -> version of Python and of packages, None of one that is run from a checkout and not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _same_function(name: str, now: Traits, was: Mapping[str, Any] | None, folder: Path | None) -> list[str]:
    """Notes on a function that may be another one than then, of the same name."""
    if was is None or was["bytecode"] != now.bytecode:
        user = [place for place in now.firm if place.startswith("code of ")]
        return [f"the {name} was compared by its name alone: it was written down otherwise"] if user else []
    firm, loose = now.differing(Traits(**was))
    if firm:
        raise ValueError(
            f"fit: found another {name} than that of the run in {folder}, of the same name: {_listed(firm)} is not "
            "what it was; resume with the arguments that it was started with, or choose another folder"
        )
    unknown = [f"not compared: {_listed(now.unknown)}"] if now.unknown else []
    changed = [f"not what it was, which may be its use: {_listed(loose)}"] if loose else []
    return [f"the {name} of the run: {told}" for told in unknown + changed]


def _of_site(told: Sequence[Any] | None) -> str:
    if told is None:
        return "not there"
    kind, family, shape, plates = told
    inside = f" in {listed([name for name, _ in plates])}" if plates else ""
    return cut(legible(f"{kind} {family} of shape {tuple(shape)}{inside}"), 120)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
