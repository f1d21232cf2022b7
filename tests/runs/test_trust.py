"""A stranger's files: names in run folders and recipes are looked up where they are known or trusted alone."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from ppl_models.cli import app, evaluate as commands
from ppl_models.runs import load_run, resume
from ppl_models.runs.folders.configuration import command
from ppl_models.runs.naming import names, trust
from ppl_models.runs.naming.options import Training
from ppl_models.runs.recipes.carry_out import carry_out
from ppl_models.runs.recipes.recipe import read_recipe

GOLDEN = Path(__file__).parents[1] / "golden"
CANARY = "import pathlib; pathlib.Path({!r}).touch()"
HOSTILE = [
    # classes and functions of what is installed beside us, which run what they are given
    "sympy:Lambda", "sympy:sympify", "sympy.core.sympify:sympify", "os:system", "posix:system", "subprocess:Popen",
    "subprocess:run", "builtins:eval", "builtins:exec", "builtins:__import__", "code:InteractiveInterpreter",
    "pickle:loads", "shutil:rmtree", "runpy:run_path", "importlib:import_module", "timeit:Timer", "pdb:run",
    "ctypes:CDLL", "multiprocessing:Process", "webbrowser:open", "functools:partial", "types:FunctionType",
    "numpy:load", "numpy.f2py:compile", "scipy.io:loadmat", "torch:load", "torch.hub:load", "torch.serialization:load",
    "torch.jit:load", "torch.nn:Linear", "torch.utils.cpp_extension:load_inline", "networkx:read_gpickle",
    "matplotlib.pyplot:savefig", "pooch:retrieve", "pyro:clear_param_store", "pyro.infer:SVI", "jax:jit",
    "pyro.infer.autoguide:AutoCallable", "pyro.infer.autoguide:AutoGuideList", "antigravity:x", "this:x",
    # what lies behind names that are known
    "ppl_models:importlib.os.system", "ppl_models:VAE.__init__.__globals__", "ppl_models:VAE.__reduce__",
    "ppl_models:lazy_loader.os.system", "ppl_models.runs.naming.names:importlib.import_module",
    "ppl_models.inference:fit", "ppl_models.runs:resume", "ppl_models.parts.program:Program", "ppl_models.numpyro:fit",
    "guides:choose_parents",
    "guides:OrderedGuide", "guides.parts.looks.layout:signature",
    # texts that are no names
    "lambda x: __import__('os').system('touch canary')", "canary_of_trust:Model", "canary_of_trust", "../evil:Model",
    "./evil.py:Model", ".evil:Model", "/evil.py:Model", ":", "::", "os", "os.system", "", "a..b:c", "a:b:c",
    "{0.__class__.__mro__}", "${HOME}:x", "__reduce__:x", "ppl_models", "ppl_models:", "\x1b[2J:x", "\ud800:x", "\0:x",
    "\u202e:x",
]  # fmt: skip
NONE = [None, 3, True, [], {}, ["os:system"], {"__reduce__": ["os", "system"]}]


@pytest.fixture
def canary(tmp_path, monkeypatch) -> Path:
    """A file that a module beside the run writes when it is imported."""
    mark = tmp_path / "canary"
    (tmp_path / "canary_of_trust.py").write_text(CANARY.format(str(mark)))
    for planted in ("lz4", "pytz", "pyarrow"):
        (tmp_path / f"{planted}.py").write_text(CANARY.format(str(mark)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trust, "_allowed", {})
    return mark


@pytest.fixture
def closed(canary, monkeypatch):
    """A process that imports nothing but this library and the faces of autoguides."""

    def only_ours(name: str):
        ours = name.partition(".")[0] in ("ppl_models", "guides") or name.endswith("infer.autoguide")
        assert ours, f"imported {name}"
        return importlib.import_module(name)

    for module in (names, trust):
        monkeypatch.setattr(module, "importlib", SimpleNamespace(import_module=only_ours))
    yield
    assert not canary.exists() and "canary_of_trust" not in sys.modules


def folder_of(backend: str, to: Path) -> tuple[Path, dict]:
    shutil.copytree(GOLDEN / f"run-{backend}", to)
    return to, json.loads((to / "config.json").read_text())


def refused(call, *args, **how) -> str:
    with pytest.raises(ValueError) as caught:
        call(*args, **how)
    return str(caught.value)


def run(line: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output if not code else result.stderr


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_no_name_in_a_folder_is_imported_or_called(backend, tmp_path, closed, capsys):
    pytest.importorskip(backend)
    folder, config = folder_of(backend, tmp_path / "run")
    doors = (load_run, resume, commands.evaluate, commands.sample)
    for kind in ("model", "guide"):
        for value in HOSTILE + NONE:
            for sizes in ({}, {"signature": "x", "expr": "__import__('os').system('touch canary')"}):
                changed = {**config, kind: {**config[kind], "import": value, "sizes": sizes}}
                (folder / "config.json").write_text(json.dumps(changed))
                for door in doors if not sizes else doors[:1]:
                    if door in doors[:2]:
                        told = refused(door, folder)
                        assert "config.json" in told or "is unknown" in told, told
                        assert len(told) < 500 and (not isinstance(value, str) or ":" not in value or value in told
                            or repr(value)[1:-1] in told), told  # fmt: skip
                        continue
                    with pytest.raises(typer.Exit):
                        door(folder)
                    (line,) = capsys.readouterr().err.splitlines()
                    assert line.startswith("error: ") and line.isprintable()


def test_no_other_field_of_a_folder_is_a_name(tmp_path, closed):
    folder, config = folder_of("pyro", tmp_path / "run")
    for value in HOSTILE + NONE[2:]:
        for key, changed in (
            ("backend", value),
            ("format", value),
            ("seed", value),
            ("training", [] if isinstance(value, dict) else value),
            ("data", {**config["data"], "applied": {"kind": value}}),
            ("data", {**config["data"], "columns": {"x": {"shape": [2], "type": value}}}),
            ("data", {**config["data"], "shape": [value]}),
        ):
            (folder / "config.json").write_text(json.dumps({**config, key: changed}))
            told = refused(load_run, folder)
            assert len(told) < 500 and "\n" not in told and ("config.json" in told or key == "backend"), told
        for key in ("objective", "schedule", "gradient", "precision", "compile") if isinstance(value, str) else ():
            with pytest.raises(ValueError):
                Training(steps=1, **{key: value})


@pytest.mark.parametrize("kind", ["model", "guide"])
def test_no_name_in_a_recipe_is_imported_or_called(kind, tmp_path, closed):
    path, pair = tmp_path / "mine.toml", {"model": "vae", "guide": "mean-field"}
    for value in HOSTILE:
        if not value.isprintable():
            continue  # TOML has no such texts
        named = {**pair, kind: value}
        text = "".join(f"[{key}]\nname = {json.dumps(name)}\n" for key, name in named.items())
        path.write_text(f'experiment = "bounds"\n{text}[data]\nname = "digits"\n[runs.a]\n')
        told = refused(lambda: carry_out(read_recipe(path), tmp_path / "out", progress=False))
        assert "recipe mine, run 'a'" in told and (value in told or repr(value)[1:-1] in told), told
    assert not (tmp_path / "out").exists()
    path.write_text(f'experiment = "bounds"\n[{kind}]\nname = 3\n[runs.a]\n')
    assert "recipe mine: found" in refused(read_recipe, path)


MINE = """
from os import system
import os, sympy
from functools import partial
from guides import MeanField
from pyro.infer.autoguide import AutoNormal
from ppl_models import VAE

