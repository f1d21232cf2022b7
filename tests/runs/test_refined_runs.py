"""Refined pairs from the command line: trained, gone on with, evaluated, drawn from; refined at evaluation only."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from guides import Refined
from ppl_models.cli import app
from ppl_models.runs import load_run

SMALL = "train vae -g mean-field -m latent=2 -m hidden=8 -g hidden=8 --batch-size 400 --no-compile --evaluate 2 -q"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(line, code=0):
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def weights(folder):
    guide = load_run(folder).guide
    return {name: p.detach().clone() for name, p in guide.named_parameters()}


def test_a_refined_run_is_trained_resumed_and_used():
    """It goes on to the same bits, and its command says what it is."""
    line = f"{SMALL} --refine dais:steps=2 --epochs 2"
    call(f"{line} --out whole")
    config = json.loads(Path("whole/config.json").read_text())
    assert config["refine"] == "dais:steps=2" and "--refine dais:steps=2" in config["command"]
    run = load_run("whole")
    assert type(run.guide) is Refined and run.guide.steps == 2 and run.guide.method == "dais"
    assert not torch.equal(run.guide.size, Refined(run.guide.guide, steps=2).size)
    Path("part").mkdir()
    for name in ("config.json", "example.safetensors"):  # as it is before the first checkpoint
        Path(f"part/{name}").write_bytes(Path(f"whole/{name}").read_bytes())
    call("train --resume part --evaluate 0 -q")
    assert all(torch.equal(a, b) for a, b in zip(weights("whole").values(), weights("part").values(), strict=True))
    assert "already" in call("evaluate whole --particles 2 --refine 2 -q", code=1).stderr
    call("sample whole --n 4 --out samples.png")


def test_a_run_is_refined_at_its_evaluation_only():
    call(f"{SMALL} --steps 3 --out run")
    assert "refine" not in json.loads(Path("run/config.json").read_text())
    text = call("evaluate run --particles 3 --refine 2 -q").stdout
    assert "refined: 2 Hamiltonian steps after each draw of the guide, with nothing learned, at evaluation only" in text
    found = json.loads(Path("run/evaluation_refined-2.json").read_text())
    assert found["refined"] == 2 and json.loads(Path("run/evaluation.json").read_text())["refined"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dais", "hvi"])
def test_a_run_of_one_language_is_had_in_the_other(method):
    pytest.importorskip("numpyro")
    call(f"{SMALL} --refine {method}:steps=1,hidden=4 --steps 2 --out run")
    ours, port = load_run("run"), load_run("run", backend="numpyro")
    from ppl_models.numpyro.parts.program import named_parameters

    arrays = named_parameters(port.guide)
    assert arrays.keys() == dict(ours.guide.named_parameters()).keys()
    np.testing.assert_array_equal(arrays["size"], ours.guide.size.detach().numpy())
    call("evaluate run --particles 2 --backend numpyro -q")


@pytest.mark.slow
def test_the_ports_are_trained_refined():
    pytest.importorskip("numpyro")
    call(f"{SMALL} --refine dais:steps=2 --steps 20 --backend numpyro --out run")
    call("evaluate run --particles 2 -q --backend pyro")
    call(f"{SMALL} --steps 2 --backend numpyro --out plain")
    assert "refined: 2" in call("evaluate plain --particles 2 --refine 2 -q").stdout


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("mcmc", "method='mcmc'"),
        ("dais:steps=-1", "steps=-1"),
        ("dais:size=3", "has no size 'size'"),
        ("dais:3", "want a method and its sizes"),
    ],
)
def test_a_wrong_word_is_told_in_one_line(word, told):
    (line,) = call(f"{SMALL} --refine {word} --steps 2", code=1).stderr.splitlines()
    assert told in line and "refine" in line.lower()


def test_a_model_without_latents_has_nothing_to_refine():
    (line,) = call("train maf --transform logit --refine dais --steps 2 -q", code=1).stderr.splitlines()
    assert "no latents to move" in line
