"""`FitConfig`: the options of a training, each said once; checked, and written down for a run to be resumed."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import partial
from inspect import Parameter, signature
from math import inf, isfinite
from typing import Annotated, Any, Literal, TypedDict, cast, get_args

from ppl_models.parts.arguments.checked import F, checked, nearest
from ppl_models.parts.arguments.kinds import LARGEST, Count, Is, NotNegative, Number, Positive, Seed, Whole
from ppl_models.programs.arguments import takes
from ppl_models.programs.legible import cut

from .objectives.bounds import elbo
from .objectives.stateful import is_objective
from .schedules import Constant, Cosine, Linear, to_dict, within

Decay = Annotated[float, Number(least=0, below=1)]
Gradient = Literal["reparametrized", "doubly-reparametrized"]
Precision = Literal["float32", "bfloat16"]
Schedule = Annotated[Callable[[int], float], Is("a function of the step", partial(takes, 1))]
Objective = Annotated[Callable[..., Any], Is("an objective", is_objective, error=ValueError)]
Compiler = Literal["xla", "inductor"]  # of torch's steps
COMPILERS = get_args(Compiler)
Compile = Literal["auto", Compiler] | bool
# Steps from which a capture pays: compiled by XLA (seconds), by Inductor on a CPU (about half a minute), on a GPU. By
# the number of steps and not by the clock, so that runs decide alike.
WORTHWHILE = {"xla": 1000, "cpu": 5000, "cuda": 500}
Course = Literal["warm-cosine", "cosine", "constant"]
RISE = 100  # steps over which the learning rate of a warm cosine rises, at most


class FitOptions(TypedDict, total=False):
    """The fields of `FitConfig` as keywords of `fit`, for editors and type checkers."""

    steps: Count | None
    epochs: Annotated[float, Number(above=0, most=LARGEST)] | None
    batch_size: Count
    lr: Positive
    schedule: Course | Schedule
    weight_decay: NotNegative
    warmup: Whole
    beta: NotNegative | Schedule
    clip: Positive | None
    skip: Annotated[float, Number(above=0, most=inf)] | None
    ema: Decay | None
    particles: Count
    analytic: bool
    objective: Objective
    gradient: Gradient
    loss: Any
    accumulate: Count
    precision: Precision
    compile: Compile
    patience: Count | None
    every: Count | None
    record_kl: bool
    seed: Seed | None


def option(default: Any, text: str) -> Any:
    """A field with this default, and with what it is for as its `metadata["help"]`."""
    return field(default=default, metadata={"help": text})


@partial(checked, where="fit")
@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """The options of `fit`, the same for Pyro and NumPyro: to be passed whole, by name, or both.

        config = FitConfig(lr=3e-3, ema=None)
        fit(model, guide, data, config, steps=500)
        fit(model, guide, data, lr=3e-3, ema=None, steps=500)

    Raises:
        ValueError: values out of their range, or that contradict each other.
    """

    steps: Count | None = option(None, "steps to take; either these or `epochs` say how long")
    epochs: Annotated[float, Number(above=0, most=LARGEST)] | None = option(
        None, "passes over the data, each of len(data) // batch_size batches"
    )
    batch_size: Count = option(
        128, "rows a batch (of each process); of data with fewer rows all are taken, in their order"
    )
    lr: Positive = option(1e-3, "learning rate of AdamW")
    schedule: Course | Schedule = option(
        "warm-cosine",
        "its course: 'warm-cosine' rises over the first tenth of the steps, 100 at most (without, rates above 1e-3 may "
        "throw a deep pair far off at once), and falls to zero; 'cosine' falls alone, 'constant' stays; a function of "
        "the step gives a factor",
    )
    weight_decay: NotNegative = option(0.0, "weight decay of AdamW")
    warmup: Whole = option(0, "steps over which the weight of the divergences rises linearly from 0 to 1")
    beta: NotNegative | Schedule = option(
        1.0, "weight of the divergences, or a function of the step, counted from 0 (`schedules.Cyclic(2000)`)"
    )
    clip: Positive | None = option(100.0, "bound on the norm of the gradient; None for none")
    skip: Annotated[float, Number(above=0, most=inf)] | None = option(
        None, "leave a step out whose gradient has a larger norm or is not finite; None: not finite is an error"
    )
    ema: Decay | None = option(
        0.999,
        "decay of the moving average of the parameters that the pair is left with, min(ema, (1 + t) / (10 + t)) at "
        "step t = 0, 1, ...; None to keep the last parameters",
    )
    particles: Count = option(
        1, "draws a step, in one vectorized pass; Pyro programs that are wrong in one are run once a draw"
    )
    analytic: bool = option(True, "take divergences in closed form where there is one (less noise), or sample all")
    objective: Objective = option(elbo, "function of `Terms` that is maximized, such as partial(free_bits, nats=1)")
    gradient: Gradient = option(
        "reparametrized", "estimator of the gradient: 'reparametrized', or 'doubly-reparametrized' (see `estimate`)"
    )
    loss: Any = option(
        None,
        "an ELBO of Pyro's or NumPyro's own in place of the objective (`Trace_ELBO()`); objective, gradient, beta, "
        "warmup, particles, analytic and precision are then its business and keep their defaults",
    )
    accumulate: Count = option(1, "batches whose gradients are averaged for one step")
    precision: Precision = option(
        "float32",
        "'bfloat16' computes matrix products (in torch also convolutions) so, all else in single precision",
    )
    compile: Compile = option(
        "auto",
        "torch: capture the step once and replay it compiled, with the same numbers up to rounding, or run eagerly. On "
        "a CPU XLA compiles it where JAX is installed, which takes seconds, else Inductor, which takes half a minute; "
        "'xla' and 'inductor' ask for one. 'auto' does so from 1000 steps on with XLA, 5000 with Inductor, 500 on "
        "CUDA; `Run.notes` says where a program could not be captured. JAX: take many steps in one loop on the device, "
        "or one by one; 'auto' loops but for convolutions on a CPU, where loops of XLA take ten times as long",
    )
    patience: Count | None = option(
        None,
        "stop after so many records without a better bound on the validation data, and leave the pair as it was best",
    )
    every: Count | None = option(None, "steps between records; an epoch by default")
    record_kl: bool = option(False, "record the mean divergence of each latent as kl.<site>")
    seed: Seed | None = option(
        None, "seed of the noise and the shuffling; None goes on with the global generator (JAX: draws one)"
    )

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            self.check_length()
        if self.warmup and self.beta != 1.0:
            raise ValueError(f"fit: found warmup={self.warmup} and beta={self.beta}, want one; try beta=Linear(steps)")

    def check_length(self) -> None:
        """Raise ValueError unless either steps or epochs say how long; of a config alone both may be open."""
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"fit: found steps={self.steps} and epochs={self.epochs}, want exactly one of them")

    def check_alone(self, whose: str) -> None:
        """Raise ValueError if there is a loss of a library's, and something set that is then the loss's business.

        Args:
            whose: the library, for the message.
        """
        ours = (self.warmup, self.beta, self.particles, self.analytic, self.objective, self.gradient, self.precision)
        if self.loss is not None and ours != (0, 1.0, 1, True, elbo, "reparametrized", "float32"):
            raise ValueError(
                f"fit: with a loss of {whose}'s, objective, gradient, beta, warmup, particles, analytic and precision "
                "are not used; set them there"
            )
        if self.loss is not None and self.record_kl:
            raise ValueError(
                f"fit: found record_kl=True with a loss of {whose}'s, which tells no divergences; want an objective"
            )

    def total(self, per_epoch: int) -> int:
        """The number of steps."""
        if self.steps is not None:
            return self.steps
        return max(round((self.epochs or 0) * per_epoch / self.accumulate), 1)

    def between_records(self, per_epoch: int) -> int:
        """The number of steps between two records."""
        return self.every or min(max(per_epoch // self.accumulate, 1), self.total(per_epoch))

    def betas(self) -> Callable[[int], float]:
        """The weight of the divergences by step."""
        if self.warmup:
            return Linear(self.warmup)
        return within("beta", cast(Schedule, self.beta) if callable(self.beta) else Constant(self.beta))

    def rates(self, total: int) -> Callable[[int], float]:
        """The factor of the learning rate by step."""
        if not isinstance(self.schedule, str):
            return within("schedule", self.schedule)
        if self.schedule == "constant":
            return Constant()
        fall, rise = Cosine(total), Linear(min(max(total // 10, 1), RISE))
        return fall if self.schedule == "cosine" else lambda step: rise(step) * fall(step)

    def captured(self, total: int, kind: str, xla: bool) -> bool:
        """Whether steps of torch are to be captured, on a kind of device, where XLA is to be had or not."""
        if self.compile == "auto":
            return total >= WORTHWHILE.get("xla" if xla and kind == "cpu" else kind, inf)
        return bool(self.compile)

    def average_weight(self, step: int) -> float:
        """Share of the newest parameters in the moving average at a step, counted from 0."""
        return average_weight(self.ema, step)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON; functions by their names and options."""
        return {each.name: to_jsonable(getattr(self, each.name)) for each in fields(self)}


