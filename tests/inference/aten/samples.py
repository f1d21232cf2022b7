"""`of_torch` and `with_extremes`: calls of torch, whose operations the rows of the table are compared on."""

import sys
import types
import unittest
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

Sample = tuple[str, Callable[[], Any]]

# matrices that cannot be factorized; and what is multiplied by a matrix here, which spreads what is no number
NOT_OF_EXTREMES = (
    *("linalg", "cholesky", "geqrf", "lu", "ormqr", "pinverse", "qr", "svd", "logdet", "matrix_exp", "triangular"),
    *("fft", "nn.functional.interpolate", "nn.functional.upsample", "nn.functional.adaptive_avg"),
    # what overflows, is multiplied by zero, or forgets what is no number: either library has its own mind there
    *("byte", "char", "int", "long", "short", "native_dropout_backward", "igamma", "special.zeta"),
)
NOT_OF_HALVES = ("matrix_exp", "nn.functional.grid_sample", "grid_sampler")  # torch's own are far from right
NOT_OF_COMPLEX = ("pinverse",)  # of what has no inverse, where rounding decides
EXTREMES = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 30.0, -1e3, 1e-30, 1e30]


def database() -> list[Any]:
    """Torch's own operations with samples of arguments."""
    # of the runner of torch's own tests, which need not be installed, only the name is read
    sys.modules.setdefault("expecttest", types.SimpleNamespace(TestCase=unittest.TestCase))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    return [op for op in op_db if "jiterator" not in op.name and "sparse" not in op.name]


def with_gradient(function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    """Run a function, and its gradient where it has one."""
    out = function(*args, **kwargs)
    outputs = [x for x in tree_leaves(out) if isinstance(x, Tensor) and x.requires_grad]
    inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.requires_grad]
    if outputs and inputs:
        torch.autograd.grad(outputs, inputs, [torch.ones_like(x) * 0.7 for x in outputs], allow_unused=True)


def of_torch(dtype: torch.dtype, most: int) -> Iterator[Sample]:
    """So many of torch's own samples of every operation."""
    for op in database():
        rough = NOT_OF_HALVES if dtype.itemsize == 2 else NOT_OF_COMPLEX if dtype.is_complex else ()
        if dtype not in op.dtypes or op.name.startswith(rough):
            continue
        gradient = op.supports_autograd and dtype.is_floating_point
        for i, sample in enumerate(islice(op.sample_inputs("cpu", dtype, requires_grad=gradient), most)):
            args = (op, (sample.input, *sample.args), sample.kwargs)
            yield f"{op.full_name}, {i}", lambda args=args: with_gradient(*args)


def with_extremes(dtype: torch.dtype) -> Iterator[Sample]:
    """What takes numbers one by one or reduces them, on what is no number, infinite, signed zeros and the like."""
    operations = database()
    from torch.testing._internal.opinfo.core import BinaryUfuncInfo, ReductionOpInfo, UnaryUfuncInfo

    values = torch.tensor(EXTREMES, dtype=dtype)
    spread = values.repeat(3, 1)
    spread[1, :3], spread[2, 0] = 1, 2
    for op in operations:
        # a deviation in single precision: torch sums its squares in double precision, and does not overflow
        if op.name.startswith(NOT_OF_EXTREMES) or (dtype == torch.float32 and op.name == "std"):
            continue
        if dtype not in op.dtypes:
            continue
        if isinstance(op, BinaryUfuncInfo):
            args = (values[:, None], values)
        elif isinstance(op, UnaryUfuncInfo):
            args = (values,)
        elif isinstance(op, ReductionOpInfo):
            args = (spread, 1)
        else:
            # whatever else there is, on a sample some of whose entries are replaced
            sample = next(iter(op.sample_inputs("cpu", dtype)), None)
            if sample is None or not isinstance(sample.input, Tensor) or sample.input.dtype != dtype:
                continue
            found = sample.input.detach().clone(memory_format=torch.contiguous_format)
            found.view(-1)[: len(EXTREMES)] = values[: found.numel()]
            yield f"{op.full_name} of extremes", lambda op=op, x=found, s=sample: op(x, *s.args, **s.kwargs)
            continue
        yield f"{op.full_name} of extremes", lambda op=op, args=args: op(*args)
