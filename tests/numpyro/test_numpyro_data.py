"""Data sets in JAX: the same values, and the same transforms in distribution."""

import numpy as np
import pytest
import torch

from ppl_models import data as datasets
from ppl_models.data import Data

jax = pytest.importorskip("jax")
from ppl_models.numpyro.data import rows_of  # noqa: E402

KEY = jax.random.key(0)
GREY = torch.randint(0, 256, (50, 12), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def grey(transform) -> Data:
    return Data(GREY, (1, 3, 4), 256, transform, "greys")


def test_what_is_not_random_is_the_same():
    real = Data(torch.randn(5, 3), (3,), None, datasets.Identity(), "real")
    for data in (real, grey(datasets.Scale(256)), grey(datasets.Binarize(256, seed=3))):
        np.testing.assert_allclose(np.asarray(rows_of(data).draw(KEY)), data[:].numpy(), rtol=1e-7)
    assert rows_of(real).bits is None and not rows_of(real).discrete


def test_binarization_has_the_grey_level_as_its_mean_and_is_new_each_time():
    rows = rows_of(grey(datasets.Binarize(256)))
    draws = np.stack([np.asarray(rows.draw(key)) for key in jax.random.split(KEY, 400)])
    assert set(np.unique(draws)) == {0.0, 1.0} and rows.discrete
    # 600 pixels, five standard errors of a mean of 400 each at most 0.025
    np.testing.assert_allclose(draws.mean(0), GREY.numpy() / 255, atol=5 * 0.025)
    assert (draws[0] != draws[1]).any()
    np.testing.assert_array_equal(np.asarray(rows.draw(KEY, slice(2, 4))).shape, (2, 12))


def test_codes_are_drawn_anew_from_their_moments():
    """Of 4000 draws within five standard errors."""
    moments = torch.tensor([[-2.0, 3.0, 0.5, 2.0]]).repeat(4000, 1)
    rows = rows_of(Data(moments, (2,), None, datasets.Redrawn(), "codes"))
    z, other = (np.asarray(rows.draw(key)) for key in jax.random.split(KEY))
    assert z.shape == (4000, 2) and (z != other).all() and rows.bits is None
    np.testing.assert_allclose(z.mean(0), [-2, 3], atol=5 * 2 / 4000**0.5)
    np.testing.assert_allclose(z.std(0), [0.5, 2.0], rtol=5 / 8000**0.5)


@pytest.mark.parametrize("transform", [datasets.Dequantize(256), datasets.Logit(256, alpha=0.05)])
def test_dequantization_keeps_the_level(transform):
    data = grey(transform)
    drawn = torch.from_numpy(np.array(rows_of(data).draw(KEY)))
    unit = transform.to_unit(drawn).numpy()
    np.testing.assert_array_equal(np.floor(unit * 256 + 1e-3).clip(0, 255), GREY.numpy())


@pytest.mark.parametrize(
    "transform", [datasets.Scale(256), datasets.Binarize(256), datasets.Dequantize(256), datasets.Logit(256, 0.05)]
)
def test_bits_per_dimension_are_those_of_the_data(transform):
    data = grey(transform)
    x, nll = data[:7], torch.linspace(1, 9, 7)
    found = rows_of(data).bits(jax.numpy.asarray(nll.numpy()), jax.numpy.asarray(x.numpy()))
    np.testing.assert_allclose(np.asarray(found), data.bits_per_dim(nll, x).numpy(), rtol=1e-4)


def test_it_runs_under_jit():
    rows = rows_of(grey(datasets.Binarize(256)))
    drawn = jax.jit(rows.transform)(KEY, rows.values)
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(rows.draw(KEY)))


def test_another_transform_is_refused():
    class Odd:
        levels = None

    class Odds:
        transform, levels = Odd(), None

    with pytest.raises(ValueError, match="want one of Identity, Scale, Binarize"):
        rows_of(Odds())
