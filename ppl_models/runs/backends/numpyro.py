"""`backend("numpyro")`: pairs of NumPyro programs, by `ppl_models.numpyro`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import random
from numpyro import handlers
from numpyro.infer.autoguide import AutoGuide
from torch import Tensor

from ppl_models.data import Data, Table
from ppl_models.inference import ActiveUnits, Evaluation, Probe
from ppl_models.inference.numpyro import active_units as active_units_of, load as load_weights, probe as probe_pair
from ppl_models.inference.numpyro.engine.parameters import find
from ppl_models.inference.pyro.evaluation.sampling import rows_from
from ppl_models.inference.resuming.identity import cpus
from ppl_models.numpyro import evaluate as evaluate_pair, fit
from ppl_models.programs.numpyro import Drawable, is_point, nodes_of, unwrapped
from ppl_models.programs.pairs import NO_DATA, refuse_undrawn

from .. import names
from ..refinement import refined
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
        run = fit(*pair, given(data), validation=held_out, **how)
    return run.model, run.guide, run.seconds


def load(path: Path, pair: Pair, example: Any) -> Pair:
    with _where(example):
        return load_weights(path, *pair)


def evaluate(pair: Pair, example: Any, data: Data | Table, **how: Any) -> Evaluation:
    with _where(example):
        return evaluate_pair(*pair, given(data), **how)


def probe(pair: Pair, example: Any, train: Data | Table, test: Data | Table, **how: Any) -> Probe:
    with _where(example):
        return probe_pair(*pair, train, test, **how)


def active_units(pair: Pair, example: Any, data: Data | Table, rows: int, **how: Any) -> ActiveUnits:
    with _where(example):
        return active_units_of(*pair, tuple(_array(column) for column in columns(data[:rows])), **how)


def sample(model: Any, example: jax.Array, n: int, draws: bool) -> Tensor:
    with _where(example):
        rows = example[jnp.arange(n) % len(example)]
        with Drawable(*NO_DATA):
            trace = handlers.trace(handlers.seed(handlers.uncondition(model), _key())).get_trace(rows)
        drawn = {name: site for name, site in trace.items() if site.get("infer", {}).get("was_observed")}
        observed = {name: site for name, site in drawn.items() if not is_point(site["fn"])}
        return _rows(model, observed, rows, draws)


def reconstruct(pair: Pair, example: jax.Array, x: Tensor) -> Tensor:
    model, guide = pair
    with _where(example):
        rows = _array(x)
        drawn = handlers.trace(handlers.seed(guide, _key())).get_trace(rows)
        trace = handlers.trace(handlers.seed(handlers.replay(model, drawn), _key())).get_trace(rows)
        return _rows(model, nodes_of(trace, "observed"), rows, draws=False)


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


def _key() -> jax.Array:
    """A key drawn from torch's generator, whose seed is that of the pictures in either language."""
    return random.key(int(torch.randint(2**31, ())))


def _rows(model: Any, sites: Mapping[str, Mapping[str, Any]], rows: jax.Array, draws: bool) -> Tensor:
    """Values of observed sites, or the means of their distributions, as rows of data."""
    parts = {}
    for name, site in sites.items():
        value = site["value"] if draws else jnp.broadcast_to(_mean(site), jnp.shape(site["value"]))
        if jnp.ndim(value) and jnp.size(value) and len(value) == len(rows):
            parts[name] = _tensor(value).reshape(len(rows), -1)
    join = getattr(model, "join", None)
    blocks = None if join is None else lambda parts: _tensor(join([_array(part) for part in parts]))
    return rows_from(parts, prod(rows.shape[1:]), blocks)


def _mean(site: Mapping[str, Any]) -> jax.Array:
    """The mean of a site's distribution, or a draw where there is none."""
    fn = site["fn"]
    try:
        return fn.mean
    except NotImplementedError:
        pass
    try:
        return fn.sample(_key())
    except NotImplementedError as error:
        refuse_undrawn("data given latents", site["name"], type(unwrapped(fn)).__name__, error, "give it a mean")
