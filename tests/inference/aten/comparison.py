"""`Compared`, a mode that sees every operation of torch and compares the rows of the table with it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from ppl_models.inference.pyro.engine.aten import CONTIGUOUS, TABLE

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}

# what two right answers may differ in: signs of vectors, the order of equal entries, memory that nobody wrote
FREE = {
    "aten.empty.memory_format",
    "aten.empty_like.default",
    "aten.empty_permuted.default",
    "aten.empty_strided.default",
    "aten.new_empty.default",
    "aten.new_empty_strided.default",
}

TIES = {"aten.topk.default", "aten.kthvalue.default", "aten.median.dim", "aten.nanmedian.dim", "aten.sort.default"}
SIGNS = {"aten._linalg_eigh.default", "aten._linalg_svd.default"}


class Compared(TorchDispatchMode):
    """Evaluates the row of each operation that has one, and remembers where it differs.

    Args:
        most: how often a row is looked at, for what is given to it anew.
    """

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.most, self.functions = most, {}
        self.seen: Counter[str] = Counter()
        self.without: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.where = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, str(func)
        row = TABLE.get(name)
        if row is None or (self.most is not None and self.seen[name] >= self.most):
            self.without[name] += row is None
            return func(*args, **kwargs)
        given = tree_map(lambda x: _array(x) if isinstance(x, Tensor) else x, (args, kwargs))
        pieces = all(x.is_contiguous() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
        found = func(*args, **kwargs)
        if name not in CONTIGUOUS or pieces:
            self._compare(name, row, given, found)
        return found

    def _compare(self, name: str, row: Callable[..., Any], given: Any, expected: Any) -> None:
        told = f"{self.where}: {name} of {tree_map(_short, given)}"
        try:
            found = self._evaluated(name, row, given)
        except NotImplementedError as error:
            self.refused[f"{name}: {error}"] += 1
            return
        except Exception as error:  # noqa: BLE001 (all of them are told)
            self.wrong.append(f"{told}: {type(error).__name__} {error}"[:1500])
            return
        self.seen[name] += 1
        several = isinstance(expected, list | tuple)
        if several != isinstance(found, list | tuple) or (several and len(found) != len(expected)):
            self.wrong.append(f"{told}: another number of outputs")
            return
        arrays = [x for x in tree_leaves(given) if isinstance(x, np.ndarray)]
        tied = name in TIES and np.unique(arrays[0]).size < arrays[0].size
        double = any(x.dtype in (np.float64, np.complex128) for x in arrays)
        for i, (x, y) in enumerate(zip(found, expected, strict=True) if several else [(found, expected)]):
            if i and tied:
                continue
            if x is None or y is None:
                wrong = "" if x is y is None or y is None else "None"
            elif tuple(x.shape) != tuple(y.shape):
                wrong = f"the shape {tuple(x.shape)} where torch has {tuple(y.shape)}"
            elif x.dtype == np.float64 and y.dtype == torch.float32 and not double:
                wrong = "been computed in double precision"
            else:
                wrong = "" if name in FREE else difference(np.abs(x), y.abs()) if name in SIGNS else difference(x, y)
            if wrong:
                self.wrong.append(f"{told}: output {i} has {wrong}")
                return

    def _evaluated(self, name: str, row: Callable[..., Any], given: Any) -> Any:
        """The row as it is compiled: arrays are unknown, all else is known."""
        leaves, structure = tree_flatten(given)
        arrays = [x for x in leaves if isinstance(x, np.ndarray)]
        key = str((name, structure, [(x.shape, str(x.dtype)) if isinstance(x, np.ndarray) else x for x in leaves]))

        def function(*arrays: Any) -> Any:
            rest = iter(arrays)
            filled = [next(rest) if isinstance(x, np.ndarray) else x for x in leaves]
            args, kwargs = tree_unflatten(filled, structure)
            return row(*args, **kwargs)

        with jax.enable_x64(True):
            if key not in self.functions:
                self.functions[key] = jax.jit(function)
            return jax.tree.map(np.asarray, self.functions[key](*map(jnp.asarray, arrays)))


def difference(found: np.ndarray, expected: Tensor) -> str:
    """How an array differs from a tensor once it has its dtype; nothing where it does not."""
    y = _array(expected)
    with np.errstate(all="ignore"):
        x = found.astype(y.dtype)
    if y.dtype.kind in "iub":
        return "" if np.array_equal(x, y) else f"{x} where torch has {y}"
    tolerance = TOLERANCE.get(expected.dtype, 1e-4)
    kind = np.complex128 if y.dtype.kind == "c" else np.float64
    x, y = x.astype(kind), y.astype(kind)
    scale = max(1.0, float(np.max(np.abs(y), initial=0, where=np.isfinite(y))))
    if np.allclose(x, y, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
        return ""
    with np.errstate(all="ignore"):
        bad = ~np.isclose(x, y, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    return f"{x[bad][:5]} where torch has {y[bad][:5]}"


def _array(x: Tensor) -> np.ndarray:
    x = x.detach().resolve_conj().resolve_neg()
    if x._is_zerotensor():
        x = torch.zeros_like(x) + torch.zeros(x.shape, dtype=x.dtype)
    if x.dtype == torch.bfloat16:
        return x.contiguous().view(torch.int16).numpy().copy().view(ml_dtypes.bfloat16)
    return x.numpy().copy()


def _short(x: Any) -> Any:
    return f"{x.dtype}{list(x.shape)}" if isinstance(x, np.ndarray) else x
