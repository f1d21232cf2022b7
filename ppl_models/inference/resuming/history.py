"""`History`: the records of a training as lines of JSON in a file of their own, each written once."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from ..results import as_records
from ..storage.files import json_of, write_atomically, write_json

LINES, SHOWN = "history.jsonl", "history.json"
SELDOM = 1.0  # seconds at least between two versions of the one for people, which is written whole
Records = list[dict[str, float]]


class History:
    """The file of the records, as far as a checkpoint knows it: a record costs the same however many there are.

    Lines are appended and flushed to the disk before the checkpoint that counts them is written. So of a process that
    was killed there may be lines that no checkpoint knows; they are cut off by the next one that is appended. The
    previous checkpoint knows the lines up to its own step. Beside them, for people, is {"history": [...]} in one piece.

    Args:
        folder: of the training.

    Attributes:
        count, size: records and bytes that are written.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.shown = Path(folder) / LINES, Path(folder) / SHOWN
        self.count = self.size = self._shown = 0
        self._shown_at = 0.0
        self._digest = hashlib.sha256()

    def show(self, records: Sequence[Mapping[str, float]], now: bool = True) -> None:
        """Write all of them for people, if there are new ones, and, unless it is to be `now`, not too often."""
        first = not self._shown
        if len(records) > self._shown and (now or first or perf_counter() - self._shown_at > SELDOM):
            write_json(self.shown, {"history": records})
            self._shown, self._shown_at = len(records), perf_counter()

    def append(self, records: Sequence[Mapping[str, float]]) -> None:
        """Write those of all records that were not written yet.

        Raises:
            TypeError: a record with what JSON does not know.
        """
        lines = _lines(records[self.count :])
        whole = self.size > 0 and self.path.is_file() and self.path.stat().st_size >= self.size
        if whole and lines:
            with open(self.path, "r+b") as file:
                file.truncate(self.size)
                file.seek(self.size)
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        elif not whole:  # the first ones, those of an older checkpoint, or all where somebody has taken the file away
            lines, self.size, self._digest = _lines(records), 0, hashlib.sha256()
            write_atomically(self.path, lambda temporary: temporary.write_bytes(lines))
        self._digest.update(lines)
        self.count, self.size = len(records), self.size + len(lines)

    def told(self) -> dict[str, Any]:
        """What a checkpoint says of them."""
        return {"records": self.count, "bytes": self.size, "sha256": self._digest.hexdigest()}

    def read(self, told: Any) -> Records:
        """The records of a checkpoint, to be gone on with.

        Args:
            told: what it says of them; older ones say all records themselves, and the oldest nothing.

        Raises:
            FileNotFoundError: there are no lines.
            ValueError: other lines, or fewer.
        """
        if told is None:
            shown = json.loads(self.shown.read_text())
            told = shown.get("history") if isinstance(shown, dict) else shown
        if isinstance(told, list):
            return as_records(told)
        counts = [told.get(key) for key in ("records", "bytes")] if isinstance(told, dict) else [None]
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"{self.path}: found no count of its lines in the checkpoint, which is damaged")
        if not told["records"]:
            return []
        with open(self.path, "rb") as file:
            lines = file.read(told["bytes"])
        if len(lines) != told["bytes"] or hashlib.sha256(lines).hexdigest() != told.get("sha256"):
            raise ValueError(
                f"{self.path} is damaged: its first {told['records']} lines are not the records of the checkpoint; "
                "remove it to go on without them"
            )
        self._digest.update(lines)
        self.count, self.size = told["records"], told["bytes"]
        return as_records([json.loads(line) for line in lines.splitlines()])


def _lines(records: Sequence[Mapping[str, float]]) -> bytes:
    try:
        return "".join(f"{json_of(record)}\n" for record in records).encode()
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"fit: a record is not JSON ({error}); want numbers and texts of what callbacks add to it"
        ) from None