class Model(VAE):
    inner = os

mean_field = partial(MeanField, hidden=2)
"""


@pytest.fixture
def mine(tmp_path, canary, monkeypatch) -> str:
    """A module of the user's own in the current directory, of another name in every test."""
    name = f"mine_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MINE)
    yield name
    sys.modules.pop(name, None)


def test_what_is_trusted_is_what_its_module_defines(mine, tmp_path, monkeypatch):
    folder, config = folder_of("pyro", tmp_path / "run")
    monkeypatch.syspath_prepend(tmp_path)

    def changed(name: str, kind: str = "model", **sizes: int) -> Path:
        sizes = sizes or config[kind]["sizes"]
        changed = {**config, kind: {**config[kind], "import": name, "sizes": sizes}}
        (folder / "config.json").write_text(json.dumps(changed))
        return folder

    assert f"try --trust {mine}, or trust=({mine!r},)" in refused(load_run, changed(f"{mine}:Model"))
    assert mine not in sys.modules
    load_run(folder, trust=(mine,))
    assert type(load_run(folder).model).__name__ == "Model"  # what was allowed stays allowed
    for name in ("Model", "VAE"):  # its own, and one that any file may name
        load_run(changed(f"{mine}:{name}"))
    load_run(changed(f"{mine}:MeanField", "guide", hidden=2))
    for path, told in (
        ("os.system", "found 'os' behind"),
        ("system", f"found {os.system.__module__!r} behind"),
        ("sympy.Lambda", "found 'sympy' behind"),
        ("partial", "found 'functools' behind"),
        ("Model.inner.system", "found 'os' behind"),
        ("Model.__init__.__globals__", "found 'ppl_models.vae' behind"),
    ):
        assert told in refused(load_run, changed(f"{mine}:{path}")), path
    with pytest.raises(TypeError, match="want names of modules"):
        load_run(folder, trust=mine)
    for wrong in ("a b", "./mine.py", "", "a..b", 3, "a:b:c"):
        assert "want the name of a module" in refused(load_run, folder, trust=(wrong,))


