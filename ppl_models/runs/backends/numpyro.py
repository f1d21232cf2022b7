"""Runs of NumPyro pairs: built from names, trained, evaluated and drawn from, through `ppl_models.numpyro`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
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

from ppl_models.data import Data
from ppl_models.inference import Evaluation
from ppl_models.inference.numpyro import load
from ppl_models.numpyro import evaluate as evaluate_pair, fit as fit_pair
from ppl_models.numpyro.data import rows_of

from . import names
from .folder import LoadedRun
from .names import tuples


@contextmanager
def placed(device: str | torch.device) -> Iterator[None]:
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


def array(rows: Tensor, device: str | torch.device | None = None) -> jax.Array:
    """Rows of torch as an array of JAX, on a device or the one in use."""
    with nullcontext() if device is None else placed(device):
        return jnp.asarray(rows.detach().cpu().numpy())


def _where(run: LoadedRun) -> Any:
    """Inside, JAX computes on the device of a run."""
    return jax.default_device(next(iter(run.example.devices())))


def build_pair(config: Mapping[str, Any], example: Any, device: str | torch.device = "cpu") -> tuple[Any, Any]:
    """The untrained (model, guide) of a configuration; its seed makes their first weights repeatable."""
    keys = random.split(random.key(config["seed"]))
    with placed(device):
        model = _program("model", config["model"], (), keys[0])
        rows = array(example) if isinstance(example, Tensor) else example
        return model, _program("guide", config["guide"], (model, rows), keys[1])


def loaded(path: Path, model: Callable, guide: Callable, device: str | torch.device) -> tuple[Any, Any]:
    """The pair with the weights of a checkpoint, which either backend has written."""
    with placed(device):
        return load(path, model, guide)


def fit(pair: tuple[Any, Any], train: Data, validation: Data | None, device: str | torch.device, **how: Any) -> Any:
    """The run of a pair, see `ppl_models.numpyro.fit`."""
    held_out = None if validation is None else rows_of(validation)
    with placed(device):
        return fit_pair(*pair, rows_of(train), validation=held_out, **how)


def evaluate(run: LoadedRun, test: Data, **how: Any) -> Evaluation:
    """See `ppl_models.numpyro.evaluate`; on the device of the run."""
    with _where(run):
        return evaluate_pair(run.model, run.guide, rows_of(test), **how)


def generated(run: LoadedRun, n: int, draws: bool) -> dict[str, Tensor]:
    """Observed site -> n values drawn from the model (or means of their distributions), whatever it observes."""
    with _where(run):
        x = run.example[jnp.arange(n) % len(run.example)]
        trace = handlers.trace(handlers.seed(handlers.uncondition(run.model), _key())).get_trace(x)
    observed = {name: site for name, site in trace.items() if site.get("infer", {}).get("was_observed")}
    return _parts(observed, n, draws)


def reconstructed(run: LoadedRun, rows: Tensor) -> dict[str, Tensor]:
    """Observed site -> the mean of its distribution given latents that the guide has drawn."""
    with _where(run):
        x = array(rows)
        drawn = handlers.trace(handlers.seed(run.guide, _key())).get_trace(x)
        trace = handlers.trace(handlers.seed(handlers.replay(run.model, drawn), _key())).get_trace(x)
    observed = {name: site for name, site in trace.items() if site["type"] == "sample" and site["is_observed"]}
    return _parts(observed, len(x), draws=False)


def joined(model: Any, parts: Sequence[Tensor]) -> Tensor:
    """Rows of the blocks that a model cuts them into."""
    return torch.from_numpy(np.array(model.join([array(part) for part in parts])))


def _key() -> jax.Array:
    """A key drawn from torch's generator, whose seed is that of the pictures in either backend."""
    return random.key(int(torch.randint(2**31, ())))


def _parts(sites: Mapping[str, Mapping[str, Any]], n: int, draws: bool) -> dict[str, Tensor]:
    found = {}
    for name, site in sites.items():
        value = site["value"] if draws else jnp.broadcast_to(_mean(site), jnp.shape(site["value"]))
        if jnp.ndim(value) and jnp.size(value) and len(value) == n:
            found[name] = torch.from_numpy(np.array(value)).reshape(n, -1)
    return found


def _mean(site: Mapping[str, Any]) -> jax.Array:
    """The mean of a site's distribution, or a draw where there is none."""
    try:
        return site["fn"].mean
    except NotImplementedError:
        return site["fn"].sample(_key())


def _program(kind: str, chosen: Mapping[str, Any], args: tuple[Any, ...], key: jax.Array) -> Callable:
    label = f"{kind} {chosen['name']!r}"
    found = names.resolve(kind, chosen["import"], "numpyro")
    names.check_sizes(label, found, chosen["sizes"], len(args))
    if not inspect.isclass(found):
        return found
    more = {"key": key} if "key" in inspect.signature(found).parameters else {}
    if issubclass(found, AutoGuide):
        args = args[:1]  # NumPyro's own look at the data when first called
    return names.build(label, found, args, tuples(chosen["sizes"]), **more)
