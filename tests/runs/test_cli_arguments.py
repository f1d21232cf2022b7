"""A model of several arguments from the command line, by arrays of an .npz; and errors of a user's own code."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from guides import MeanField
from ppl_models.cli import app
from ppl_models.data import load_table
from ppl_models.inference import evaluate
from ppl_models.inference.storage import checkpoint_file
from ppl_models.programs.blame import raised
from ppl_models.runs import load_run
from ppl_models.runs.folders.configuration import load_parts
from tests.helpers.cases import few

USER = """
import jax
import numpyro
import pyro
import pyro.distributions as dist
import torch
from torch import nn


class Regression(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.line = nn.Linear(width, 1)

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.line(x)[..., 0], 1.0))
            pyro.sample("y", dist.Poisson(z.exp()), obs=y)


def port(x, y=None):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", numpyro.distributions.Normal(x.sum(-1) * numpyro.param("scale", 1.0), 1.0))
        numpyro.sample("y", numpyro.distributions.Poisson(jax.numpy.exp(z)), obs=y)


def fixed(x):
    with pyro.plate("data", 12):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z[..., None], torch.ones(2)).to_event(1), obs=x)


def any_rows(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z[..., None], torch.ones(2)).to_event(1), obs=x)


def fixed_port(x):
    with numpyro.plate("data", 12):
        z = numpyro.sample("z", numpyro.distributions.Normal(0.0, 1.0))
        numpyro.sample("x", numpyro.distributions.Normal(z[..., None], jax.numpy.ones(2)).to_event(1), obs=x)


def broken(x):
    return 1 / 0


def abstract(x):
    raise NotImplementedError("a rate")


def refused(x):
    pyro.sample("z", dist.Normal(0.0, -1.0))


