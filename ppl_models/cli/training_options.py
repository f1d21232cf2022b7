"""`with_training`: gives a command the options of a training, made of the fields of `Training`; `training_of`: back.

`PairBackend`, `Transform`, `ImageSize`, `Validation`, `WithPage`: what commands that train ask besides.
"""

from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from inspect import Parameter, signature
from typing import Annotated, Any, get_args

from ppl_models.inference.config import Course
from ppl_models.runs.naming.objectives import WORDS
from ppl_models.runs.naming.options import EPOCHS, Training, kinds_of, zero_is_none

from .app import Backend, count, opt
from .completion import words as words_of

TRANSFORMS = "default", "binarize", "dequantize", "logit", "redraw", "none"
PairBackend = Annotated[Backend, opt(help="Language of the pair: the collection's, or its NumPyro ports.")]
Transform = Annotated[
    str,
    opt(
        metavar="WORD",
        help=f"{', '.join(TRANSFORMS[:-1])} or {TRANSFORMS[-1]}.",
        autocompletion=words_of(*TRANSFORMS),
    ),
]
ImageSize = Annotated[int | None, count(metavar="N", help="Side of images of folder:PATH.", show_default="32")]
Validation = Annotated[bool, opt(help="Hold validation data out and record the bound on them.")]
WithPage = Annotated[
    bool,
    opt(
        "--report/--no-report",
        envvar="PPL_MODELS_REPORT",
        help="Write report.html, the page of a run, into its folder.",
    ),
]

KNOWN = {"objective": WORDS, "schedule": get_args(Course)}  # the words of some options


def option_of(each: Field) -> Parameter:
    """The option of a command line for one of a training."""
    dashed, kinds, default = each.name.replace("_", "-"), kinds_of(each), each.default
    kind = next(known for known in (bool, int, float, str) if known in kinds)
    if {float, str} <= {*kinds}:  # a number or a word: `training_of` tells them apart
        kind, default = str, str(default)
    flags = f"--{dashed}/--no-{dashed}" if kind is bool and default is not False else f"--{dashed}"
    text = each.metadata["help"].replace("None", "0" if zero_is_none(each) else "by default")
    told = {"metavar": {int: "N", float: "X", str: "WORD"}.get(kind), "help": f"{text[0].upper()}{text[1:]}."}
    if each.name in KNOWN:
        told["autocompletion"] = words_of(*KNOWN[each.name])
    annotation = Annotated[kind | None, opt(flags, rich_help_panel="Training", **told)]
    return Parameter(
        each.name, Parameter.KEYWORD_ONLY, default=default if type(default) is kind else None, annotation=annotation
    )


def with_training(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Training`, which it takes as keywords."""
    own = signature(command)
    given = [each for each in own.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
    command.__signature__ = own.replace(parameters=given + [option_of(each) for each in fields(Training)])
    return command


def training_of(chosen: Mapping[str, Any]) -> Training:
    """The options that a command line was given; None is for those that it left open."""
    found = values_of(chosen)
    return Training(**{} if found.keys() & {"epochs", "steps"} else {"epochs": EPOCHS}, **found)


def values_of(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The same as `Training` takes them, without those that were left open."""
    found = {name: value for name, value in chosen.items() if value is not None}
    for each in fields(Training):
        if {float, str} <= {*kinds_of(each)} and each.name in found:
            found[each.name] = _number(found[each.name])
    return found | {each.name: None for each in fields(Training) if zero_is_none(each) and found.get(each.name) == 0}


def _number(word: str) -> float | str:
    """A number where a word is one."""
    try:
        return float(word)
    except ValueError:
        return word
