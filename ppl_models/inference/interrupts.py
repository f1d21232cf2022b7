"""`interrupts`: Ctrl-C and SIGTERM end a training between two steps, not within one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts(wanted: bool = True) -> Iterator[list[BaseException]]:
    """Inside, Ctrl-C and SIGTERM do not break a step: what they would raise is in the list, until one comes again.

    Only the main thread of a process may do so; elsewhere, or where it is not wanted, signals are as ever.
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
    before = {kind: signal.signal(kind, note) for kind in kinds}
    try:
        yield asked
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
