"""State of random generators and fingerprint of the data, for an exact resume."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..feeding.batches import stored

ROWS = 1000  # that a fingerprint reads


def rng_state(device: torch.device | None = None) -> dict[str, Tensor]:
    """The global generators of torch (that of the CPU, and of `device` if it is CUDA), Python and NumPy, as uint8.

    Torch's are its own bytes; Python's and NumPy's are JSON, which keeps integers and floats exactly.

    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> before = rng_state()
    >>> drawn = torch.rand(()), random.gauss(), np.random.normal()
    >>> set_rng_state(before)
    >>> drawn == (torch.rand(()), random.gauss(), np.random.normal())
    True
    """
    state = {
        "torch": torch.get_rng_state(),
        "python": _text(random.getstate()),
        "numpy": _text(np.random.get_state(legacy=False)),
    }
    if device is not None and torch.device(device).type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: Mapping[str, Tensor], device: torch.device | None = None) -> None:
    """Let all generators of `rng_state` go on from there, or, on an error, none.

    The generator of a CUDA device whose state was not saved (a run that began on the CPU) goes on as it is.

    Args:
        state: of `rng_state`.
        device: where the run goes on.

    Raises:
        ValueError: a state that is missing, or that is none of this generator.
    """
    cuda = device is not None and torch.device(device).type == "cuda" and "cuda" in state
    wanted = ("torch", "python", "numpy", *(["cuda"] if cuda else []))
    if missing := [name for name in wanted if name not in state]:
        raise ValueError(f"set_rng_state: found no state of the generators {missing}, want what rng_state gives")
    before, name = rng_state(device), ""
    try:
        for name in wanted:
            _set(name, state[name], device)
    except Exception as error:  # each generator has its own ways to refuse
        for old, value in before.items():
            _set(old, value, device)
        raise ValueError(
            f"set_rng_state: found a state that is none of the generator {name!r} ({error}), want what rng_state gives"
        ) from None


def fingerprint(columns: Sequence[Any]) -> str:
    """A digest of training data, the same for the same data, on any device: to say on resume that they are others.

    It reads at most about a thousand rows of each tensor, evenly spaced, the first and the last among them, so data
    that differ in other rows alone go unnoticed. Of `ppl_models.data.Data` it reads the stored values and the
    transform; of anything else the type and the length alone.

    >>> x = torch.arange(12.0).reshape(4, 3)
    >>> fingerprint((x,)) == fingerprint((x.clone(),)), fingerprint((x,)) == fingerprint((x + 1,))
    (True, False)
    """
    digest = hashlib.sha256()
    for column in columns:
        values = stored(column)
        kind = "tensor" if isinstance(column, Tensor) else f"{type(column).__module__}.{type(column).__qualname__}"
        told = [kind, len(column), repr(getattr(column, "transform", None)) if values is not None else ""]
        if values is not None:
            count = len(values)
            index = sorted({i * (count - 1) // max(min(count, ROWS) - 1, 1) for i in range(min(count, ROWS))})
            rows = values.detach()[torch.tensor(index, dtype=torch.int64, device=values.device)].cpu().contiguous()
            told += [list(values.shape), str(values.dtype)]
            digest.update(rows.reshape(-1).view(torch.uint8).numpy().tobytes())
        digest.update(json.dumps(told).encode())
    return digest.hexdigest()


def _set(name: str, state: Tensor, device: torch.device | None) -> None:
    if name == "torch":
        torch.set_rng_state(state)
    elif name == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        found = json.loads(state.numpy().tobytes())
        if name == "python":
            version, internal, gauss = found
            random.setstate((version, tuple(internal), gauss))
        else:
            np.random.set_state(found)


def _text(value: Any) -> Tensor:
    text = json.dumps(value, default=lambda array: array.tolist()).encode()
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)
