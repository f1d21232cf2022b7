"""Numbers of the experiment "information-preference", of a pair whose every number is known."""

import math
from types import SimpleNamespace
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from ppl_models.data import Data, Scale
from ppl_models.inference import Run
from ppl_models.runs.recipes.experiments import preference

PIXELS, SHIFT = 9, 2.0  # KL(N(2, 1) || N(0, 1)) = 2


def model_of(p: float) -> Any:
    """Pixels of probability p, whatever the code."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z1", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            probs = torch.full((PIXELS,), p) + 0 * z
            pyro.sample("x", dist.Bernoulli(probs).to_event(1), obs=x)

    return model


def guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z1", dist.Normal(torch.full((1,), SHIFT), 1.0).to_event(1))


def pixels(n: int, seed: int, ones: float) -> Data:
    values = (torch.rand(n, PIXELS, generator=torch.Generator().manual_seed(seed)) < ones).to(torch.uint8)
    return Data(values, (1, 3, 3), 2, Scale(2), "pixels", torch.arange(n) % 4 // 3)  # three of four are of class 0


TRAIN, TEST = pixels(1030, 0, 0.5), pixels(12, 1, 0.3)


def surprise(data: Data, count: int, p: float) -> float:
    """-log p(x) of pixels of probability p, nats a datum."""
    share = data[:count].mean().item()
    return -PIXELS * (share * math.log(p) + (1 - share) * math.log(1 - p))


def test_what_is_watched_of_a_training():
    record = {"step": 7}
    watched = preference.watch(model_of(0.25), guide, (TRAIN, TEST), {"watched": 20, "tested": 10})
    watched(Run(history=[record]))
    expected = surprise(TEST, 10, 0.25)
    wanted = {"bound": expected + 2, "reconstruction": expected, "rate": 2.0, "mi": 0.0, "mi_upper": 0.0}
    assert record == pytest.approx(wanted | {"ceiling": math.log(20), "step": 7}, abs=1e-4)


def run_of(p: float) -> SimpleNamespace:
    names = {"name": "pixels"}
    data = {"shape": (1, 3, 3), "applied": {"kind": "Scale", "levels": 2}, "levels": 2, "range": (0.0, 1.0), **names}
    return SimpleNamespace(
        model=model_of(p),
        guide=guide,
        config={"data": data, "model": names, "guide": names},
        example=TEST[:3],
        load_data=lambda: (TRAIN, TEST),
        history=[{"ceiling": math.log(20)}],
        title="pixels, pixels, pixels",
    )


def test_what_is_told_of_a_run(tmp_path, monkeypatch):
    """The judge has fair pixels: every image costs it 9 log 2, and the divergence of its code."""
    drawn = []
    monkeypatch.setattr(preference, "picture_strip", lambda run, states, path, above: drawn.append(path.name))
    monkeypatch.setattr(preference.plots, "image_grid", lambda *args, **options: None)
    monkeypatch.setattr(preference.plots, "save_figure", lambda figure, path: drawn.append(path.name))
    monkeypatch.setattr(preference, "curves", lambda *args: None)
    analysis = {"judge": "fair", "tested": 10, "data": 25, "particles": 3, "images": 6, "steps": 10, "after": 5}
    runs: Any = {"own": run_of(0.25), "fair": run_of(0.5)}
    rows = preference.analyse(runs, analysis, tmp_path, 0, lambda line: None)
    score = PIXELS * math.log(2) + 2
    assert rows["test data"] == pytest.approx({"score": score, "ink": TEST[:6].mean().item()}, abs=1e-4)
    found, expected = rows["own"], surprise(TEST, 10, 0.25)
    assert found["reconstruction"] == pytest.approx(expected, abs=1e-4)
    assert found["reconstruction per pixel"] == pytest.approx(expected / PIXELS, abs=1e-5)
    assert found["negative ELBO"] == pytest.approx(expected + 2, abs=1e-4)
    assert expected - 4 < found["NLL"] < expected + 6 and found["particles"] == 3
    assert found["information"] == pytest.approx([0, 0], abs=1e-4) and found["rate"] == pytest.approx(2, abs=1e-4)
    assert found["marginal divergence"] == pytest.approx([2, 2], abs=1e-4) and found["ceiling"] == math.log(25)
    assert found["transitions"] == [1, 2, 5, 10]
    asked = [f"{kind}, {labels} labels" for kind in ("linear", "kernel") for labels in (100, 1000)]
    assert found["accuracy"] == {each: [0.75] * 5 for each in asked}  # of codes that are all alike
    for told in ("score from noise", "score from data"):
        assert found[told] == pytest.approx([score] * 4, abs=1e-4)
    assert found["score from the prior"] == pytest.approx(score, abs=1e-4)
    assert 0 < found["ink from the prior"] < 0.6 and len(found["ink from noise"]) == 4
    assert drawn[:3] == ["own_ancestral.png", "own_chain.png", "own_strip.png"] and drawn[-1] == "curves.png"
