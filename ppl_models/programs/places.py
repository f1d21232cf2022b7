"""`elements`: which element of its row of an argument each entry of an observed value is, told by values alone.

Values and not memory: NumPyro's arrays share none, and a copy of the data is the data.
"""

import numpy as np


def elements(value: np.ndarray, axis: int, argument: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray | None:
    """The elements e with value[i] = argument[rows[i]][e] for all i along an axis, None where there are none.

    Whole rows, parts of them, rows of another shape, transposed ones and casts all have such elements; what is computed
    from a row by arithmetic has none. Of equal columns of the argument the first one is taken.

    Args:
        value: (..., n, ...).
        axis: of `value`, negative, the one of n indices.
        argument: (rows, *row).
        rows: (n,), the rows that `value` holds, those of a plate that subsamples; all of them in order if None.

    Returns:
        (k,), an index into a flat row for each of the k entries of a slice of `value`.

    >>> x = np.arange(12.0).reshape(4, 3)
    >>> elements(x.T, -1, x), elements(x[:, :2], -2, x), elements(x.T, -2, x)
    (array([0, 1, 2]), array([0, 1]), None)
    """
    if value.ndim < -axis or argument.ndim < 1 or {value.dtype.kind, argument.dtype.kind} - set("biuf"):
        return None
    whole = argument.reshape(len(argument), -1) if rows is None else argument[rows].reshape(len(rows), -1)
    own = np.moveaxis(value, axis, 0)
    if len(own) != len(whole) or not own.size:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        whole = whole.astype(own.dtype)
    known = {column: i for i, column in reversed([*enumerate(_columns(whole))])}
    found = [known.get(column, -1) for column in _columns(own.reshape(len(own), -1))]
    return None if -1 in found else np.array(found)


def _columns(rows: np.ndarray) -> list[bytes]:
    rows = rows + 0 if rows.dtype.kind == "f" else rows  # no negative zeros
    return [column.tobytes() for column in np.ascontiguousarray(rows.T)]
