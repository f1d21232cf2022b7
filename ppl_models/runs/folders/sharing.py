"""`save_pair(run, folder)`: a trained pair to be given away: configuration, weights and a page about it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from ppl_models.inference.resuming.history import LINES
from ppl_models.inference.storage.checkpoint_file import CHECKPOINT
from ppl_models.inference.storage.files import write_atomically, write_json
from ppl_models.inference.storage.weights_file import copy_weights
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Is, Place

from ..naming import names
from .card import EVALUATIONS, SAMPLES, card
from .folder import CONFIG, EXAMPLE, LoadedRun, staged

CARD = "README.md"
Trained = Annotated[
    LoadedRun, Is("a run", lambda found: isinstance(found, LoadedRun), "give what load_run returns", ValueError)
]


@checked
def save_pair(run: Trained, folder: Place) -> Path:
    """Write a trained pair to a folder of its own, which `load_run` takes, here or on the Hugging Face Hub.

    It holds config.json, the weights (without the state of the training), the rows of data that the guide was built on,
    the curves, and what is there of evaluations and samples; README.md tells of them. Folders of this machine are told
    by their last name. Put it on the Hub with `hf upload OWNER/NAME FOLDER`.

    Args:
        run: a run, as `load_run` gives it.
        folder: must not exist, or be empty; it appears at once, when all is written.

    Returns:
        The page about it, README.md.

    Raises:
        ValueError: there is something at `folder`, or a damaged file in the run; the message names it.
    """
    folder, config = Path(folder), public(run.config)
    with staged(folder) as staging:
        shutil.copyfile(run.folder / EXAMPLE, staging / EXAMPLE)
        for path in [run.folder / LINES, run.folder / SAMPLES, *run.folder.glob(EVALUATIONS)]:
            if path.is_file():
                shutil.copyfile(path, staging / path.name)
        write_json(staging / CONFIG, config)
        text = card(run, config)
        write_atomically(staging / CARD, lambda path: path.write_text(text, encoding="utf-8"))
        copy_weights(run.folder / run.checkpoint, staging / CHECKPOINT)
    return folder / CARD


def public(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the paths of this machine, by what is last in them.

    >>> public({"command": "ppl-models train vae --data /home/me/x.npz", "data": {"name": "/home/me/x.npz"}})
    {'command': 'ppl-models train vae --data x.npz', 'data': {'name': 'x.npz'}}
    """
    paths = {str(config.get("weights")): Path(config.get("weights", "")).name}
    name = config["data"]["name"]
    if names.is_path(name):
        kind, colon, path = name.rpartition(":") if name.startswith("folder:") else ("", "", name)
        paths[name] = f"{kind}{colon}{Path(path).name}"
    told = {key: value for key, value in config.items() if key != "weights"}
    if "command" in told:
        told["command"] = shlex.join(paths.get(word, word) for word in shlex.split(told["command"]))
    return {**told, "data": {**config["data"], "name": paths.get(name, name)}}
