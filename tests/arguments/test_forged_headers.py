"""Forged checkpoints: headers of wrong types, numbers and names, sealed anew; each is refused in one line."""

import json
import random
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ppl_models.inference.resuming.history import LINES
from ppl_models.inference.resuming.training_record import check_training
from ppl_models.inference.storage.checkpoint_file import CHECKPOINT, NO_DIGEST, digest
from ppl_models.parts.arguments.kinds import Count, Seed
from tests.helpers.configurations import VALUES, changed, forgeries, places
from tests.helpers.doors import fault
from tests.helpers.right_arguments import SHORT, X, pair

Header = dict[str, Any]
Doors = tuple[Callable[[Path], None], Callable[[Path], None]]
SOME, MANY = 15, 200  # forgeries that are read every time; from which a training is to go on


def parted(content: bytes) -> tuple[Header, Header, bytes]:
    """(header, what the file says about itself, body) of a checkpoint."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    return header, json.loads(header["__metadata__"]["about"]), content[start:]


def forged(header: Header, body: bytes) -> bytes:
    """The file of a header, with the digest that belongs to it, as whoever changes it computes it."""
    told = header.get("__metadata__")
    sealed = isinstance(told, dict) and isinstance(told.get("sha256"), str)
    if sealed:
        told["sha256"] = NO_DIGEST
    head = json.dumps(header, separators=(",", ":")).encode()
    head = (len(head) + -len(head) % 8).to_bytes(8, "little") + head + b" " * (-len(head) % 8)
    if sealed:
        head = head.replace(NO_DIGEST.encode(), digest(head, body).encode(), 1)
    return head + body


def edited(header: Header, body: bytes, *where: Any, **how: Any) -> bytes:
    return forged(changed(header, *where, **how), body)


def retold(header: Header, body: bytes, make: Callable[[], dict[str, Any]]) -> bytes:
    return edited(header, body, ("__metadata__", "about"), json.dumps(make()))


def cases(content: bytes) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """(field, what is wrong with it, what makes the file) of every forgery; few of them are made at a time."""
    header, about, body = parted(content)
    some = [name for name in header if name != "__metadata__"]
    some = [*some[:2], *(name for name in some if name.startswith("training."))][:6]
    entries = {"__metadata__": header["__metadata__"]} | {name: header[name] for name in some}
    for place in places(entries):
        for what, value in {**VALUES, "F64": "F64", "I32": "I32", "[-1]": [-1], "[2**62, 4]": [2**62, 4]}.items():
            if place != ("__metadata__", "sha256") or not isinstance(value, str):
                yield ".".join(map(str, place)), what, partial(edited, header, body, place, value)
        yield ".".join(map(str, place)), "missing", partial(edited, header, body, place, drop=True)
    for what in ("training.elbow", "elbow", "model.\x1b[2J\n", "model.\ud800", "training.", "guide." + "x" * 5000):
        moved = {(what if name == some[0] else name): entry for name, entry in header.items()}
        yield some[0], f"called {what[:20]!r}", partial(forged, moved, body)
    for place, what, make in forgeries(about):
        yield f"about.{place}", what, partial(retold, header, body, make)


@pytest.fixture(scope="module", params=["torch", "jax"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Doors, Path]:
    """(what reads a checkpoint and its training, what goes on with it), and the folder of one that is done."""
    if request.param == "torch":
        import torch

        from ppl_models.inference import fit
        from ppl_models.inference.pyro.training.checkpoint import read

        x, more = torch.tensor(X), {"world": Count}
    else:
        pytest.importorskip("numpyro")
        from ppl_models.inference.numpyro import fit
        from ppl_models.inference.numpyro.training.checkpoint import read

        x, more = X, {"seed": Seed}

    def train(folder: Path, **how: Any) -> None:
        fit(*pair(request.param), x, **SHORT, seed=0, folder=folder, **how)

    def look(folder: Path) -> None:
        found = read(folder / CHECKPOINT)
        check_training(folder / CHECKPOINT, found.about, **more)

    folder = tmp_path_factory.mktemp(request.param) / "run"
    train(folder)
    return (look, partial(train, resume=True)), folder


def faults(door: Callable[[Path], None], whole: Path, folder: Path, chosen: Callable[[list], list]) -> list[str]:
    """What is wrong with the ends of a door that is given forged files."""
    found = []
    folder.mkdir()
    for path in whole.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for field, what, forge in chosen([*cases((whole / CHECKPOINT).read_bytes())]):
        (folder / CHECKPOINT).write_bytes(forge())
        (folder / LINES).write_bytes((whole / LINES).read_bytes())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                door(folder)
        except Exception as error:  # noqa: BLE001 (whose it is, is the question)
            named = type(error) is ValueError and str(folder) in str(error) and str(error).isprintable()
            if told := fault(error) or ("" if named else "no ValueError with the name of the file"):
                found.append(f"{field}, {what}: {type(error).__name__}: {str(error)[:200]!r}: {told}")
    return found


def test_a_forged_checkpoint_is_refused_in_one_line(trained, tmp_path):
    (look, _), whole = trained
    told = faults(look, whole, tmp_path / "read", lambda found: random.Random(0).sample(found, SOME))
    assert not told, f"{len(told)} faults\n" + "\n".join(told)


@pytest.mark.slow
def test_no_training_goes_on_from_a_forged_checkpoint(trained, tmp_path):
    (look, resume), whole = trained
    told = faults(look, whole, tmp_path / "read", list)
    told += faults(resume, whole, tmp_path / "resumed", lambda found: random.Random(1).sample(found, MANY))
    assert not told, f"{len(told)} faults\n" + "\n".join(told)
