"""Checkpoints of an older version: they load, evaluate to the numbers of then, and go on to the same end."""

import json
import shutil
from pathlib import Path

import pytest

from ppl_models.inference import contents, evaluate, load
from ppl_models.inference.results import as_records
from tests.golden.make import CASES, judged, torch_modules, train, untimed
from tests.golden.noise import noise_of_then as noise_of_then
from tests.helpers.cases import few

GOLDEN = Path(__file__).parents[1] / "golden"
NUMBERS = json.loads((GOLDEN / "numbers.json").read_text())


def assert_close(found, want):
    """Equal up to the rounding of other machines, in every number of then; there may be more today."""
    if isinstance(want, dict):
        for name in want:
            assert_close(found[name], want[name])
    elif isinstance(want, list):
        assert len(found) == len(want)
        for mine, its in zip(found, want, strict=True):
            assert_close(mine, its)
    else:
        assert found == pytest.approx(want, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_loads_and_evaluates_to_the_number_of_then(name):
    made, _, evaluated, _ = CASES[name]
    model, guide, _, held_out = made()
    path = GOLDEN / name / "checkpoint.safetensors"
    if "numpyro" in name:
        from ppl_models.inference.numpyro import load as load_numpyro

        model, guide = load_numpyro(path, model, guide)
    else:
        load(path, contents(model, guide, held_out if isinstance(held_out, tuple) else (held_out,)))
    assert_close(judged(evaluated, model, guide, held_out), NUMBERS[name]["half"])


@pytest.mark.parametrize("name", CASES)
def test_a_training_that_was_stopped_goes_on_to_the_end_of_then(name, tmp_path):
    shutil.copytree(GOLDEN / name, tmp_path / "run")
    resumed, end = train(name, tmp_path / "run", resume=True)
    assert_close(untimed(resumed.history), as_records(NUMBERS[name]["history"]))
    assert_close(end, NUMBERS[name]["end"])


@pytest.mark.parametrize("name", few(CASES, lambda name: "numpyro" not in name))
def test_a_training_has_the_numbers_of_then(name):
    whole, end = train(name, None)
    assert_close(untimed(whole.history), as_records(NUMBERS[name]["history"]))
    assert_close(end, NUMBERS[name]["end"])


def test_a_saved_pair():
    model, guide, _, held_out = torch_modules()
    for program in (model, guide):
        for p in program.parameters():
            p.data.zero_()
    load(GOLDEN / "saved.safetensors", {"model": model, "guide": guide})
    assert_close(judged(evaluate, model, guide, held_out), NUMBERS["saved"])