def test_sizes_in_a_file_go_to_the_constructor_alone(tmp_path, closed):
    folder, config = folder_of("pyro", tmp_path / "run")
    for kind, name, sizes, told in (
        ("model", "ppl_models:VAE", {"event": 64, "self": 3}, "has no size 'self'"),
        ("guide", "guides:MeanField", {"model": 3}, "has no size 'model'"),
        ("guide", "pyro.infer.autoguide:AutoGaussian", {"backend": "os"}, "has no size 'backend'"),
        ("guide", "pyro.infer.autoguide:AutoIAFNormal", {"stable": True}, "has no size 'stable'"),
        ("guide", "pyro.infer.autoguide:AutoNormal", {"init_loc_fn": "os.system"}, "config.json is damaged"),
    ):
        changed = {**config, kind: {**config[kind], "import": name, "sizes": sizes}}
        (folder / "config.json").write_text(json.dumps(changed))
        assert told in refused(load_run, folder)


@pytest.mark.parametrize("name", ["pyro.infer.autoguide:AutoNormal", "pyro.infer.autoguide.guides:AutoDelta"])
def test_autoguides_need_no_trust(name, tmp_path, canary):
    rows = np.random.default_rng(0).normal(size=(12, 3))
    np.savez("rows.npz", x_train=rows, x_test=rows)
    run(f"train vae -g {name} -m latent=2 -m hidden=2 --data rows.npz --steps 1 --evaluate 0 -q --out run")
    trust._allowed.clear()
    assert type(load_run("run").guide).__name__ == name.rpartition(":")[2]


