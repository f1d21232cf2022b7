"""`Training`: the options of `fit` as a file or a command line says them: numbers, words, truth values and None."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field, asdict, dataclass, fields, make_dataclass, replace
from functools import partial, reduce
from operator import or_
from types import NoneType
from typing import TYPE_CHECKING, Any

from ppl_models.inference.config import FitConfig, option
from ppl_models.inference.schedules import Linear, Saturating
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import NotNegative, Whole, alternatives, base_of
from ppl_models.programs.legible import quoted

from .objectives import WORDS, objective_of

EPOCHS = 25  # where a command line gives neither epochs nor steps
KINDS = (bool, int, float, str, NoneType)
LEFT_OUT = ("loss", "seed")  # a library's ELBO has no words; the seed is that of all of the run
DIFFERENT: Mapping[str, Mapping[str, Any]] = {  # from `FitConfig`: defaults, and what functions are called by words
    "epochs": {"help": f"passes over the data; {EPOCHS} where no steps are given"},
    "batch_size": {"default": 64},
    "lr": {"default": 1.5e-3},
    "schedule": {"help": "course of the learning rate: warm-cosine rises and falls to 0, cosine falls, constant stays"},
    "weight_decay": {"default": 1e-3},
    "warmup": {
        "type": Whole | None,
        "default": None,
        "help": "steps in which the weight of the divergences rises to beta; by default 4000, at most a quarter of all",
    },
    "beta": {
        "type": NotNegative | str,
        "help": "weight of the divergences after the warm-up; exponential:N for 1 - exp(-t / N) in place of a warm-up",
    },
    "objective": {
        "type": str,
        "default": "elbo",
        "help": f"what is maximized: {', '.join(WORDS)}; with options: info-vae:alpha=1,lambda=100,kernel=imq",
    },
    "compile": {"help": "capture the step once and replay it compiled; by default where it pays"},
    "patience": {"help": "stop after so many records without a better bound on --validation; by default never"},
}


def _options() -> Iterator[tuple[str, Any, Field]]:
    """(name, type, field) of every option of a run."""
    for each in fields(FitConfig):
        if each.name not in LEFT_OUT:
            found = {"type": each.type, "default": each.default, **each.metadata, **DIFFERENT.get(each.name, {})}
            plain = [part for part in alternatives(found["type"]) if base_of(part) in KINDS]
            yield each.name, reduce(or_, plain), option(found["default"], str(found["help"]))
    yield "workers", Whole, option(0, "processes that make batches; 0 for none")
    yield "tensorboard", bool, option(False, "write curves to RUN/tensorboard")


_Options: Any = make_dataclass("Options", _options(), frozen=True, kw_only=True)


@partial(checked, where="fit")
@dataclass(frozen=True, kw_only=True)
class Training(_Options):
    """How long, how fast and by what a pair is trained: see `FitConfig`, with the command line's defaults.

    Exactly one of epochs and steps. `warmup=None` is 4000 steps, at most a quarter of all, and none where `beta` is a
    schedule: the word "exponential:10000" is `Saturating(10000)`. `objective` is a text, see `objectives.objective_of`.
    `workers` is an argument of `fit`; `tensorboard` writes to that folder in the run's.

    Raises:
        ValueError: values that `fit` does not take.

    >>> Training(steps=100, lr=0.01).words()
    ['--steps', '100', '--lr', '0.01']
    """

    if TYPE_CHECKING:  # no checker looks into `_options`

        def __init__(self, **options: Any) -> None: ...

    def __post_init__(self) -> None:
        if None not in (self.epochs, self.steps):
            self.settled(1)  # it raises, in the words of a command line
        self.config()

    def config(self, seed: int | None = None) -> FitConfig:
        """The same as `fit` takes it, with functions in place of words."""
        found = {each.name: getattr(self, each.name) for each in fields(FitConfig) if each.name not in LEFT_OUT}
        found |= {"objective": objective_of(self.objective), "warmup": self.warmup or 0, "seed": seed}
        if isinstance(self.beta, str):
            found["beta"] = rising(self.beta)
        elif self.warmup and self.beta != 1.0:
            found |= {"beta": Linear(self.warmup, end=self.beta), "warmup": 0}
        return FitConfig(**found)

    def settled(self, size: int, processes: int = 1) -> Training:
        """The same with every open choice made, for `size` rows of training data."""
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"found epochs={self.epochs} and steps={self.steps}, want one of them")
        usual = 0 if isinstance(self.beta, str) else min(4000, self.total(size, processes) // 4)
        return replace(self, warmup=usual if self.warmup is None else self.warmup)

    def total(self, size: int, processes: int = 1) -> int:
        """The number of steps, for `size` rows of training data."""
        rows = max(min(self.batch_size, size // processes), 1) * processes
        return self.steps or max(round((self.epochs or 0) * (size // rows) / self.accumulate), 1)

    def words(self) -> list[str]:
        """The options of a command line that say the same; those that are as usual are left out.

        A compiler by name is told as any: the command line chooses it.

        >>> Training(epochs=3, compile="xla").words()
        ['--epochs', '3', '--compile']
        """
        words, usual = [], asdict(Training())
        for name, value in asdict(self).items():
            if value == usual[name]:
                continue
            dashed = name.replace("_", "-")
            value = bool(value) if name == "compile" else value
            if isinstance(value, bool):
                words.append(f"--{dashed}" if value else f"--no-{dashed}")
            else:
                words += [f"--{dashed}", str(0 if value is None else value)]
        return words


def rising(word: str) -> Saturating:
    """The schedule of a word for beta.

    Raises:
        ValueError: any other word, a number of steps that is not positive.

    >>> rising("exponential:10000")
    Saturating(steps=10000.0)
    """
    kind, _, steps = word.partition(":")
    try:
        if kind == "exponential":
            return Saturating(float(steps))
    except ValueError:
        pass
    raise ValueError(f"found beta={quoted(word)}, want a number, or exponential:N with N > 0 steps")


def kinds_of(each: Field) -> tuple[Any, ...]:
    """The types of value that an option takes."""
    return tuple(base_of(part) for part in alternatives(each.type))


def zero_is_none(each: Field) -> bool:
    """Whether a command line says 0 for None: where an option may be None and is something else by default."""
    return NoneType in kinds_of(each) and each.default is not None
