"""Recipes: read, changed, refused, carried out in small, gone on with; objectives by name; what commands say."""

import json
import math
import tomllib
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ppl_models.cli import app
from ppl_models.inference import elbo, info_vae, mmd, moments, unregularized
from ppl_models.runs import load_run
from ppl_models.runs.build import Training
from ppl_models.runs.experiments import EXPERIMENTS, experiment_of
from ppl_models.runs.objectives import HOMES, objective_of
from ppl_models.runs.recipes import HOME, carry_out, read_recipe, recipe_names

SMALL = {
    "blur": {
        "data.name": "digits",
        "training.epochs": 2,
        "model.hidden": 16,
        "guide.hidden": 16,
        "analysis.data": 300,
        "analysis.least": 1,
        "analysis.points": 5,
        "analysis.images": 3,
    },
    "discrete": {"analysis.draws": 200},
    "information-preference": {
        "data.name": "digits",
        "model.hidden": 4,
        "model.depth": 2,
        "guide.hidden": 16,
        "training.epochs": 1,
        "training.compile": False,
        "training.every": 7,
        "analysis.watched": 40,
        "analysis.tested": 20,
        "analysis.data": 60,
        "analysis.particles": 3,
        "analysis.images": 6,
        "analysis.steps": 8,
    },
    "sequential": {
        "data.name": "digits",
        "model.hidden": 8,
        "guide.hidden": 8,
        "training.epochs": 1,
        "training.compile": False,
        "training.warmup": 2,
        "analysis.tested": 30,
        "analysis.particles": 3,
        "analysis.data": 40,
    },
}


