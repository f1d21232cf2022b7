"""`backend("numpyro")`: pairs of NumPyro programs, by `ppl_models.numpyro`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import random
from numpyro.infer.autoguide import AutoGuide
from torch import Tensor

from ppl_models.data import Data, Table
from ppl_models.inference import Evaluation, Probe, numpyro as tools
from ppl_models.inference.numpyro import load as load_weights, probe as probe_pair
from ppl_models.inference.numpyro.engine.parameters import find
from ppl_models.inference.resuming.identity import cpus
from ppl_models.numpyro import evaluate as evaluate_pair, fit
from ppl_models.programs.numpyro import run

from ..naming import names
from ..naming.refinement import refined
from . import Device, Pair, Rows, columns, given

packages = ("jax", "numpyro", "equinox", "ppl-models")


def check(task: str, processes: int = 1) -> None:
    if task != "train":
        raise ValueError(f"{task}: found a NumPyro run, want a Pyro one; try --backend pyro")
    if processes > 1:
        raise ValueError(f"found {processes} processes, NumPyro pairs are trained by one; start without torchrun")


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    if hasattr(os, "sched_setaffinity"):  # XLA takes as many as the process may run on
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def threads() -> int:
    return cpus()


def build(config: Mapping[str, Any], rows: Rows, device: Device = "cpu") -> tuple[Any, Any, Any]:
    pair, keys = (), random.split(random.key(config["seed"]))
    with _placed(device):
        example = tuple(map(_array, rows)) if isinstance(rows, tuple) else _array(rows)
        for kind, key in zip(("model", "guide"), keys, strict=True):
            args = (*pair, *columns(example)) if pair else ()
            pair += (names.build(kind, config[kind], args, AutoGuide, "numpyro", key=key),)
        pair = pair[0], refined(pair[1], config.get("refine"), "numpyro", key=random.fold_in(keys[1], 1))
    return *pair, example


def takes(config: Mapping[str, Any], rows: Rows, least: int) -> bool:
    try:
        model, guide, example = build(config, rows)
        for count in dict.fromkeys((len(columns(example)[0]), least)):
            find(model, guide, [column[:count] for column in columns(example)], random.key(0))
    except Exception:  # noqa: BLE001 (it is asked whether it runs)
        return False
    return True


def train(
    pair: Pair, data: Data | Table, device: Device, validation: Data | Table | None, **how: Any
) -> tuple[Any, Any, float]:
    held_out = None if validation is None else given(validation)
    with _placed(device):
        trained = fit(*pair, given(data), validation=held_out, **how)
    return trained.model, trained.guide, trained.seconds


def load(path: Path, pair: Pair, example: Any) -> Pair:
    with _where(example):
        return load_weights(path, *pair)


def evaluate(pair: Pair, example: Any, data: Data | Table, **how: Any) -> Evaluation:
    with _where(example):
        return evaluate_pair(*pair, given(data), **how)


def probe(pair: Pair, example: Any, train: Data | Table, test: Data | Table, **how: Any) -> Probe:
    with _where(example):
        return probe_pair(*pair, train, test, **how)


def call(tool: str, example: Any, *args: Any, **how: Any) -> Any:
    with _where(example):
        return getattr(tools, tool)(*args, **how)


def latents(model: Any, example: Any) -> list[str]:
    with _where(example):
        return [*run(model, columns(example)).latents]


def rows(example: Any, x: Any) -> jax.Array:
    with _where(example):
        return jnp.asarray(x.detach().cpu().numpy() if isinstance(x, Tensor) else x)


def sample(model: Any, example: jax.Array, n: int, draws: bool) -> Tensor:
    like = example[np.arange(n) % len(example)]
    return _tensor(call("ancestral", example, model, like, draws=draws, seed=_seed())).reshape(n, -1)


def reconstruct(pair: Pair, example: jax.Array, x: Tensor) -> Tensor:
    return _tensor(call("reconstruct", example, *pair, rows(example, x), seed=_seed())).reshape(len(x), -1)


@contextmanager
def _placed(device: Device) -> Iterator[None]:
    """Inside, JAX computes on a device named as torch names it: cpu, cuda, cuda:1.

    Raises:
        ValueError: JAX has no such device.
    """
    kind, _, index = str(device).partition(":")
    try:
        found = jax.devices("gpu" if kind == "cuda" else kind)[int(index or 0)]
    except (RuntimeError, IndexError, ValueError) as error:
        there = ", ".join(str(d) for d in jax.devices())
        raise ValueError(f"device {str(device)!r} cannot be used: JAX has {there}") from error
    with jax.default_device(found):
        yield


def _where(example: Any) -> Any:
    """Inside, JAX computes on the device of an array, or of the first of several."""
    return jax.default_device(next(iter(columns(example)[0].devices())))


def _array(rows: Tensor) -> jax.Array:
    return jnp.asarray(rows.detach().cpu().numpy())


def _tensor(value: jax.Array) -> Tensor:
    return torch.from_numpy(np.array(value))


def _seed() -> int:
    """A seed drawn from torch's generator, whose own seed is that of the pictures in either language."""
    return int(torch.randint(2**31, ()))
