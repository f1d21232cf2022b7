"""`load_run(folder)`: rebuild the pair of a run, without a pickle, as a `LoadedRun`; `started`: begin such a folder."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ppl_models.inference import load, save
from ppl_models.inference.resuming.history import LINES, SHOWN
from ppl_models.inference.resuming.owner import owned
from ppl_models.inference.storage.checkpoint_file import CHECKPOINT, PREVIOUS
from ppl_models.inference.storage.files import alive, remove_stale, write_json
from ppl_models.inference.storage.weights_file import copy_weights
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Place
from ppl_models.programs.blame import raised

from ..backends import Device, backend as language_of, backend_of, columns, in_backend
from ..naming import names, trust as trusted
from .config_file import TYPES, read_file
from .configuration import FORMAT, command
from .hub import fetched, is_address
from .loaded import LoadedRun

CONFIG, EXAMPLE, START = "config.json", "example.safetensors", "start.safetensors"


@checked
def load_run(
    folder: Place,
    device: Device = "cpu",
    checkpoint: Place | None = None,
    backend: str | None = None,
    trust: Iterable[str] = (),
) -> LoadedRun:
    """Rebuild the pair of a run from its folder alone: neither data nor the arguments of the training are needed.

    The model and guide named in its configuration are imported (yours must be importable), built with the sizes that
    are written there, and given the tensors of the checkpoint. Nothing is unpickled.

    Args:
        folder: of the run, or the address of one that was shared, "hf://owner/name" (`save_pair`).
        device: where to have it.
        checkpoint: another file in the folder than the last checkpoint: "checkpoint.previous.safetensors".
        backend: "pyro" or "numpyro": have the pair in this language, whichever it was trained in; None for that one.
        trust: modules of yours whose programs it may name, ("mypkg.models",): to load a program is to run its module.
            Programs of the collection and autoguides need no trust, nor does what this process has named itself.

    Raises:
        ValueError: no run folder, one without a checkpoint yet, or one that is truncated, damaged, of code that is not
            there any more or that is not trusted; the message names the file.
    """
    name = Path(checkpoint or CHECKPOINT).name
    folder = placed(folder, name)
    config = opened(folder, trust)
    if checkpoint is None and not any((folder / held).exists() for held in (CHECKPOINT, PREVIOUS)):
        told = f"{folder} has no checkpoint yet (killed before the first)"
        raise ValueError(f"{told}; resume it with {command('train', '--resume', folder, config=config)}")
    with config_errors(folder):
        config = in_backend(config, backend)
        language = language_of(backend_of(config))
        model, guide, example = language.build(as_written(config), read_example(folder, config), device)
        model, guide = language.load(folder / name, (model, guide), example)
    return LoadedRun(model, guide, config, folder, example, checkpoint=name)


def placed(place: str | Path, checkpoint: str = CHECKPOINT) -> Path:
    """The folder of a run by its path, or by the address of one that was shared, whose files are fetched."""
    return fetched(str(place), [CONFIG, EXAMPLE, checkpoint, LINES]) if is_address(place) else Path(place)


@contextmanager
def config_errors(folder: Path) -> Iterator[None]:
    """Turn an error inside, where a configuration is used, into a ValueError that names its file, or the user's."""
    try:
        yield
    except ValueError as error:
        if str(folder) in str(error) or str(error).startswith("device "):
            raise
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is no whole run: {error}") from None
    except (LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError, MemoryError) as error:
        if own := raised(error):
            raise ValueError(f"{folder} cannot be used: your code raised {own}") from error
        lacks = "it lacks " if isinstance(error, KeyError) else ""
        raise ValueError(f"{folder / CONFIG} is damaged: {lacks}{error}") from error


def read_example(folder: Path, config: Mapping[str, Any]) -> Tensor | tuple[Tensor, ...]:
    """The rows of data that the guide of a run was built on, one entry a column where there are several."""
    chosen = config["data"]
    if columns := chosen.get("columns"):
        kinds = [(column["shape"], TYPES[column["type"]]) for column in columns.values()]
    else:
        kinds = [([prod(chosen["shape"])], torch.float32)]  # as every transform gives them
    module = _Rows([torch.zeros(chosen["example"], *shape, dtype=dtype) for shape, dtype in kinds], columns or [""])
    load(folder / EXAMPLE, {"example": module})
    rows = tuple(module.buffers())
    return rows if columns else rows[0].to(torch.get_default_dtype())