def call(line: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == code, result.output
    return result.output


# What is read


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_what_it_is_and_where_from(name):
    recipe = read_recipe(name)
    assert recipe.title and recipe.about and "arXiv" in recipe.source and recipe.name == name
    assert recipe.runs or recipe.experiment == "discrete"
    for chosen in recipe.runs.values():
        Training(**chosen["training"]).settled(1000)
        objective_of(chosen["training"].get("objective", "elbo"))
    raw = tomllib.loads((HOME / f"{name}.toml").read_text())
    assert set(raw.get("analysis", {})) <= set(experiment_of(recipe.experiment).options)


def test_settings_overrule_and_runs_overrule_sections():
    recipe = read_recipe("sequential", {"training.epochs": 3, "model.hidden": 7, "seed": 5})
    assert recipe.seed == 5
    assert {run["training"]["epochs"] for run in recipe.runs.values()} == {3}
    assert {run["model"]["hidden"] for run in recipe.runs.values()} == {7}
    assert [run["model"]["steps"] * run["model"]["latent"] for run in recipe.runs.values()] == [32] * len(recipe.runs)
    assert read_recipe("sequential").runs["T = 8, codes read"]["guide"]["name"] == "self-reflective"


@pytest.mark.parametrize(
    ("text", "settings", "error"),
    [
        ("x = [", {}, "recipe mine: it is no TOML"),
        ('experiment = "bound"', {}, "experiment 'bound' is unknown; .*did you mean 'bounds'"),
        ('experiment = "bounds"\nmodels = 3', {}, "recipe mine: found models = 3, want title, about"),
        ('experiment = "bounds"\n[runs.a]\n[data]\nname = "digits"', {}, "found no model.name for run 'a', want one"),
        ('experiment = "bounds"\n[training]\nstep = 3', {}, "found training.step, want some of accumulate, batch_size"),
        ('experiment = "bounds"\n[runs.a]\nguides = {}', {}, "found 'guides' in the run 'a', want data, model"),
        ('experiment = "bounds"\n[analysis]\nn = 3', {}, "recipe mine: analysis.n: want some of data, particles"),
        ('experiment = "bounds"', {"steps": 3}, "found the setting 'steps', want section.key=value"),
        ('experiment = "bounds"', {"seed.x": 3, "seed": 1}, ""),
        (
            'experiment = "bounds"\nseed = 1',
            {"seed.x": 3},
            "found the setting 'seed.x', but seed is no section",
        ),
        (
            'experiment = "bounds"',
            {"analysis.particles": "many"},
            "analysis.particles: found 'many', want a value like",
        ),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path, text, settings, error):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    if error:
        with pytest.raises(ValueError, match=error):
            read_recipe(path, settings)


def test_unknown_recipes_are_refused():
    with pytest.raises(ValueError, match="recipe 'sequentiel' is unknown; did you mean 'sequential'"):
        read_recipe("sequentiel")
    with pytest.raises(ValueError, match="there is no such file; of the collection: blur, "):
        read_recipe("here.toml")


# What is carried out


def finite(value) -> bool:
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value) or math.isinf(value)


@pytest.mark.parametrize("name", SMALL)
def test_a_recipe_is_carried_out_and_taken_as_it_is_the_second_time(name, tmp_path):
    recipe = read_recipe(name, SMALL[name])
    lines: list[str] = []
    first = carry_out(recipe, tmp_path / "out", progress=False, report=lines.append)
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["rows"].keys() == first["rows"].keys() and written["seed"] == 0 and finite(written["rows"])
    assert set(written["commands"]) == set(recipe.runs) and lines
    assert name == "discrete" or list((tmp_path / "out").glob("*.png"))
    second = carry_out(recipe, tmp_path / "out", progress=False)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rows"] == written["rows"]
    assert second["commands"] == first["commands"]
    for run in recipe.runs:
        folder = next(f for f in (tmp_path / "out").iterdir() if f.is_dir())
        assert load_run(folder).history and run


def test_statements_about_discrete_joints_hold_to_a_millionth():
    """The experiment itself: sup L = I - H, stationarity, the ELBO's indifference, blur = E Var(x | z)."""
    from ppl_models.runs.experiments import discrete

    for seed in range(3):
        rows = discrete.analyse({}, discrete.OPTIONS | {"draws": 200}, Path(), seed, lambda line: None)
        exact = {name: row for name, row in rows.items() if "error" in row}
        assert len(exact) == 9 and all(row["error"] < 1e-6 for row in exact.values()), exact
        bracket = rows["bracket of I from draws"]
        assert bracket["lower"] - 0.2 < bracket["exact"] < bracket["upper"] + 0.2  # four standard errors of 200 draws


def test_preference_is_watched_on_the_way(tmp_path):
    recipe = read_recipe("information-preference", SMALL["information-preference"])
    carry_out(recipe, tmp_path, progress=False)
    for folder in ("beta-0", "beta-1", "beta-78.4"):
        run = load_run(tmp_path / folder)
        assert len(run.history) == 2
        for record in run.history:
            assert record["mi"] <= math.log(40) + 1e-6 and record["mi"] <= record["mi_upper"] + 1e-6
            assert record["bound"] > record["reconstruction"] > 0 and record["rate"] > 0
    chosen = {name: load_run(tmp_path / name).config["training"] for name in ("beta-0", "beta-78.4")}
    assert chosen["beta-0"]["objective"] == "unregularized" and chosen["beta-78.4"]["beta"] == 78.4


def test_the_chains_of_the_sequential_experiment():
    """Of one step, mixed and posterior are the same; of more, the mixed chain's last image is of a prior's before."""
    from guides import MeanField
    from ppl_models import SequentialVAE
    from ppl_models.runs.experiments.sequential import chains

    x = torch.bernoulli(torch.full((6, 12), 0.5))
    for steps in (1, 3):
        model = SequentialVAE(12, steps, 2, 8)
        posterior, mixed, prior = chains(model, MeanField(model, x, hidden=4), x)
        assert posterior.shape == mixed.shape == prior.shape == (steps, 6, 12)
        assert torch.equal(posterior[0], mixed[0]) and (steps == 1 or not torch.equal(posterior[1], mixed[1]))
    gated = model.image_of(1, prior[0], torch.zeros(6, 2))
    assert gated.shape == (6, 12)


def test_a_judge_must_be_one_of_the_runs(tmp_path):
    settings = SMALL["information-preference"] | {"analysis.judge": "beta 2"}
    with pytest.raises(ValueError, match="analysis.judge: found 'beta 2', want one of the runs 'beta 0', 'beta 1'"):
        carry_out(read_recipe("information-preference", settings), tmp_path, progress=False)


def test_experiments_have_a_file_each():
    for name in EXPERIMENTS:
        assert callable(experiment_of(name).analyse)


# Objectives by name


def test_objectives_by_name():
    assert objective_of("elbo") is elbo and objective_of("unregularized") is unregularized
    found = objective_of("info-vae:alpha=1,lambda=10,kernel=imq,estimator=linear")
    assert isinstance(found, partial) and found.func is info_vae
    assert found.keywords["alpha"] == 1 and found.keywords["lambda_"] == 10
    assert found.keywords["discrepancy"].func is mmd
    assert found.keywords["discrepancy"].keywords == {"kernel": "imq", "estimator": "linear"}
    assert objective_of("info-vae:discrepancy=moments").keywords["discrepancy"] is moments
    assert objective_of("soft-free-bits:width=0.2").keywords == {"width": 0.2}
    assert all(callable(objective_of(word)) for word in HOMES)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("elbow", "objective 'elbow': found 'elbow', want one of elbo, .*did you mean 'elbo'"),
        ("free-bits:bits=3", "found the option 'bits', want some of nats, per"),
        ("free-bits:3", "found '3', want options as name=value"),
        ("elbo:nats=3", "found the option 'nats', want some of none"),
        ("info-vae:discrepancy=kl", "found discrepancy=kl, want mmd or moments"),
        ("info-vae:discrepancy=moments,kernel=imq", "found kernel, which are of discrepancy=mmd alone"),
    ],
)
def test_objectives_that_there_are_not(spec, text):
    with pytest.raises(ValueError, match=text):
        objective_of(spec)


