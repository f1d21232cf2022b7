"""The trainings behind the golden files, each stopped half way, and how they were written (see README.md)."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as ndist
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints

import guides
import guides.numpyro
import ppl_models.numpyro
from ppl_models import SeReVAE
from ppl_models.inference import contents, evaluate, fit, save
from ppl_models.inference.storage.files import write_json
from ppl_models.numpyro import evaluate as numpyro_evaluate, fit as numpyro_fit

STEPS, STOP = 23, 15  # the file holds the record of step 10
HOW = {
    "steps": STEPS,
    "batch_size": 8,
    "every": 5,
    "lr": 1e-2,
    "warmup": 6,
    "schedule": "cosine",
    "seed": 0,
    "progress": False,
}
RUNS = {
    "run-pyro": "train vae -g self-reflective -m latent=1 -m hidden=2 -g hidden=2 --batch-size 64",
    "run-numpyro": "train vae -g mean-field -m latent=2 -m hidden=3 -g hidden=3 --batch-size 64 --backend numpyro",
}
RECIPE = {"data.name": "digits", "model.hidden": 2, "guide.hidden": 2, "training.steps": 6, "training.warmup": 2}
RECIPE |= {"analysis.data": 60, "analysis.drawn": 30, "analysis.least": 1, "analysis.points": 3, "analysis.images": 2}
KEPT = {"checkpoint.safetensors", "config.json", "example.safetensors", "history.json", "history.jsonl", "results.json"}


class Stopped(Exception):
    """The end of a training half way."""


def stop(run: Any) -> None:
    """A callback that fails before the record of step 15 is written."""
    if run.history[-1]["step"] >= STOP:
        raise Stopped


def rows(n: int, width: int = 8, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).random((n, width)) < 0.4).astype(np.float32)


def line(n: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    x = np.linspace(-1, 1, n, dtype=np.float32)
    return x, 2 * x + 0.1 * np.random.default_rng(seed).normal(size=n).astype(np.float32)


# the pairs, of modules and of functions with parameters of their own, in both languages


BEGAN_AT = 0.1  # of a network's usual weights: those of the last layer of a factor, in version 0.1


def torch_modules() -> tuple[Any, Any, Any, Any]:
    torch.manual_seed(3)
    x, held_out = torch.from_numpy(rows(50)), torch.from_numpy(rows(20, seed=2))
    model = SeReVAE(8, 2, 1, 3)
    guide = guides.SelfReflective(model, x[:3], hidden=3, base="prior")
    with torch.no_grad():
        for network in (guide.factors.q_z1, guide.factors.q_z2):
            network.last.weight.mul_(BEGAN_AT)
    return model, guide, x, held_out


def torch_functions() -> tuple[Any, Any, Any, Any]:
    pyro.clear_param_store()

    def model(x, y):
        slope = pyro.param("slope", torch.zeros(()))
        noise = pyro.param("noise", torch.tensor(0.5), constraint=constraints.positive)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(slope * x, 1.0))
            pyro.sample("y", dist.Normal(z, noise), obs=y)

    def guide(x, y):
        weight = pyro.param("weight", torch.tensor([0.1, -0.1]))
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(weight[0] * x + weight[1] * y, 0.5))

    return model, guide, tuple(map(torch.from_numpy, line(50))), tuple(map(torch.from_numpy, line(20, 6)))


def jax_modules() -> tuple[Any, Any, Any, Any]:
    x, held_out = rows(50), rows(20, seed=2)
    model = ppl_models.numpyro.VAE(8, 2, 8, key=jax.random.key(3))
    guide = guides.numpyro.MeanField(model, jnp.asarray(x[:3]), hidden=8, key=jax.random.key(4))
    guide = eqx.tree_at(lambda g: g.factors.children["q_z1"].last.weight, guide, replace_fn=lambda w: BEGAN_AT * w)
    return model, guide, x, held_out


def jax_functions() -> tuple[Any, Any, Any, Any]:
    def model(x, y):
        slope = numpyro.param("slope", jnp.zeros(()))
        noise = numpyro.param("noise", jnp.array(0.5), constraint=ndist.constraints.positive)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", ndist.Normal(slope * x, 1.0))
            numpyro.sample("y", ndist.Normal(z, noise), obs=y)

    def guide(x, y):
        weight = numpyro.param("weight", jnp.array([0.1, -0.1]))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("z", ndist.Normal(weight[0] * x + weight[1] * y, 0.5))

    return model, guide, line(50), line(20, 6)


CASES: dict[str, tuple[Callable, Callable, Callable, dict[str, Any]]] = {
    "fit-pyro-modules": (torch_modules, fit, evaluate, {}),
    "fit-pyro-functions": (torch_functions, fit, evaluate, {"accumulate": 2}),
    "fit-numpyro-modules": (jax_modules, numpyro_fit, numpyro_evaluate, {}),
    "fit-numpyro-functions": (jax_functions, numpyro_fit, numpyro_evaluate, {"accumulate": 2}),
}


def train(name: str, folder: Path | None, **more: Any) -> tuple[Any, dict[str, float]]:
    """The run of a case, and the numbers of `evaluate` at its end."""
    made, fitted, evaluated, how = CASES[name]
    model, guide, x, held_out = made()
    run = fitted(model, guide, x, validation=held_out, folder=folder, **{**HOW, **how, **more})
    if "numpyro" in name:
        model, guide = run.model, run.guide
    return run, judged(evaluated, model, guide, held_out)


def untimed(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


def judged(evaluated: Callable, model: Any, guide: Any, x: Any) -> dict[str, float]:
    """ELBO and bound of a pair on rows, in nats a datum."""
    found = evaluated(model, guide, x, particles=20, seed=1, progress=False)
    return {"elbo": float(found.elbo), "nll": float(found.nll)}


def write(folder: Path) -> None:
    """Everything under `folder`, by the version that is imported."""
    from ppl_models.inference import load
    from ppl_models.numpyro.inference import load as load_numpyro  # where this version has it
    from ppl_models.runs.recipes.carry_out import carry_out
    from ppl_models.runs.recipes.recipe import read_recipe

    numbers: dict[str, Any] = {}
    for name, (made, _, evaluated, _) in CASES.items():
        try:
            train(name, folder / name, callbacks=stop)
        except Stopped:
            pass
        model, guide, _, held_out = made()
        if "numpyro" in name:
            model, guide = load_numpyro(folder / name / "checkpoint.safetensors", model, guide)
        else:
            args = held_out if isinstance(held_out, tuple) else (held_out,)
            load(folder / name / "checkpoint.safetensors", contents(model, guide, args))
        half = judged(evaluated, model, guide, held_out)
        run, end = train(name, None)
        numbers[name] = {"half": half, "end": end, "history": untimed(run.history)}

    model, guide, _, held_out = torch_modules()
    save(folder / "saved.safetensors", {"model": model, "guide": guide})
    numbers["saved"] = judged(evaluate, model, guide, held_out)

    for name, line in RUNS.items():
        numbers[name] = half_a_run(line, folder / name)
    results = carry_out(read_recipe("blur", RECIPE), folder / "recipe", progress=False)
    numbers["recipe"] = results["rows"]
    for path in list(folder.rglob("*")):
        if path.is_file() and path.name not in KEPT | {"saved.safetensors"}:
            path.unlink()
    write_json(folder / "numbers.json", numbers)


def half_a_run(line: str, folder: Path) -> dict[str, Any]:
    """A run folder of the command line whose training was stopped after 20 of 30 steps, and its numbers."""
    import json

    from typer.testing import CliRunner

    from ppl_models.cli import app

    def call(words: str) -> None:
        result = CliRunner().invoke(app, words.split())
        assert result.exit_code == 0, result.output

    def evaluated() -> dict[str, float]:
        call(f"evaluate {folder} --particles 10 -q")
        found = json.loads((folder / "evaluation.json").read_text())
        return {"elbo": found["elbo"], "nll": found["nll"]}

    call(f"{line} --steps 30 --every 10 --evaluate 0 -q --out {folder}")
    end, history = evaluated(), json.loads((folder / "history.json").read_text())["history"]
    # the checkpoint before the last, as if the process had been killed after step 20
    shutil.move(folder / "checkpoint.previous.safetensors", folder / "checkpoint.safetensors")
    return {"half": evaluated(), "end": end, "history": untimed(history)}


if __name__ == "__main__":
    write(Path(sys.argv[1]))
