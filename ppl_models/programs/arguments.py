"""`arguments`: the columns that a user's data are to a program, one for each of its arguments; `numbers`: an array.

What is natural is taken as it comes: arrays of NumPy and all that give one, data frames of numbers, mappings by the
names of arguments, data sets that hold tensors. No library of frames is imported for it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from inspect import Parameter, Signature, signature
from typing import Any, NoReturn, cast

import numpy as np

from .legible import listed
from .pairs import called

BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def arguments(data: Any, asks: str, program: Callable | None = None) -> tuple[Any, ...]:
    """The columns of data, in the order of a program's arguments.

    Args:
        data: a tuple of columns, a mapping argument -> column, a `TensorDataset` or a part of one, or one column; of a
            program that wants several arguments also a frame that has them among its columns.
        asks: what an error starts with, "fit: data".
        program: whose arguments they are; None takes a mapping in its own order.

    Raises:
        ValueError: names that are not those of the arguments.
    """
    if isinstance(data, Mapping):
        return tuple(data[name] for name in ordered(data, asks, program))
    if isinstance(data, tuple):
        return data
    if (held := _tensors(data)) is not None:
        return held
    needed = _needed(signature_of(program))
    if is_frame(data) and len(needed) > 1 and set(needed) <= set(getattr(data, "columns", ())):
        return tuple(data[name] for name in needed)
    return (data,)


def spread(args: Sequence[Any], program: Callable, asks: str) -> tuple[Any, ...]:
    """An example as the arguments of a program: one that is several, a mapping by their names or a data set of tensors.

    A tuple of a class of its own is several only where the program takes so many and not one. Anything else stays as it
    is: what an argument may be, only the program knows.
    """
    if len(args) != 1:
        return tuple(args)
    (arg,), known = args, signature_of(program)
    named = isinstance(arg, Mapping) and known is not None and set(arg) <= set(known.parameters)
    many = isinstance(arg, tuple) and not takes(1, program) and takes(len(arg), program)
    return arguments(arg, asks, program) if named or many or _tensors(arg) is not None else (arg,)


def signature_of(program: Callable | None) -> Signature | None:
    """The signature of a program, None where it tells nothing of the arguments."""
    if program is None:
        return None
    try:
        found = signature(getattr(program, "forward", program))
    except (TypeError, ValueError):
        return None
    return None if any(p.kind is Parameter.VAR_POSITIONAL for p in found.parameters.values()) else found


def ordered(columns: Mapping[str, Any], asks: str, program: Callable | None) -> list[str]:
    """The names of columns in the order of a program's arguments, of which those at the end may be left to a default.

    Raises:
        ValueError: names that are not those of the arguments.
    """
    if program is None:
        return [*columns]
    known = signature_of(program)
    names = [] if known is None else [p.name for p in known.parameters.values() if p.kind in BY_POSITION]
    wanted = names[: len(columns)]
    if not names or set(wanted) != set(columns) or not set(_needed(known)) <= set(columns):
        found, told = ", ".join(map(str, columns)) or "none", ", ".join(names) or "of which nothing is known"
        raise ValueError(
            f"{asks}: found columns {found}, want those of the arguments of the model {called(program)}: {told}; "
            "rename them, or pass a tuple in this order"
        )
    return wanted


def takes(count: int, program: Any, named: Iterable[str] = ()) -> bool:
    """Whether a program can be called with so many arguments, and further ones by name, as far as is known."""
    if not callable(program):
        return False
    known = signature_of(program)
    try:
        return known is None or known.bind(*[None] * count, **dict.fromkeys(named)) is not None
    except TypeError:
        return False


def check_lengths(columns: Sequence[Any], asks: str) -> None:
    """Raise ValueError unless columns have equally many rows, at least one."""
    lengths = [len(column) for column in columns]
    if not lengths or min(lengths) == 0 or len(set(lengths)) > 1:
        raise ValueError(f"{asks}: found lengths {lengths}, want equal lengths of at least 1")


def check_count(
    count: int,
    asks: str,
    program: Callable | None,
    role: str = "model",
    named: Collection[str] = (),
    what: str = "column",
) -> None:
    """Raise ValueError unless a program can be called with so many arguments (`what` they are), others by name."""
    if program is not None and not takes(count, program, named):
        known = cast(Signature, signature_of(program))
        names = ", ".join(p.name for p in known.parameters.values() if p.kind in BY_POSITION) or "none"
        told = f"{count} {what}{'s' if count != 1 else ''}" + (f", and {listed([*map(str, named)])}" if named else "")
        cure = "; pass a tuple, or a dict by their names" if what == "column" else ""
        raise ValueError(
            f"{asks}: found {told}, want one for each argument of the {role} {called(program)}: {names}{cure}"
        )


def refuse_call(
    asks: str, model: Callable, guide: Callable, args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> None:
    """Raise ValueError for arguments that one of the programs does not take."""
    for role, program in (("model", model), ("guide", guide)):
        check_count(len(args), asks, program, role, kwargs or {})


def numbers(column: Any, asks: str) -> np.ndarray | None:
    """The array that a column is or gives, (rows, *row), in its own type; None for what gives none.

    Args:
        column: an array of NumPy, a frame or series of numbers, or whatever has `__array__`.
        asks: what an error starts with.

    Raises:
        TypeError: values that are no numbers, a single number, or an array with a mask.
    """
    if is_frame(column):
        return _frame(column, asks)
    if not hasattr(column, "__array__"):
        return None
    if isinstance(column, np.ma.MaskedArray) and np.ma.getmaskarray(column).any():
        raise TypeError(f"{asks}: found a masked array, want every value; drop its masked rows, or fill them")
    try:
        array = np.asarray(column.detach() if hasattr(column, "detach") else column)
    except (TypeError, ValueError, RuntimeError) as error:  # sparse, or on a device
        raise TypeError(f"{asks}: found a {type(column).__name__} that makes no array ({error})") from error
    if array.ndim == 0 or array.dtype.kind not in "biufc":
        found = "a scalar" if array.ndim == 0 else f"an array of {array.dtype}"
        raise TypeError(f"{asks}: found {found}, want an array of rows of numbers")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def refuse_column(asks: str, column: Any, rows: str, stack: str) -> NoReturn:
    """Raise TypeError for data that are none.

    Args:
        asks: what the message starts with.
        column: the data.
        rows, stack: what rows are in the language, and how they are made one.
    """
    found = "a scalar" if getattr(column, "ndim", None) == 0 else type(column).__name__
    raise TypeError(
        f"{asks}: found {found}, want {rows}, a data frame, a map-style data set, a Data, or several of such, one an "
        f"argument, in a tuple or a dict; try {'its dataset' if hasattr(column, 'dataset') else stack}"
    )


def example_array(arg: Any, asks: str) -> np.ndarray | None:
    """The array that an argument of a program is or gives; None for a number, and for what gives no array of numbers.

    Raises:
        TypeError: a frame of other things than numbers.
    """
    untold = "f" if hasattr(arg, "detach") else "O"  # torch's types have no kind
    kind = getattr(getattr(arg, "dtype", None), "kind", untold)
    if is_frame(arg) or (getattr(arg, "ndim", 0) and kind in "biufc"):
        return numbers(arg, asks)
    return None


def is_frame(column: Any) -> bool:
    """Whether something is a data frame or a series, as pandas makes them."""
    return all(hasattr(column, name) for name in ("iloc", "dtypes", "to_numpy", "isna"))


def items(data: Any, index: Sequence[int], names: Sequence[str] | None) -> list[list[Any]]:
    """Single items of a data set that knows no other way, one list for each of the columns that an item has.

    Args:
        data: what is asked for items one by one, or for several by `__getitems__`.
        index: which of them.
        names: the order of an item that is a mapping.
    """
    many = getattr(data, "__getitems__", None)
    found = many([*index]) if callable(many) else [data[i] for i in index]
    rows = [[item[name] for name in names or item] if isinstance(item, Mapping) else _parts(item) for item in found]
    return [[*column] for column in zip(*rows, strict=True)]


def read_items(data: Any, asks: str, program: Callable | None) -> list[np.ndarray]:
    """All items of a map-style data set, read once, as one array for each of the columns that an item has.

    Raises:
        TypeError: items that are no arrays or numbers, or of different shapes.
        ValueError: names that are not those of the program's arguments.
    """
    if not len(data):
        return [np.zeros(0)]
    try:
        first = data[0]
        names = ordered(first, asks, program) if isinstance(first, Mapping) else None
        return [stacked(column, asks) for column in items(data, range(len(data)), names)]
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(asks):
            raise
        raise TypeError(f"{asks}: found a {type(data).__name__} whose items make no rows ({error})") from error


def stacked(column: Sequence[Any], asks: str) -> np.ndarray:
    """Arrays or numbers of one shape as the rows of an array.

    Raises:
        TypeError: see `numbers`.
        ValueError: different shapes.
    """
    return cast(np.ndarray, numbers(np.stack([np.asarray(each) for each in column]), asks))


def _parts(item: Any) -> Sequence[Any]:
    several = isinstance(item, tuple) or (isinstance(item, list) and any(hasattr(each, "__array__") for each in item))
    return item if several else (item,)


def _tensors(data: Any) -> tuple[Any, ...] | None:
    """The tensors of a `TensorDataset` of torch's itself, or of a `Subset` of one; None for anything else."""
    if not getattr(getattr(type(data), "__getitem__", None), "__module__", "").startswith("torch.utils.data"):
        return None
    if isinstance(held := getattr(data, "tensors", None), tuple):
        return held
    held = _tensors(getattr(data, "dataset", None))
    return None if held is None or not hasattr(data, "indices") else tuple(each[[*data.indices]] for each in held)


def _needed(known: Signature | None) -> list[str]:
    """The arguments without a default."""
    given = () if known is None else known.parameters.values()
    return [p.name for p in given if p.kind in BY_POSITION and p.default is p.empty]


def _frame(frame: Any, asks: str) -> np.ndarray:
    """The numbers of a frame, or of a series; a missing one is NaN."""
    types = [*frame.dtypes.items()] if hasattr(frame, "columns") else [(frame.name, frame.dtypes)]
    for name, dtype in types:
        if getattr(dtype, "kind", "O") not in "biuf":
            raise TypeError(
                f"{asks}: found the column {name!r} of {dtype}, want numbers; drop it, or code it as numbers "
                "(pandas.get_dummies)"
            )
    kinds, missing = {dtype.kind for _, dtype in types}, bool(frame.isna().to_numpy().any())
    if missing or "f" in kinds:
        return frame.to_numpy(dtype=np.float64, na_value=np.nan)
    return frame.to_numpy(dtype=bool if kinds == {"b"} else np.int64)
