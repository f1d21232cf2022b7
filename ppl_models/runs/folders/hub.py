"""`fetched(address)`: the folder of a run that was shared on the Hugging Face Hub; it needs `huggingface_hub`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path

from ppl_models.programs.legible import quoted

SCHEME = "hf://"
ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def is_address(place: str | Path) -> bool:
    """Whether it is an address of the Hub and no path."""
    return isinstance(place, str) and place.startswith(SCHEME)


def fetched(address: str, files: Sequence[str]) -> Path:
    """The folder on this machine with some files of "hf://owner/name", or of "hf://owner/name@revision".

    They are fetched to the cache of `huggingface_hub` where they are not there yet; nothing but these is.

    Raises:
        ValueError: another address, the package is not installed, or what it objects to.
    """
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise ValueError(f"load_run: found {quoted(address)}, want hf://owner/name, or hf://owner/name@revision")
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ValueError(
            f"load_run: found no package to fetch {address} with ({error}), want huggingface_hub; install it with "
            "pip install 'ppl-models[hub]', or give the path of a folder"
        ) from None
    repository, revision = found.groups()
    try:
        return Path(hub.snapshot_download(repo_id=repository, revision=revision, allow_patterns=[*files]))
    except Exception as error:  # of the network, the cache, the Hub
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{address} cannot be fetched: {told}") from error
