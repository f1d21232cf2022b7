"""The matrix in NumPyro: every port of a model with every port of a guide does what a pair is for.

That its numbers are torch's is said of every pair in `test_numpyro_ports`.
"""

import re

import numpy as np
import pytest

pytest.importorskip("numpyro")

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval
from numpyro import handlers
from torch import nn

from benchmarks import collection
from ppl_models.factorization import compare
from ppl_models.inference.numpyro import elbo, load, terms
from ppl_models.inference.numpyro.training.checkpoint import save
from ppl_models.numpyro.parts.program import Program, named_constants, named_parameters
from ppl_models.parts.arguments.kinds import no_guide
from ppl_models.runs.naming import names
from tests.helpers.cases import few
from tests.helpers.collection import DENSITIES, PAIRS, SIZES, data_of, pair
from tests.models.test_matrix import sites_of

EVERY = [*PAIRS, *((model, None) for model in DENSITIES)]


# JAX compiles them for seconds
LONG = {"sere-maf", "real-nvp", "glow", "nsf", "pixel-vae", "hierarchical-pixel-vae", "vamp-vae"}


def often(model: str, guide: str | None) -> bool:
    """Every model with its own guide, every guide with one model; the others seldom, as JAX compiles for each anew."""
    small = model == "hierarchical-vae" and guide != "faithful"  # which asks what a model depends on, at great length
    return small or (guide == collection.MODELS[model].guide and model not in LONG)


def ports(model: str, guide: str | None, seed: int = 0) -> tuple[Program, Program | None, jax.Array]:
    """The ports of a pair, and rows."""
    keys, x = jax.random.split(jax.random.key(seed)), jnp.asarray(data_of(model, 4).numpy())
    program = names.catalogue("model", "numpyro")[model](**SIZES[model], key=keys[0])
    if guide is None:
        return program, None, x
    return (
        program,
        names.catalogue("guide", "numpyro")[guide](program, x[:3], **collection.GUIDES[guide], key=keys[1]),
        x,
    )


def weights(model: Program, guide: Program | None) -> dict[str, jax.Array]:
    """All that a file holds of a pair, by name."""
    programs = {"model": model, **({} if guide is None else {"guide": guide})}
    held = {part: {**named_parameters(each), **named_constants(each)} for part, each in programs.items()}
    return {f"{part}.{name}": array for part, each in held.items() for name, array in each.items()}


def loss_of(model: Program, guide: Program | None, x: jax.Array, particles: int = 1, arrays: tuple = ()) -> jax.Array:
    """The loss of a step of one key, at the weights of the pair or at others."""
    params = {each.param: own for each, own in zip((model, guide), arrays, strict=False)}
    found = terms(model, guide or no_guide, (x,), particles=particles, key=jax.random.key(7), params=params or None)
    parts = found.log_likelihood, found.log_p, found.log_q, found.kl
    assert all(each.shape in ((particles, len(x)), (1, len(x))) for part in parts for each in part.values())
    return -elbo(found)


def reached(model: Program, guide: Program | None, x: jax.Array) -> tuple[list[str], jax.ShapeDtypeStruct]:
    """(the parameters on which the derivative of the loss does not depend, the loss without numbers)."""
    programs = [model, *([] if guide is None else [guide])]
    arrays = tuple(eqx.filter(each.own(), eqx.is_inexact_array) for each in programs)

    def slope(arrays: tuple, tangents: tuple) -> jax.Array:
        return jax.jvp(lambda own: loss_of(model, guide, x, 3, own), (arrays,), (tangents,))

    traced, (shape, _) = jax.make_jaxpr(slope, return_shape=True)(arrays, arrays)
    _, used = partial_eval.dce_jaxpr(traced.jaxpr, [False, True])  # of the two results the slope
    called = [f"{type(each).__name__}.{name}" for each in programs for name in named_parameters(each)]
    assert len(used) == 2 * len(called)
    return [name for name, moves in zip(called, used[len(called) :], strict=True) if not moves], shape


@pytest.mark.parametrize(("model", "guide"), few(EVERY, often))
def test_what_a_pair_of_ports_is_for(model, guide):
    """By shapes, of which JAX finds those of all that a program computes, without a number."""
    p, q, x = ports(model, guide)
    torchs, its_guide, its_x = pair(model, guide)

    def runs(key: jax.Array) -> tuple[dict, dict, jax.Array]:
        """What the model draws alone, what the guide draws, and the data that the model draws to that."""
        trace = handlers.trace(handlers.seed(p, key)).get_trace(n=len(x))
        drawn = {name: site["value"] for name, site in trace.items() if site["type"] == "sample"}
        told = {} if q is None else handlers.seed(q, key)(x)
        order.extend(drawn)
        return drawn, told, handlers.seed(handlers.substitute(p, told), key)(n=len(x))

    # sites and shapes, of what is drawn and of weights; generation, from the prior and from the posterior
    order: list[str] = []
    drawn, told, generated = jax.eval_shape(runs, jax.random.key(0))
    sites = sites_of(torchs, its_x)
    assert order == [*sites]
    assert {n: v.shape for n, v in drawn.items()} == {n: node["value"].shape for n, node in sites.items()}
    assert {n: v.shape for n, v in told.items()} == {n: drawn[n].shape for n in sites if not sites[n]["is_observed"]}
    assert generated.shape == x.shape and generated.dtype == x.dtype
    theirs = nn.ModuleDict({"model": torchs, **({} if its_guide is None else {"guide": its_guide})})
    assert {n: np.shape(a) for n, a in weights(p, q).items()} == {n: t.shape for n, t in theirs.state_dict().items()}

    # a loss, and a derivative by every parameter
    without, loss = reached(p, q, x)
    assert without == [] and loss.shape == () and loss.dtype == x.dtype


@pytest.mark.parametrize(
    ("model", "guide"), few(EVERY, lambda model, guide: guide == collection.MODELS[model].guide == "ladder")
)
def test_a_file_of_a_pair_gives_back_its_loss(model, guide, tmp_path):
    """Read by a pair that started at other weights, bit by bit."""
    (p, q, x), (r, s, _) = ports(model, guide), ports(model, guide, seed=1)
    save(tmp_path / "pair.safetensors", weights(p, q), {}, {"backend": "numpyro"})
    loaded, its_guide = load(tmp_path / "pair.safetensors", r, s or no_guide)
    found, other, expected = (loss_of(*each, x) for each in ((loaded, q and its_guide), (r, s), (p, q)))
    assert jnp.array_equal(found, expected) and (other != expected or guide == "infused")


@pytest.mark.parametrize(
    ("model", "guide"),
    few(EVERY, lambda model, guide: model == "maf" or (model, guide) == ("biva", "faithful")),
)
def test_the_factorization_of_torch_and_the_verdict_of_the_table(model, guide):
    p, q, x = ports(model, guide)
    torchs, its_guide, its_x = pair(model, guide)
    report, theirs = compare(p, q, x[:3]), compare(torchs, its_guide, its_x[:3])
    assert (str(report.model), str(report.guide)) == (str(theirs.model), str(theirs.guide))
    assert (report.verdict, {site: tuple(us) for site, us in report.missing.items()}) == collection.expected(
        model, guide
    )


@pytest.mark.parametrize(("model", "guide"), few(collection.REFUSED, lambda model, guide: model in ("vamp-vae", "maf")))
def test_a_hole_is_an_error_that_says_why(model, guide):
    with pytest.raises(ValueError, match=re.escape(collection.hole(model, guide).says)) as told:
        ports(model, guide)
    assert str(told.value).startswith(f"guide {names.catalogue('guide')[guide].__name__}: ")