# Commands


def test_commands_of_criteria(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "-m hidden=4 -m depth=2 -g encoder=conv -g hidden=16 --steps 4 --evaluate 2 --threads 1 -q"
    call(
        f"train pixel-vae -g mean-field --data digits {words} --objective info-vae:alpha=1,lambda=5 --every 2 --out run"
    )
    config = json.loads(Path("run/config.json").read_text())
    assert config["training"]["objective"] == "info-vae:alpha=1,lambda=5" and config["model"]["sizes"]["event"] == [
        1,
        8,
        8,
    ]
    assert "--objective info-vae:alpha=1,lambda=5" in config["command"] and len(load_run("run").history) == 2
    told = call("sample run --chain 8 --n 4")
    assert "R-hat" in told and Path("run/chain.png").is_file()
    told = call("evaluate run --particles 2 --information -q")
    assert "ceiling" in told and json.loads(Path("run/information.json").read_text())["n"] == 300
    listed = call("recipe")
    assert all(name in listed for name in recipe_names())
    told = call("recipe discrete --out made --set analysis.draws=100 -q")
    assert "sup of the ELBO" in told and Path("made/results.json").is_file()
    assert "want section.key=value" in call("recipe discrete --set draws", 1)
    assert "did you mean 'discrete'" in call("recipe discreet", 1)
    assert "found 'elbow'" in call("train vae -g ladder --objective elbow", 1)


def test_the_weight_of_the_divergences_rises_to_beta(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("train vae -g mean-field -m hidden=4 -g hidden=4 --steps 4 --warmup 2 --beta 3 --evaluate 0 -q --out run")
    assert json.loads(Path("run/config.json").read_text())["training"]["beta"] == 3
    assert "--beta 3" in json.loads(Path("run/config.json").read_text())["command"]
    call("train infusion -g infused --transform dequantize -m steps=2 -m hidden=4 -m criterion=per-step "
         "--objective unregularized --steps 3 --evaluate 2 -q --out infused")  # fmt: skip
    assert Path("infused/samples.png").is_file()
