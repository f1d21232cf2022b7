"""The plate of the data: one rule, whatever the language, the order of the dims and the shape of the data."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pyro
import pytest
import torch

import ppl_models.inference as torch_tools
from guides import Faithful, MeanField
from ppl_models.programs import pyro as pyro_programs
from ppl_models.programs.places import elements
from ppl_models.programs.plates import data_plate, is_local, subsampled
from ppl_models.programs.record import Plate, Run, Site
from ppl_models.views import to_arviz
from tests.helpers.cases import few

try:
    import jax
    import jax.numpy as jnp
    import numpyro

    import guides.numpyro as ports
    import ppl_models.inference.numpyro as jax_tools
    from ppl_models.programs import numpyro as numpyro_programs
except ImportError:
    numpyro = None

LANGUAGES = ["pyro", "numpyro"] if numpyro else ["pyro"]
# JAX compiles for every case, so some of it run with the slow ones: a square table is the one that can deceive
everyhow = pytest.mark.parametrize(
    ("language", "items", "transposed", "name"),
    few(
        product(LANGUAGES, [20, 19], [False, True], ["people", "data"]),
        lambda language, items, transposed, name: (
            language == "pyro" or (items == 20 and transposed and name == "people")
        ),
    ),
)


def rows(items: int, language: str = "numpy") -> Any:
    x = np.random.default_rng(0).normal(size=(20, items)).astype(np.float32)
    return x if language == "numpy" else torch.from_numpy(x) if language == "pyro" else jnp.asarray(x)


def programs(language: str, transposed: bool, name: str) -> tuple[Callable, Callable]:
    """z ~ N(0, 1) of each person, x ~ N(z, 1) of each person and item; the guide is exact but for its scale."""
    lib = pyro if language == "pyro" else numpyro
    normal, zero = lib.distributions.Normal, torch.zeros(()) if language == "pyro" else 0.0
    of_people, of_items = (-1, -2) if transposed else (-2, -1)

    def model(x):
        with lib.plate(name, len(x), dim=of_people):
            z = lib.sample("z", normal(zero, 1.0))
            with lib.plate("items", x.shape[1], dim=of_items):
                lib.sample("x", normal(z, 1.0), obs=x.T if transposed else x)

    def guide(x):
        loc = x.sum(1) / (1 + x.shape[1]) + lib.param("shift", zero)
        with lib.plate(name, len(x), dim=of_people):
            lib.sample("z", normal(loc if transposed else loc[:, None], 0.4))

    return model, guide


def exact_nll(x: np.ndarray) -> float:
    """x ~ N(0, I + 1 1^T) of each person: -log p(x), mean over people."""
    count, total = x.shape[1], x.astype(float).sum(1)
    square = (x.astype(float) ** 2).sum(1) - total**2 / (1 + count)
    return float((count / 2 * math.log(2 * math.pi) + 0.5 * math.log(1 + count) + square / 2).mean())


@everyhow
def test_evaluate_bounds_the_likelihood_of_each_person(language, items, transposed, name):
    x, tools = rows(items, language), torch_tools if language == "pyro" else jax_tools
    found = tools.evaluate(*programs(language, transposed, name), x, particles=2000, progress=False)
    assert found.nll == pytest.approx(exact_nll(rows(items)), abs=0.02)  # 20 problems of one dim, not one of 20
    assert found.notes == []


@everyhow
def test_fit_weighs_the_draws_of_each_person(language, items, transposed, name):
    x, tools = rows(items, language), torch_tools if language == "pyro" else jax_tools
    how = {"steps": 1, "lr": 1e-8, "particles": 500, "objective": tools.importance_weighted, "seed": 0}
    run = tools.fit(*programs(language, transposed, name), x, validation=x, progress=False, **how)
    assert run.history[-1]["loss"] == pytest.approx(exact_nll(rows(items)), abs=0.1)


@everyhow
@pytest.mark.parametrize("structure", few(["MeanField", "Faithful"], lambda structure: structure == "Faithful"))
def test_guides_amortize_over_people(language, items, transposed, name, structure):
    x, model = rows(items, language), programs(language, transposed, name)[0]
    if language == "pyro":
        q = {"MeanField": MeanField, "Faithful": Faithful}[structure](model, x, hidden=4)
    else:
        q = getattr(ports, structure)(model, x, hidden=4, key=jax.random.key(0))
    site = q.layout.latents["z"]
    assert not site.is_global and site.shared_plates == {name}

    def draw(x):
        if language == "pyro":
            torch.manual_seed(0)
            with torch.no_grad():
                return np.ravel(pyro.poutine.trace(q).get_trace(x).nodes["z"]["value"].numpy())
        trace = numpyro.handlers.trace(numpyro.handlers.seed(q, jax.random.key(0))).get_trace(x)
        return np.ravel(trace["z"]["value"])

    other = rows(items)
    other[3] += 1
    moved = draw(x) != draw(torch.from_numpy(other) if language == "pyro" else jnp.asarray(other))
    assert moved.tolist() == [i == 3 for i in range(20)]


@everyhow
def test_draws_for_arviz_have_a_khat_for_each_person(language, items, transposed, name):
    x = rows(items, language)
    found = to_arviz(*programs(language, transposed, name), x, 400, groups=("posterior",))
    assert found["sample_stats"]["pareto_k"].shape == (20,)
    assert (found["sample_stats"]["pareto_k"] < 0.5).all()


def run_of(language: str, model: Callable, x: Any) -> Run:
    return (pyro_programs if language == "pyro" else numpyro_programs).run(model, (x,))


@everyhow
@pytest.mark.parametrize(
    "value", ["part", "reshaped", "cast", "blocks", "subsample", "one event", "shifted", "symmetric"]
)
def test_an_observed_value_tells_the_plate_by_its_numbers(language, items, transposed, name, value):
    """Rows in part, of another shape or type; what is computed says nothing, and the latents decide."""
    lib = pyro if language == "pyro" else numpyro
    normal, x = lib.distributions.Normal, rows(items, language)
    if value == "symmetric":
        x = rows(20, language)
        x = x + x.T
    of_people, of_items = (-1, -2) if transposed else (-2, -1)

    def model(x):
        zero = x[0, 0] * 0
        subsample = 5 if value == "subsample" else None
        with lib.plate(name, len(x), dim=of_people, subsample_size=subsample) as index:
            held = x if subsample is None else x[index]
            z = lib.sample("z", normal(zero, 1.0))
            with lib.plate("items", 20, dim=of_items):
                if value == "blocks":
                    parts = {"a": held[:, :1], "b": held[:, 1:2]}
                elif value == "cast":
                    parts = {"x": (held.double() if language == "pyro" else held.astype(jnp.float16))[:, :1]}
                elif value in ("part", "reshaped"):
                    parts = {"x": held[:, :1]}
                else:
                    parts = {"x": held + 1 if value == "shifted" else held}
                for site, part in parts.items():
                    if part.shape[1] not in (1, 20):
                        part = part[:, :1]
                    part = part.T if transposed else part
                    if value in ("reshaped", "one event"):
                        lib.sample(site, normal(z[..., None], 1.0).to_event(1), obs=part[..., None])
                    else:
                        lib.sample(site, normal(z, 1.0), obs=part)

    run = run_of(language, model, x)
    found = data_plate(run, x)
    assert (found.name, found.dim, found.full_size) == (name, of_people, 20)
    assert is_local(run["z"], found) and [plate.name for plate in subsampled(run)] == [name] * (value == "subsample")


def test_numbers_that_cannot_be_read_leave_the_choice_to_the_latents():
    model, _ = programs("pyro", True, "people")
    x = rows(20, "pyro").to("meta")
    with pyro.validation_enabled(False):
        assert data_plate(pyro_programs.run(model, (x,)), x).name == "people"


def test_rows_that_nobody_knows():
    """A plate called "data", or the only one; of two others none, and none around what is observed outside of it."""
    a, b, data = Plate("a", -1, 4, 4), Plate("b", -2, 4, 4), Plate("data", -2, 4, 8)

    def found(*stacks: tuple[Plate, ...], first: Any = None) -> str | None:
        run = Run(Site(name=f"x{i}", kind="observed", shape=(4, 4), plates=s) for i, s in enumerate(stacks))
        plate = data_plate(run, first)
        return plate and plate.name

    assert found((b, a)) is None and found((data, a)) == "data" and found((a,)) == "a" and found(()) is None
    assert found((b, a), (a,)) == "a" and found((b,), (a,)) is None and found((b, a), ()) is None
    assert found((data, a), first=range(8)) == "data" and found((b, a), first=range(3)) is None
    assert found((a,), first=np.zeros(())) == "a"  # one number has no rows


def test_elements_of_rows():
    x = np.arange(12.0).reshape(4, 3)
    assert elements(x[:, None, ::-1], -3, x).tolist() == [2, 1, 0]
    assert elements(x.astype(np.int64), -2, x).tolist() == [0, 1, 2]
    assert elements(x[[3, 1]], -2, x, np.array([3, 1])).tolist() == [0, 1, 2]
    assert elements(x[[3, 1]], -2, x, np.array([1, 3])) is None and elements(x[:2], -2, x) is None
    assert elements(np.vstack([x, x]), -2, np.vstack([x, x])).tolist() == [0, 1, 2]  # rows that come twice
    same = np.zeros((3, 3))
    assert elements(same, -1, same).tolist() == elements(same, -2, -same).tolist() == [0, 0, 0]
    assert elements(x[:, 0], -2, x) is None and elements(x * 2, -2, x) is None
    nan = np.where(x > 5, np.nan, x)
    assert elements(nan.T, -1, nan).tolist() == [0, 1, 2]
    assert elements(np.array(["a"] * 4), -1, x) is None
