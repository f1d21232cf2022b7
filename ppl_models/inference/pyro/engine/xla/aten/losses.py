"""`ROWS` of losses, with their gradients; their `reduction` is 0 for none, 1 for the mean, 2 for the sum."""

import jax
import jax.numpy as jnp
from jax import Array

from .rows import named

MEAN, SUM = 1, 2


def _reduced(loss: Array, reduction: int) -> Array:
    return jnp.mean(loss) if reduction == MEAN else jnp.sum(loss) if reduction == SUM else loss


def _weighed(gradient: Array, slope: Array, reduction: int) -> Array:
    """The gradient of a reduced loss from its slopes."""
    return gradient * slope / (slope.size if reduction == MEAN else 1)


def _huber(x: Array, target: Array, reduction: int = MEAN, delta: float = 1.0) -> Array:
    z = jnp.abs(x - target)
    return _reduced(jnp.where(z < delta, 0.5 * z * z, delta * (z - 0.5 * delta)), reduction)


def _huber_backward(gradient: Array, x: Array, target: Array, reduction: int, delta: float) -> Array:
    return _weighed(gradient, jnp.clip(x - target, -delta, delta), reduction)


def _smooth_l1(x: Array, target: Array, reduction: int = MEAN, beta: float = 1.0) -> Array:
    z = jnp.abs(x - target)
    return _reduced(jnp.where(z < beta, 0.5 * z * z / beta, z - 0.5 * beta) if beta else z, reduction)


def _smooth_l1_backward(gradient: Array, x: Array, target: Array, reduction: int, beta: float) -> Array:
    z = x - target
    return _weighed(gradient, jnp.clip(z / beta, -1, 1) if beta else jnp.sign(z), reduction)


def _binary_cross_entropy(x: Array, target: Array, weight: Array | None = None, reduction: int = MEAN) -> Array:
    loss = (target - 1) * jnp.maximum(jnp.log1p(-x), -100) - target * jnp.maximum(jnp.log(x), -100)
    return _reduced(loss if weight is None else loss * weight, reduction)


def _binary_cross_entropy_backward(
    gradient: Array, x: Array, target: Array, weight: Array | None = None, reduction: int = MEAN
) -> Array:
    slope = (x - target) / jnp.maximum((1 - x) * x, 1e-12)
    return _weighed(gradient, slope if weight is None else slope * weight, reduction)


def _with_logits(
    x: Array, target: Array, weight: Array | None = None, pos_weight: Array | None = None, reduction: int = MEAN
) -> Array:
    log_sigmoid = jnp.minimum(x, 0) - jnp.log1p(jnp.exp(-jnp.abs(x)))
    loss = (1 - target) * x - (log_sigmoid if pos_weight is None else ((pos_weight - 1) * target + 1) * log_sigmoid)
    return _reduced(loss if weight is None else loss * weight, reduction)


def _soft_margin_backward(gradient: Array, x: Array, target: Array, reduction: int) -> Array:
    return _weighed(gradient, -target * jax.nn.sigmoid(-target * x), reduction)


def _class_weights(x: Array, target: Array, weight: Array | None, ignored: int, dim: int) -> tuple[Array, Array]:
    """Targets where there are any, and the weights of their classes."""
    counts = target != ignored
    target = jnp.where(counts, target, 0)
    each = jnp.ones((), x.dtype) if weight is None else weight[target]
    return target, jnp.where(counts, each, 0).astype(x.dtype)


def _likelihood(x: Array, target: Array, weight: Array | None, reduction: int, ignored: int) -> tuple[Array, Array]:
    dim = 0 if x.ndim == 1 else 1
    target, each = _class_weights(x, target, weight, ignored, dim)
    loss = -jnp.squeeze(jnp.take_along_axis(x, jnp.expand_dims(target, dim), dim), dim) * each
    if reduction not in (MEAN, SUM):
        return loss, jnp.zeros((), x.dtype)
    total = jnp.sum(each)
    return jnp.sum(loss) / (total if reduction == MEAN else 1), total


def _likelihood_backward(
    gradient: Array, x: Array, target: Array, weight: Array | None, reduction: int, ignored: int, total: Array
) -> Array:
    dim = 0 if x.ndim == 1 else 1
    target, each = _class_weights(x, target, weight, ignored, dim)
    found = -gradient * each / (total if reduction == MEAN else 1)
    return jax.nn.one_hot(target, x.shape[dim], dtype=x.dtype, axis=dim) * jnp.expand_dims(found, dim)


ROWS = named(
    {
        "mse_loss": lambda x, target, reduction=MEAN: _reduced(jnp.square(x - target), reduction),
        "mse_loss_backward": lambda gradient, x, target, reduction: _weighed(gradient, 2 * (x - target), reduction),
        "huber_loss": _huber,
        "huber_loss_backward": _huber_backward,
        "smooth_l1_loss": _smooth_l1,
        "smooth_l1_loss_backward": _smooth_l1_backward,
        "binary_cross_entropy": _binary_cross_entropy,
        "binary_cross_entropy_backward": _binary_cross_entropy_backward,
        "binary_cross_entropy_with_logits": _with_logits,
        "soft_margin_loss": lambda x, target, reduction=MEAN: _reduced(jnp.log1p(jnp.exp(-target * x)), reduction),
        "soft_margin_loss_backward": _soft_margin_backward,
        "nll_loss_forward nll_loss2d_forward": _likelihood,
        "nll_loss_backward nll_loss2d_backward": _likelihood_backward,
    }
)
