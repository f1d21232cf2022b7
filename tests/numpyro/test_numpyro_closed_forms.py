"""Closed forms of divergences in NumPyro: each that is trusted against torch's or draws, and wrappers in any order."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import torch
from jax import Array
from numpyro.distributions.kl import kl_divergence
from numpyro.distributions.transforms import ExpTransform

from ppl_models.inference.numpyro.passes.closed_forms import KNOWN, VECTOR, closed_form
from ppl_models.inference.numpyro.passes.divergences import divergence, unit_divergence
from ppl_models.inference.pyro.sites.closed_forms import closed_form as torch_form
from ppl_models.numpyro.parts.distributions import RankOneNormal
from ppl_models.programs.numpyro import layers, mask_of
from tests.helpers.distributions import MAKE as TORCH
from tests.helpers.precision import close, jnps, quick

DRAWS = 20_000
KEY = jax.random.key(0)


def tril(v: Array) -> Array:
    return jnp.diag(jnp.exp(v[:3])) + jnp.zeros((3, 3)).at[jnp.tril_indices(3, -1)].set(v[3:6])  # as torch's test


# a distribution of nine numbers
MAKE: dict[str, Callable[[Array], dist.Distribution]] = {
    "Beta": lambda v: dist.Beta(1 + jnp.exp(v[0]), 1 + jnp.exp(v[1])),
    "CategoricalProbs": lambda v: dist.CategoricalProbs(jax.nn.softmax(v[:3])),
    "Dirichlet": lambda v: dist.Dirichlet(1 + jnp.exp(v[:3])),
    "Gamma": lambda v: dist.Gamma(1 + jnp.exp(v[0]), jnp.exp(v[1])),
    "MultivariateNormal": lambda v: dist.MultivariateNormal(v[:3], scale_tril=tril(v[3:])),
    "Normal": lambda v: dist.Normal(v[0], jnp.exp(v[1])),
    "RankOneNormal": lambda v: RankOneNormal(v[:3], jnp.exp(v[3:6]), v[6:]),
    "Weibull": lambda v: dist.Weibull(jnp.exp(v[0]), 1 + jnp.exp(v[1])),
    VECTOR: lambda v: dist.Normal(v[:3], jnp.exp(v[3:6])).to_event(1),
}
THEIRS = TORCH | {"CategoricalProbs": TORCH["Categorical"]}
PAIRS = [(q, p) for q, others in KNOWN.items() for p in others]


@pytest.mark.parametrize(
    ("q", "p"), [pair for pair in PAIRS if pair[0] != "Weibull"], ids=lambda n: n.replace(" ", "-")
)
def test_a_known_form_is_torchs(q, p, wide):
    """Which `tests/inference/test_closed_forms.py` holds against draws; alone and in a batch."""
    generator = torch.Generator().manual_seed(len(q) * len(p))
    a, b = (0.3 * torch.randn(9, generator=generator) for _ in "qp")
    expected = torch_form(THEIRS[q](a), THEIRS[p](b))

    def both(a: Array, b: Array) -> tuple[Array | None, Array | None]:
        fn, other = MAKE[q](a), MAKE[p](b)
        return closed_form(fn, other), closed_form(fn.expand((2, 4)), other)

    alone, batch = quick(both)(*jnps(a, b))
    close(alone, expected, rtol=1e-10)
    close(batch, expected.expand(2, 4), rtol=1e-10)


def test_weibull_and_gamma(x64):
    """Within five standard errors of the mean log ratio of 20,000 draws: torch has no such form."""
    scale, shape = 1.3, 1.7
    q, p = dist.Weibull(scale, shape), dist.Gamma(2.0, 0.8)
    value = scale * np.random.default_rng(0).weibull(shape, DRAWS)
    ratio = q.log_prob(value) - p.log_prob(value)
    assert abs(closed_form(q, p) - ratio.mean()) < 5 * ratio.std() / DRAWS**0.5


@pytest.mark.parametrize(
    ("q", "p"),
    [
        (dist.Delta(2.0, -3.0), dist.Gamma(2.0, 1.0)),
        (dist.FoldedDistribution(dist.Normal(1.0, 1.0)), dist.FoldedDistribution(dist.Normal(0.0, 1.0))),
        (type("Own", (dist.Normal,), {})(0.3, 1.0), dist.Normal(0.0, 1.0)),
        (dist.Kumaraswamy(2.0, 3.0), dist.Beta(2.0, 3.0)),  # NumPyro: the first terms of a series
    ],
    ids=lambda fn: type(fn).__name__,
)
def test_forms_that_leave_a_part_out_are_not_asked_for(q, p):
    assert closed_form(q, p) is None


Q, P = (dist.Normal(loc, np.array([1.0, 0.5, 2.0])) for loc in np.array([[[0.5, -1.0, 2.0]] * 2, [[0.0] * 3] * 2]))
ENTRIES = np.array([[True, False, True], [True, True, False]])
ROWS = np.array([True, False])
EXP = ExpTransform()
WRAPPED = {
    "independent": (lambda fn, e, r: fn.to_event(1), True),
    "outside": (lambda fn, e, r: fn.to_event(1).mask(r), ROWS[:, None]),
    "inside": (lambda fn, e, r: fn.mask(e).to_event(1), ENTRIES),
    "both": (lambda fn, e, r: fn.mask(e).to_event(1).mask(r), ENTRIES & ROWS[:, None]),
    "expanded": (lambda fn, e, r: fn.mask(e).to_event(1).expand((2,)), ENTRIES),
    "expanded inside": (lambda fn, e, r: fn.mask(e).expand((2, 3)).to_event(1), ENTRIES),
    "all": (lambda fn, e, r: fn.mask(True).to_event(1), True),
    "nothing": (lambda fn, e, r: fn.mask(False).to_event(1), False),
    "transformed": (lambda fn, e, r: dist.TransformedDistribution(fn, [EXP]).mask(e).to_event(1), ENTRIES),
    "transformed outside": (lambda fn, e, r: dist.TransformedDistribution(fn.mask(e).to_event(1), [EXP]), ENTRIES),
    "log normal": (lambda fn, e, r: dist.LogNormal(fn.loc, fn.scale).to_event(1).mask(r), ROWS[:, None]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_in_any_order(name, x64):
    wrap, kept = WRAPPED[name]
    entries, rows = jnp.asarray(ENTRIES), jnp.asarray(ROWS)
    q, p = wrap(Q, entries, rows), wrap(P, entries, rows)
    each = kl_divergence(Q, P) * kept
    np.testing.assert_allclose(closed_form(q, p), each.sum(-1), rtol=1e-12)
    site = {"scale": None, "value": q.sample(KEY), "intermediates": []}
    np.testing.assert_allclose(divergence({"fn": q, **site}, {"fn": p, **site}), each.sum(-1), rtol=1e-12)
    units, events = unit_divergence("z", {"fn": q, **site}, {"fn": p, **site}, True)
    assert events == 1
    np.testing.assert_allclose(units, each, rtol=1e-12)
    sampled, _ = unit_divergence("z", {"fn": q, **site}, {"fn": p, **site}, False)
    np.testing.assert_allclose(sampled.sum(-1), q.log_prob(site["value"]) - p.log_prob(site["value"]), atol=1e-10)
    assert type(layers(q).base) is dist.Normal and layers(q).shape == (2, 3) and layers(q).events == 1
    mask = mask_of(q)
    if kept is True:
        assert mask is None
    elif kept is False:
        assert mask is False
    elif layers(q).masks[0].above:  # an event counts where all of it does
        np.testing.assert_array_equal(np.broadcast_to(mask, (2, 3)), np.broadcast_to(kept.all(-1)[:, None], (2, 3)))
    else:
        np.testing.assert_array_equal(np.broadcast_to(mask, (2, 3)), np.broadcast_to(kept, (2, 3)))


def test_a_mask_of_one_program_only_forbids_the_closed_form():
    assert closed_form(Q.to_event(1), P.mask(jnp.asarray(ENTRIES)).to_event(1)) is None
    assert closed_form(Q.to_event(1).mask(jnp.asarray(ROWS)), P.to_event(1)) is None


def test_masks_that_are_computed_apart_read_nothing(x64):
    """Where two masks are equal it is the formula, elsewhere the density at the draw that one of them leaves."""
    q, p = Q.to_event(1), P.to_event(1)
    site = {"scale": None, "value": q.sample(KEY), "intermediates": []}
    kept, also, each = jnp.array([True, False]), jnp.array([True, True]), kl_divergence(Q, P).sum(-1)
    for other in (kept, also):
        found = divergence({"fn": q.mask(kept), **site}, {"fn": p.mask(other + jnp.zeros(2, bool)), **site})
        drawn = q.log_prob(site["value"]) * kept - p.log_prob(site["value"]) * other
        np.testing.assert_allclose(found, jnp.where(kept == other, each * kept, drawn), rtol=1e-12)
