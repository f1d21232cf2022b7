"""What recipes gave: each file of a recipe, rows beside published numbers, and the page of the docs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ppl_models.cli import app
from ppl_models.runs.recipes.costs import costs
from ppl_models.runs.recipes.recipe import HOME, read_recipe, recipe_names
from ppl_models.runs.recipes.results import cells, markdown, recorded, rows_of

PAGE = Path(__file__).parents[2] / "docs" / "results.md"


def told(words: str) -> str:
    result = CliRunner().invoke(app, ["results", *words.split()])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_file_is_of_a_recipe_of_the_collection():
    for name, seeds in recorded().items():
        recipe = read_recipe(name)
        for contents in seeds:
            path = HOME / "results" / f"{name}-{contents['seed']}.json"
            assert json.loads(path.read_text()) == contents and contents["machine"]["processor"]
            assert set(contents["commands"]) == set(contents["seconds"]) <= set(recipe.runs)


def test_rows_hold_both_numbers_by_seed():
    recipe = read_recipe("vamp")
    runs = ("standard", "vamp")
    seeds = [
        {
            "rows": {
                run: {"nll": 90.0 - k - seed, "nll_error": 0.5, "n": 10, "particles": 3, "minus": {}}
                | ({"minus": {"standard": [-1.0, 0.25]}} if k else {})
                for k, run in enumerate(runs)
            },
            "seconds": dict.fromkeys(runs, 120.0),
        }
        for seed in (0, 1)
    ]
    first, second = rows_of(recipe, seeds)
    assert cells(first) == (
        "standard",
        "NLL 84.5 (dynamic MNIST, 5000 samples, up to 2000 epochs; as quoted by others)",
        "90.00, 89.00 +- 0.50",
        "",
        "10, 3",
        "2, 2",
    )
    assert cells(second)[2:4] == ("89.00, 88.00 +- 0.50", "-1.00 +- 0.25, -1.00 +- 0.25")


def test_evaluations_of_one_run_have_a_row_each():
    recipe, found = read_recipe("relaxed-bits"), {"nll": 105.0, "nll_error": 1.0, "n": 10, "particles": 3}
    rows = {run: {"relaxed": found, "bits": found | {"nll": 104.0}} for run in recipe.runs}
    told = rows_of(recipe, [{"rows": rows, "seconds": dict.fromkeys(rows, 60.0)}])
    assert [cells(row)[0] for row in told] == [f"{run}: {kind}" for run in recipe.runs for kind in ("relaxed", "bits")]
    assert [cells(row)[2] for row in told] == ["105.00 +- 1.00", "104.00 +- 1.00"] * 2


def test_published_numbers_are_of_runs():
    for name in recipe_names():
        recipe = read_recipe(name)
        assert recipe.published.keys() <= recipe.runs.keys()
    for wrong in (
        {"nll": 1.0},
        {"nll": 1, "protocol": "x"},
        {"nll": 1.0, "protocol": "x", "more": "y"},
        {"protocol": "x"},
    ):
        settings = {f"published.vamp.{key}": value for key, value in wrong.items()}
        with pytest.raises(ValueError, match="found published"):
            read_recipe("draw", settings)


def test_what_systems_cost_is_shown_as_it_was_measured():
    files = [json.loads(file.read_text())["systems"] for file in (HOME / "costs").iterdir()]
    assert costs() == {name: row for file in files for name, row in file.items()}
    row = files[0]["iaf"] if "iaf" in files[0] else files[1]["iaf"]
    weights = f"{row['model_weights'] / 1e6:.2f} + {row['guide_weights'] / 1e6:.2f} M"
    line = f"| {weights} | {row['step_ms']:.0f} ms | {row['samples_s']:.3g} s | {row['bound_s']:.3g} s |"
    assert line in told("--markdown")
    assert "What systems cost" in told("") and "What systems cost" not in told("iaf")


def test_the_page_is_what_the_command_prints():
    assert PAGE.read_text() == told("--markdown") == markdown()


def test_the_command_shows_a_recipe_and_knows_the_others():
    text = told("iaf")
    assert "83.04" in text and "ppl-models train vae" in text
    result = CliRunner().invoke(app, ["results", "vamp-full"])
    assert result.exit_code == 1 and "was not carried out" in result.stderr
