"""Runs in either language: trained by the one, evaluated, pictured and gone on with by both."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

jax = pytest.importorskip("jax")

import ppl_models  # noqa: E402
from ppl_models.cli import app  # noqa: E402
from ppl_models.inference.pyro.training.checkpoint import CHECKPOINT, read  # noqa: E402
from ppl_models.runs import load_run  # noqa: E402
from ppl_models.runs.naming import names  # noqa: E402
from tests.helpers.cases import few  # noqa: E402

SMALL = "train vae -g mean-field -m latent=2 -m hidden=8 -g hidden=8"
DEEP = "train sere-vae -g self-reflective -m layers=2 -m latent=2 -m hidden=8 -g hidden=8"
PAIRS = {"vae": (SMALL, "VAE"), "sere-vae": (DEEP, "SeReVAE")}
OWN = """
import numpyro, numpyro.distributions as dist, jax.numpy as jnp

def model(x):
    loc = numpyro.param("loc", jnp.zeros(64))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(64), 1.0).to_event(1))
        numpyro.sample("pixels", dist.Normal(loc + z, 1.0).to_event(1), obs=x)

def guide(x):
    weight = numpyro.param("weight", jnp.zeros(64))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("z", dist.Normal(x * weight, 0.5).to_event(1))
"""


def call(command: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == code, f"{command}\n{result.output}\n{result.exception!r}"
    return result


def complaint(command: str) -> str:
    return " ".join(call(command, code=1).stderr.split())


def content(path: str) -> dict:
    return json.loads(Path(path).read_text())


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module", params=few(PAIRS, lambda name: name == "vae"))
def pair(request) -> tuple[str, str]:
    """(the command that trains a pair, the class of its model)."""
    return PAIRS[request.param]


@pytest.fixture(scope="module")
def trained(pair, tmp_path_factory) -> Path:
    """A NumPyro run."""
    path = tmp_path_factory.mktemp("backend") / "run"
    call(f"{pair[0]} --backend numpyro --steps 40 --evaluate 4 -q --out {path}")
    return path


def test_a_run_of_the_ports_is_a_run_like_any_other(pair, trained):
    config = content(f"{trained}/config.json")
    assert config["backend"] == "numpyro" and {"jax", "numpyro", "equinox"} <= config["versions"].keys()
    assert config["model"]["import"] == f"ppl_models.numpyro:{pair[1]}" and "--backend numpyro" in config["command"]
    assert {path.name for path in trained.iterdir()} >= {
        *("config.json", "history.json", CHECKPOINT, "example.safetensors", "evaluation.json"),
        *("samples.png", "reconstructions.png", "history.png"),
    }
    assert content(f"{trained}/evaluation.json")["backend"] == "numpyro"
    history = content(f"{trained}/history.json")["history"]
    assert history[-1]["step"] == 40 and history[-1]["loss"] < history[0]["loss"]


@pytest.mark.parametrize(
    "first, second", few([("pyro", "numpyro"), ("numpyro", "pyro")], lambda first, second: first == "pyro")
)
def test_what_one_side_has_trained_the_other_evaluates(pair, trained, folder, first, second):
    """300 data, 400 samples each: the means differ by Monte Carlo error alone, below 0.015 nats (5 standard errors)."""
    run = trained
    if first == "pyro":
        run = folder / "run"
        call(f"{pair[0]} --steps 40 --evaluate 0 -q --no-compile --out {run}")
    call(f"evaluate {run} --particles 400 -q")
    text = call(f"evaluate {run} --particles 400 -q --backend {second}").stdout
    own, other = content(f"{run}/evaluation.json"), content(f"{run}/evaluation_{second}.json")
    assert (own["backend"], other["backend"], own["n"]) == (first, second, 300)
    assert f"{other['nll']:.3f}" in text
    assert abs(own["nll"] - other["nll"]) < 0.015 and abs(own["elbo"] - other["elbo"]) < 0.3
    assert own["kl"].keys() == other["kl"].keys() and other["bits_per_dim"] is not None


def test_the_weights_are_the_same_bits(trained):
    ports, torches = load_run(trained), load_run(trained, backend="pyro")
    from ppl_models.numpyro import to_torch

    for port, module in ((ports.model, torches.model), (ports.guide, torches.guide)):
        state = module.state_dict()
        carried = to_torch(port)
        assert carried.keys() == state.keys()
        assert all((carried[name] == state[name]).all() for name in state)
    assert (ports.backend, torches.backend) == ("numpyro", "pyro")
    with pytest.raises(ValueError, match="found backend 'tensorflow', want pyro or numpyro"):
        load_run(trained, backend="tensorflow")


def test_samples_and_pictures(trained, folder):
    assert call(f"sample {trained} --n 6 --out few.png").stdout.strip() == "few.png"
    call(f"sample {trained} --n 6 --out draws.png --draws")
    assert Path("few.png").read_bytes() != Path("draws.png").read_bytes()
    assert "found a NumPyro run, want a Pyro one; try --backend pyro" in call(f"sample {trained} --chain 8", 1).stderr
    assert "R-hat" in call(f"sample {trained} --n 4 --chain 8 --backend pyro --out chain.png").stdout
    assert "want a Pyro one; try --backend pyro" in call(f"evaluate {trained} --information 9", 1).stderr
    assert "linear       50 labels" in call(f"evaluate {trained} --particles 2 --probe 50").stdout
    told = [call(f"evaluate {trained} --particles 2 --units 40 {more}").stdout for more in ("", "--backend pyro")]
    assert "active units: variance of the mean over 40 data" in told[0]
    assert told[0].split("active units")[1] == told[1].split("active units")[1]


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_end(pair, folder, monkeypatch):
    """It is stopped by an error of its own at the second record of five."""
    from ppl_models.inference.training import loop

    calls, save = [], loop.Loop._save

    def failing(self):
        save(self)
        calls.append(1)
        if len(calls) == 2:
            raise OSError("the disk is gone")

    command = f"{pair[0]} --backend numpyro --epochs 5 --batch-size 600 --evaluate 0 -q"
    call(f"{command} --out whole")
    monkeypatch.setattr(loop.Loop, "_save", failing)
    call(f"{command} --out broken", code=1)
    monkeypatch.setattr(loop.Loop, "_save", save)
    assert read(Path("broken") / CHECKPOINT).about["step"] == 4
    call("train --resume broken --evaluate 0 -q")
    one, other = (read(Path(name) / CHECKPOINT) for name in ("whole", "broken"))
    assert one.weights.keys() == other.weights.keys()
    assert all((one.weights[name] == other.weights[name]).all() for name in one.weights)


def test_programs_of_ones_own(folder, monkeypatch):
    Path("mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(folder))
    call("train mine:model -g mine:guide --transform scale --data rows.npy --backend numpyro", code=1)
    np.save("rows.npy", np.random.default_rng(0).normal(1, 1, (50, 64)).astype(np.float32))
    call("train mine:model -g mine:guide --data rows.npy --steps 30 --evaluate 2 -q --backend numpyro --out own")
    call("evaluate own --particles 3 -q")
    assert "a program of your own, want one of the collection" in complaint("evaluate own --backend pyro")
    assert {k for k in read(Path("own") / CHECKPOINT).weights} == {"params.loc", "params.weight"}


def test_no_other_file_knows_the_languages():
    """Words in text apart: no constant and no import of another file of `runs` or `cli` is NumPyro's name."""
    root = Path(ppl_models.__file__).parent
    for path in [*(root / "runs").rglob("*.py"), *(root / "cli").rglob("*.py")]:
        tree = ast.walk(ast.parse(path.read_text()))
        found = [getattr(node, "value", None) or getattr(node, "module", None) for node in tree]
        if path.parent.name != "backends":
            assert not {"numpyro", "ppl_models.numpyro", "ppl_models.inference.numpyro"} & set(map(str, found)), path


def test_names_of_the_ports():
    for kind in ("model", "guide"):
        assert names.catalogue(kind).keys() == names.catalogue(kind, "numpyro").keys()
    assert "key" not in names.sizes_of(names.catalogue("model", "numpyro")["vae"], 0)
    assert "has no size 'layrs'; did you mean 'layers'?" in complaint(
        "train sere-vae -g ladder -m layrs=2 --backend numpyro --steps 3"
    )


def test_processes_are_refused(folder, monkeypatch):
    from ppl_models.runs import training

    class Group:
        world, rank, is_main, device = 2, 0, True, "cpu"

        def agreed(self, value):
            return value

    monkeypatch.setattr(training.distributed, "current", lambda device: Group())
    monkeypatch.setattr("ppl_models.inference.pyro.feeding.distributed.shut_down", lambda: None)
    told = complaint(f"{SMALL} --backend numpyro --steps 3 --evaluate 0 -q --out run")
    assert "found 2 processes, NumPyro pairs are trained by one" in told and not Path("run").exists()
