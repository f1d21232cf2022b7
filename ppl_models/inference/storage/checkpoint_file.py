"""The file of a checkpoint: what its bytes say of themselves, whole and unchanged, or refused. No torch in here.

Tensors are in the format of safetensors, never a pickle; the header also holds what is said about them and a digest of
every byte. Which library makes arrays of them is the business of its caller.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from safetensors import deserialize

from ppl_models.parts.arguments.checked import told
from ppl_models.programs.legible import legible

from ..resuming.history import LINES
from ..resuming.owner import owned
from .files import json_of, remove_stale

FORMAT = "ppl-models 5"
OTHER_MEANS = "ppl-models 4"  # networks of a Ladder then gave other numbers (`changed_guides`)
OTHER_COVARIATES = "ppl-models 3"  # guides then read them otherwise, or not at all (`changed_guides`)
EARLIER = "ppl-models 2"  # and some data in another order
WEIGHTS_ALONE = "ppl-models 1"
BEFORE_3 = (EARLIER, WEIGHTS_ALONE)
BEFORE_4 = (OTHER_COVARIATES, *BEFORE_3)
BEFORE_5 = (OTHER_MEANS, *BEFORE_4)
CHECKPOINT, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
NO_DIGEST = "0" * 64  # what stands where the digest goes, while it is computed
BROKEN = "is truncated or no safetensors file"
LONGEST_REASON = 160  # characters of what another library says of a file
LONGEST_HEADER = 100_000_000  # bytes, that of safetensors


@dataclass(frozen=True)
class Checkpoint:
    """Contents of one file, in tensors of the library that read it.

    Attributes:
        weights: "model.*", "guide.*" and "params.*".
        training: the state of the training by name, empty where weights were saved alone.
        about: what was said of them: step, history, settings, versions.
        form: the format of the file.
    """

    weights: dict[str, Any]
    training: dict[str, Any]
    about: dict[str, Any]
    form: str = FORMAT


@contextmanager
def prepared(folder: Path | None, resume: bool = False) -> Iterator[list[str]]:
    """Inside, there is a folder to write a checkpoint to, which no other process has; gives what one should know of it.

    A new one that is still empty at the end is removed again.

    Args:
        folder: where; None for nowhere.
        resume: the folder may hold a checkpoint, to go on from.

    Raises:
        ValueError: a file in the way, no permission to write, a checkpoint that is there already, or, to resume, a
            previous one alone; a process that trains there.
    """
    if folder is None:
        yield []
        return
    path = Path(folder).absolute()
    _check_held(path, folder, resume)
    made = [parent for parent in (path, *path.parents) if not parent.exists()]
    with ExitStack() as stack:
        stack.callback(_remove_empty, made)
        try:
            path.mkdir(parents=True, exist_ok=True)
            notes = stack.enter_context(owned(path))
            remove_stale(path, CHECKPOINT, PREVIOUS, "history.json", LINES)
            with TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise ValueError(f"cannot write to the folder {folder} ({error.strerror}); choose another one") from None
        _check_held(path, folder, resume)  # another process may have had it until now
        yield notes


def _check_held(path: Path, folder: Path, resume: bool) -> None:
    held = [name for name in (CHECKPOINT, PREVIOUS) if (path / name).exists()]
    if held and not resume:
        raise ValueError(f"{folder} holds a {held[0]} already; choose another folder, move it away, or resume from it")
    if held == [PREVIOUS]:
        raise ValueError(f"{folder} holds no {CHECKPOINT}, but a {PREVIOUS}; rename that one to go on from it")


def _remove_empty(made: Iterable[Path]) -> None:
    for folder in made:  # from within
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def described(about: Mapping[str, Any]) -> str:
    """The header about tensors, as JSON.

    Raises:
        TypeError: what JSON does not know.
        ValueError: more than a header can hold and be read again.
    """
    try:
        text = json_of(about)
    except (TypeError, ValueError) as error:
        raise TypeError(f"save: about is not JSON ({error}); want strings, numbers, lists and dictionaries") from None
    if len(text) > LONGEST_HEADER // 4:  # beside names of tensors, and with every quote escaped
        raise ValueError(f"save: about is {len(text)} bytes long, want {LONGEST_HEADER // 4} at most; try tensors")
    return text


def sealed(content: bytes, text: str, form: str | None = None) -> tuple[bytes, memoryview]:
    """(header, body) of a file: `content` as safetensors serialized it, with what is said about it and a digest."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = {"format": form or FORMAT, "about": text, "sha256": NO_DIGEST}  # in this order
    head, body = json.dumps(header, separators=(",", ":")).encode(), memoryview(content)[start:]
    head += b" " * (-len(head) % 8)
    head = len(head).to_bytes(8, "little") + head
    return head.replace(_entry(NO_DIGEST), _entry(digest(head, body)), 1), body


