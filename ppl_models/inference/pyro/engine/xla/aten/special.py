"""`ROWS` of special functions."""

from functools import partial
from math import gamma, log, pi, sqrt
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy import special

from .rows import Row, alike, as_floating, named


def _float(function: Row) -> Row:
    return lambda *given: function(*[as_floating(x) if isinstance(x, Array) else x for x in alike(*given)])


def _log_times(logarithm: Row) -> Row:
    """Row of `x log(y)`: zero where x is, unless y is no number."""

    def row(x: Any, y: Any) -> Array:
        x, y = alike(x, y)
        product = x * logarithm(as_floating(jnp.asarray(y)))
        return jnp.where(jnp.isnan(y), jnp.nan, jnp.where(x == 0, 0, product))

    return row


def _clamped(x: Array, eps: float | None) -> Array:
    return x if eps is None else jnp.clip(x, eps, 1 - eps)


def _logit(x: Array, eps: float | None = None) -> Array:
    x = _clamped(as_floating(x), eps)
    return jnp.log(x / (1 - x))


def _logit_backward(gradient: Array, x: Array, eps: float | None = None) -> Array:
    slope = gradient / (x * (1 - x))
    if eps is None:
        return jnp.where((x < 0) | (x > 1), jnp.nan, slope)
    return jnp.where((x < eps) | (x > 1 - eps), 0, slope)


def _entr(x: Array) -> Array:
    return jnp.where(x > 0, -x * jnp.log(x), jnp.where(x == 0, 0, jnp.where(jnp.isnan(x), x, -jnp.inf)))


def _erfcx(x: Array) -> Array:
    """`exp(x^2) erfc(x)`: beyond what floats hold of either, its series in `1 / x^2`."""
    far = jnp.maximum(x, 1.0)
    near = jnp.exp(jnp.square(x)) * special.erfc(x)
    inverse = 1 / (2 * far * far)
    series = 1 - inverse * (1 - 3 * inverse * (1 - 5 * inverse * (1 - 7 * inverse * (1 - 9 * inverse))))
    return jnp.where(x > (8 if x.dtype == jnp.float32 else 20), series / (far * sqrt(pi)), near)


def _sinc(x: Array) -> Array:
    return jnp.where(x == 0, 1, jnp.sin(pi * x) / jnp.where(x == 0, 1, pi * x))


def _zeta(x: Array, q: Array, steps: int = 16) -> Array:
    """Hurwitz' function; the sum of JAX holds for q above zero, so that its first terms are taken off below that."""
    x, q = jnp.broadcast_arrays(*alike(jnp.asarray(x), jnp.asarray(q)))
    first = sum(jnp.power(q + j, -x) for j in range(steps))
    below = jnp.where(q > -steps, first + special.zeta(x, jnp.maximum(q, -steps) + steps), jnp.nan)
    below = jnp.where(q == jnp.floor(q), jnp.inf, below)
    return jnp.where((q > 0) | (x <= 1), special.zeta(x, jnp.where(q > 0, q, 1)), below)


def _gamma_share(a: Array, x: Array, upper: bool) -> Array:
    """Incomplete gamma functions, regularized.

    The series of JAX takes ever longer with a, and does not end where that is huge: there is Temme's expansion.
    """
    large = a > 1e5
    near_a, near_x = jnp.where(large, 1, a), jnp.where(large, 1, x)
    found = special.gammaincc(near_a, near_x) if upper else special.gammainc(near_a, near_x)
    away = (x - a) / a
    small = jnp.where(jnp.abs(away) < 1e-2, away, 0)
    series = sum((-1) ** k * small**k / k for k in range(2, 9))
    half_square = jnp.where(jnp.abs(away) < 1e-2, series, away - jnp.log(jnp.maximum(x / a, 0)))
    eta = jnp.sign(away) * jnp.sqrt(2 * half_square)
    close = jnp.abs(eta) < 1e-3
    first = jnp.where(close, eta / 12 - 1 / 3, 1 / jnp.where(close, 1, away) - 1 / jnp.where(close, 1, eta))
    rest = jnp.exp(-a * half_square) / jnp.sqrt(2 * pi * a) * first
    side = 1 if upper else -1
    expanded = special.erfc(side * eta * jnp.sqrt(a / 2)) / 2 + side * rest
    found = jnp.where(large & (x >= 0), expanded, jnp.where(large, jnp.nan, found))
    ends = jnp.where(jnp.isinf(a), jnp.where(jnp.isinf(x), jnp.nan, float(upper)), float(not upper))
    known = ((a > 0) & (x >= 0) & (jnp.isinf(a) | jnp.isinf(x))) | ((a == 0) & (x > 0))
    return jnp.where(known, ends, found)


def _digamma(x: Array) -> Array:
    return jnp.where(x == 0, jnp.copysign(jnp.inf, -x), special.digamma(x))


def _polygamma(n: int, x: Array) -> Array:
    if n == 0:
        return _digamma(x)
    sign, right = (-1) ** n, jnp.where(x < 0.5, 1 - x, x)
    found = -sign * gamma(n + 1) * special.zeta(n + 1.0, right)
    # by reflection: a derivative of the cotangent is a polynomial of it
    coefficients = np.polynomial.Polynomial([0.0, 1.0])
    for _ in range(n):
        coefficients = coefficients.deriv() * np.polynomial.Polynomial([-1.0, 0.0, -1.0])
    polynomial = jnp.polyval(jnp.asarray(coefficients.coef[::-1], x.dtype), 1 / jnp.tan(pi * (x - jnp.floor(x))))
    reflected = sign * found - pi ** (n + 1) * polynomial
    at_pole = (x <= 0) & (x == jnp.floor(x))
    return jnp.where(at_pole, -sign * jnp.inf, jnp.where(x < 0.5, reflected, found))


def _mvlgamma(x: Array, p: int) -> Array:
    return sum(special.gammaln(x - 0.5 * j) for j in range(p)) + p * (p - 1) / 4 * log(pi)


ROWS = named(
    {
        "lgamma": _float(special.gammaln),
        "digamma": _float(_digamma),
        "polygamma": lambda n, x: _polygamma(n, as_floating(x)),
        "mvlgamma": lambda x, p: _mvlgamma(as_floating(x), p),
        "erf": _float(special.erf),
        "erfc": _float(special.erfc),
        "erfinv": _float(special.erfinv),
        "special_erfcx": _float(_erfcx),
        "special_ndtri": _float(special.ndtri),
        "special_log_ndtr": _float(special.log_ndtr),
        "special_entr": _float(_entr),
        "igamma": _float(partial(_gamma_share, upper=False)),
        "igammac": _float(partial(_gamma_share, upper=True)),
        "i0 special_modified_bessel_i0": _float(special.i0),
        "special_i0e": _float(special.i0e),
        "special_i1 special_modified_bessel_i1": _float(special.i1),
        "special_i1e": _float(special.i1e),
        "special_zeta special_zeta.self_scalar special_zeta.other_scalar": _float(_zeta),
        "xlogy.Tensor xlogy.Scalar_Self xlogy.Scalar_Other": _log_times(jnp.log),
        "special_xlog1py special_xlog1py.self_scalar special_xlog1py.other_scalar": _log_times(jnp.log1p),
        "sinc": _float(_sinc),
        "logit": _logit,
        "logit_backward": _logit_backward,
    }
)
