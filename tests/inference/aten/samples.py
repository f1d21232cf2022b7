"""`of_torch`, `with_extremes` and `by_hand`: calls of torch whose operations the rows of the table are compared on."""

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
        if dtype not in op.dtypes:
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
        if op.name.startswith(NOT_OF_EXTREMES):
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


def by_hand() -> Iterator[Sample]:
    """Calls of operations, or of arguments of them, that torch's own samples leave out."""
    a = torch.ops.aten
    one, x, images = torch.rand(6).double(), torch.randn(4, 6).double(), torch.randn(2, 4, 5, 6).double()
    whole, mask = torch.randint(-5, 6, (4, 6)), torch.rand(4, 6) > 0.5
    volume, index, where = torch.randn(2, 3, 4, 5, 6).double(), torch.randint(0, 4, (2, 6)), torch.tensor([2, 0, 3])
    zero, narrow, empty = torch.tensor(2.5).double(), torch.randn(3).float(), torch.empty(0).double()
    calls: dict[str, Callable[[], Any]] = {
        "factor of a Cholesky solve": lambda: a._cholesky_solve_helper(x[:4, :4], x[:4, :4].tril(), False),
        "Euclidean distances": lambda: a._euclidean_dist(x, x.flip(1)),
        "batch norm without moments": lambda: a._native_batch_norm_legit.no_stats(images, None, None, True, 0.1, 1e-5),
        "batch norm with moments": lambda: a._native_batch_norm_legit_functional(
            images, one[:4], one[:4], one[:4], one[:4] + 1, True, 0.1, 1e-5
        ),
        "batch norm of another time": lambda: a._native_batch_norm_legit_functional(
            images, one[:4], None, one[:4], one[:4] + 1, False, 0.1, 1e-5
        ),
        "alias of a shape": lambda: a._reshape_alias(x, [6, 4], [4, 1]),
        "unsafe index": lambda: a._unsafe_index(x, [None, where]),
        "unsafe put": lambda: a._unsafe_index_put(x, [where, where], zero, True),
        "put twice": lambda: a.index_put(x, [torch.tensor([1, 1, -1])], torch.ones(3, 6).double(), True),
        "put apart": lambda: a.index_put(images, [where[1:2], None, where], torch.ones(3, 4, 6).double()),
        "put where a mask is": lambda: a.index_put(x, [mask], zero),
        "put where a mask of rows is": lambda: a.index_put(x, [mask[:, 0]], zero, True),
        "index apart": lambda: a.index(images, [where[1:2], None, torch.tensor([-1, 2])]),
        "exact, 3d": lambda: with_gradient(a._upsample_nearest_exact3d, (_leaf(volume), [7, 10, 3]), {}),
        "weight norm": lambda: with_gradient(
            a._weight_norm_interface, (_leaf(images), _leaf(images[:, :1, :1, :1])), {}
        ),
        "weight norm, backward": lambda: a._weight_norm_interface_backward(x, x, x[:, :1].clone(), x[:, :1].exp(), 0),
        "bits, all kinds": lambda: [
            f(*y)
            for f in (a.bitwise_and, a.bitwise_or, a.bitwise_xor)
            for y in ((whole, whole + 1), (whole, 3), (3, whole), (mask, ~mask), (mask, whole))
        ],
        "shifts": lambda: [
            f(whole, y) for f in (a.bitwise_left_shift, a.bitwise_right_shift) for y in (whole.abs(), 2)
        ],
        "bucket of a number": lambda: a.bucketize.Scalar(0.5, one.sort()[0]),
        "place of a number": lambda: a.searchsorted.Scalar(one.sort()[0], 0.5, right=True),
        "greatest": lambda: a.clamp_max(x, 0.3),
        "copies": lambda: (a.copy(x, one), a.fill(x, zero), a.detach_copy(x), a.lift(x), a.lift_fresh_copy(x)),
        "sign of a number": lambda: a.copysign.Scalar(x, -2.0),
        "quotients by numbers": lambda: [
            f(y, by)
            for y in (x, whole)
            for by in (2, -1.5, 3)
            for f in (
                a.floor_divide.Scalar,
                a.fmod.Scalar,
                a.remainder.Scalar,
                a.div.Scalar,
                lambda y, by: a.div.Scalar_mode(y, by, rounding_mode="floor"),
                lambda y, by: a.div.Tensor_mode(y, by, rounding_mode="trunc"),
            )
        ],
        "quotients by integers": lambda: [
            f(whole, by, **mode)
            for by in (whole.abs() + 1, -whole.abs() - 1)
            for f, mode in (
                (a.div, {"rounding_mode": "floor"}),
                (a.div, {"rounding_mode": "trunc"}),
                (a.remainder, {}),
                (a.fmod, {}),
                (a.floor_divide, {}),
            )
        ],
        "rest of a number": lambda: a.remainder.Scalar_Tensor(5, whole.abs() + 1),
        "divisors": lambda: (a.gcd(whole, whole + 6), a.lcm(whole, whole + 6)),
        "powers": lambda: [a.pow(y, e) for y in (x.abs(), whole.abs()) for e in (0, 1, 2, 3, 0.5, 2.0, 7)],
        "inverse powers": lambda: [a.pow(x, e) for e in (-1, -2, -0.5, -3.7)],
        "neither wide nor narrow": lambda: [f(narrow, zero) for f in (a.add, a.mul, a.div, a.maximum, a.pow)],
        "scaled sums": lambda: [f(y, 2, alpha=3) for f in (a.add, a.sub, a.rsub) for y in (x, whole, whole.int())],
        "sums of what is": lambda: [f(mask, *d) for f in (a.sum, a.cumsum) for d in ((), (1,)) if d or f is a.sum],
        "members": lambda: (a.isin.Scalar_Tensor(2, whole), a.isin.Tensor_Scalar(whole, 2)),
        "shuffled channels": lambda: a.native_channel_shuffle(images, 2),
        "old norms": lambda: (
            a.norm.Scalar(x, 3),
            a.norm.ScalarOpt_dim_dtype(narrow, 2, [0], True, dtype=torch.float64),
        ),
        "margins, 3d": lambda: [
            with_gradient(f, (_leaf(volume), [1, 2, 0, 1, 1, 0]), {}) for f in (a.reflection_pad3d, a.replication_pad3d)
        ],
        "scatters": lambda: (
            [a.scatter.reduce(x, 0, index, x, reduce=how) for how in ("add", "multiply")]
            + [a.scatter.value_reduce(x, 0, index, 2.0, reduce="multiply")]
        ),
        "copied views": lambda: (
            a.select_copy(x, 1, -2),
            a.slice_copy(x, -1, -4, -1, 2),
            a.split_copy.Tensor(x, 4, -1),
            a.squeeze_copy.dims(x[:, :1], [1]),
            a.view_as_real_copy(torch.view_as_complex(x.view(4, 3, 2))),
            a.view_as_complex_copy(x.view(4, 3, 2)),
            a.unsafe_split_with_sizes(x, [1, 5], -1),
        ),
        "bits of numbers": lambda: a.view.dtype(narrow, torch.int32),
        "numbers first or last": lambda: [
            f(*y)
            for f in (a.special_xlog1py, a.xlogy, a.special_zeta)
            for y in ((one + 2, 1.5), (2.5, one + 1), (one + 1.5, one + 1))
        ],
        "triangles": lambda: (a.tril_indices(3, 5, 1, device="cpu"), a.triu_indices(4, 2, -1, device="cpu")),
        "columns": lambda: with_gradient(a.im2col, (_leaf(images), [2, 3], [1, 2], [1, 0], [2, 1]), {}),
        "reflections": lambda: a.geqrf(x),
        "attention": lambda: [
            with_gradient(
                torch.nn.functional.scaled_dot_product_attention,
                [_leaf(y) for y in (images, images.flip(0), images.exp())],
                {"is_causal": causal, "attn_mask": None if causal else torch.rand(5, 5).double()},
            )
            for causal in (True, False)
        ],
        "empty ones": lambda: [
            *(f(empty) for f in (a.sum, a.mean, a.prod, a.cumsum, a.exp, a.sort) if f is not a.cumsum),
            a.cumsum(empty, 0),
            a.logsumexp(x[:0], [0]),
            a.cat([empty, one]),
            a.mm(x[:, :0], x[:0]),
            a.amax(x[:0], [1]),
            a.gather(x, 0, index[:0]),
        ],
        "softplus far out": lambda: with_gradient(a.softplus, (_leaf(x * 40), 2, 10), {}),
        "logits": lambda: (a.logit(one, 0.3), a.logit_backward(x, one - 0.1, 0.3), a.logit_backward(x, one * 3, None)),
        "pools that end outside": lambda: [
            with_gradient(a.avg_pool2d, (_leaf(images), [3, 2], [2, 2], [1, 1], True, count, divisor), {})
            for count, divisor in ((True, None), (False, None), (True, 5))
        ],
        "convolutions": lambda: [
            with_gradient(
                a.convolution,
                (_leaf(images), _leaf(torch.randn(4, 2, 3, 2).double()), None, *settings, 2),
                {},
            )
            for settings in (
                ([2, 1], [1, 0], [1, 2], False, [0, 0]),
                ([2, 3], [1, 0], [1, 2], True, [1, 2]),
                ([1], [2], [1], True, [0]),
            )
        ],
    }
    yield from calls.items()


def _leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_()
