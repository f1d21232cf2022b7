"""Checkpoints: whole and unchanged, or refused. Tensors by safetensors, never a pickle."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro
import torch
from safetensors.torch import load as parse, save as serialize
from torch import Tensor, nn

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram, Place
from ppl_models.programs.state.torch import reachable

from ...storage import checkpoint_file as container
from ...storage.changed_guides import check_evidence
from ...storage.checkpoint_file import (
    CHECKPOINT as CHECKPOINT,
    PREVIOUS as PREVIOUS,
    Checkpoint as Checkpoint,
    described,
    kept_as,
    prepared as prepared,
    previous_of,
    sealed,
)
from ...storage.files import check_names, remove_stale, write_atomically as write_atomically, write_json as write_json
from ..passes.messengers import Drawing
from ..passes.pair_info import run_with_params


@checked
def contents(model: AnyProgram, guide: AnyGuide, args: Sequence[Any]) -> dict[str, nn.Module | dict[str, Tensor]]:
    """State of a pair in a checkpoint: its modules, and "params", what plain functions have in Pyro's param store.

    A module that another function runs (a lambda, a partial, a handler, its own bound method) has the entry that it has
    where it is the program itself; of several behind one program the further ones are "model.inner1", ... Of one
    whose other methods are run, and that hands parameters to `pyro.module` itself, there are these and no more.

    The params are unconstrained values by name, sharing memory with the store; there is no such entry where there are
    none. The store is global and goes by name: of two runs of one function in a process the last one loaded is current.

    Args:
        model, guide: the pair.
        args: a batch, to run it once.
    """
    return kept(model, guide, *run_with_params(model, guide, args, {})[1:])


def kept(
    model: Callable, guide: Callable, params: Mapping[str, Tensor], ran: Drawing
) -> dict[str, nn.Module | dict[str, Tensor]]:
    """The `contents` of a pair, of which a run has shown `PairInfo.params` and `PairInfo.ran`."""
    pair = {"model": model, "guide": guide}
    modules = {label: program for label, program in pair.items() if isinstance(program, nn.Module)}
    owned, registered = {p for m in modules.values() for p in m.parameters()}, set(params.values())
    held: dict[str, list[nn.Module]] = {}
    for module, itself in ran.modules.items():
        own = set(module.parameters())
        if own <= owned or not (itself or registered.isdisjoint(own)):
            continue
        held = held or {name: reachable([program])[0] for name, program in pair.items()}
        label = next((name for name in pair if module in held[name]), None)
        if label is None:  # made in the run, and gone with it
            continue
        count = sum(name.partition(".")[0] == label for name in modules)
        modules[f"{label}.inner{count}" if count else label] = module
        owned |= own
    params = {name: value for name, value in params.items() if value not in owned}
    modules = {name: modules[name] for label in pair for name in modules if name.partition(".")[0] == label}
    return {**modules, "params": params} if params else modules


@checked
def save(
    path: Place,
    modules: Mapping[str, nn.Module | Mapping[str, Tensor]],
    training: Mapping[str, Tensor] | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write weights, and the state of a training, to one safetensors file, atomically and with a digest of all of it.

    The file that was there is kept as the previous one ("checkpoint.previous.safetensors" beside
    "checkpoint.safetensors"), unless it is damaged. Equal contents are equal bytes.

    Args:
        path: the file.
        modules: modules, of which parameters and buffers are written, or named tensors, each under a name.
        training: any tensors: those of the optimizer, averages, generators.
        about: what JSON knows: step, history, settings, versions.

    Raises:
        ValueError: modules named "training"; tensors that safetensors does not know (sparse, complex128).
        TypeError: an `about` that JSON does not know.
    """
    path, tensors = Path(path), _tensors(modules)
    if "training" in modules:
        raise ValueError("save: found modules named 'training', which is the name of the training state; try another")
    tensors |= {f"training.{key}": value.detach() for key, value in (training or {}).items()}
    if odd := [key for key, value in tensors.items() if value.layout != torch.strided]:
        raise ValueError(f"save: found the sparse tensor {odd[0]!r}, want dense ones; try .to_dense()")
    # each in memory of its own: the library refuses views of one buffer
    tensors = {key: value.cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    text = described(about or {})
    check_names(tensors)
    try:
        content = serialize(tensors, {"format": container.FORMAT})
    except KeyError as error:
        raise ValueError(f"save: safetensors knows no {error}; try another type for these tensors") from None
    head, body = sealed(content, text)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            file.write(head)
            file.write(body)

    remove_stale(path.parent, previous_of(path).name)
    write_atomically(path, write, kept_as(path))


@checked
def load(path: Place, modules: Mapping[str, nn.Module | Mapping[str, Tensor]]) -> None:
    """Read back, in place, the weights that `save` wrote of the same names; either all are loaded or nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a truncated, damaged or foreign file (the message offers the previous one, if that is whole), or one
            of other modules: the first difference of name, shape or type is named. One of a guide that read its data in
            another order then.
    """
    found, wanted = _under_names_of_today(read(path), modules), _tensors(modules)
    check_evidence(path, found, modules.values())
    tensors = {**_absent(modules), **found.weights}
    for key in sorted(wanted.keys() ^ tensors.keys()):
        if (
            found.form in container.BEFORE_3
            and key in wanted
            and not any(name.startswith(key.split(".")[0]) for name in tensors)
        ):
            raise ValueError(
                f"{path} lacks the tensor {key!r}: it was written before format 3 of files (ppl-models 0.1.0), when a "
                "module behind another function was not kept; train it again"
            )
        side = "lacks" if key in wanted else "has, but the modules lack,"
        raise ValueError(
            f"{path} {side} the tensor {key!r}; rebuild model and guide with the sizes they were saved with"
        )
    whole = {label: module for label, module in modules.items() if isinstance(module, nn.Module)}
    # those of a port are in double precision
    buffers = {f"{label}.{name}" for label, module in whole.items() for name, _ in module.named_buffers()}
    for key, value in wanted.items():
        if tensors[key].shape != value.shape:
            raise ValueError(
                f"{path}: tensor {key!r} is {tuple(tensors[key].shape)}, want {tuple(value.shape)}; "
                "rebuild model and guide with the sizes they were saved with"
            )
        converts = key in buffers and value.is_floating_point() and tensors[key].is_floating_point()
        if tensors[key].dtype != value.dtype and not converts:
            raise ValueError(
                f"{path}: tensor {key!r} is of {tensors[key].dtype}, want {value.dtype}; rebuild model and guide in "
                "the precision they were saved with"
            )
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(tensors[key])


def load_training(
    path: Path, modules: Mapping[str, nn.Module | Mapping[str, Tensor]] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of the training that `save` was given, and what was said about it.

    Args:
        path: the file.
        modules: those of `load`, for a file in which they may have had other names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a truncated, damaged or foreign file, or one that holds weights alone.
    """
    found = _under_names_of_today(read(path), modules or {})
    if not found.training:
        raise ValueError(
            f"{path} holds weights alone, no state of a training; it can be loaded but not resumed from; try "
            "ppl-models train --weights, which begins a new run with them"
        )
    return found.training, found.about


def read(path: Path) -> Checkpoint:
    """All that a checkpoint holds, once it is known to be whole.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a truncated, damaged or foreign file; the message offers the previous one, if that is whole.
    """
    return container.read(path, parse)


def _under_names_of_today(found: Checkpoint, modules: Mapping[str, nn.Module | Mapping[str, Tensor]]) -> Checkpoint:
    """A checkpoint whose tensors are called as those of today.

    Before format 3 what a module behind another function had in Pyro's store was kept under its name there, "params.*".
    """
    if found.form not in container.BEFORE_3:
        return found
    stored = {value: f"params.{name}" for name, value in pyro.get_param_store().named_parameters()}
    states = {name: m.state_dict(keep_vars=True) for name, m in modules.items() if isinstance(m, nn.Module)}
    held = {value: f"{name}.{key}" for name, state in states.items() for key, value in state.items()}
    today = {stored[value]: key for value, key in held.items() if value in stored and key not in found.weights}
    weights = {today.get(name, name): value for name, value in found.weights.items()}
    training = {}
    for name, value in found.training.items():  # "exp_avg.params.scale"
        kind, dot, own = name.partition(".")
        training[f"{kind}{dot}{today.get(own, own)}"] = value
    return replace(found, weights=weights, training=training)


def _absent(modules: Mapping[str, nn.Module | Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What buffers that older files do not have are there, by name, as the modules' own `absent()` says."""
    found = {}
    for label, whole in modules.items():
        for place, module in whole.named_modules() if isinstance(whole, nn.Module) else ():
            for name, value in module.absent().items() if hasattr(module, "absent") else ():
                found[".".join(filter(None, (label, place, name)))] = value
    return found


def _tensors(modules: Mapping[str, nn.Module | Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Key "module.key" -> tensor, detached and sharing memory with the module's own."""
    states = {name: m.state_dict() if isinstance(m, nn.Module) else m for name, m in modules.items()}
    return {f"{name}.{key}": value.detach() for name, state in states.items() for key, value in state.items()}
