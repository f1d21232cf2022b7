"""`everyday` and `by_hand`: what is asked of torch all the time, and what its own samples leave out."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from tests.inference.aten.samples import Sample, with_gradient


def everyday() -> Iterator[Sample]:
    """What the pairs of the collection ask of torch, forward and backward."""
    f, x, one = torch.nn.functional, torch.randn(3, 4, 6).double(), torch.rand(4, 6).double()
    matrix, vector, image = torch.randn(6, 5).double(), torch.randn(6).double(), torch.randn(2, 3, 6, 6).double()
    calls: dict[str, tuple[Any, ...]] = {
        "arithmetic": (lambda x, y: (x + y) * 2 - y / (x.abs() + 1) + (3 - x) / 2 + (-y).neg(), x, one),
        "one by one": (lambda x: x.exp().log().log1p().sqrt().rsqrt().reciprocal().abs().clamp(0.1, 0.9).square(), one),
        "powers": (lambda x: x**2 + x**3 + x**-1 + x**0.5 + 2**x, one),
        "activations": (
            lambda x: [
                g(x)
                for g in (f.silu, f.softplus, torch.sigmoid, torch.tanh, f.relu, f.elu, f.leaky_relu, f.gelu, f.mish)
            ],
            x,
        ),
        "more activations": (lambda x: (f.logsigmoid(x), f.hardtanh(x), f.gelu(x, approximate="tanh"), f.glu(x)), x),
        "sums": (lambda x: [x.sum(), x.sum((0, -1)), x.mean(-2, keepdim=True), x.logsumexp(-1), x.cumsum(-1)], x),
        "extremes": (lambda x: [x.amax(-1), x.amin((0, 1), keepdim=True), *x.max(1), *x.min(-1, keepdim=True)], x),
        "moments": (lambda x: [x.var(-1), x.std((0, 1), correction=0), *torch.var_mean(x, 1, keepdim=True)], x),
        "between": (lambda x, y: [torch.maximum(x, y), torch.minimum(x, y), torch.logaddexp(x, y)], x, one),
        "softmax": (lambda x: [x.softmax(-1), x.log_softmax(1)], x),
        "views": (
            lambda x: [
                *x.unbind(-1),
                *x.split(4, -1),
                *x.split([1, 5], 2),
                x[:, 1:-1:2],
                x[..., -1],
                x[None].expand(2, -1, -1, -1),
                x.permute(2, 0, 1).reshape(6, 12),
                x.transpose(0, -1).repeat(1, 2, 1),
                x[:1].squeeze(0).unsqueeze(-1),
                x.diagonal(1, 0, 2),
                torch.cat([x, x[:, :2]], -2),
                torch.stack([x, x * 2], -1),
            ],
            x,
        ),
        "products": (
            lambda x, w, b: [f.linear(x, w.t(), w[0]), x @ w, w.t() @ b, torch.bmm(x, x.mT)],
            x,
            matrix,
            vector,
        ),
        "layer norm": (lambda x, w, b: [f.layer_norm(x, [6], w, b), f.layer_norm(x, [4, 6])], x, vector, vector.exp()),
        "group norm": (lambda x: f.group_norm(x, 2), x),
        "batch norm": (lambda x: f.batch_norm(x, None, None, training=True), image),
        "convolution": (lambda x, w: f.conv2d(x, w, padding=1, stride=2), image, torch.randn(4, 3, 3, 3).double()),
        "pads and pools": (
            lambda x: [f.pad(x, (1, -1)), f.max_pool2d(x, 2), f.avg_pool2d(x, 2), f.interpolate(x, 9)],
            image,
        ),
        "losses": (
            lambda x, y: [
                f.binary_cross_entropy_with_logits(x, y.expand_as(x), reduction="none"),
                f.binary_cross_entropy(x.sigmoid(), y.expand_as(x)),
                f.mse_loss(x, y.expand_as(x)),
                f.huber_loss(x, y.expand_as(x), reduction="sum"),
                f.cross_entropy(x, torch.tensor([[0, 1, 2, 3, -100, 0]] * 3)),
            ],
            x,
            one,
        ),
        "choices": (lambda x: [x.where(x > 0, 0.1), x.masked_fill(x == 0, 2.0), x.gather(1, (x > 0).long())], x),
        "places": (lambda x: [x[:, [0, 2, 2]], x.index_select(2, torch.tensor([1, 1])), *x.sort(-1), *x.topk(2)], x),
        "rows of a table": (lambda w: f.embedding(torch.tensor([[0, 2], [2, 5]]), w), matrix),
        "special functions": (
            lambda x: [
                g(x) for g in (torch.lgamma, torch.digamma, torch.erf, torch.erfc, torch.logit, torch.special.ndtri)
            ],
            one,
        ),
        "factors": (
            lambda x: [
                torch.linalg.cholesky(x @ x.mT + torch.eye(4)),
                torch.linalg.solve_triangular((x @ x.mT + torch.eye(4)).tril(), x, upper=False),
                *torch.linalg.slogdet(x @ x.mT),
                torch.linalg.inv(x @ x.mT),
            ],
            x,
        ),
        "logic": (lambda x: [(x < 1) & (x != 0) | ~(x >= 0.5), x.isnan(), x.argmax(-1), x.argmin(), (x > 0).any(1)], x),
        "made": (
            lambda x: [
                *(torch.zeros_like(x), torch.ones_like(x), torch.full_like(x, 2), x.new_zeros(3), x.new_ones(2)),
                *(torch.arange(5), torch.arange(1, 2, 0.3), torch.linspace(0, 1, 5), torch.eye(3), torch.ones(2, 3)),
                *(torch.full((2,), 3), x.float(), x.bool(), x.long(), torch.tensor(2.0), x.tril(), x.triu(1)),
            ],
            x,
        ),
    }
    for name, (call, *given) in calls.items():
        yield name, lambda call=call, given=given: with_gradient(call, [_leaf(y) for y in given], {})


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
