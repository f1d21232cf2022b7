"""`MonotonicSpline`: a monotone spline as a NumPyro transform."""

from math import log
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.nn import softmax
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform
from numpyro.distributions.util import array_equiv


class MonotonicSpline(Transform):
    """A monotone rational-quadratic spline from [-bound, bound] to itself, and the identity elsewhere; elementwise.

    In bin k, with s = (y_{k+1} - y_k) / (x_{k+1} - x_k), t = (x - x_k) / (x_{k+1} - x_k) and slopes d at the knots:

        y = y_k + (y_{k+1} - y_k) (s t^2 + d_k t (1 - t)) / (s + (d_k + d_{k+1} - 2 s) t (1 - t))

    The numbers are unconstrained and mean what they mean to `zuko.transforms.MonotonicRQSTransform`; all zero they make
    the identity.

    Args:
        widths, heights: of the bins, (*batch, bins).
        derivatives: log slopes at the inner knots, (*batch, bins - 1); those at the ends are zero.
        bound: where the spline ends.
        slope: the least that a slope can be.

    Source: Durkan et al. 2019 (arXiv 1906.04032), eq. 4 to 8.
    """

    domain = constraints.real
    codomain = constraints.real
    sign = 1

    def __init__(
        self, widths: Array, heights: Array, derivatives: Array, bound: float = 5.0, slope: float = 1e-3
    ) -> None:
        edge = [(0, 0)] * (widths.ndim - 1)

        def knots(sizes: Array) -> Array:
            sizes = softmax(sizes / (1 + abs(2 * sizes / log(slope))), -1)
            return bound * (2 * jnp.cumsum(jnp.pad(sizes, [*edge, (1, 0)]), -1) - 1)

        self.horizontal, self.vertical = knots(widths), knots(heights)
        derivatives = derivatives / (1 + abs(derivatives / log(slope)))
        self.slopes = jnp.exp(jnp.pad(derivatives, [*edge, (1, 1)]))

    def __call__(self, x: Array) -> Array:
        """y of x, both of one shape."""
        return self.call_with_intermediates(x)[0]

    def call_with_intermediates(self, x: Array) -> tuple[Array, Array]:
        """y, and log dy/dx."""
        inside, x0, x1, y0, y1, d0, d1, s = self._bin(self.horizontal, x)
        t = inside * (x - x0) / (x1 - x0)
        below = s + (d0 + d1 - 2 * s) * t * (1 - t)
        y = y0 + (y1 - y0) * (s * t**2 + d0 * t * (1 - t)) / below
        slope = s**2 * (2 * s * t * (1 - t) + d0 * (1 - t) ** 2 + d1 * t**2) / below**2
        return jnp.where(inside, y, x), inside * jnp.log(slope)

    def _inverse(self, y: Array) -> Array:
        inside, x0, x1, y0, y1, d0, d1, s = self._bin(self.vertical, y)
        rise = inside * (y - y0)
        a = (y1 - y0) * (s - d0) + rise * (d0 + d1 - 2 * s)
        b = (y1 - y0) * d0 - rise * (d0 + d1 - 2 * s)
        c = -s * rise
        t = 2 * c / (-b - jnp.sqrt(b**2 - 4 * a * c))
        return jnp.where(inside, x0 + t * (x1 - x0), y)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Any = None) -> Array:
        """log dy/dx, of the shape of x."""
        return self.call_with_intermediates(x)[1] if intermediates is None else intermediates

    def _bin(self, knots: Array, value: Array) -> tuple[Array, ...]:
        """Whether a value is between the first and the last of `knots`; and the ends, slopes and rise of its bin."""
        bins = knots.shape[-1] - 1
        k = (knots < value[..., None]).sum(-1) - 1
        inside = (k >= 0) & (k < bins)
        k = k % bins
        shape = (*k.shape, bins + 1)
        ends = [
            jnp.take_along_axis(jnp.broadcast_to(of, shape), (k + step)[..., None], -1)[..., 0]
            for of in (self.horizontal, self.vertical, self.slopes)
            for step in (0, 1)
        ]
        x0, x1, y0, y1, *_ = ends
        return inside, *ends, (y1 - y0) / (x1 - x0)

    def tree_flatten(self) -> tuple[tuple[Array, ...], tuple[tuple[str, ...], dict[str, Any]]]:
        """The knots and the slopes at them."""
        return (self.horizontal, self.vertical, self.slopes), (("horizontal", "vertical", "slopes"), {})

    def eq(self, other: object, static: bool = False) -> bool | Array:
        """Whether both are known to be one map; with `static` from the identities of arrays alone."""
        if not isinstance(other, MonotonicSpline):
            return False
        names = ("horizontal", "vertical", "slopes")
        equal = [array_equiv(getattr(self, name), getattr(other, name), static=static) for name in names]
        return equal[0] & equal[1] & equal[2]
