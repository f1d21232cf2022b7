"""Files that are whole or not there: written aside, flushed, renamed. Tensors by safetensors, never a pickle."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from pyro import poutine
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .terms import run_pair

FORMAT = "ppl-models 1"
CHECKPOINT = "checkpoint.safetensors"


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write(temporary)` beside `path`, flush what it wrote to the disk, and rename it to `path`.

    The file of that name is the old one or the new one at every moment, whatever happens in between.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    text = json.dumps(content, indent=2, allow_nan=True) + "\n"
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


@contextmanager
def prepared(folder: Path | None) -> Iterator[None]:
    """Inside, there is a folder to write a checkpoint to; a new one that is still empty at the end is removed again.

    Raises:
        ValueError: a file in the way, no permission to write, or a checkpoint that is there already.
    """
    if folder is None:
        yield
        return
    path = Path(folder).absolute()
    if (path / CHECKPOINT).exists():
        raise ValueError(f"{folder} holds a {CHECKPOINT} already; choose another folder, or move it away")
    made = [parent for parent in (path, *path.parents) if not parent.exists()]
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise ValueError(f"cannot write to the folder {folder} ({error.strerror}); choose another one") from None
        yield
    finally:
        for parent in made:  # from within
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def contents(model: Callable, guide: Callable, args: Sequence[Any]) -> dict[str, nn.Module | dict[str, Tensor]]:
    """What a checkpoint of a pair keeps: its modules, and "params", what plain functions have in Pyro's param store.

    The params are unconstrained values by name, sharing memory with the store; there is no such entry where there are
    none. The store is global and goes by name: of two runs of one function in a process the last one loaded is current.

    Args:
        model, guide: the pair, run once to see its params.
        args: a batch.
    """
    modules = {name: p for name, p in (("model", model), ("guide", guide)) if isinstance(p, nn.Module)}
    with torch.no_grad(), poutine.trace() as capture, poutine.block(expose_types=["param"]):
        run_pair(model, guide, args, {})
    values = {name: node["value"] for name, node in capture.trace.nodes.items() if node["type"] == "param"}
    values = {name: v.unconstrained() if hasattr(v, "unconstrained") else v for name, v in values.items()}
    owned = {p for module in modules.values() for p in module.parameters()}
    params = {name: value for name, value in values.items() if value not in owned}
    return {**modules, "params": params} if params else modules


def save(path: Path, modules: Mapping[str, nn.Module | Mapping[str, Tensor]]) -> None:
    """Write the parameters and buffers of named modules, or named tensors, to one safetensors file, atomically."""
    tensors = {key: value.to("cpu", copy=True).contiguous() for key, value in _tensors(modules).items()}
    write_atomically(path, lambda file: save_file(tensors, file, {"format": FORMAT}))


def load(path: Path, modules: Mapping[str, nn.Module | Mapping[str, Tensor]]) -> None:
    """Read back, in place, what `save` wrote of the same names; either all of it is loaded or nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a truncated or foreign file, or one of other modules: the first difference is named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or no safetensors file ({error})") from None
    wanted = _tensors(modules)
    for key in sorted(wanted.keys() ^ tensors.keys()):
        side = "lacks" if key in wanted else "has, but the modules lack,"
        raise ValueError(
            f"{path} {side} the tensor {key!r}; rebuild model and guide with the sizes they were saved with"
        )
    for key, value in wanted.items():
        if tensors[key].shape != value.shape:
            raise ValueError(
                f"{path}: tensor {key!r} is {tuple(tensors[key].shape)}, want {tuple(value.shape)}; "
                "rebuild model and guide with the sizes they were saved with"
            )
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(tensors[key])


def _tensors(modules: Mapping[str, nn.Module | Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Key "module.key" -> tensor, detached and sharing memory with the module's own."""
    states = {name: m.state_dict() if isinstance(m, nn.Module) else m for name, m in modules.items()}
    return {f"{name}.{key}": value.detach() for name, state in states.items() for key, value in state.items()}
