"""Data under another name: which element of the data an element of an argument repeats."""

import numpy as np
import pytest

from ppl_models.factorization.probing.arguments.copies import Known, sources


def known(values: np.ndarray, owners: np.ndarray | None = None) -> list[Known]:
    """All of it, each element a copy of its own by default."""
    places = np.arange(values.size).reshape(values.shape)
    return [Known(values, places, places if owners is None else np.broadcast_to(owners, values.shape))]


def found(repeat: np.ndarray, values: np.ndarray, owners: np.ndarray | None = None) -> np.ndarray:
    return sources(repeat, np.ones(repeat.shape, bool), known(values, owners))


REAL = np.random.default_rng(0).normal(size=(3, 4, 2))
PLACES = np.arange(REAL.size).reshape(REAL.shape)
BITS = (np.random.default_rng(1).random((3, 4, 30)) < 0.4).astype(float)
FRAMES = np.arange(12).reshape(3, 4, 1)  # a frame is a copy of a site, its pixels are one
REPEATS = {
    "reversed": lambda x: x[:, ::-1],
    "rows in another order": lambda x: x[[2, 0, 1]],
    "cut": lambda x: x[:, 1:3],
    "every other": lambda x: x[:, ::2],
    "frames in one list": lambda x: x.reshape(12, -1),
    "transposed": lambda x: x.transpose(1, 0, 2),
}


@pytest.mark.parametrize("name", REPEATS)
def test_repeats_of_real_numbers_and_of_bits(name):
    repeat = REPEATS[name]
    np.testing.assert_array_equal(found(repeat(REAL), REAL), repeat(PLACES))
    frames = np.broadcast_to(FRAMES, BITS.shape)
    at = found(repeat(BITS), BITS, FRAMES)
    np.testing.assert_array_equal(frames.reshape(-1)[at], repeat(frames))


def test_other_precisions_are_the_same_numbers():
    x = REAL.astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(found((x * 1.7 / 1.7).astype(np.float32), x), PLACES)
    np.testing.assert_array_equal(found(BITS.astype(np.int64), BITS, FRAMES) // 30, np.broadcast_to(FRAMES, BITS.shape))


def test_what_is_joined_to_data_is_not_data():
    other = np.random.default_rng(2).normal(size=(3, 4, 1))
    at = found(np.concatenate([REAL, other], -1), REAL)
    np.testing.assert_array_equal(at, np.concatenate([PLACES, np.full((3, 4, 1), -1)], -1))


@pytest.mark.parametrize("seed", range(20))
def test_chance_makes_no_repeats(seed):
    rng = np.random.default_rng(seed)
    bits, other = (rng.random((3, 20)) < 0.5).astype(float), (rng.random((3, 10)) < 0.5).astype(float)
    assert (found(other, bits, np.arange(3)[:, None]) < 0).all()
    assert (found(rng.integers(0, 5, 3), rng.integers(0, 5, (3, 4)).astype(float)) < 0).all()
    assert (found(rng.normal(size=(3, 4)), REAL) < 0).all()


def test_numbers_that_are_there_twice_are_not_told():
    x = np.array([[0.3, 0.3, 0.7]])
    turned = x[:, ::-1]
    np.testing.assert_array_equal(found(turned, x), [[2, -1, -1]])
    np.testing.assert_array_equal(found(turned, x, np.array([[0, 0, 2]])), [[2, 0, 0]])  # of one copy: no difference
