"""Checkpoints: whole and unchanged, or refused. Tensors by safetensors, never a pickle."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from pyro import poutine
from safetensors.torch import load as parse, save as serialize
from torch import Tensor, nn

from .files import remove_stale, write_atomically as write_atomically, write_json as write_json
from .single_pass import run_pair

FORMAT, WEIGHTS_ALONE = "ppl-models 2", "ppl-models 1"
CHECKPOINT, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
NO_DIGEST = "0" * 64  # what stands where the digest goes, while it is computed
BROKEN = "is truncated or no safetensors file"
LONGEST_HEADER = 100_000_000  # bytes, that of safetensors


@dataclass(frozen=True)
class Checkpoint:
    """What one file holds.

    Attributes:
        weights: "model.*", "guide.*" and "params.*".
        training: the state of the training by name, empty where weights were saved alone.
        about: what was said of them: step, history, settings, versions.
    """

    weights: dict[str, Tensor]
    training: dict[str, Tensor]
    about: dict[str, Any]


@contextmanager
def prepared(folder: Path | None, resume: bool = False) -> Iterator[None]:
    """Inside, there is a folder to write a checkpoint to; a new one that is still empty at the end is removed again.

    Args:
        folder: where; None for nowhere.
        resume: the folder may hold a checkpoint, to go on from.

    Raises:
        ValueError: a file in the way, no permission to write, a checkpoint that is there already, or, to resume, a
            previous one alone.
    """
    if folder is None:
        yield
        return
    path = Path(folder).absolute()
    held = [name for name in (CHECKPOINT, PREVIOUS) if (path / name).exists()]
    if held and not resume:
        raise ValueError(f"{folder} holds a {held[0]} already; choose another folder, move it away, or resume from it")
    if held == [PREVIOUS]:
        raise ValueError(f"{folder} holds no {CHECKPOINT}, but a {PREVIOUS}; rename that one to go on from it")
    made = [parent for parent in (path, *path.parents) if not parent.exists()]
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
            remove_stale(path, CHECKPOINT, PREVIOUS, "history.json")
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


def save(
    path: Path,
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
    try:
        text = json.dumps(about or {})
    except (TypeError, ValueError) as error:
        raise TypeError(f"save: about is not JSON ({error}); want strings, numbers, lists and dictionaries") from None
    try:
        content = serialize(tensors, {"format": FORMAT})
    except KeyError as error:
        raise ValueError(f"save: safetensors knows no {error}; try another type for these tensors") from None
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = {"format": FORMAT, "about": text, "sha256": NO_DIGEST}  # in this order, not a random one
    head, body = json.dumps(header, separators=(",", ":")).encode(), memoryview(content)[start:]
    head += b" " * (-len(head) % 8)
    head = len(head).to_bytes(8, "little") + head
    head = head.replace(_entry(NO_DIGEST), _entry(_digest(head, body)), 1)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            file.write(head)
            file.write(body)

    previous = _previous(path)
    remove_stale(path.parent, previous.name)
    write_atomically(path, write, previous if _whole(path) else None)


def load(path: Path, modules: Mapping[str, nn.Module | Mapping[str, Tensor]]) -> None:
    """Read back, in place, the weights that `save` wrote of the same names; either all are loaded or nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a truncated, damaged or foreign file (the message offers the previous one, if that is whole), or one
            of other modules: the first difference is named.
    """
    tensors, wanted = read(path).weights, _tensors(modules)
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


def load_training(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of the training that `save` was given, and what was said about it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a truncated, damaged or foreign file, or one that holds weights alone.
    """
    found = read(path)
    if not found.training:
        raise ValueError(f"{path} holds weights alone, no state of a training; it can be loaded but not resumed from")
    return found.training, found.about


def read(path: Path) -> Checkpoint:
    """All that a checkpoint holds, once it is known to be whole.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a truncated, damaged or foreign file; the message offers the previous one, if that is whole.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}{_offer(path)}")
    try:
        content, about = _verified(path)
        tensors = _parsed(content)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} {error}{_offer(path)}") from None
    training = {k.removeprefix("training."): v for k, v in tensors.items() if k.startswith("training.")}
    return Checkpoint({k: v for k, v in tensors.items() if not k.startswith("training.")}, training, about)


def _verified(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a file and what it says about itself; a ValueError says what is wrong with it."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        head = file.read(size) if size <= LONGEST_HEADER else b""
        try:
            header = json.loads(head)
            metadata = header.get("__metadata__") or {}
            form, about, digest = (metadata.get(key) for key in ("format", "about", "sha256"))
        except (ValueError, AttributeError, RecursionError):
            raise ValueError(f"{BROKEN} (its header cannot be read)") from None
        if form not in (FORMAT, WEIGHTS_ALONE):
            raise ValueError(f"is none of ours: found format {form!r}, want {FORMAT!r}; is it of another program?")
        head, body = size.to_bytes(8, "little") + head, file.read()
    if form == WEIGHTS_ALONE and about is None and digest is None:
        return head + body, {}
    plain = head.replace(_entry(digest), _entry(NO_DIGEST), 1) if isinstance(digest, str) else b""
    if form != FORMAT or _digest(plain, body) != digest:
        _parsed(head + body)  # which says if it is truncated
        raise ValueError("is damaged: its content is not what its sha256 was taken of; was it changed?")
    try:
        told = json.loads(about)
    except (ValueError, TypeError):
        told = None
    if not isinstance(told, dict):
        raise ValueError(f"is damaged: what it says about itself is no JSON ({about!r})")
    return head + body, told


def _parsed(content: bytes) -> dict[str, Tensor]:
    try:
        return parse(content)
    except Exception as error:  # bytes that nothing is known of raise what they like
        raise ValueError(f"{BROKEN} ({error})") from None


def _whole(path: Path) -> bool:
    try:
        return bool(_verified(path))
    except (OSError, ValueError):
        return False


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _offer(path: Path) -> str:
    """What to try when `path` is damaged."""
    previous = _previous(path)
    try:
        step = _verified(previous)[1].get("step")
    except (OSError, ValueError):
        return ""
    told = "" if step is None else f" (step {step})"
    return f"; the previous checkpoint, {previous}{told}, is whole: load that one, or rename it to {path.name}"


def _digest(head: bytes, body: bytes | memoryview) -> str:
    """Of every byte of the file: names, types, shapes, values and texts."""
    digest = hashlib.sha256(head)
    digest.update(body)
    return digest.hexdigest()


def _entry(digest: str) -> bytes:
    return f'"sha256":"{digest}"'.encode()


def _tensors(modules: Mapping[str, nn.Module | Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Key "module.key" -> tensor, detached and sharing memory with the module's own."""
    states = {name: m.state_dict() if isinstance(m, nn.Module) else m for name, m in modules.items()}
    return {f"{name}.{key}": value.detach() for name, state in states.items() for key, value in state.items()}
