"""`ppl-models ablate`: guides trained alike, compared datum by datum, what is done once is not done again."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ppl_models.cli import app
from ppl_models.inference import evaluate
from ppl_models.runs import load_run

WORDS = "hierarchical-vae --guides mean-field,bottom-up --seeds 2 --data rows.npy -m latent=2,2 -m hidden=4 -g hidden=4"
WORDS += " --steps 2 --no-compile --evaluate 3 --out out"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", np.random.default_rng(0).random((40, 6)) < 0.5)


def ablate(words: str = WORDS, code: int = 0):
    done = CliRunner().invoke(app, ["ablate", *words.split()])
    assert done.exit_code == code, done.output
    return done


def written() -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path("out").rglob("*") if path.is_file()}


def test_guides_are_trained_alike_and_compared_datum_by_datum():
    text = ablate().stdout
    found = json.loads(Path("out/ablation.json").read_text())
    assert list(found["guides"]) == ["mean-field", "bottom-up"] and found["seeds"] == [0, 1] and found["n"] == 4
    first, second = found["guides"].values()
    assert first["missing"] == {"z2": ["z1"]} and second["missing"] == {} and second["verdict"].startswith("faithful")
    assert re.search(r"mean-field +z1→z2 .*\n.*bottom-up +nothing ", text) and "over 4 data and 2 seeds" in text

    each = {}
    for guide in ("mean-field", "bottom-up"):
        for seed in (0, 1):
            run = load_run(f"out/{guide}-{seed}")
            assert run.config["seed"] == seed and run.history[-1]["step"] == 2
            test = run.load_data()[-1]
            each[guide, seed] = evaluate(run.model, run.guide, test, particles=3, progress=False)
    minus = second["minus"]["mean-field"]
    for kind, bounds in (("nll", "nlls"), ("negative_elbo", "elbos")):
        sign = 1 if kind == "nll" else -1
        pairs = [
            [sign * getattr(each[guide, seed], bounds) for seed in (0, 1)] for guide in ("bottom-up", "mean-field")
        ]
        assert np.allclose(second[kind], np.mean(pairs[0], 1), rtol=1e-5)
        difference = np.subtract(*pairs)
        assert np.isclose(minus[kind]["nll"], difference.mean(), rtol=1e-4, atol=1e-6)
        assert np.isclose(minus[kind]["error"], difference.mean(0).std(ddof=1) / 4**0.5, rtol=1e-3)
        assert np.isclose(minus[kind]["seed_error"], abs(np.subtract(*difference.mean(1))) / 2, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_the_same_again_trains_and_evaluates_nothing_and_what_is_missing_alone():
    ablate()
    before, first = written(), json.loads(Path("out/ablation.json").read_text())["guides"]["bottom-up"]
    ablate()
    again = written()
    assert {path for path in before if before[path] != again[path]} == {"out/ablation.json", "out/ablation.png"}
    shutil.rmtree("out/bottom-up-1")
    Path("out/mean-field-1/ablation.safetensors").unlink()
    ablate()
    made = {path for path, time in written().items() if again.get(path) != time and path.endswith(".safetensors")}
    names = "checkpoint", "checkpoint.previous", "example", "ablation"
    assert made <= {"out/mean-field-1/ablation.safetensors", *(f"out/bottom-up-1/{name}.safetensors" for name in names)}
    repeated = json.loads(Path("out/ablation.json").read_text())["guides"]["bottom-up"]
    assert repeated["nll"] == first["nll"] and repeated["minus"] == first["minus"]
    np.save("rows.npy", ~np.load("rows.npy"))  # bounds of the old rows are no bounds of these
    assert "the data are not those that the run" in ablate(code=1).stderr
    np.save("rows.npy", ~np.load("rows.npy"))
    told = ablate(WORDS.replace("--steps 2", "--steps 3"), code=1).stderr
    assert "holds another run: found training.steps = 2, want 3; choose another --out" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("mean-field,bottom-up", "mean-field,mean-field"), "--guides: found 'mean-field' in 'mean-field,mean-field'"),
        (("mean-field,bottom-up", "mean-field,"), "--guides: found '' in 'mean-field,'"),
        (("mean-field,bottom-up", "mean-feild"), "did you mean 'mean-field'"),
        (("-g hidden=4", "-g ladder"), "guides are named by --guides"),
        (("bottom-up", "ladder"), None),
        (("-g hidden=4", "-g tops=4"), "tops"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_trained(change, told):
    words = WORDS.replace(*change)
    if told is None:  # a size that one of the guides does not have
        words, told = words + " -g init_scale=0.1", "guide 'ladder'"
    assert told in ablate(words, code=1).stderr and not Path("out").exists()