def test_commands_that_are_printed_carry_the_trust_that_they_need(mine, canary):
    """And the module of a name that was typed is found in the current directory, which nothing else is searched in."""
    path = list(sys.path)
    line = f"train {mine}:Model -g {mine}:MeanField -m latent=2 -m hidden=2 -g hidden=2 --steps 2"
    told = run(f"{line} --evaluate 0 --out run[red]")
    assert f"next: ppl-models evaluate run[red] --particles 1000 --trust {mine}\n" in told
    assert f"ppl-models sample run[red] --n 100 --trust {mine}\n" in told and sys.path == path
    evaluate = "evaluate run[red] --particles 1 -q"
    run(evaluate)  # the process has been told the name
    trust._allowed.clear()
    sys.modules.pop(mine)
    assert f"try --trust {mine}" in run(evaluate, code=1) and mine not in sys.modules
    for other in ("sample run[red] --n 2", "train --resume run[red] --evaluate 0 -q"):
        assert f"try --trust {mine}" in run(other, code=1)
    for words in (evaluate, "sample run[red] --n 2", "train --resume run[red] --evaluate 0 -q"):
        trust._allowed.clear()
        run(f"{words} --trust {mine}")
    assert sys.path == path and not canary.exists()


def test_the_current_directory_is_no_place_of_modules(tmp_path, canary):
    """Python itself puts it first where a package is run by -m."""
    (tmp_path / "typer.py").write_text(CANARY.format(str(canary)))
    environment = {**os.environ, "PYTHONPATH": str(GOLDEN.parents[1])}
    line = [sys.executable, "-m", "ppl_models", "list", "data"]
    listed = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert listed.returncode == 0 and "mnist" in listed.stdout and not canary.exists(), listed.stderr


def test_commands_in_a_shell():
    config = {
        kind: {"import": f"ppl_models:{name}", "sizes": {}} for kind, name in (("model", "VAE"), ("guide", "VAE"))
    }
    assert command("sample", "a b", config=config) == "ppl-models sample 'a b'"
    assert command("sample", "a[/x]", config=config) == "ppl-models sample a[/x]"
    assert command("sample", "a;b", config=config, processes=2) == (
        "torchrun --nproc-per-node 2 -m ppl_models sample 'a;b'"
    )
    config["model"]["import"] = "gone_altogether.models:Model"
    assert command("sample", "a", config=config) == "ppl-models sample a --trust gone_altogether.models"


@pytest.mark.parametrize("text", ["run[/x]", "run[bold]x", "a[red]", "[link=x]"])
def test_brackets_in_paths_are_no_markup(text, canary, capsys):
    commands.say(f"in {text}", (text, "bold"))
    assert capsys.readouterr().out == f"in {text}{text}\n"
    assert f"there is no run folder {text}" in run(f"evaluate {text}", code=1)


def test_what_steers_a_terminal_is_written_out(capsys):
    commands.say("a\x1b[2J\x07 \ud800 \u202e é\n\tb")
    assert capsys.readouterr().out == "a\\x1b[2J\\x07 \\ud800 \\u202e é\n        b\n"
    assert run("evaluate a\x1b[31mb", code=1) == "error: there is no run folder a\\x1b[31mb\n"


def test_files_that_never_end_are_refused(tmp_path, monkeypatch):
    folder, config = folder_of("pyro", tmp_path / "run")
    deep = "[" * 100_000 + "]" * 100_000
    for text in (deep, "{" * 5, json.dumps(config)[:-1] + f', "more": {deep}}}', "\ud800".encode("utf-8", "replace")):
        (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        assert "config.json is truncated or no JSON" in refused(load_run, folder)
    for depth in (30, 400):
        sizes = {"a": json.loads("[" * depth + "]" * depth)}
        (folder / "config.json").write_text(json.dumps({**config, "model": {**config["model"], "sizes": sizes}}))
        assert "config.json is damaged: found values nested deeper than 20 levels" in refused(load_run, folder)
    (tmp_path / "deep.toml").write_text(f"a = {deep}")
    assert "recipe deep: it is no TOML" in refused(read_recipe, tmp_path / "deep.toml")
    (tmp_path / "deep.toml").write_bytes(b"a = '\xff'")
    assert "recipe deep: it is no TOML" in refused(read_recipe, tmp_path / "deep.toml")
    os.mkfifo(folder / "checkpoint.previous.safetensors")
    (folder / "checkpoint.safetensors").unlink()
    os.mkfifo(folder / "checkpoint.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    assert "checkpoint" in refused(load_run, folder)
