"""`Compared`, a mode that sees every operation of torch and compares the rows of the table with it."""

import warnings
from collections import Counter
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from ppl_models.inference.pyro.engine.xla.aten import CONTIGUOUS, TABLE

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


TOGETHER = 64  # calls that are compiled as one function: most of the time goes into the first row of one


class Call(NamedTuple):
    """What torch was asked, and what it said: dtypes and arrays."""

    name: str
    where: str
    given: Any
    expected: Any

    @property
    def arrays(self) -> list[np.ndarray]:
        return [x for x in tree_leaves(self.given) if isinstance(x, np.ndarray)]


class Compared(TorchDispatchMode):
    """Evaluates the row of each operation that has one, and remembers where it differs.

    Args:
        most: how often a row is looked at, for what is given to it anew.
    """

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.most = most
        self.waiting: list[Call] = []
        self.seen: Counter[str] = Counter()
        self.without: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.where = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, str(func)
        if name not in TABLE or (self.most is not None and self.seen[name] >= self.most):
            self.without[name] += name not in TABLE
            return func(*args, **kwargs)
        given = tree_map(lambda x: _array(x) if isinstance(x, Tensor) else x, (args, kwargs))
        pieces = all(x.is_contiguous() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
        found = func(*args, **kwargs)
        if name not in CONTIGUOUS or pieces:
            self.seen[name] += 1
            expected = tree_map(lambda x: (x.dtype, _array(x)) if isinstance(x, Tensor) else x, found)
            self.waiting.append(Call(name, self.where, given, expected))
            if len(self.waiting) == TOGETHER:
                self.settle()
        return found

    def settle(self) -> None:
        """Compile the rows of the calls that wait as one function, and compare what it gives."""
        calls, self.waiting = self.waiting, []
        refused: dict[int, Exception] = {}

        def function(arrays: list[list[Any]]) -> list[Any]:
            found = []
            for i, (call, each) in enumerate(zip(calls, arrays, strict=True)):
                leaves, structure = tree_flatten(call.given)
                rest = iter(each)
                args, kwargs = tree_unflatten(
                    [next(rest) if isinstance(x, np.ndarray) else x for x in leaves], structure
                )
                try:
                    found.append(TABLE[call.name](*args, **kwargs))
                except Exception as error:  # noqa: BLE001 (all of them are told)
                    refused[i] = error
                    found.append(None)
            return found

        with jax.enable_x64(True):
            found = jax.tree.map(np.asarray, jax.jit(function)([call.arrays for call in calls]))
        for i, call in enumerate(calls):
            if isinstance(refused.get(i), NotImplementedError):
                self.seen[call.name] -= 1
                self.refused[f"{call.name}: {refused[i]}"] += 1
                continue
            wrong = f"raised {refused[i]!r}" if i in refused else self._wrong(call, found[i])
            if wrong:
                told = tree_map(lambda x: f"{x.dtype}{list(x.shape)}" if isinstance(x, np.ndarray) else x, call.given)
                self.wrong.append(f"{call.where}: {call.name} of {told} {wrong}"[:1500])

    def _wrong(self, call: "Call", found: Any) -> str:
        several = isinstance(call.expected, list) or (
            isinstance(call.expected, tuple) and not isinstance(call.expected[0], torch.dtype)
        )
        if several != isinstance(found, list | tuple) or (several and len(found) != len(call.expected)):
            return "gives another number of outputs"
        arrays = call.arrays
        tied = call.name in TIES and np.unique(arrays[0]).size < arrays[0].size
        double = any(x.dtype in (np.float64, np.complex128) for x in arrays)
        for i, (x, y) in enumerate(zip(found, call.expected, strict=True) if several else [(found, call.expected)]):
            if x is None or y is None:
                wrong = "gives nothing" if y is not None else ""
            elif i and tied:
                wrong = ""
            elif x.shape != y[1].shape:
                wrong = f"gives the shape {x.shape} where torch has {y[1].shape}"
            elif x.dtype == np.float64 and y[0] == torch.float32 and not double:
                wrong = "is computed in double precision"
            elif call.name in SIGNS:
                wrong = difference(np.abs(x), y[0], np.abs(y[1]))
            else:
                wrong = "" if call.name in FREE else difference(x, *y)
            if wrong:
                return f"output {i} {wrong}"
        return ""


def difference(x: np.ndarray, dtype: torch.dtype, y: np.ndarray) -> str:
    """How an array differs from torch's once it has its dtype; nothing where it does not."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = x.astype(y.dtype)
    if y.dtype.kind in "iub":
        return "" if np.array_equal(x, y) else f"is {x} where torch has {y}"
    tolerance = TOLERANCE.get(dtype, 1e-4)
    kind = np.complex128 if y.dtype.kind == "c" else np.float64
    x, y = x.astype(kind), y.astype(kind)
    scale = max(1.0, float(np.max(np.abs(y), initial=0, where=np.isfinite(y))))
    with np.errstate(all="ignore"):
        close = np.isclose(x, y, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    return "" if close.all() else f"has {x[~close][:5]} where torch has {y[~close][:5]}"


def _array(x: Tensor) -> np.ndarray:
    x = x.detach().resolve_conj().resolve_neg()
    if x._is_zerotensor():
        x = torch.zeros_like(x) + torch.zeros(x.shape, dtype=x.dtype)
    if x.dtype == torch.bfloat16:
        return x.contiguous().view(torch.int16).numpy().copy().view(ml_dtypes.bfloat16)
    return x.numpy().copy()
