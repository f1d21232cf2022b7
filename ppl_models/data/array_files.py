"""`array_file`: the arrays of a .npy or .npz file as train and test; `table_file`: as the arguments of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ppl_models.programs.legible import listed

from . import readers
from .splits import Rows, nine_tenths

PARTS = ("train", "test"), ("x_train", "x_test")
CHANNELS = 1, 3, 4  # of grey, colour, and colour with transparency
LABELS = "labels", "label", "targets", "target", "y"
OF_PART = "y_{}", "{}_labels", "labels_{}", "{}_y", "{}_targets", "targets_{}"


def table_file(path: str, arguments: Sequence[str]) -> list[dict[str, np.ndarray]] | None:
    """The arrays of a .npz file that are called as arguments of a model, as train and test, argument -> (N, *row).

    They are called by the bare names, then the last tenth of the rows is test, or NAME_train and NAME_test. Real
    numbers are float32, all others as they are. None for a file with arrays of fewer than two of the arguments.

    Raises ValueError for arrays of different lengths, of no numbers, or with values that are not finite.
    """
    found = readers.arrays(Path(path).expanduser())
    for forms in (("{}_train", "{}_test"), ("{}",)):
        names = [name for name in arguments if all(form.format(name) in found for form in forms)]
        if len(names) > 1:
            parts = [{name: _column(path, form.format(name), found) for name in names} for form in forms]
            sizes = [{len(column) for column in part.values()} for part in parts]
            if any(len(size) > 1 or 0 in size for size in sizes):
                told = ", ".join(f"{name} {column.shape}" for part in parts for name, column in part.items())
                raise ValueError(f"{path}: found {told}, want equally many rows of each, at least one")
            if len(parts) == 2:
                return parts
            split = nine_tenths(*sizes[0], path)
            rows = slice(None, split), slice(split, None)
            return [{name: column[index] for name, column in parts[0].items()} for index in rows]
    return None


def _column(path: str, name: str, found: Mapping[str, np.ndarray]) -> np.ndarray:
    """An array of a file as an argument of a model."""
    array = found[name]
    if array.ndim == 0 or array.dtype.kind not in "biuf":
        raise ValueError(f"{path}[{name}]: found {array.dtype} of shape {array.shape}, want rows of numbers")
    if array.dtype.kind == "f":
        array = _single(array)
        if not np.isfinite(array).all():
            raise ValueError(f"{path}[{name}]: found values that are not finite in float32; remove or mend their rows")
    return _signed(f"{path}[{name}]", array) if array.dtype.kind == "u" and array.dtype.itemsize > 1 else array


def array_file(path: str, arguments: Sequence[str] = ()) -> list[Rows]:
    """Arrays of a .npy or .npz file: train and test, x_train and x_test, or one array, its last tenth test.

    An array is (N, D), (N, H, W), (N, H, W, C) or (N, C, H, W), whichever of the two has 1, 3 or 4 channels, or else
    the fewer. Truth values have 2 levels, and so have integers that are all 0 or 1, in both parts; other uint8 have
    256; floating point is real data.

    Labels are one integer or word a row, in an array beside: y_train and y_test, train_labels and test_labels; beside
    one array labels, targets or y. Words are counted in their order. Of several other arrays the one that is called as
    the argument of the model is read.

    Raises ValueError for other names, shapes or types, values that are not finite, or parts that do not match.
    """
    found = readers.arrays(Path(path).expanduser())
    for keys in (*PARTS, *((f"{name}_train", f"{name}_test") for name in arguments)):
        if set(keys) <= set(found):
            rows = read_rows([found[key] for key in keys], [f"{path}[{key}]" for key in keys])
            _alike(path, keys, rows)
            named = [_beside(found, [form.format(part) for form in OF_PART]) for part in ("train", "test")]
            return _labelled(rows, [found.get(name) for name in named], path)
    wanted = [name for name in arguments if name in found]
    label = _beside(found, LABELS) if len(found) == 2 or wanted else None
    others = [name for name in found if name != label]
    others = wanted if len(others) > 1 else others
    if len(others) != 1:
        raise ValueError(
            f"{path}: found arrays {listed([*found]) or 'none'}, want train and test, x_train and x_test, "
            "a single array, one with labels beside it, or arrays that are called as the arguments of the model"
            + (f": {', '.join(arguments)}" if arguments else "")
        )
    (rows,) = _labelled(read_rows([found[others[0]]], [path]), [found.get(label)], path)
    split = nine_tenths(len(rows.values), path)
    return [rows.part(slice(None, split)), rows.part(slice(split, None))]


def read_rows(arrays: Sequence[np.ndarray], origins: Sequence[str]) -> list[Rows]:
    """Parts of one data set as rows, of which all have the same levels.

    Args:
        arrays: the parts.
        origins: of each, for messages.
    """
    for array, origin in zip(arrays, origins, strict=True):
        if array.ndim not in (2, 3, 4) or 0 in array.shape:
            want = "(N, D), (N, H, W), (N, H, W, C) or (N, C, H, W)"
            raise ValueError(f"{origin}: found shape {array.shape}, want {want}")
    binary = all(0 <= array.min() and array.max() <= 1 for array in arrays if array.dtype.kind in "iu")
    return [_rows(array, binary, origin) for array, origin in zip(arrays, origins, strict=True)]


def _rows(array: np.ndarray, binary: bool, origin: str) -> Rows:
    """The rows of a part, `binary` if all integers of the data set are zeros and ones."""
    if array.ndim == 4 and _channels_last(array.shape, origin):
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim == 3:
        array = array[:, None]
    shape, flat, kind = array.shape[1:], array.reshape(len(array), -1), array.dtype.kind
    if kind == "b" or (kind in "iu" and binary):
        return Rows(flat.astype(np.uint8), shape, 2)
    if array.dtype == np.uint8:
        return Rows(flat, shape, 256)
    if kind != "f":
        raise ValueError(f"{origin}: found type {array.dtype}{_instead(array)}")
    real = _single(flat)
    if not np.isfinite(real).all():
        row = int(np.flatnonzero(~np.isfinite(real).all(1))[0])
        raise ValueError(f"{origin}: found a value in row {row} that is not finite in float32; remove or mend it")
    return Rows(real, shape, None)


def _channels_last(shape: tuple[int, ...], origin: str) -> bool:
    """Whether (N, a, b, c) is (N, H, W, C) and not (N, C, H, W)."""
    first, last = shape[1], shape[3]
    if (first in CHANNELS) != (last in CHANNELS):
        return last in CHANNELS
    if first == last > 1:
        raise ValueError(
            f"{origin}: found shape {shape}, which may be (N, C, H, W) or (N, H, W, C); save each channel as an array "
            "of its own, or rows (N, D)"
        )
    return last < first


def _instead(array: np.ndarray) -> str:
    """The rest of the message about a type that is not read."""
    want = "want zeros and ones, uint8 (256 grey levels from 0 to 255) or floating point (real data as they are)"
    if array.dtype.kind not in "iu":
        return f", {want}"
    low, high = array.min(), array.max()
    grey = "array.astype('uint8') if they are grey levels, " if 0 <= low and high <= 255 else ""
    return (
        f" with values from {low} to {high}, {want}; try {grey}array.astype('float32') if they are counts or measures"
    )


def _alike(path: str, keys: Sequence[str], parts: Sequence[Rows]) -> None:
    """Raise ValueError unless rows of both parts have one shape and the same levels."""
    train, test = parts
    if (train.shape, train.levels) != (test.shape, test.levels):
        raise ValueError(
            f"{path}: found rows {train.shape} of {keys[0]} and {test.shape} of {keys[1]} with "
            f"levels {train.levels} and {test.levels}, want the same; save both alike"
        )


def _beside(found: Mapping[str, np.ndarray], names: Sequence[str]) -> str | None:
    """The first of these names that is in the file and has one integer or word a row."""
    return next((name for name in names if name in found and _is_label(found[name])), None)


def _is_label(array: np.ndarray) -> bool:
    return array.dtype.kind in "iubUS" and array.ndim > 0 and array.size == len(array)


def _labelled(parts: Sequence[Rows], labels: Sequence[np.ndarray | None], path: str) -> list[Rows]:
    """The parts with labels, if each has some."""
    known = [each for each in labels if each is not None]
    if len(known) < len(parts):
        return [*parts]
    for rows, given in zip(parts, known, strict=True):
        if len(given) != len(rows.values):
            raise ValueError(f"{path}: found {len(given)} labels of {len(rows.values)} rows, want one for each")
    whole = np.concatenate([_signed(f"{path}: labels", given.reshape(-1)) for given in known])
    if whole.dtype.kind in "US":
        whole = np.unique(whole, return_inverse=True)[1]
    ends = np.cumsum([len(given) for given in known])[:-1]
    return [Rows(r.values, r.shape, r.levels, each) for r, each in zip(parts, np.split(whole, ends), strict=True)]


def _single(array: np.ndarray) -> np.ndarray:
    """The same in float32, infinite where it is too large for that."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _signed(origin: str, array: np.ndarray) -> np.ndarray:
    """The same in int64, if it is of integers without a sign."""
    if array.dtype.kind != "u":
        return array
    if array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{origin}: found the value {array.max()}, want less than 2**63; save it as other integers")
    return array.astype(np.int64)