@contextmanager
def started(folder: Path, config: Mapping[str, Any], example: Tensor | tuple[Tensor, ...]) -> Iterator[None]:
    """Inside, `folder` is that of a run: since it has that name it has configuration, example rows and first weights.

    If the block ends by an error or an interruption before there is a checkpoint, what the run wrote is removed again.
    A killed process leaves a run without a checkpoint, which can be resumed from its start.

    Raises:
        ValueError: there is something at `folder` already.
    """
    empty, made = folder.is_dir(), _missing_parents(folder)
    with staged(folder, proof=CONFIG) as staging:
        save(staging / EXAMPLE, {"example": _Rows(columns(example), config["data"].get("columns", [""]))})
        if "weights" in config:
            copy_weights(Path(config["weights"]) / CHECKPOINT, staging / START, keep=("step",))
        write_json(staging / CONFIG, config)
    try:
        yield
    except BaseException:
        with suppress(ValueError, OSError), owned(folder):  # unless another process goes on with it
            if not (folder / CHECKPOINT).exists():
                _remove_started(folder)
        _remove_empty([] if empty else [folder, *made])
        raise


@contextmanager
def staged(folder: Path, proof: str = CHECKPOINT) -> Iterator[Path]:
    """A hidden folder beside `folder` to write to, renamed to it at the end if it holds the file `proof` by then.

    So a run that failed or was interrupted before its first checkpoint leaves nothing, and one that has a checkpoint is
    kept, whatever ended it. The hidden folder that a killed process leaves is removed by the next one that is begun
    beside it.

    Raises:
        ValueError: there is something at `folder` already, or by the end.
    """
    folder = Path(folder)
    taken = f"{folder} exists already; choose another folder or remove it"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(taken)
    made = _missing_parents(folder)
    staging = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    staging.parent.mkdir(parents=True, exist_ok=True)
    _remove_partial(staging.parent)
    staging.mkdir()
    try:
        with owned(staging):
            yield staging
    finally:
        whole = (staging / proof).is_file()
        try:
            if whole:
                os.replace(staging, folder)
        except OSError:
            whole = False
            raise ValueError(taken) from None
        finally:
            if not whole:
                shutil.rmtree(staging)
                _remove_empty(made)


def _remove_partial(parent: Path) -> None:
    """Remove the hidden folders that killed processes have left; one that is still written to is locked."""
    for path in parent.iterdir():
        found = re.fullmatch(r"\..+\.(\d+)\.partial", path.name)
        if found and path.is_dir() and not alive(int(found[1])):
            with suppress(ValueError, OSError), owned(path):
                shutil.rmtree(path)


def _missing_parents(folder: Path) -> list[Path]:
    """From within."""
    return [parent for parent in folder.absolute().parents if not parent.exists()]


def _remove_started(folder: Path) -> None:
    """Remove the files that a run has written before its first checkpoint; those of others stay."""
    written = (CONFIG, EXAMPLE, START, SHOWN, LINES)
    remove_stale(folder, CHECKPOINT, PREVIOUS, *written)
    for name in written:
        (folder / name).unlink(missing_ok=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


class _Rows(nn.Module):
    """Columns by the names "rows", or "rows_NAME" where they have names."""

    def __init__(self, columns: Sequence[Tensor], names: Iterable[str]) -> None:
        super().__init__()
        for name, column in zip(names, columns, strict=True):
            self.register_buffer(f"rows_{name}" if name else "rows", column)


def opened(folder: Path, trust: Iterable[str] = ()) -> dict[str, Any]:
    """The configuration of a run, once its programs are known to be trusted.

    Raises:
        ValueError: see `read_config`; a program that a file may not name.
    """
    trusted.allow(trust)
    config = read_config(folder)
    for kind, chosen in names.programs_of(config).items():
        trusted.check(f"{folder / CONFIG}: {kind}", chosen["import"])
    return config


def read_config(folder: str | Path) -> dict[str, Any]:
    """Contents of `config.json` of a run, by its path or address.

    Raises:
        ValueError: no run folder; see `config_file.read_file`, `hub.fetched`.
    """
    folder = placed(folder)
    path = folder / CONFIG
    if not folder.is_dir():
        cure = "; fetch it, hf download OWNER/NAME --local-dir FOLDER, and name that"
        raise ValueError(f"there is no run folder {folder}{cure if folder.parts[:1] == ('hf:',) else ''}")
    if not path.is_file():
        raise ValueError(f"{folder} is no run folder: it has no {CONFIG}")
    return read_file(path, FORMAT)


def as_written(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with what it does not say as it was when it was written.

    By the first defaults guides of the collection read what is observed alone (the files of Faithful tell of it), and a
    Ladder multiplies its top with the prior. By the first and second a SelfReflective builds on the priors' bases; by
    the first three the networks of a Ladder give the means of its estimates.
    """
    guide = config["guide"]
    if guide is None:
        return dict(config)
    package, _, name = guide["import"].partition(":")
    ours = package.partition(".")[0] == "guides" and name != "Faithful" and "family" in guide["sizes"]
    defaults, silent = config.get("defaults", 1), {}
    if ours and defaults < 2:
        silent |= {"evidence": "observed"} | ({"top": "product"} if name == "Ladder" else {})
    if ours and defaults < 3 and name == "SelfReflective":
        silent["base"] = "prior"
    if ours and defaults < 4 and name == "Ladder":
        silent["mean"] = "estimate"
    return {**config, "guide": {**guide, "sizes": {**silent, **guide["sizes"]}}}