def breaks_on_many(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        if len(x) > 3:
            raise KeyError("gone")
        pyro.sample("x", dist.Normal(z[..., None].expand(len(x), 2), 1.0).to_event(1), obs=x)
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module of the user's own beside its data, of another name in every test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"several_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(USER)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.integers(4, size=30)
    np.savez("xy.npz", y=y, x=x, other=np.zeros(1))
    np.savez("parts.npz", y_train=y[:20], x_train=x[:20], y_test=y[20:], x_test=x[20:])
    np.savez("rows.npz", x=x[:, :2], weight=np.ones(30))
    return name


def call(line: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def complaint(line: str) -> str:
    (text,) = call(line, code=1).stderr.splitlines()
    return text


@pytest.mark.parametrize("backend", few(["pyro", "numpyro"], lambda backend: backend == "pyro"))
def test_a_model_of_several_arguments(programs, backend):
    name = "Regression" if backend == "pyro" else "port"
    train = f"train {programs}:{name} -g mean-field -g hidden=4 --data xy.npz --steps 4 --batch-size 9 --validation"
    call(f"{train} --out run --backend {backend} --evaluate 2 -q")
    about = json.loads(Path("run/config.json").read_text())["data"]
    assert about["columns"] == {"x": {"shape": [3], "type": "float32"}, "y": {"shape": [], "type": "int64"}}
    assert about["rows"] == {"train": 25, "validation": 2, "test": 3}
    example = load_file("run/example.safetensors")
    with np.load("xy.npz") as file:
        held = dict(file)
    assert np.array_equal(example["example.rows_y"].numpy(), held["y"][:3])
    assert "the arguments x, y" in complaint("sample run")
    before = json.loads(Path("run/evaluation.json").read_text())
    call("evaluate run --particles 2 -q")
    assert json.loads(Path("run/evaluation.json").read_text())["nll"] == before["nll"]  # of the weights of the training
    call("evaluate run --particles 2 --data parts.npz -q")
    assert json.loads(Path("run/evaluation_parts.json").read_text())["n"] == 10


def test_a_stopped_run_of_several_arguments_goes_on_to_the_same_end(programs):
    train = f"train {programs}:Regression -g mean-field -g hidden=4 --data parts.npz --evaluate 0 -q --steps 6"
    call(f"{train} --out whole")
    call(f"{train} --out run --every 2")
    Path("run/checkpoint.safetensors").write_bytes(Path("run/checkpoint.previous.safetensors").read_bytes())
    call("train --resume run --evaluate 0 -q")
    one, other = (load_run(folder) for folder in ("whole", "run"))
    for a, b in zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    test = other.load_data()[-1]
    assert isinstance(other.guide, MeanField) and len(test) == 10
    assert evaluate(other.model, other.guide, test.columns, particles=2, progress=False).n == 10
    with np.load("parts.npz") as file:
        held = dict(file)
    np.savez("parts.npz", **held | {"y_train": held["y_train"].astype(float), "y_test": held["y_test"].astype(float)})
    assert "parts.npz: found columns" in complaint("train --resume run -q")


def test_a_run_folder_of_before_reads_what_it_read_then(programs, monkeypatch):
    """Its configuration says nothing of evidence: its guide read what is observed alone."""
    train = (
        f"train {programs}:Regression -g mean-field -g hidden=4 -g evidence=observed --data parts.npz --evaluate 0 -q"
    )
    with monkeypatch.context() as then:
        then.setattr(checkpoint_file, "FORMAT", checkpoint_file.OTHER_COVARIATES)
        call(f"{train} --evaluate 0 -q --steps 4 --every 2 --out run")
    config = json.loads(Path("run/config.json").read_text())
    assert (config["guide"]["sizes"].pop("evidence"), config.pop("defaults")) == ("observed", 4)
    Path("run/config.json").write_text(json.dumps(config))
    Path("run/checkpoint.safetensors").write_bytes(Path("run/checkpoint.previous.safetensors").read_bytes())
    call("train --resume run --evaluate 0 -q")
    run = load_run("run")
    assert run.guide.layout.reads == {"z": ("y",)} and run.history[-1]["step"] == 4


def test_inspecting_a_model_of_several_arguments(programs):
    found = call(f"inspect {programs}:Regression faithful --data xy.npz -q").stdout
    assert "p(z | x) p(y | z)" in found and "q(z | x, y)" in found


def test_one_array_of_several_is_chosen_by_the_name_of_the_argument(programs):
    assert "KeyError" in complaint(f"train {programs}:breaks_on_many -g mean-field --data rows.npz --steps 2 -q")


def test_a_file_that_is_read_otherwise_now_is_refused(tmp_path):
    np.save(tmp_path / "bits.npy", np.eye(6, dtype=np.uint8))  # of 256 levels once
    about = {"name": str(tmp_path / "bits.npy"), "transform": "default", "image_size": None, "validation": False}
    config = {"model": {"import": "ppl_models:VAE"}, "versions": {"ppl-models": "0.1"}}
    parts = load_parts({**config, "data": {**about, "shape": [6], "levels": 2}})
    assert len(parts[0]) == 5
    with pytest.raises(ValueError, match="found levels 2, the run was trained on 256, by version 0.1; .* train anew"):
        load_parts({**config, "data": {**about, "shape": [6], "levels": 256}})


def test_arrays_that_are_no_columns_of_one_table(tmp_path):
    path = tmp_path / "x.npz"
    for arrays, words in (
        ({"x": np.zeros((4, 2)), "y": np.zeros(3)}, r"found x \(4, 2\), y \(3,\), want equally many rows of each"),
        (
            {"x": np.zeros((4, 2)), "y": np.array(list("abcd"))},
            r"x.npz\[y\]: found <U1 of shape \(4,\), want rows of num",
        ),
        ({"x": np.zeros((4, 2)), "y": np.full(4, np.nan)}, r"x.npz\[y\]: found values that are not finite"),
        ({"x": np.zeros((1, 2)), "y": np.zeros(1)}, "found 1 datum, want at least 2"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=words):
            load_table(path, ("x", "y"))
    np.savez(path, x=np.zeros((4, 2)), y=np.zeros(4, bool), z=np.zeros(2))
    train, test = load_table(path, ("x", "y", "w"))
    assert str(train) == f"{path} train: 3 of x (2,), y ()" and len(test) == 1 and test.columns["y"].dtype == torch.bool
    assert load_table(path, ("x", "w")) is None and load_table("digits", ("x", "y")) is None
    with pytest.raises(ValueError, match="found 'logit' for .*, whose arrays x, y are the arguments of the model"):
        load_table(path, ("x", "y"), transform="logit")


# Errors of a user's own code


def place(programs: str, code: str) -> str:
    """The file of the user's programs with the number of a line."""
    (number,) = [i for i, line in enumerate(USER.splitlines(), 1) if line.strip() == code]
    return f"{programs}.py:{number}"


@pytest.mark.parametrize(
    ("line", "kind", "code", "words"),
    [
        ("broken -g mean-field", "guide 'mean-field' cannot be built: your code raised ZeroDivisionError",
         "return 1 / 0", "in broken: division by zero"),
        ("abstract -g mean-field", "NotImplementedError", 'raise NotImplementedError("a rate")', "in abstract: a rate"),
        ("refused -g mean-field", "ValueError", 'pyro.sample("z", dist.Normal(0.0, -1.0))', "in refused: Expected"),
        ("breaks_on_many -g mean-field --data rows.npz", "error: KeyError", 'raise KeyError("gone")',
         "in breaks_on_many: 'gone'"),
        ("Regression -g mean-field -m width=-1 --data xy.npz", "RuntimeError", "self.line = nn.Linear(width, 1)",
         "in __init__"),
    ],
)  # fmt: skip
def test_errors_of_a_users_own_code_are_told_with_their_place(programs, line, kind, code, words):
    text = complaint(f"train {programs}:{line} --steps 2 -q")
    assert f"{kind} at {place(programs, code)}, {words}" in text


def test_a_module_that_fails_is_told_with_its_place(programs):
    Path(f"{programs}_broken.py").write_text("import math\nmath.sqrt(-1)\n")
    text = complaint(f"train {programs}_broken:Model -g mean-field -q")
    assert f"ValueError at {programs}_broken.py:2, in <module>: " in text


def test_code_that_has_changed_under_a_run_is_told_with_its_place(programs, tmp_path):
    call(f"train {programs}:Regression -g mean-field -g hidden=4 --data xy.npz --steps 1 --out run --evaluate 0 -q")
    import sys

    module = sys.modules[programs]
    module.nn.Linear, linear = None, module.nn.Linear
    try:
        text = complaint("evaluate run -q")
    finally:
        module.nn.Linear = linear
    assert f"model '{programs}:Regression' cannot be built: your code raised TypeError at " in text
    assert place(programs, "self.line = nn.Linear(width, 1)") in text


def test_whose_error_it_is():
    with pytest.raises(TypeError) as caught:
        MeanField(None)
    assert raised(caught.value) is None  # the library's: it says what it wants
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2) @ torch.zeros(3)
    assert f"{Path(__file__).name}:" in raised(caught.value)  # what torch refuses is the mistake of who asked


@pytest.mark.slow
def test_a_program_of_a_fixed_number_of_rows_is_trained(programs):
    """Guides are built on as many rows as the program takes; a run folder keeps them."""
    rng = np.random.default_rng(1)
    np.savez("fixed.npz", x_train=rng.normal(size=(12, 2)), x_test=rng.normal(size=(12, 2)))
    for i, guide in enumerate(("mean-field -g hidden=4", "pyro.infer.autoguide:AutoNormal")):
        call(f"train {programs}:fixed -g {guide} --data fixed.npz --steps 2 --out run{i} --evaluate 3 -q")
        assert json.loads(Path(f"run{i}/config.json").read_text())["data"]["example"] == 12
        before = json.loads(Path(f"run{i}/evaluation.json").read_text())["nll"]
        call(f"evaluate run{i} --particles 3 -q")
        assert json.loads(Path(f"run{i}/evaluation.json").read_text())["nll"] == before
    found = call(f"inspect {programs}:fixed mean-field --data fixed.npz -q").stdout
    assert "q(z | x)" in found
    call(f"train {programs}:fixed_port -g mean-field --data fixed.npz --steps 2 --out port --backend numpyro -q")
    assert json.loads(Path("port/config.json").read_text())["data"]["example"] == 12


def test_a_guide_with_a_value_for_each_row_is_kept_with_its_rows(programs):
    rng = np.random.default_rng(1)
    np.savez("any.npz", x_train=rng.normal(size=(12, 2)), x_test=rng.normal(size=(12, 2)))
    train = f"train {programs}:any_rows -g pyro.infer.autoguide:AutoNormal --data any.npz"
    call(f"{train} --steps 2 --out run -q --evaluate 3")
    before = json.loads(Path("run/evaluation.json").read_text())["nll"]
    call("evaluate run --particles 3 -q")
    assert json.loads(Path("run/evaluation.json").read_text())["nll"] == before
