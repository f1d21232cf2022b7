"""Recipes: read, changed, refused, carried out in small, gone on with; objectives by name; what commands say."""

import json
import math
import shutil
import tomllib
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy
import pytest
import torch
from typer.testing import CliRunner

from ppl_models import data
from ppl_models.cli import app
from ppl_models.cli.recipe import _settings
from ppl_models.cli.training_options import option_of, training_of
from ppl_models.inference import Saturating, elbo, info_vae, mmd, moments, unregularized
from ppl_models.runs import load_run
from ppl_models.runs.naming import names
from ppl_models.runs.naming.objectives import WORDS, objective_of
from ppl_models.runs.naming.options import Training
from ppl_models.runs.recipes.carry_out import carry_out
from ppl_models.runs.recipes.energy import energy_distance
from ppl_models.runs.recipes.experiments import EXPERIMENTS, experiment_of, spread
from ppl_models.runs.recipes.experiments.sequential import chains
from ppl_models.runs.recipes.recipe import HOME, read_recipe, recipe_names
from tests.helpers.cases import few

SMALL = {
    "blur": {
        "data.name": "digits",
        "training.epochs": 2,
        "model.hidden": 16,
        "guide.hidden": 16,
        "analysis.data": 300,
        "analysis.drawn": 100,
        "analysis.least": 1,
        "analysis.points": 5,
        "analysis.images": 3,
    },
    "discrete": {"analysis.draws": 200},
    "two-stage": {
        "runs.first.data.name": "digits",
        "runs.first.model.hidden": 8,
        "runs.first.guide.hidden": 8,
        "runs.second.model.hidden": 8,
        "runs.second.guide.hidden": 8,
        "model.latent": 3,
        "training.epochs": 1,
        "training.compile": False,
        "analysis.data": 40,
    },
    "information-preference": {
        "data.name": "digits",
        "model.hidden": 4,
        "model.depth": 2,
        "guide.hidden": 16,
        "training.epochs": 1,
        "training.compile": False,
        "training.batch_size": 100,
        "training.every": 7,
        "analysis.watched": 40,
        "analysis.tested": 20,
        "analysis.data": 60,
        "analysis.particles": 3,
        "analysis.images": 6,
        "analysis.steps": 8,
    },
    "relaxed-bits": {
        "data.name": "digits",
        "model.latent": 3,
        "model.hidden": 8,
        "guide.hidden": 8,
        "training.epochs": 1,
        "training.compile": False,
        "training.warmup": 2,
        "analysis.data": 20,
        "analysis.particles": 5,
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


TWO = """experiment = "bounds"
[data]
name = "digits"
[model]
name = "vae"
[guide]
name = "mean-field"
[runs."T = 8"]
[runs."T-8"]
"""


# What is read


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_what_it_is_and_where_from(name):
    recipe = read_recipe(name)
    assert recipe.title and recipe.about and "arXiv" in recipe.source and recipe.name == name
    assert recipe.runs or not experiment_of(recipe.experiment).trains
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
    assert read_recipe("sequential").runs["T = 8, ELBO, codes read"]["guide"]["name"] == "self-reflective"


@pytest.mark.parametrize(
    ("text", "settings", "error"),
    [
        ("x = [", {}, "recipe mine: it is no TOML"),
        ('experiment = "bound"', {}, "experiment 'bound' is unknown; .*did you mean 'bounds'"),
        ('experiment = "bounds"\nmodels = 3', {}, "recipe mine: found models = 3, want title, about"),
        ('experiment = "bounds"\n[runs.a]\n[data]\nname = "digits"', {}, "found no model.name for run 'a', want one"),
        (
            'experiment = "bounds"\n[training]\nstep = 3',
            {},
            "found training.step, want some of accumulate, analytic, batch_size",
        ),
        ('experiment = "bounds"\n[runs.a]\nguides = {}', {}, "found 'guides' in the run 'a', want data, model"),
        ('experiment = "bounds"\n[analysis]\nn = 3', {}, "recipe mine: analysis.n: want some of data, particles"),
        ('experiment = "bounds"', {"steps": 3}, "found the setting 'steps', want section.key=value"),
        (
            'experiment = "bounds"\nseed = 1',
            {"seed.x": 3},
            "found the setting 'seed.x', but seed is no section",
        ),
        (
            'experiment = "bounds"',
            {"analysis.particles": "many"},
            "analysis.particles: found particles='many', want an integer of at least 1; try particles=100",
        ),
        ('experiment = "bounds"', {}, "recipe mine: experiment bounds: found no .runs.NAME., want one at least"),
        (TWO.replace("bounds", "discrete").partition('[runs."T-8"]')[0], {}, "discrete: found runs, want none"),
        (TWO, {}, "the runs of the folder 'T-8' are several; rename 'T = 8'"),
        (TWO.replace('"T-8"', '"t=8"'), {}, "the runs of the folder 'T-8' are several; rename 'T = 8'"),
        ('experiment = "bounds"\nseed = -1', {}, "found seed=-1, want an integer, 0 <= seed <= 4294967295"),
        (TWO, {"training.batch_size": "x"}, "found training.batch_size='x', want an integer of at least 1"),
        (TWO, {"training.lr": True}, "found training.lr=True, want a number of more than 0"),
        (
            TWO,
            {"training.compile": 3},
            "found training.compile=3, want one of 'auto', 'xla', 'inductor' or True or False",
        ),
        (
            TWO,
            {"runs.T = 9.training.lr": 1.0},
            "want runs.NAME.section.key of a run 'T = 8', .*did you mean runs.T = 8.s",
        ),
        (TWO, {"runs.T = 8.lr": 1.0}, "found the setting 'runs.T = 8.lr', want section.key=value"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path, text, settings, error):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=error):
        read_recipe(path, settings)


def test_a_setting_that_no_run_would_read_is_refused():
    for name, settings, told in (
        ("sequential", {"model.steps": 2}, "'T = 1', 'T = 2', .*; set runs.T = 1.model.steps"),
        ("information-preference", {"training.beta": 5.0}, "own: 'beta 78.4'; set runs.beta 78.4.training.beta"),
    ):
        with pytest.raises(ValueError, match=f"of that these runs have their own: .*{told}|{told}"):
            read_recipe(name, settings)


def test_runs_are_set_by_name_dots_and_all():
    before, recipe = (
        read_recipe("information-preference", settings)
        for settings in ({}, {"runs.beta 78.4.training.steps": 5, "runs.beta 0.model.hidden": 3})
    )
    assert recipe.runs.keys() == before.runs.keys()
    assert recipe.runs["beta 78.4"]["training"]["steps"] == 5 and recipe.runs["beta 0"]["model"]["hidden"] == 3
    assert "epochs" not in recipe.runs["beta 78.4"]["training"] and recipe.runs["beta 1"] == before.runs["beta 1"]


def test_settings_of_a_command_line():
    words = [
        "runs.T = 8, ELBO.training.objective=info-vae:alpha=1,lambda=2",
        "runs.T=8.model.steps=4",
        "model.hidden=7",
    ]
    assert _settings(words) == {
        "runs.T = 8, ELBO.training.objective": "info-vae:alpha=1,lambda=2",
        "runs.T=8.model.steps": 4,
        "model.hidden": 7,
    }
    recipe = read_recipe("sequential", _settings(["runs.T = 8, ELBO.model.steps=4"]))
    assert recipe.runs["T = 8, ELBO"]["model"]["steps"] == 4 and recipe.runs["T = 8"]["model"]["steps"] == 8


def test_unknown_recipes_are_refused():
    with pytest.raises(ValueError, match="recipe 'sequentiel' is unknown; did you mean 'sequential'"):
        read_recipe("sequentiel")
    with pytest.raises(ValueError, match="there is no such file; `ppl-models recipe` lists"):
        read_recipe("here.toml")


# What is carried out


def finite(value) -> bool:
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize("name", few(SMALL, lambda name: name in ("blur", "two-stage")))
def test_a_recipe_is_carried_out_and_taken_as_it_is_the_second_time(name, tmp_path):
    recipe = read_recipe(name, SMALL[name])
    lines: list[str] = []
    first = carry_out(recipe, tmp_path / "out", progress=False, report=lines.append)
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["rows"].keys() == first["rows"].keys() and written["seed"] == 0 and finite(written["rows"])
    assert set(written["commands"]) == set(recipe.runs) and lines
    assert name in ("discrete", "relaxed-bits") or list((tmp_path / "out").glob("*.png"))
    second = carry_out(recipe, tmp_path / "out", progress=False)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rows"] == written["rows"]
    assert second["commands"] == first["commands"]
    assert {f.name for f in (tmp_path / "out").iterdir() if f.is_dir()} == set(map(names.slug, recipe.runs))
    for run, command in first["commands"].items():
        assert str(tmp_path) not in command  # it is committed, and read on other machines
        of_run = load_run(tmp_path / "out" / names.slug(run)).config["command"]
        assert of_run.replace(f"{(tmp_path / 'out').resolve()}/", "") == command


def test_the_codes_of_a_run_are_the_data_of_another(tmp_path):
    """Drawn anew at each access from the moments of q(z | x), of a first run that the second leaves as it was."""
    recipe = read_recipe("two-stage", SMALL["two-stage"])
    carry_out(recipe, tmp_path, progress=False)
    first, second = (load_run(tmp_path / name) for name in ("first", "second"))
    (rows, test), (images, _) = second.load_data(), first.load_data()
    assert len(rows) == len(images) and len(test) == 300 and rows.shape == (3,)
    assert not torch.equal(rows[:], rows[:])
    first.guide(images[:5])
    fn = first.guide.trace.nodes["z1"]["fn"].base_dist
    torch.testing.assert_close(rows.values[:5], torch.cat([fn.loc, fn.scale], -1).detach())
    assert second.config["model"]["sizes"]["event"] == 3 and "--transform redraw" in second.config["command"]
    shutil.rmtree(tmp_path / "second")  # as if it had been stopped between the two
    rows = carry_out(recipe, tmp_path, progress=False)["rows"]
    assert rows["second"]["latents"] == 3


def test_a_second_stage_may_have_layers(tmp_path):
    second = {"model.name": "hierarchical-vae", "model.latent": (2, 3), "guide.name": "bottom-up"}
    settings = SMALL["two-stage"] | {f"runs.second.{key}": value for key, value in second.items()}
    rows = carry_out(read_recipe("two-stage", settings), tmp_path, progress=False)["rows"]
    assert rows["first"]["latents"] == 3 and rows["second"]["latents"] == 5


@pytest.mark.parametrize("source", ["codes:second", "codes:third", "codes:"])
def test_codes_are_of_a_run_before(tmp_path, source):
    settings = SMALL["two-stage"] | {"runs.second.data.name": source}
    with pytest.raises(ValueError, match=f"found data.name = '{source}', want the codes of a run before it.*'first'"):
        carry_out(read_recipe("two-stage", settings), tmp_path, progress=False)


def test_codes_that_depend_on_each_other_are_refused_before_the_training(tmp_path):
    settings = SMALL["two-stage"] | {"runs.first.model.name": "hierarchical-vae", "runs.first.model.latent": (2, 2)}
    with pytest.raises(ValueError, match="run 'second': codes: found 2 latents, want one latent"):
        carry_out(read_recipe("two-stage", settings), tmp_path, progress=False)
    assert not (tmp_path / "first").exists()


STAGES = """
experiment = "bounds"
seed = 3
[data]
name = "digits"
[model]
name = "vae"
latent = 2
hidden = 4
[guide]
name = "mean-field"
hidden = 4
[training]
steps = 2
batch_size = 20
compile = false
[runs.one]
[runs.two]
weights = "one"
training = { lr = 1e-9, weight_decay = 0.0 }
[analysis]
data = 20
particles = 2
"""


def test_a_run_begins_with_the_weights_of_one_before(tmp_path):
    (tmp_path / "stages.toml").write_text(STAGES)
    results = carry_out(read_recipe(tmp_path / "stages.toml"), tmp_path / "out", progress=False)
    one, two = (load_run(tmp_path / "out" / name) for name in ("one", "two"))
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    assert results["commands"]["two"].startswith("ppl-models train --weights one --data digits")
    assert abs(results["rows"]["two"]["minus"]["one"][0]) < 1e-3
    again = carry_out(read_recipe(tmp_path / "stages.toml"), tmp_path / "out", progress=False)
    assert again["rows"] == results["rows"]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('weights = "one"', 'weights = "two"', "weights = 'two' in the run 'two', want a run before it"),
        ('weights = "one"', 'weights = "three"', "want a run before it, of which there are 'one'"),
        (
            'weights = "one"',
            'weights = "one"\nmodel = 3',
            "found 'model' in the run 'two', want data, model, guide, trai",
        ),
        ('weights = "one"', "weights = 1", "found weights = 1 in the run 'two', want a run before it"),
        ('weights = "one"', 'weights = "one"\nmodel = { latent = 3 }', "want one with its model, {'name': 'vae', 'lat"),
    ],
)
def test_weights_are_of_a_run_before_with_the_same_pair(tmp_path, old, new, error):
    (tmp_path / "stages.toml").write_text(STAGES.replace(old, new))
    with pytest.raises(ValueError, match=error):
        read_recipe(tmp_path / "stages.toml")


def test_a_model_without_latents_has_no_section_of_a_guide(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'experiment = "bounds"\n[data]\nname = "digits"\ntransform = "logit"\n[model]\nname = "maf"\nhidden = 8\n'
        "steps = 2\n[training]\nsteps = 2\n[analysis]\nparticles = 1\n[runs.a]"
    )
    recipe = read_recipe(path)
    assert recipe.runs["a"]["guide"] is None
    found = carry_out(recipe, tmp_path / "out", progress=False)
    assert found["rows"]["a"]["kl"] == {} and "-g" not in found["commands"]["a"]
    assert carry_out(recipe, tmp_path / "out", progress=False)["rows"]["a"]["nll"] > 0


def test_a_folder_of_another_run_is_not_taken_for_this_one(tmp_path):
    carry_out(read_recipe("blur", SMALL["blur"]), tmp_path, progress=False)
    for key, value, told in (
        ("training.epochs", 3, "training.epochs = 2, want 3"),
        ("model.hidden", 64, "model.sizes.hidden = 16, want 64"),
        ("seed", 7, "seed = 0, want 7"),
    ):
        with pytest.raises(ValueError, match=f"vae holds another run: found {told}; choose another --out"):
            carry_out(read_recipe("blur", SMALL["blur"] | {key: value}), tmp_path, progress=False)


def test_a_recipe_that_was_killed_before_its_first_checkpoint_goes_on(tmp_path):
    recipe = read_recipe("blur", SMALL["blur"])
    rows = carry_out(recipe, tmp_path / "a", progress=False)["rows"]
    (tmp_path / "b" / "vae").mkdir(parents=True)
    for name in ("config.json", "example.safetensors"):
        shutil.copy(tmp_path / "a" / "vae" / name, tmp_path / "b" / "vae" / name)
    assert carry_out(recipe, tmp_path / "b", progress=False)["rows"] == rows


def test_steps_take_the_place_of_epochs():
    recipe = read_recipe("information-preference", {"training.steps": 100})
    assert all(run["training"]["steps"] == 100 and "epochs" not in run["training"] for run in recipe.runs.values())
    assert recipe.runs["beta 0"]["training"]["objective"] == "unregularized"


@pytest.mark.slow
def test_statements_about_discrete_joints_hold_to_a_millionth():
    """The experiment itself: sup L = I - H, stationarity, the ELBO's indifference, blur = E Var(x | z)."""
    from ppl_models.runs.recipes.experiments import discrete

    for seed in range(3):
        rows = discrete.analyse({}, discrete.OPTIONS | {"draws": 200}, Path(), seed, lambda line: None)
        exact = {name: row for name, row in rows.items() if "error" in row}
        assert len(exact) == 9 and all(row["error"] < 1e-6 for row in exact.values()), exact
        bracket = rows["bracket of I from draws"]
        assert bracket["lower"] - 0.2 < bracket["exact"] < bracket["upper"] + 0.2  # four standard errors of 200 draws


@pytest.mark.slow
def test_preference_is_watched_on_the_way(tmp_path):
    recipe = read_recipe("information-preference", SMALL["information-preference"])
    carry_out(recipe, tmp_path, progress=False)
    for folder in ("beta-0", "beta-1", "beta-78.4"):
        run = load_run(tmp_path / folder)
        assert len(run.history) == 2
        for record in run.history:
            assert record["mi"] <= math.log(40) + 1e-6 and record["mi"] <= record["mi_upper"] + 0.05
            assert record["bound"] > record["reconstruction"] > 0 and record["rate"] > 0
            assert record["ceiling"] == math.log(40)
    chosen = {name: load_run(tmp_path / name).config["training"] for name in ("beta-0", "beta-78.4")}
    assert chosen["beta-0"]["objective"] == "unregularized" and chosen["beta-78.4"]["beta"] == 78.4


def test_the_chains_of_the_sequential_experiment():
    """The posterior's codes are the guide's, the prior's the model's, and images follow from them."""
    from guides import MeanField
    from ppl_models import SequentialVAE

    x = torch.bernoulli(torch.full((6, 12), 0.5))
    for steps in (1, 3):
        model = SequentialVAE(12, steps, 2, 8)
        guide = MeanField(model, x, hidden=4)
        posterior, prior = chains(model, guide, x)
        assert posterior.shape == prior.shape == (steps, 6, 12)
        torch.manual_seed(0)
        with torch.no_grad():
            expected = model.images([guide(x)[f"z{t + 1}"] for t in range(1)]) if steps == 1 else posterior
        torch.testing.assert_close(posterior, expected)
        assert not torch.equal(posterior, prior) and torch.equal(chains(model, guide, x)[1], prior)


def test_rows_that_are_looked_at_are_spread_over_the_file():
    train = data.load("digits")[0].subset(slice(0, 10))
    rows = spread(train, 4)
    assert torch.equal(rows.values, train.values[[0, 2, 5, 7]]) and spread(train, None) is spread(train, 10) is train


def test_the_energy_distance_tells_sets_of_images_apart():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(400, 9, generator=generator), torch.rand(400, 9, generator=generator)
    assert abs(energy_distance(a, b)) < 0.02 < energy_distance(a, 0.5 * b)
    assert abs(energy_distance(a, b) - mmd(a, b, kernel="energy")) < 1e-4


def test_what_an_experiment_cannot_answer_is_told_before_the_training(tmp_path):
    settings = SMALL["information-preference"] | {"analysis.judge": "beta 2"}
    with pytest.raises(ValueError, match="analysis.judge: found 'beta 2', want one of the runs 'beta 0', 'beta 1'"):
        carry_out(read_recipe("information-preference", settings), tmp_path, progress=False)
    with pytest.raises(ValueError, match="run 'vae' has model.latent = 3, want 2"):
        carry_out(read_recipe("blur", SMALL["blur"] | {"model.latent": 3}), tmp_path, progress=False)
    for name, settings, told in (
        ("information-preference", {"analysis.images": 1}, "analysis.images: found 1, want at least 2"),
        ("information-preference", {"analysis.steps": 4}, "analysis.steps: found 4, want at least 7"),
        ("sequential", {"model.name": "vae"}, "run 'T = 1' has model.name = vae, want sequential-vae"),
        ("sequential", {"analysis.tested": 1}, "analysis.tested: found 1, want at least 2"),
        ("discrete", {"analysis.draws": 1}, "analysis.draws: found 1, want at least 2"),
        (
            "sequential",
            {"runs.T = 8, ELBO.model.depht": 2},
            "run 'T = 8, ELBO': .*no size 'depht'; did you mean 'depth'",
        ),
        ("sequential", {"runs.T = 8.model.latent": 0}, "run 'T = 8': .*latent"),
        ("sequential", {"data.levels": 2}, "found data.levels, want name, transform, image_size, validation"),
    ):
        with pytest.raises(ValueError, match=told):
            carry_out(read_recipe(name, SMALL[name] | settings), tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_of_the_variance_of_data_the_code_explains_a_part_and_leaves_the_rest(tmp_path):
    row = carry_out(read_recipe("blur", SMALL["blur"]), tmp_path, progress=False)["rows"]["vae"]
    parts = row["variance given the code"] + row["variance of the mean given the code"]
    # 100 codes: the sum is that of the data in the mean, with an error of some 5 percent
    assert abs(parts / row["variance of the data"] - 1) < 0.15
    assert row["squared error of the decoder"] > 0 and row["codes that enough data share"] > 0


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
    assert objective_of("soft-free-bits:width=0.2").keywords == {"width": 0.2}
    assert objective_of("info-vae:alpha=1,lambda=10,discrepancy=moments").keywords["discrepancy"] is moments
    needed = {"info-vae": ":alpha=1,lambda=2", "geco": ":tolerance=80", "rewo": ":tolerance=80"}
    needed["semi-supervised"] = ":alpha=1"
    assert all(callable(objective_of(word + needed.get(word, ""))) for word in WORDS)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("elbow", "objective 'elbow': found 'elbow', want one of elbo, .*did you mean 'elbo'"),
        ("free-bits:bits=3", "found the option 'bits', want some of nats, per"),
        ("free-bits:3", "found '3', want options as name=value"),
        ("elbo:nats=3", "found the option 'nats', want some of none"),
        ("info-vae:discrepancy=kl", "found discrepancy=kl, want mmd or moments"),
        (
            "info-vae:alpha=1,lambda=2,discrepancy=moments,kernel=imq",
            "found kernel, which are of discrepancy=mmd alone",
        ),
        ("info-vae:alpha=1,lambda=2,kernel=rbf", "found kernel=rbf, want one of gaussian, laplace, imq"),
        ("info-vae", "found no alpha, try info-vae:alpha=1,lambda=1"),
        ("info-vae:alpha=1,kernel=imq", "found no lambda, try info-vae"),
        ("info-vae:alpha=abc,lambda=1", "found alpha='abc', want a number"),
        ("free-bits:nats=abc", "found nats='abc', want a number"),
        ("free-bits:per=3", "found per=3, want one of 'layer', 'unit', 'sample'"),
        ("info-vae:alpha=True,lambda=1", "found alpha=True, want a number"),
        ("moment-matching:weight=", "found weight='', want a number"),
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
    told = call("evaluate run --particles 2 --information 100 -q")
    assert "ceiling" in told and json.loads(Path("run/information.json").read_text())["n"] == 100
    numpy.save("other.npy", numpy.eye(64, dtype=numpy.float32).reshape(64, 1, 8, 8))
    call("evaluate run --particles 2 --information 50 --data other.npy -q")
    assert json.loads(Path("run/information_other.json").read_text())["n"] <= 50
    assert json.loads(Path("run/information.json").read_text())["n"] == 100
    told = call("evaluate run --particles 2 --probe 100 -q")
    assert "kernel      100 labels" in told and json.loads(Path("run/probe.json").read_text())["n"] == 300
    told = call("evaluate run --particles 2 --calibrate 50 -q")
    assert "log p(x, z)" in told and json.loads(Path("run/calibration.json").read_text())["simulations"] == 50
    Path("run/evaluation.json").unlink()
    assert "found labels=9, want 10 to" in call("evaluate run --particles 2 --probe 9", 1)
    assert "--probe: found no labels in" in call("evaluate run --particles 2 --probe 10 --data other.npy", 1)
    call("train maf -m hidden=8 -m steps=1 --transform logit --steps 1 --evaluate 0 -q --out density")
    assert "--probe: found maf, which has no latents" in call("evaluate density --probe 10", 1)
    assert "--units: found maf, which has no latents" in call("evaluate density --units 10", 1)
    assert "--calibrate: found maf, which has no latents" in call("evaluate density --calibrate 10", 1)
    assert "found 1 rows, want 2 at least" in call("evaluate run --particles 2 --information 1", 1)
    assert "found --draws, want neither" in call("sample run --chain 8 --draws", 1)
    assert not Path("run/evaluation.json").exists()  # what cannot be done is told before anything is
    listed = call("recipe")
    assert all(name in listed for name in recipe_names())
    told = call("recipe discrete --out made --set analysis.draws=100 -q")
    assert "sup of the ELBO" in told and Path("made/results.json").is_file()
    assert "want section.key=value" in call("recipe discrete --set draws", 1)
    assert "did you mean 'discrete'" in call("recipe discreet", 1)
    assert "found 'elbow'" in call("train vae -g ladder --objective elbow", 1)
    for word in ("unregularized", "unregularized:"):
        told = call(f"train vae -g ladder --objective {word} --beta 3", 1)
        assert "found beta=3.0 with the objective 'unregularized'" in " ".join(told.split())


def test_the_weight_of_the_divergences_rises_to_beta(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("train vae -g mean-field -m hidden=4 -g hidden=4 --steps 4 --warmup 2 --beta 3 --evaluate 0 -q --out run")
    assert json.loads(Path("run/config.json").read_text())["training"]["beta"] == 3
    assert "--beta 3" in json.loads(Path("run/config.json").read_text())["command"]
    call("train infusion -g infused --transform dequantize -m steps=2 -m hidden=4 -m criterion=per-step "
         "--objective unregularized --steps 3 --evaluate 2 -q --out infused")  # fmt: skip
    assert Path("infused/samples.png").is_file()


def test_the_weight_of_the_divergences_rises_as_published():
    for name in ("sequential-celeba", "sequential-lsun", "sequential-cifar10"):
        for run in read_recipe(name).runs.values():
            training = Training(**run["training"])
            betas = training.config().betas()
            assert training.settled(1000).warmup == 0 and "--beta exponential:10000" in " ".join(training.words())
            assert [betas(t) for t in (0, 10000)] == [0, pytest.approx(1 - math.exp(-1))]
            assert run["model"]["likelihood"] == "unit-gaussian:0.0884"
    usual = {each.name: option_of(each).default for each in fields(Training)} | {"steps": 3}
    assert training_of(usual).beta == 1.0 and training_of(usual | {"beta": "0.5"}).beta == 0.5
    assert training_of(usual | {"beta": "exponential:7"}).config().beta == Saturating(7)
    for word in ("exponential", "exponential:0", "exponential:x", "linear:3"):
        with pytest.raises(ValueError, match=f"found beta='{word}', want a number, or exponential:N"):
            training_of(usual | {"beta": word})
    with pytest.raises(ValueError, match="found warmup=2 and beta=Saturating"):
        Training(steps=3, warmup=2, beta="exponential:7")


def test_the_published_recipes_take_any_folder_of_images(tmp_path):
    """Noise as 64 x 64 colour pictures, and networks a twelfth as wide: every part of the recipe for faces runs."""
    from PIL import Image

    folder = tmp_path / "faces"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for i in range(25):
        pixels = torch.randint(256, (70, 66, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    settings = {
        "data.name": f"folder:{folder}",
        "model.hidden": 64,
        "guide.hidden": 64,
        "training.epochs": 1,
        "training.batch_size": 5,
        "analysis.tested": 2,
        "analysis.particles": 1,
        "analysis.data": 4,
    }
    recipe = read_recipe("sequential-celeba", settings)
    recipe.runs["T = 8"]["model"]["steps"] = 2
    rows = carry_out(recipe, tmp_path / "out", progress=False)["rows"]
    assert len(rows["T = 8"]["KL"]) == 2 and len(rows["T = 1"]["error by step"]) == 1
    assert load_run(tmp_path / "out" / "T-1").config["model"]["sizes"]["event"] == [3, 64, 64]
    assert (tmp_path / "out" / "T-8_strip.png").is_file()
