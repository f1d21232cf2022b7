"""`typed`, `inherited`: what `configuration` is given of a new run: as a command line says, or as in another run.

`shortness`: a word on a training that is short because nobody has said how long it is to be.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import typer

from ppl_models.runs.naming import names
from ppl_models.runs.naming.options import EPOCHS, Training

from .app import trust_typed
from .training_options import training_of, values_of

# what a resumed run is not told by its folder
ANEW = {"resume", "steps", "epochs", "evaluate", "report", "trust", "threads", "device", "quiet", "debug"}
# what the run whose weights are to be the first ones says
OF_PAIR = {"model", "guide", "sizes", "refine", "backend"}
OF_DATA = "data", "transform", "validation", "image_size", "seed"
FEW = 500  # steps, below which samples are noise


def given(ctx: typer.Context) -> dict[str, str]:
    """The arguments and options that were typed, as they are written on a command line."""
    sources = {p: ctx.get_parameter_source(p.name) for p in ctx.command.params}
    found = [p for p, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    return {p.name: p.opts[0] if p.param_type_name == "option" else p.name.upper() for p in found}


def refuse(flag: str, folder: object, words: Collection[str]) -> None:
    """Raise ValueError for what was typed beside the folder of a run that says it."""
    if words:
        raise ValueError(f"{flag}: found {', '.join(words)} too, but {folder} says it; leave it out")


def shortness(words: Collection[str], config: Mapping[str, Any]) -> str:
    """A line of advice where few data make the usual number of passes a short training; "" where they do not."""
    steps = Training(**config["training"]).total(config["data"]["rows"]["train"])
    if steps >= FEW or {"steps", "epochs"} & {*words} or config["training"]["epochs"] != EPOCHS:
        return ""
    return f"{EPOCHS} passes over so few data are {steps} steps; --steps 2000 trains for longer"


def typed(
    model: str | None,
    guide: Sequence[str] | None,
    sizes: Sequence[str] | None,
    training: Mapping[str, Any],
    **how: Any,
) -> dict[str, Any]:
    """Of a run whose pair is named on the command line.

    Raises:
        ValueError: no model, no name of a guide or several, words that are no sizes.
    """
    if model is None:
        raise ValueError(
            "train: found no MODEL, no --resume RUN and no --weights RUN, want one of them; try ppl-models list"
        )
    named, guide_sizes = names.parse(guide or (), "-g")
    model_sizes = names.parse_sizes(sizes or (), "-m", f", the model is {model!r} already")
    if len(named) != 1 and guide:
        found = f"{len(named)} names ({', '.join(named)})" if named else "no name"
        known = ", ".join(names.catalogue("guide", how["backend"]))
        raise ValueError(f"-g: found {found} of a guide, want one of {known}")
    trust_typed(None, model, *named)
    pair = {"model": (model, model_sizes), "guide": (named[0], guide_sizes) if named else None}
    return {**pair, "training": training_of(training), **how}


def inherited(weights: str, words: Mapping[str, str], training: Mapping[str, Any], **how: Any) -> dict[str, Any]:
    """Of a run that begins with the weights of another one: its pair, and all else as there, but what was typed.

    The warm-up is over there; it begins again if it was typed.

    Raises:
        ValueError: a model, guide or size that was typed too; no run folder, or one of programs that are not trusted.
    """
    from ppl_models.runs.folders.continuing import like
    from ppl_models.runs.folders.folder import opened, placed

    refuse("--weights", weights, [word for name, word in words.items() if name in OF_PAIR])
    place = placed(weights)
    found = like(opened(place))
    if "data" in words:  # others may want another one
        found |= {"transform": "default", "image_size": None}
    found |= {name: how[name] for name in OF_DATA if name in words}
    changed = values_of({name: value for name, value in training.items() if name in words})
    length = {"steps": None, "epochs": None} if changed.keys() & {"steps", "epochs"} else {}
    found["training"] = Training(**{**asdict(found["training"]), "warmup": 0, **length, **changed})
    return {**found, "weights": place}