if FitConfig.__doc__:  # none under python -OO
    FitConfig.__doc__ += "\nOptions:\n" + "".join(f"    {f.name}: {f.metadata['help']}.\n" for f in fields(FitConfig))

Config = Annotated[
    FitConfig | None,
    Is(
        "a FitConfig",
        lambda found: found is None or isinstance(found, FitConfig),
        "give single options by name, as steps=500",
    ),
]


def check_instance(loss: Any, kind: type, whose: str, working: str) -> None:
    """Raise TypeError unless a loss is an object of a kind, that of a library `whose` losses these are `working`."""
    if isinstance(loss, type):
        raise TypeError(f"fit: loss is the class {loss.__name__}, want an instance; try {loss.__name__}()")
    if not isinstance(loss, kind):
        raise TypeError(f"fit: loss is a {type(loss).__name__}, want an objective of {whose}'s; {working}")


def configured(config: FitConfig | None, options: Mapping[str, Any]) -> FitConfig:
    """A config with options of a call of `fit` laid over it; steps given there replace epochs of it, and vice versa.

    Args:
        config: None for the defaults.
        options: any fields of `FitConfig` by name.

    Raises:
        TypeError: an option that there is not.
        ValueError: see `FitConfig`; neither steps nor epochs.
    """
    known = [each.name for each in fields(FitConfig)]
    for name in options.keys() - set(known):
        raise TypeError(f"fit: found the option {name!r}, want one of FitConfig; try {nearest(name, known)}=")
    length = {"steps": None, "epochs": None} if options.keys() & {"steps", "epochs"} else {}
    config = replace(config or FitConfig(), **length | dict(options))
    config.check_length()
    return config


