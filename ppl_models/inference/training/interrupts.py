"""`interrupts`: Ctrl-C and SIGTERM end a training between two steps; `abandoned`: a compilation that they break off."""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

GRACE = 0.2  # seconds in which a step mostly ends, so that nothing need be said
LAST = 1.5  # seconds that a second signal leaves to what is under way
SOON = 10.0  # seconds from the signal to the end of a process that ends by it
POOL = b"_inductor/compile_worker"  # in the command line of a pool of torch's, which may be older than a compilation
SWEEP = 1.0  # seconds in which a pool of compilers that was broken off may start further ones

# what is registered last is called first, before the threads of others are waited for
at_exit: Any = getattr(threading, "_register_atexit", atexit.register)


@contextmanager
def interrupts(wanted: bool = True, answer: Callable[[], None] = lambda: None) -> Iterator[list[BaseException]]:
    """Inside, Ctrl-C and SIGTERM do not break a step: what they would raise is in the list, until one comes again.

    The second one raises at once. Where even that is not heard, as the main thread is in a call that lets no handler
    run (a compiler's), the process ends two seconds later at the latest, with the compilers that it has started; but
    not one that somebody is typing to.

    Only the main thread of a process may do so; elsewhere, or where it is not wanted, signals are as ever.

    Args:
        wanted: whether to do anything.
        answer: called, from another thread, where the first one finds a step that takes its time.
    """
    asked: list[BaseException] = []
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: Any) -> None:
        end = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        if asked:
            raise end
        asked.append(end)

    # one that somebody else handles (a notebook's, a cluster's) is left to them; Python's own KeyboardInterrupt is not
    kinds = [signal.SIGINT] if signal.getsignal(signal.SIGINT) is signal.default_int_handler else []
    kinds += [signal.SIGTERM] if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL else []
    with _heard(kinds, answer) if kinds and os.name == "posix" else nullcontext():
        before = {kind: signal.signal(kind, note) for kind in kinds}
        try:
            yield asked
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)


@contextmanager
def abandoned() -> Iterator[None]:
    """If what is inside is broken off by a signal, the compilers that it has started are ended.

    If the process ends by that, it ends at once: libraries that compile would wait there for threads and processes of
    their own, on a busy machine for half a minute.
    """
    before = _descendants()
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        _end(before)
        if not _typed_to():
            at_exit(partial(_leave, before, error, time.monotonic()))
        # threads that wait for a compiler take the next job of their queue, and the interpreter waits for the threads
        threading.Thread(target=_sweep, args=(before,), daemon=True).start()
        raise


def _leave(before: set[int], error: BaseException, since: float) -> None:
    """End the process without what else is to be done at its end, if it was broken off a moment ago."""
    if time.monotonic() - since > SOON:
        return  # the signal was caught, and the process has gone on
    _end(before, leaving=True)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 128 + signal.SIGINT)


@contextmanager
def _heard(kinds: Iterable[int], answer: Callable[[], None]) -> Iterator[None]:
    """Inside, a thread hears of signals, whatever the main thread does."""
    heard, sent = os.pipe()
    os.set_blocking(sent, False)
    over, before = threading.Event(), _descendants()

    def listen() -> None:
        count = 0
        while (number := os.read(heard, 1)) not in (b"", b"\0"):
            count += number[0] in kinds
            if number[0] in kinds and count == 1 and not over.wait(GRACE):
                answer()
            elif count > 1 and not over.wait(LAST) and not _typed_to():
                _end(before, leaving=True)
                os._exit(128 + number[0])

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    former = signal.set_wakeup_fd(sent, warn_on_full_buffer=False)
    try:
        yield
    finally:
        over.set()
        with suppress(ValueError, OSError):  # one that is closed by now
            signal.set_wakeup_fd(former)
        os.write(sent, b"\0")
        thread.join()
        os.close(sent)
        os.close(heard)


def _typed_to() -> bool:
    """Whether the process is a prompt or a notebook, with more in it than this training."""
    return hasattr(sys, "ps1") or "ipykernel" in sys.modules


def _descendants() -> set[int]:
    """The processes that this one has started, directly or not, and that still run; none where Linux does not tell."""
    started: dict[int, set[int]] = {}  # by what each process says: a list of children misses some while others end
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # one that has ended by now
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
            started.setdefault(parent, set()).add(int(path.parent.name))
    found: set[int] = set()
    todo = [os.getpid()]
    while todo:
        more = started.get(todo.pop(), set()) - found
        found |= more
        todo += more
    return found


def _end(before: set[int], leaving: bool = False) -> None:
    """End the programs started since, with what they start meanwhile: the parts of a compiler, which outlive it.

    What is Python may be a pool that others use, and stays; where the process is `leaving`, its pools of compilers go.
    """
    held: set[int] = set()
    while more := {pid for pid in _descendants() - held if _is_compiler(pid, pid in before, leaving)}:
        for pid in more:
            with suppress(OSError):
                os.kill(pid, signal.SIGSTOP)  # it starts no more
        held |= more
    for pid in held:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _is_compiler(pid: int, earlier: bool, leaving: bool) -> bool:
    """Whether a process compiles for us, or is a pool of those that do."""
    try:
        if not Path(f"/proc/{pid}/comm").read_text().startswith(("python", "pt_")):
            return not earlier
        return leaving and POOL in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _sweep(before: set[int]) -> None:
    last = time.monotonic() + SWEEP
    while time.monotonic() < last:
        _end(before)
        time.sleep(0.02)
