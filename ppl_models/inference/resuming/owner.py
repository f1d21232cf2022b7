"""`owned(folder)`: one process at a time trains in a folder."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EAGAIN
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"
_held: set[int] = set()  # descriptors of the locks of this process


@contextmanager
def owned(folder: Path) -> Iterator[list[str]]:
    """Inside, no other process, and no other training of this one, has the folder; gives what one should know of it.

    The kernel drops the lock (`flock`) with the process, however that ends, and the next one takes it. Where the file
    system knows no locks, the one line says so, and nothing keeps a second process away; a checkpoint of a later step
    is never overwritten there, either (`Loop`).

    Args:
        folder: a folder that can be written to.

    Raises:
        ValueError: another process has it; the message names that process and its host.
        OSError: no file can be made there.
    """
    path = Path(folder) / LOCK
    descriptor = _taken(path)
    try:
        if descriptor is None:
            yield [f"the file system of {folder} knows no locks: see that no second process trains there"]
        else:
            yield []
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)  # while it is held: a rival that has it open sees that it is gone
            _held.discard(descriptor)
            os.close(descriptor)


def _taken(path: Path) -> int | None:
    """The descriptor of a lock that is ours now, None where there are no locks."""
    if fcntl is None:
        return None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                with suppress(OSError):  # on a full disk it has no name
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
                _held.add(descriptor)
                return descriptor
        except OSError as error:
            if error.errno not in (EACCES, EAGAIN):
                os.close(descriptor)
                path.unlink(missing_ok=True)
                return None
            owner = os.pread(descriptor, 300, 0).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise ValueError(
                f"{path.parent} is in use: {owner} trains in it; wait until that has ended, or end it, or choose "
                "another folder"
            ) from None
        os.close(descriptor)  # its owner has removed it just now


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether a file that is open is still the one of this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _let_go() -> None:
    """A fork of this process owns nothing: it may live on when this one is gone."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
