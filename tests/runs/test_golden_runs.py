"""Run folders and recipes of an older version: evaluated to the numbers of then, resumed, taken as they are."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ppl_models.cli import app
from ppl_models.inference.results import as_records
from ppl_models.inference.storage import checkpoint_file
from ppl_models.runs import load_run
from ppl_models.runs.recipes.carry_out import carry_out
from ppl_models.runs.recipes.recipe import read_recipe
from tests.golden.make import RECIPE, RUNS, untimed
from tests.golden.noise import noise_of_then as noise_of_then
from tests.helpers.cases import few

GOLDEN = Path(__file__).parents[1] / "golden"
NUMBERS = json.loads((GOLDEN / "numbers.json").read_text())


def near(want):
    return pytest.approx(want, rel=1e-4, abs=1e-4)


def call(*words: object) -> None:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output


def evaluated(folder: Path) -> dict[str, float]:
    call("evaluate", folder, "--particles", 10, "-q")
    found = json.loads((folder / "evaluation.json").read_text())
    return {"elbo": found["elbo"], "nll": found["nll"]}


@pytest.mark.parametrize("name", few(RUNS, lambda name: name == "run-pyro"))
def test_a_run_is_evaluated_and_goes_on(name, tmp_path):
    folder, numbers = tmp_path / "run", NUMBERS[name]
    shutil.copytree(GOLDEN / name, folder)
    run = load_run(folder)
    assert [record["step"] for record in run.history] == [10, 20]
    assert evaluated(folder) == near(numbers["half"])
    call("train", "--resume", folder, "--evaluate", 0, "-q")
    for mine, its in zip(untimed(load_run(folder).history), as_records(numbers["history"]), strict=True):
        assert {key: mine[key] for key in its} == near(its)
    assert evaluated(folder) == near(numbers["end"])


def test_a_run_is_what_its_command_makes_today(tmp_path):
    """The configuration of then is in that of today: names, sizes, options and their defaults."""
    for name, line in RUNS.items():
        schedule = "--schedule", "cosine"  # the default of then
        call(*line.split(), *schedule, "--steps", 1, "--evaluate", 0, "-q", "--out", tmp_path / name)
        then, now = (json.loads((home / name / "config.json").read_text()) for home in (GOLDEN, tmp_path))
        for section in ("format", "backend", "model", "guide", "data", "seed"):
            assert now[section] == then[section], section
        own = ("steps", "every", "warmup")
        for key in then["training"].keys() - set(own):
            assert now["training"][key] == then["training"][key], key


def ladder(backend: str) -> list[str]:
    """The words of a short training of a ladder, up to its folder."""
    pytest.importorskip(backend)
    pair = "train hierarchical-vae -g ladder -m latent=(2,2) -m hidden=2 -g hidden=2"
    return f"{pair} --backend {backend} --steps 2 --evaluate 0 -q --out".split()


@pytest.mark.parametrize("backend", few(["pyro", "numpyro"], lambda backend: backend == "pyro"))
def test_a_ladder_of_before_format_4_merges_its_top(backend, tmp_path, monkeypatch):
    then, line = tmp_path / "then", ladder(backend)
    with monkeypatch.context() as before:
        before.setattr(checkpoint_file, "FORMAT", "ppl-models 3")
        call(*line, then, "-g", "top=product", "-g", "mean=estimate")
    config = json.loads((then / "config.json").read_text())
    assert config["guide"]["sizes"].pop("top") == "product" and config["guide"]["sizes"].pop("mean") == "estimate"
    del config["defaults"]
    numbers = evaluated(then)
    (then / "config.json").write_text(json.dumps(config))
    old = load_run(then)
    assert not old.guide.tops and evaluated(then) == numbers
    call(*line, tmp_path / "now")
    now = load_run(tmp_path / "now")
    assert now.guide.tops == {"z1"} and now.config["guide"]["sizes"]["top"] == "estimate"
    shutil.copy(then / "checkpoint.safetensors", tmp_path / "now")
    with pytest.raises(ValueError, match="before format 4 .* Ladder multiplied its estimate of z1 .*top='product'"):
        load_run(tmp_path / "now")


@pytest.mark.parametrize("backend", few(["pyro", "numpyro"], lambda backend: backend == "pyro"))
def test_networks_of_a_ladder_of_before_format_5_give_estimates(backend, tmp_path, monkeypatch):
    then, line = tmp_path / "then", ladder(backend)
    with monkeypatch.context() as before:
        before.setattr(checkpoint_file, "FORMAT", "ppl-models 4")
        call(*line, then, "-g", "mean=estimate")
    config = json.loads((then / "config.json").read_text())
    assert config["guide"]["sizes"].pop("mean") == "estimate"
    numbers = evaluated(then)
    (then / "config.json").write_text(json.dumps({**config, "defaults": 3}))
    old = load_run(then)
    assert not old.guide.shifted and evaluated(then) == numbers
    call(*line, tmp_path / "now")
    now = load_run(tmp_path / "now")
    assert now.guide.shifted == {"z2"} and "mean" not in now.config["guide"]["sizes"]
    shutil.copy(then / "checkpoint.safetensors", tmp_path / "now")
    with pytest.raises(ValueError, match="before format 5 .* Ladder gave the means of its estimates of z2; .*mean="):
        load_run(tmp_path / "now")


def test_a_recipe_that_is_done_is_taken_as_it_is(tmp_path):
    folder = tmp_path / "recipe"
    shutil.copytree(GOLDEN / "recipe", folder)
    before = (folder / "vae" / "checkpoint.safetensors").read_bytes()
    rows = carry_out(read_recipe("blur", RECIPE), folder, progress=False)["rows"]
    assert (folder / "vae" / "checkpoint.safetensors").read_bytes() == before
    for key, value in NUMBERS["recipe"]["vae"].items():
        assert rows["vae"][key] == near(value), key
