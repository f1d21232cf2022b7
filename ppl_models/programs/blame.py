"""`raised`, `is_ours`: whose an error is, and the line that raised it; `ROOTS`: where installed code lies."""

import sysconfig
import traceback
from pathlib import Path
from types import FrameType

ROOTS = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))
OURS = "ppl_models", "guides"


def raised(error: BaseException) -> str | None:
    """ "ZeroDivisionError at models.py:12, in forward: division by zero"; None for an error of this library's.

    Of the code on the way to the error, that which is installed is left out: what torch refuses is the mistake of
    whoever asked it to, the user's if the last line that is left is in a file of the user's.
    """
    left = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if not _is_installed(frame)]
    if not left or _is_ours(left[-1][0]):
        return None
    frame, line = left[-1]
    path = Path(frame.f_code.co_filename)
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    text = " ".join(str(error).split())
    return f"{type(error).__name__} at {path}:{line}, in {frame.f_code.co_name}{text and ': '}{text}"


def is_ours(error: BaseException) -> bool:
    """Whether this library raised an error itself: then its message says all."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and _is_ours(frames[-1])


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in OURS


def _is_installed(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return not _is_ours(frame) and (name.startswith((*ROOTS, "<frozen")))
