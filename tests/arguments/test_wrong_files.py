"""Configurations, recipes and files of data that are damaged, forged or of a wrong kind: refused in one line."""

import json
import random
import shutil
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ppl_models import data
from ppl_models.data import readers
from ppl_models.runs import load_run, resume
from tests.helpers.command_lines import GOLDEN, RECIPE, call, fault as line_fault, prepare
from tests.helpers.configurations import forgeries, toml
from tests.helpers.data_files import array_files, image_files, raw_files
from tests.helpers.doors import fault

QUICK = 30  # forgeries of a configuration that every run of the tests looks at


def end(call: Callable[[], Any], name: str) -> str:
    """What is wrong with the end of a call; nothing where it ends well, or in one line that names a file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call()
    except Exception as error:  # noqa: BLE001 (whose it is, is the question)
        if told := fault(error):
            return f"{told}: {type(error).__name__}: {str(error)[:200]!r}"
        if not str(error).isprintable() or name not in str(error):
            return f"it does not name {name}, or not legibly: {str(error)[:200]!r}"
    return ""


def of_configurations(backend: str, folder: Path, door: Callable[[Path], Any], chosen: Callable[[list], list]) -> list:
    """The faults of the ends of a door that is given forged configurations."""
    whole, found = GOLDEN / f"run-{backend}", []
    for place, what, forge in chosen([*forgeries(json.loads((whole / "config.json").read_text()))]):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        (folder / "config.json").write_text(json.dumps(forge()))
        if told := door(folder):
            found.append(f"{place}, {what}: {told}")
    return found


def loaded(folder: Path) -> str:
    return end(lambda: load_run(folder), folder.name)


def gone_on_with(folder: Path) -> str:
    return end(lambda: resume(folder, progress=False), folder.name)


def evaluated(folder: Path) -> str:
    return line_fault(call(["evaluate", str(folder), "--particles", "1", "-q"]))


def sampled(folder: Path) -> str:
    return line_fault(call(["sample", str(folder), "--n", "1"]))


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_forged_configuration_is_refused_in_one_line(backend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip(backend)
    found = of_configurations(backend, tmp_path / "run", loaded, lambda all_: random.Random(0).sample(all_, QUICK))
    assert not found, f"{len(found)} faults\n" + "\n".join(found)
    assert not (tmp_path / "canary").exists()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
@pytest.mark.parametrize("door", [loaded, gone_on_with, evaluated, sampled])
def test_every_forged_configuration_is_refused_in_one_line(backend, door, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    step = 1 if door is loaded else 7
    found = of_configurations(backend, tmp_path / "run", door, lambda all_: all_[::step])
    assert not found, f"{len(found)} faults\n" + "\n".join(found)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
@pytest.mark.parametrize("value", [2**70, -(2**70), 1e300])
def test_a_large_number_of_a_configuration_is_one_of_python(backend, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip(backend)
    shutil.copytree(GOLDEN / f"run-{backend}", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["data"]["range"][0] = value
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert type(load_run(tmp_path / "run").config["data"]["range"][0]) is float
    assert not sampled(tmp_path / "run")


def of_recipes(folder: Path, step: int) -> list[str]:
    """The faults of the ends of recipes of which one field is wrong."""
    prepare(folder)
    right, found = tomllib.loads(RECIPE), []
    right |= {"title": "a title", "seed": 0}
    right["runs"] = {"a": {"model": {"hidden": 2}, "training": {"lr": 0.01}}}
    for place, what, forge in [*forgeries(right)][::step]:
        try:
            (folder / "mine.toml").write_text(toml(forge()))
        except (TypeError, UnicodeError):  # TOML has no such values
            continue
        told = line_fault(call(["recipe", "mine.toml", "--out", "new", "-q"]))
        found += [f"{place}, {what}: {told}"] if told else []
        shutil.rmtree(folder / "new", ignore_errors=True)
    return found


def test_a_forged_recipe_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = of_recipes(tmp_path, 25)
    assert not found, f"{len(found)} faults\n" + "\n".join(found)


@pytest.mark.slow
def test_every_forged_recipe_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = of_recipes(tmp_path, 1)
    assert not found, f"{len(found)} faults\n" + "\n".join(found)
    assert not (tmp_path / "canary").exists()


def test_files_of_data_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = []
    for i, (what, name, write) in enumerate(array_files()):
        path = tmp_path / str(i) / name
        path.parent.mkdir()
        write(path)
        told = end(lambda path=path: data.load(str(path)), name)
        if name.endswith("npz"):
            told = told or end(lambda path=path: data.load_table(str(path), ("train", "test", "x", "y")), name)
        found += [f"{what}, {name}: {told}"] if told else []
    for i, (what, name, write) in enumerate(image_files()):
        path = tmp_path / f"images{i}" / name
        path.parent.mkdir()
        write(path)
        for other in ("b.png", "c.png"):
            Image.new("L", (8, 8)).save(path.with_name(other))
        told = end(lambda path=path: data.load(f"folder:{path.parent}", size=8), name)
        found += [f"image {what}: {told}"] if told else []
    for reader, what, content in raw_files():
        path = tmp_path / "raw"
        path.write_bytes(content)
        read = getattr(readers, reader)
        given = {"cifar_batch": (content, "raw"), "mat": (path, "key")}.get(reader, (path,))
        told = end(lambda read=read, given=given: read(*given), "raw")
        found += [f"{reader} {what}: {told}"] if told else []
    assert not found, f"{len(found)} faults\n" + "\n".join(found)
    assert not (tmp_path / "canary").exists()


def test_an_archive_larger_than_the_memory_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_memory", lambda: 1 << 20)
    _, name, write = next(case for case in array_files() if case[0] == "a bomb")
    write(tmp_path / name)
    with pytest.raises(ValueError, match=r"x\.npz: .* bytes of arrays, more than this machine has memory"):
        data.load(str(tmp_path / name))
