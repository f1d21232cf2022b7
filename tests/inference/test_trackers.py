"""Records of trainings in MLflow and Weights & Biases, whose packages are stood in for; and in TensorBoard's files."""

import sys
from types import SimpleNamespace

import pytest
import torch

from guides import MeanField
from ppl_models import VAE
from ppl_models.inference import MLflow, Run, TensorBoard, WandB, fit

X = torch.eye(4)[[0, 1, 2, 3, 0, 1]]


class StandIn(SimpleNamespace):
    """The part of both packages that is called, which notes what it is told."""

    def __init__(self) -> None:
        super().__init__(told=[], begun=0, run=None)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.told.append((step, metrics))

    def init(self) -> "StandIn":
        self.begun, self.run = self.begun + 1, self
        return self

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.told.append((step, metrics))


@pytest.fixture(params=["mlflow", "wandb"])
def tracked(request, monkeypatch):
    """(stand-in, callback) of each package."""
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, request.param, stand_in)
    return stand_in, {"mlflow": MLflow, "wandb": WandB}[request.param]


def numbers(history):
    return [(record["step"], {k: v for k, v in record.items() if k != "step"}) for record in history]


def test_every_number_of_every_record_is_logged(tracked):
    stand_in, callback = tracked
    model = VAE(event=4, latent=2, hidden=4)
    guide = MeanField(model, X[:3], hidden=4)
    run = fit(model, guide, X, steps=4, every=2, record_kl=True, compile=False, progress=False, callbacks=callback())
    assert [step for step, _ in stand_in.told] == [2, 4]
    assert stand_in.told == numbers(run.history) and "kl.z1" in stand_in.told[0][1]
    assert stand_in.begun == (callback is WandB)


def test_numpyro_has_the_same(tracked):
    numpyro = pytest.importorskip("ppl_models.inference.numpyro")
    _, callback = tracked
    assert getattr(numpyro, callback.__name__) is callback


def test_what_is_no_number_is_left_out_and_names_are_such_as_mlflow_takes(tracked):
    stand_in, callback = tracked
    callback()(Run(history=[{"step": 7, "loss": 1.0, "kl.z[0]": 2.0, "why": "a text"}]))
    name = "kl.z_0_" if callback is MLflow else "kl.z[0]"
    assert stand_in.told == [(7, {"loss": 1.0, name: 2.0})]


@pytest.mark.parametrize(("package", "callback"), [("mlflow", MLflow), ("wandb", WandB)])
def test_without_the_package_one_line_says_so(monkeypatch, package, callback):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"{callback.__name__}: found no package .* pip install {package}"):
        callback()


class Writer:
    """What TensorBoard's package is asked for."""

    told: list[tuple[str, float, int]] = []

    def __init__(self, folder: str, purge_step: int) -> None:
        self.begun = folder, purge_step

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.told.append((name, value, step))

    def flush(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.slow
def test_a_numpyro_run_of_the_command_line_has_curves(tmp_path, monkeypatch):
    pytest.importorskip("jax")
    from typer.testing import CliRunner

    from ppl_models.cli import app
    from ppl_models.runs import load_run

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    line = "train vae -g mean-field -m latent=2 -m hidden=4 -g hidden=4 --backend numpyro --steps 3 --evaluate 0 -q"
    ran = CliRunner().invoke(app, [*line.split(), "--tensorboard", "--out", str(tmp_path / "run")])
    assert ran.exit_code == 0, ran.output
    (record,) = load_run(tmp_path / "run").history
    assert (3, record["loss"]) in {(step, value) for name, value, step in Writer.told if name == "loss"}
    assert TensorBoard(tmp_path)(Run(history=[{"step": 1, "loss": 2.0}])) is None
