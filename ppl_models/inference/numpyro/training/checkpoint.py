"""Checkpoints of NumPyro pairs: the files of `ppl_models.inference`, which either library reads.

"model.*" and "guide.*" are the parameters of `Program`s, by the names that torch calls them; "params.*" are those of
other functions, as `SVI.get_params` gives them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from safetensors.numpy import load as parse, save as serialize

from ppl_models.numpyro.parts.program import (
    Program,
    absent_constants,
    named_constants,
    named_parameters,
    with_parameters,
)
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram, Place

from ...storage import checkpoint_file as container
from ...storage.changed_guides import check_evidence
from ...storage.checkpoint_file import CHECKPOINT as CHECKPOINT, PREVIOUS as PREVIOUS, Checkpoint
from ...storage.files import check_names, remove_stale, write_atomically
from ..engine.parameters import names_of


def save(path: Path, weights: Mapping[str, Any], training: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write weights and the state of a training to one file, atomically and with a digest of all of it.

    The file that was there is kept as the previous one, unless it is damaged. Equal contents are equal bytes.

    Args:
        path: the file.
        weights: arrays by name, "model.*", "guide.*" and "params.*".
        training: any arrays by name.
        about: what JSON knows: step, history, settings.

    Raises:
        TypeError: an `about` that JSON does not know.
    """
    path = Path(path)
    arrays = {**weights, **{f"training.{name}": value for name, value in training.items()}}
    text = container.described(about)
    check_names(arrays)
    content = serialize({name: np.array(a, order="C") for name, a in arrays.items()}, {"format": container.FORMAT})
    head, body = container.sealed(content, text)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            file.write(head)
            file.write(body)

    remove_stale(path.parent, container.previous_of(path).name)
    write_atomically(path, write, container.kept_as(path))


def read(path: Path) -> Checkpoint:
    """All that a checkpoint of either library holds, in NumPy arrays, once it is known to be whole.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a truncated, damaged or foreign file; the message offers the previous one, if that is whole.
    """
    return container.read(path, parse)


@checked
def load(path: Place, model: AnyProgram, guide: AnyGuide) -> tuple[Callable, Callable]:
    """The pair with the weights of a checkpoint that either library wrote.

    `Program`s are new ones, of which a guide's model is the new model; other functions get what NumPyro's fit saved of
    theirs by `handlers.substitute`.

    Args:
        path: the file.
        model, guide: the pair, built with the sizes that it was saved with.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a truncated, damaged or foreign file, or one of other programs: the first difference is named; the
            "params" of Pyro functions, which are of no meaning in NumPyro; a file of a guide that read its data in
            another order then.
    """
    found = read(path)
    if any(name.startswith("params.") for name in found.weights) and found.about.get("backend") != "numpyro":
        raise ValueError(
            f"{path} holds the params of Pyro functions, which NumPyro ones have no use for; load it there"
        )
    check_evidence(path, found, (model, guide))
    plain = {k.removeprefix("params."): v for k, v in found.weights.items() if k.startswith("params.")}
    loaded = []
    for label, program in (("model", model), ("guide", guide)):
        own = {k.removeprefix(f"{label}."): v for k, v in found.weights.items() if k.startswith(f"{label}.")}
        if isinstance(program, Program):
            program = _loaded(path, label, program, own)
        elif own:
            raise ValueError(f"{path} holds the weights of a {label} that is a Program, found {program!r}")
        elif plain:
            program = handlers.substitute(program, substitute_fn=partial(_filled, plain))
        loaded.append(program)
    model, guide = loaded
    own = getattr(guide, "model", None)
    if isinstance(guide, Program) and callable(own) and isinstance(own, Program) == isinstance(model, Program):
        guide = eqx.tree_at(lambda program: program.model, guide, model)
    return model, guide


def with_constants(path: Path, guide: Callable) -> Callable:
    """The guide with the constants that a checkpoint has of it, for a training to go on from there."""
    if not isinstance(guide, Program) or not (own := named_constants(guide)):
        return guide
    saved = {**absent_constants(guide), **read(path).weights}
    found = {name: saved.get(f"guide.{name}", saved.get(name, value)) for name, value in own.items()}
    return with_parameters(guide, {**named_parameters(guide), **found})


def _loaded(path: Path, label: str, program: AnyProgram, values: Mapping[str, np.ndarray]) -> Program:
    held = {**named_parameters(program), **named_constants(program)}
    for name in held.keys() & values.keys():
        found, want = np.asarray(values[name]).dtype, np.asarray(held[name]).dtype
        if found.kind != want.kind or (name in named_parameters(program) and found != want):
            raise ValueError(f"{path}: tensor '{label}.{name}' is of {found}, want {want}; build it in that precision")
    try:
        return with_parameters(program, {**absent_constants(program), **values})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _filled(saved: Mapping[str, Any], site: Mapping[str, Any]) -> Any:
    """The value of a param, an array or a tree of them, from arrays by name; None for what is none, or not saved."""
    if site["type"] != "param":
        return None
    value = site["fn"](*site["args"], **site["kwargs"])  # what it starts from, for its structure
    names = names_of(site["name"], value)
    if not set(names) <= saved.keys():
        return None
    return jax.tree.unflatten(jax.tree.structure(value), [jnp.asarray(saved[name]) for name in names])
