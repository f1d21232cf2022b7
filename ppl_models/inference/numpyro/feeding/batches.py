"""Rows of data for NumPyro programs: checked once, and in an order that depends on the seed and the step alone."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl_models.numpyro.data import Rows, rows_of
from ppl_models.parts.checks import check_finite
from ppl_models.programs.arguments import arguments, check_count, check_lengths, numbers, read_items, refuse_column

from ...resuming.fingerprint import Fingerprint, spaced


def columns_of(data: Any, name: str, model: Callable | None = None) -> tuple[Rows, ...]:
    """The arguments that data stand for: a tuple of columns with equally many rows, at least one, of finite values.

    Args:
        data: an array of rows (of NumPy, JAX, or what gives one), a data frame of numbers, a `ppl_models.data.Data` or
            its `Rows`, a map-style data set, which is read once; or several of such, one an argument: in a tuple, a
            `TensorDataset` of torch's, or a mapping by the names of the model's arguments.
        name: what an error calls them, "fit: data".
        model: whose arguments they are.

    Raises:
        TypeError: data that are no arrays of numbers with rows.
        ValueError: no rows, columns of different lengths, NaN or infinite values, names or a number of columns that are
            not those of the model's arguments.
    """
    columns = [each for column in arguments(data, name, model) for each in _columns(column, name, model)]
    check_lengths(columns, name)
    for column in columns:
        check_finite(name, np.isfinite(np.asarray(column.values)))
    check_count(len(columns), name, model)
    return tuple(columns)


def drawn(columns: Sequence[Rows], values: Sequence[Array], key: Array) -> tuple[Array, ...]:
    """The values that a model sees of stored ones, one entry a column; noise of the data set is drawn here."""
    keys = jax.random.split(key, len(columns))
    return tuple(c.transform(k, jnp.asarray(v)) for c, v, k in zip(columns, values, keys, strict=True))


class Order:
    """The rows of each batch: shuffled anew in each epoch, whose rest that fills no batch is left out.

    It is a function of the seed and the number of the batch, so there is nothing to remember. If a batch is all the
    data, their order is kept.

    Attributes:
        per_epoch: batches an epoch.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.per_epoch = size // batch_size
        self._size, self._batch_size, self._seed = size, batch_size, seed
        self._known = -1, np.arange(size)  # the last epoch asked for, and its order

    def rows(self, batch: int) -> np.ndarray:
        """(batch_size,), the rows of a batch, counted from 0 over all epochs."""
        epoch, position = divmod(batch, self.per_epoch)
        if self._batch_size < self._size and self._known[0] != epoch:
            self._known = epoch, np.random.default_rng([self._seed, epoch]).permutation(self._size)
        return self._known[1][position * self._batch_size : (position + 1) * self._batch_size]


def fingerprint(columns: Sequence[Rows]) -> Fingerprint:
    """A digest of the rows of each column, and of its shape and transform.

    >>> x = np.arange(12.0).reshape(4, 3)
    >>> found = [fingerprint(columns_of(data, "x")).text for data in (x, x.copy(), x + 1)]
    >>> found[0] == found[1], found[0] == found[2]
    (True, False)
    """
    size = len(columns[0])

    def digest_of(count: int) -> str:
        """Of so many evenly spaced rows."""
        digest = hashlib.sha256()
        for column in columns:
            values = np.asarray(column.values)
            rows = values[spaced(size, count)] if count < size else values
            digest.update(np.ascontiguousarray(rows).tobytes())
            transform = getattr(column.transform, "func", column.transform)
            options = getattr(column.transform, "keywords", {})
            told = [values.shape, str(values.dtype), transform.__name__, options]
            digest.update(json.dumps(told).encode())
        return digest.hexdigest()

    return Fingerprint(size, sum(column.values.nbytes for column in columns) // size, digest_of)


def _columns(column: Any, name: str, model: Callable | None) -> list[Rows]:
    """The columns that one is: several if it is a data set whose items are."""
    if isinstance(column, Rows):
        return [column]
    if hasattr(column, "levels") and hasattr(column, "discrete"):  # a `Data`; a frame of pandas has values, too
        return [rows_of(column)]
    if isinstance(column, Array) and column.ndim and not jnp.issubdtype(column.dtype, jax.dtypes.prng_key):
        return [_plain(column)]
    array = None if isinstance(column, Array) else numbers(column, name)
    if array is not None:
        return [_plain(array)]
    if not isinstance(column, Array | list | str | bytes | dict | tuple):
        if hasattr(column, "__len__") and hasattr(column, "__getitem__"):
            return [_plain(each) for each in read_items(column, name, model)]
    refuse_column(name, column, "an array of rows", "np.stack(rows)")


def _plain(values: Any) -> Rows:
    return Rows(values, _as_they_are, False, None)


def _as_they_are(key: Array, values: Array) -> Array:  # fingerprints of data hold its name
    return values


def is_plain(column: Rows) -> bool:
    """Whether rows of a column are its values, without a transform."""
    return column.transform is _as_they_are
