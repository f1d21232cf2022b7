"""Files that are whole or not there: written aside, flushed, renamed."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object], previous: Path | None = None) -> None:
    """Call `write(temporary)` beside `path`, flush what it wrote to the disk, and rename it to `path`.

    The file of that name is the old one or the new one at every moment, whatever happens in between; the old one is
    then kept under the name `previous`, if one is given. What killed processes left of earlier attempts is removed.

    Raises:
        ValueError: what is there is no file: a folder, a pipe or a device, which the new one would replace.
    """
    path = Path(path)
    check_replaceable(path)
    remove_stale(path.parent, path.name, *([previous.name] if previous else []))
    temporary, kept = _temporary(path), _temporary(previous) if previous and path.is_file() else None
    try:
        write(temporary)
        _flush(temporary)
        if kept:
            try:
                os.link(path, kept)
            except OSError:  # a file system without hard links
                shutil.copyfile(path, kept)
                _flush(kept)
        os.replace(temporary, path)
        if (
            kept and previous
        ):  # only now: until here the one before it was the previous one, and no moment has a single version
            os.replace(kept, previous)
        with suppress(PermissionError):  # Windows opens no folders
            _flush(path.parent)
    finally:
        for leftover in filter(None, (temporary, kept)):
            leftover.unlink(missing_ok=True)


def check_replaceable(path: Path) -> None:
    """Raise ValueError unless a path is that of a file, or of nothing."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: found a {kind_of_path(path)}, want a file or nothing; choose another path")


def check_writable(path: Path) -> None:
    """Hold against a path what `write_atomically` would object to, before the work whose result it is to hold.

    Raises:
        ValueError: what is there is no file, or there is no folder that can be written to.
    """
    path = Path(path)
    check_replaceable(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: found no folder {path.parent}, want one; make it, or choose another path")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path}: found that nothing can be written to {path.parent}; choose another path")


def kind_of_path(path: Path) -> str:
    """A word for what is at a path, if it is no file."""
    return "folder" if path.is_dir() else "pipe" if path.is_fifo() else "device or socket"


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError for a name of a tensor that is no text, which no file can hold: one with a lone surrogate."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            found = ascii(name.partition(".")[2] or name)
            raise ValueError(f"save: found the name {found} of a parameter, want letters; rename it") from None


def json_of(content: Any, **how: Any) -> str:
    """Contents as JSON by RFC 8259, which has no NaN and no infinity: null stands for them.

    >>> json_of({"nll": float("nan"), "kl": (1.0, float("inf"))})
    '{"nll": null, "kl": [1.0, null]}'
    """

    def told(value: Any) -> Any:
        if isinstance(value, float):
            return value if isfinite(value) else None
        if isinstance(value, Mapping):
            return {key: told(item) for key, item in value.items()}
        return [told(item) for item in value] if isinstance(value, list | tuple) else value

    try:
        return json.dumps(content, allow_nan=False, **how)
    except ValueError:  # that, or no JSON at all
        return json.dumps(told(content), allow_nan=False, **how)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    text = json_of(content, indent=2) + "\n"

    def write(file: Path) -> None:
        file.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def remove_stale(folder: Path, *names: str) -> None:
    """Remove what attempts to write these files left in `folder` if their process is gone, or is this one."""
    pattern = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.(\d+)\.tmp")
    for file in Path(folder).iterdir():
        if (found := pattern.fullmatch(file.name)) and not alive(int(found[2])):
            file.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def alive(pid: int) -> bool:
    """Whether another process of this number runs; where that cannot be asked, yes."""
    if pid == os.getpid() or os.name != "posix":
        return pid != os.getpid()
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    """Down to the disk, a file or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that flush no folders
            raise
    finally:
        os.close(descriptor)