def shows_options(fit: F) -> F:
    """A decorator that lists the fields of `FitConfig` in the signature of a `fit`, for `help` and for notebooks."""
    own, named = signature(fit), Parameter.KEYWORD_ONLY
    given = [p for p in own.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    given += [Parameter(f.name, named, default=f.default, annotation=f.type) for f in fields(FitConfig)]
    setattr(fit, "__signature__", own.replace(parameters=given))  # noqa: B010 (of any callable)
    return fit


def average_weight(ema: float | None, step: int) -> float:
    """1 - min(ema, (1 + step) / (10 + step)), so that an average soon forgets where it began; 1 where there is none."""
    return 1.0 if ema is None else 1 - min(ema, (1 + step) / (10 + step))


def to_jsonable(value: Any) -> Any:
    """A value as JSON: what is none by a text that is the same in another process."""
    if value is None or isinstance(value, bool | int | float | str | dict):  # a schedule of a file is JSON already
        return str(value) if isinstance(value, float) and not isfinite(value) else value
    if isinstance(value, partial):
        inner = [repr(to_jsonable(a)) for a in value.args] + [
            f"{k}={to_jsonable(v)!r}" for k, v in value.keywords.items()
        ]
        return f"{to_jsonable(value.func)}({', '.join(inner)})"
    if is_dataclass(value) and is_objective(value):
        inner = [f"{name}={to_jsonable(option)!r}" for name, option in asdict(value).items()]
        return f"{type(value).__qualname__}({', '.join(inner)})"
    try:
        return to_dict(value)
    except (TypeError, ValueError, AttributeError):
        return getattr(value, "__qualname__", type(value).__qualname__)


def compared(now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    """Raise ValueError at the first argument that is not what a run was started with.

    `compile` may differ (the numbers are the same up to rounding), and where a run goes on it may be for longer
    (`steps`, `epochs`) if its learning rate does not depend on the end.
    """
    usual = FitConfig().to_dict()  # of an option that was not there yet
    free = {"compile", "seed"} | ({"steps", "epochs"} if not str(now.get("schedule")).endswith("cosine") else set())
    for name, value in now.items():
        if name not in free and (was := to_jsonable(then.get(name, usual[name]))) != value:
            raise ValueError(
                f"fit: found {name}={value!r}, but the run in this folder was started with {cut(repr(was), 200)}; "
                "resume with the arguments that it was started with, or choose another folder"
            )
