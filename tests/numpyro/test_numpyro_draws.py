"""What a NumPyro guide draws and reads, held against its model: shapes, supports, arguments under another name."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

pytest.importorskip("numpyro")

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import plate, sample

from ppl_models.factorization import compare
from tests.helpers.numpyro_pairs import X, data, head, normal, vae


def reading(x, other, width=3):
    """The encoder, of another argument."""
    with plate("data", len(x)):
        sample("z", head("qz", 2, other))


def model(x, *_):
    vae(x)


def test_copies_of_the_data_are_data():
    assert compare(model, reading, X, X[:, :2].copy()).faithful is True
    report = compare(model, reading, X, jnp.roll(X, 1, 0))
    assert report.missing == {"z": ("x",)} and report.superfluous == {"z": ("x[data']",)}, str(report)


def unknown(report, *words):
    assert report.faithful is None and len(report.reasons) == 1, str(report)
    assert all(word in report.reasons[0] for word in words), report.reasons


@dataclass
class Batch:
    x: Any


def test_features_are_not_certified():
    unknown(compare(model, reading, X, data(3, 2, seed=1)), "'other'", "of which the model observes nothing", "x would")
    hidden = "inside of an object or a list"
    unknown(compare(model, lambda x, other: reading(x, other.x), X, Batch(X[::-1])), hidden)
    unknown(compare(model, lambda x, other: reading(x, jnp.asarray(other)), X, X[::-1].tolist()), hidden)


def without(x, pooled=False):
    sample("z", head("qz", 2, x.sum(0) if pooled else x))


def test_one_draw_for_all_copies_is_never_exact():
    report = compare(vae, partial(without, pooled=True), X)
    assert report.faithful is False and report.rows[0].once == ("data",), str(report)
    assert compare(vae, without, X).faithful is True  # NumPyro takes a batch without a plate


def wide(x):
    with plate("data", len(x)):
        sample("z", head("qz", 3, x))


def elsewhere(x):
    with plate("data", len(x), dim=-2):
        sample("z", head("qz", 2, x[:, None]))


@pytest.mark.parametrize(
    ("guide", "words"),
    [(wide, r"'z' with the event shape \(3,\), want \(2,\)"), (elsewhere, r"batch shape \(3, 1\), want \(3,\)")],
)
def test_another_shape_is_refused(guide, words):
    with pytest.raises(ValueError, match=words):
        compare(vae, guide, X)


def positive(x):
    with plate("data", len(x)):
        z = sample("z", dist.Gamma(2.0, 2.0))
        sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize(
    ("family", "verdict"), [(dist.Normal, False), (dist.LogNormal, True), (lambda x, _: dist.Delta(jnp.exp(x)), None)]
)
def test_draws_outside_of_the_support_are_refused(family, verdict):
    def guide(x):
        with plate("data", len(x)):
            sample("z", family(x, 1.0))

    x = data(3)
    if verdict is not False:
        assert compare(positive, guide, x).faithful is verdict
        return
    with pytest.raises(ValueError, match="'z' from a Normal, found values outside of the support of the model's Gamma"):
        compare(positive, guide, x)


def test_relaxed_draws_of_a_discrete_latent_are_taken_as_numpyro_takes_them():
    def switched(x):
        with plate("data", len(x)):
            k = sample("k", dist.Bernoulli(0.4))
            sample("x", dist.Normal(k * 1.0, 1.0), obs=x)

    def guide(x):
        with plate("data", len(x)):
            sample("k", dist.RelaxedBernoulli(1.0, logits=x))

    assert compare(switched, guide, data(3)).faithful is True


def test_free_globals_beside_effects_of_groups_that_read_data():
    def grouped(y, group):
        mu = sample("mu", dist.Normal(0.0, 1.0))
        with plate("groups", 2):
            a = sample("a", dist.Normal(mu, 1.0))
        with plate("data", len(y)):
            sample("y", dist.Normal(a[group], 1.0), obs=y)

    def guide(y, group):
        mu = sample("mu", dist.Normal(numpyro.param("loc", 0.3), 1.0))
        total = jnp.zeros(2).at[group].add(jnp.tanh(y))
        with plate("groups", 2):
            sample("a", dist.Normal(jnp.tanh(total + 0.5 * mu) * numpyro.param("w", 0.7), 1.0))

    report = compare(grouped, guide, data(3), jnp.array([0, 1, 0]))
    assert (report.faithful, report.minimal, report.perfect) == (True, True, True), str(report)


def test_a_global_takes_covariates_for_fixed_numbers_and_a_local_must_read_them():
    def regression(y, c, inside):
        if not inside:
            w = sample("w", normal(1))[0]
        with plate("data", len(y)):
            w = sample("w", dist.Normal(0.0, 1.0)) if inside else w
            sample("y", dist.Normal(jnp.tanh(w * c), 1.0), obs=y)

    def guide(y, c, inside):
        if not inside:
            sample("w", head("qw", 1, jnp.tanh(y).sum(keepdims=True)))
            return
        with plate("data", len(y)):
            sample("w", dist.Normal(jnp.tanh(y), 1.0))

    y, c = data(3), data(3, seed=1)
    assert compare(regression, guide, y, c, False).faithful is True
    assert compare(regression, guide, y, c, True).missing == {"w": ("c",)}