def read(path: Path, parse: Callable[[bytes], dict[str, Any]]) -> Checkpoint:
    """All that a checkpoint holds, once it is known to be whole.

    Args:
        path: the file.
        parse: makes tensors of the bytes of safetensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a truncated, damaged or foreign file; the message offers the previous one, if that is whole.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}{_offer(path)}")
    try:
        content, about = verified(path)
        tensors, form = _parsed(content, parse), _format_of(content)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} {error}{_offer(path)}") from None
    training = {k.removeprefix("training."): v for k, v in tensors.items() if k.startswith("training.")}
    return Checkpoint({k: v for k, v in tensors.items() if not k.startswith("training.")}, training, about, form)


def verified(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a file and what it says about itself; a ValueError says what is wrong with it."""
    if not Path(path).is_file():  # a pipe might never end
        raise FileNotFoundError(f"no file at {path}")
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        head = file.read(size) if size <= LONGEST_HEADER else b""
        try:
            header = json.loads(head)
            metadata = header.get("__metadata__") or {}
            form, about, told_digest = (metadata.get(key) for key in ("format", "about", "sha256"))
        except (ValueError, AttributeError, RecursionError):
            raise ValueError(f"{BROKEN} (its header cannot be read)") from None
        if form not in (FORMAT, *BEFORE_5):
            raise ValueError(f"is none of ours: found format {told(form)}, want {FORMAT!r}; is it of another program?")
        head, body = size.to_bytes(8, "little") + head, file.read()
    if form == WEIGHTS_ALONE and about is None and told_digest is None:
        return head + body, {}
    plain = head.replace(_entry(told_digest), _entry(NO_DIGEST), 1) if isinstance(told_digest, str) else b""
    if form == WEIGHTS_ALONE or digest(plain, body) != told_digest:
        _parsed(head + body, deserialize)  # which says if it is truncated
        raise ValueError("is damaged: its content is not what its sha256 was taken of; was it changed?")
    try:
        said = json.loads(about or "")
    except (ValueError, TypeError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise ValueError(f"is damaged: what it says about itself is no JSON ({str(about)[:60]!r})")
    return head + body, said


def kept_as(path: Path) -> Path | None:
    """The name that the file at `path` goes on under when a new one takes its place; None if it is not worth it."""
    try:
        verified(path)
    except (OSError, ValueError):
        return None
    return previous_of(path)


def refuse_earlier(path: Path, step: int) -> None:
    """Raise ValueError if the checkpoint at `path` is of a later step than the one that is to take its place.

    Its header alone is read; one that cannot be read is no reason.
    """
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size) if size <= LONGEST_HEADER else b"")
        later = json.loads(header["__metadata__"]["about"])["step"] > step
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    if later:
        raise ValueError(
            f"fit: {path} is of a later step than {step}, where this training is: another process has gone on with the "
            "run, and nothing more is written here"
        )


def previous_of(path: Path) -> Path:
    """The path of the version before the file at `path`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def digest(head: bytes, body: bytes | memoryview) -> str:
    """Of every byte of a file: names, types, shapes, values and texts."""
    found = hashlib.sha256(head)
    found.update(body)
    return found.hexdigest()


def _parsed(content: bytes, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(content)
    except Exception as error:  # bytes that nothing is known of raise what they like
        raise ValueError(f"{BROKEN} ({legible(' '.join(str(error).split())[:LONGEST_REASON])})") from None


def _format_of(content: bytes) -> str:
    """The format that the header of a verified file names."""
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["format"]


def _offer(path: Path) -> str:
    """The advice for a damaged `path`."""
    previous = previous_of(path)
    try:
        step = verified(previous)[1].get("step")
    except (OSError, ValueError):
        return ""
    told = "" if step is None else f" (step {step})"
    return f"; the previous checkpoint, {previous}{told}, is whole: load that one, or rename it to {path.name}"


def _entry(value: str) -> bytes:
    return f'"sha256":"{value}"'.encode()
