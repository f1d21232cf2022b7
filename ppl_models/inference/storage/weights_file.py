"""`copy_weights(source, target)`: a checkpoint without the state of its training. No torch in here."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .checkpoint_file import WEIGHTS_ALONE, described, sealed, verified
from .files import write_atomically

STATE = "training."  # where the names of its tensors begin
KEPT = "step", "seconds", "backend", "compiler", "history", "versions"  # of what a checkpoint says of itself


def copy_weights(source: Path, target: Path, keep: Iterable[str] = KEPT) -> dict[str, Any]:
    """Write the weights of a checkpoint to a file of their own, and return what that says of itself.

    The format stays that of the checkpoint: it tells how its weights are to be read. A file of the first one, which has
    no state, is copied as it is.

    Args:
        source: a checkpoint of either language.
        target: the new file, which either language reads.
        keep: what it says of itself.

    Raises:
        ValueError: a truncated, damaged or foreign file, or none; the message names it.
    """
    try:
        content, about = verified(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"{source} {error}" if isinstance(error, ValueError) else str(error)) from None
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    if (form := header.pop("__metadata__")["format"]) == WEIGHTS_ALONE:
        write_atomically(target, lambda temporary: shutil.copyfile(source, temporary))
        return about
    told, parts, size = {}, [], 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if name.startswith(STATE):
            continue
        begin, end = entry["data_offsets"]
        told[name] = {**entry, "data_offsets": [size, size + end - begin]}
        parts.append(content[start + begin : start + end])
        size += end - begin
    head = json.dumps(told).encode()
    about = {key: about[key] for key in keep if key in about}
    first, body = sealed(len(head).to_bytes(8, "little") + head + b"".join(parts), described(about), form)
    write_atomically(target, lambda temporary: temporary.write_bytes(first + bytes(body)))
    return about
