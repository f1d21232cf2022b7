"""State of the random generators, for an exact resume."""

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


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
