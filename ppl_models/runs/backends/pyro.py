"""`backend("pyro")`: pairs of Pyro programs, by `ppl_models.inference`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor, nn

from ppl_models import inference as tools
from ppl_models.data import Data, Table
from ppl_models.inference import (
    Evaluation,
    Probe,
    evaluate as evaluate_pair,
    fit,
    load as load_weights,
    probe as probe_pair,
)
from ppl_models.inference.pyro.passes.checks import evaluating, forked
from ppl_models.inference.pyro.passes.pair_info import pair_info
from ppl_models.inference.pyro.training.checkpoint import contents
from ppl_models.programs.pyro import run
from ppl_models.programs.state.torch import modules_of

from ..naming import names
from ..naming.refinement import refined
from . import Device, Pair, Rows, columns, given

packages = ("pyro-ppl", "ppl-models")
set_threads, threads = torch.set_num_threads, torch.get_num_threads


def check(task: str, processes: int = 1) -> None:
    pass  # every task can be done, by any number of processes


def build(config: Mapping[str, Any], rows: Rows, device: Device = "cpu") -> tuple[Any, Any, Rows]:
    try:
        rows = tuple(each.to(device) for each in rows) if isinstance(rows, tuple) else rows.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from None
    pyro.set_rng_seed(config["seed"])
    pair: tuple[Any, ...] = ()
    for kind in ("model", "guide"):
        program = names.build(kind, config[kind], (*pair, *columns(rows)) if pair else (), AutoGuide)
        if kind == "guide":
            program = refined(program, config.get("refine"))
        pair += (program.to(device) if isinstance(program, nn.Module) else program,)
    return *pair, rows


def takes(config: Mapping[str, Any], rows: Rows, least: int) -> bool:
    try:
        with forked([]), pyro.get_param_store().scope():
            model, guide, _ = build(config, rows)
            if isinstance(guide, nn.Module) and guide is names.resolve("guide", config["guide"]["import"]):
                return True  # an object of the user's: Pyro's guides are made for the rows that they see first
            with evaluating(model, guide):
                for count in dict.fromkeys((len(columns(rows)[0]), least)):
                    pair_info("train", model, guide, tuple(column[:count] for column in columns(rows)))
    except Exception:  # noqa: BLE001 (it is asked whether it runs)
        return False
    return True


def train(
    pair: Pair, data: Data | Table, device: Device, validation: Data | Table | None, **how: Any
) -> tuple[Any, Any, float]:
    rows = data if how.get("workers") else data.to(device)  # workers take rows on the CPU
    held_out = None if validation is None else given(validation.to(device))
    trained = fit(*pair, given(rows), validation=held_out, **how)
    return *_evaluating(pair), trained.seconds


def load(path: Path, pair: Pair, example: Rows) -> Pair:
    load_weights(path, contents(*pair, columns(example)))
    return _evaluating(pair)


def evaluate(pair: Pair, example: Rows, data: Data | Table, **how: Any) -> Evaluation:
    return evaluate_pair(*pair, given(data.to(columns(example)[0].device)), **how)


def probe(pair: Pair, example: Rows, train: Data | Table, test: Data | Table, **how: Any) -> Probe:
    return probe_pair(*pair, *(data.to(columns(example)[0].device) for data in (train, test)), **how)


def call(tool: str, example: Any, *args: Any, **how: Any) -> Any:
    return getattr(tools, tool)(*args, **how)


def latents(model: Any, example: Any) -> list[str]:
    return [*run(model, columns(example)).latents]


def rows(example: Any, x: Any) -> Tensor:
    return torch.as_tensor(x, device=columns(example)[0].device)


def sample(model: Any, example: Tensor, n: int, draws: bool) -> Tensor:
    like = example[torch.arange(n, device=example.device) % len(example)]
    return tools.ancestral(model, like, draws=draws, seed=None).reshape(n, -1)


def reconstruct(pair: Pair, example: Tensor, x: Tensor) -> Tensor:
    return tools.reconstruct(*pair, rows(example, x), seed=None).reshape(len(x), -1)


def _evaluating(pair: Pair) -> Pair:
    for module in modules_of(*pair):
        module.eval()
    return pair
