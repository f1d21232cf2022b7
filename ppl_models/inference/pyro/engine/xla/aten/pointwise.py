"""`ROWS` of operations that take numbers one by one: arithmetic, comparisons, elementary functions."""

import jax.numpy as jnp
from jax import Array, lax

from .rows import Row, alike, as_floating, floating, named


def _both(function: Row) -> Row:
    return lambda a, b: function(*alike(a, b))


def _float(function: Row) -> Row:
    return lambda x: function(as_floating(x))


def _add(a: Array, b: Array, alpha: complex = 1) -> Array:
    a, b = alike(a, b)
    return a + b if alpha == 1 else a + alpha * b


def _sub(a: Array, b: Array, alpha: complex = 1) -> Array:
    a, b = alike(a, b)
    return a - b if alpha == 1 else a - alpha * b


def _div(a: Array, b: Array, rounding_mode: str | None = None) -> Array:
    a, b = alike(a, b)
    if rounding_mode is None:
        return jnp.true_divide(*[as_floating(x) if isinstance(x, Array) else x for x in (a, b)])
    a, b = _promoted(a, b)
    if rounding_mode == "trunc":
        return jnp.trunc(a / b) if floating(a) else lax.div(a, b)
    if not floating(a):
        return jnp.floor_divide(a, b)
    return jnp.where(b == 0, a / b, jnp.floor_divide(a, b))


def _promoted(a: Array, b: Array) -> tuple[Array, Array]:
    dtype = jnp.result_type(a, b)
    a, b = jnp.broadcast_arrays(jnp.asarray(a, dtype), jnp.asarray(b, dtype))
    return a, b


def _pow(a: Array, b: Array) -> Array:
    a, b = alike(a, b)
    if isinstance(b, float | int) and not isinstance(b, bool) and floating(a):
        if b == 0.5:
            return jnp.sqrt(a)
        if b == -0.5:
            return lax.rsqrt(a)
        if float(b).is_integer() and abs(b) <= 4:
            return lax.integer_pow(a, int(b))
        return jnp.power(a, float(b))
    if jnp.issubdtype(jnp.result_type(a, b), jnp.integer):
        a, b = _promoted(a, b)
        inverse = jnp.where(jnp.abs(a) == 1, jnp.where(b % 2 == 0, 1, a), 0)
        return jnp.where(b < 0, inverse, jnp.power(a, jnp.maximum(b, 0)))
    return jnp.power(a, b)


def _clamp(x: Array, min: Array | None = None, max: Array | None = None) -> Array:
    if min is not None:
        x = jnp.maximum(*alike(x, min))
    return x if max is None else jnp.minimum(*alike(x, max))


def _sign(x: Array) -> Array:
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.where(jnp.isnan(x), 0, jnp.sign(x))
    return x if x.dtype == jnp.bool_ else jnp.sign(x)


def _round(x: Array, decimals: int = 0) -> Array:
    if not floating(x) or decimals == 0:
        return jnp.round(x) if floating(x) else x
    scale = 10.0 ** abs(decimals)
    return jnp.round(x * scale) / scale if decimals > 0 else jnp.round(x / scale) * scale


def _lerp(a: Array, b: Array, weight: Array) -> Array:
    a, b, weight = alike(a, b, weight)
    return jnp.where(jnp.abs(weight) < 0.5, a + weight * (b - a), b - (b - a) * (1 - weight))


def _nan_to_num(x: Array, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Array:
    return jnp.nan_to_num(x, nan=nan or 0.0, posinf=posinf, neginf=neginf) if floating(x) else x


def _heaviside(x: Array, at_zero: Array) -> Array:
    return jnp.where(x == 0, at_zero, jnp.where(x > 0, 1, 0))


def _where(condition: Array, a: Array, b: Array) -> Array:
    return jnp.where(condition.astype(bool), *alike(a, b))


def _addcdiv(x: Array, a: Array, b: Array, value: complex = 1) -> Array:
    x, a, b = alike(x, a, b)
    return x + value * (a / b)


def _addcmul(x: Array, a: Array, b: Array, value: complex = 1) -> Array:
    x, a, b = alike(x, a, b)
    return x + (a * b if value == 1 else value * a * b)


_ARITHMETIC = {
    "add.Tensor add.Scalar": _add,
    "sub.Tensor sub.Scalar": _sub,
    "rsub.Tensor rsub.Scalar": lambda a, b, alpha=1: _sub(b, a, alpha),
    "mul.Tensor mul.Scalar": _both(jnp.multiply),
    "div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode": _div,
    "floor_divide floor_divide.Scalar": lambda a, b: _div(a, b, "floor"),
    "remainder.Tensor remainder.Scalar remainder.Scalar_Tensor": _both(jnp.remainder),
    "fmod.Tensor fmod.Scalar": _both(jnp.fmod),
    "pow.Tensor_Tensor pow.Tensor_Scalar pow.Scalar": _pow,
    "addcmul": _addcmul,
    "addcdiv": _addcdiv,
    "lerp.Scalar lerp.Tensor": _lerp,
    "maximum": _both(jnp.maximum),
    "minimum": _both(jnp.minimum),
    "fmax": _both(jnp.fmax),
    "fmin": _both(jnp.fmin),
    "clamp clamp.Tensor": _clamp,
    "clamp_min clamp_min.Tensor": lambda x, min: _clamp(x, min),
    "clamp_max clamp_max.Tensor": lambda x, max: _clamp(x, None, max),
    "neg": jnp.negative,
    "abs": jnp.abs,
    "sign sgn": _sign,
    "signbit": lambda x: jnp.signbit(x) if floating(x) else x < 0,
    "reciprocal": lambda x: 1 / as_floating(x),
    "gcd": _both(jnp.gcd),
    "lcm": _both(jnp.lcm),
    "hypot": _both(jnp.hypot),
    "copysign.Tensor copysign.Scalar": _both(jnp.copysign),
    "nextafter": jnp.nextafter,
    "ldexp.Tensor": lambda x, exponent: as_floating(x) * 2.0 ** as_floating(exponent),
    "heaviside": _heaviside,
    "nan_to_num": _nan_to_num,
}

_ELEMENTARY = {
    "exp": _float(jnp.exp),
    "exp2": _float(jnp.exp2),
    "expm1": _float(jnp.expm1),
    "log": _float(jnp.log),
    "log2": _float(jnp.log2),
    "log10": _float(jnp.log10),
    "log1p": _float(jnp.log1p),
    "logaddexp": _both(jnp.logaddexp),
    "logaddexp2": _both(jnp.logaddexp2),
    "sqrt": _float(jnp.sqrt),
    "rsqrt": _float(lax.rsqrt),
    "sin": _float(jnp.sin),
    "cos": _float(jnp.cos),
    "tan": _float(jnp.tan),
    "asin": _float(jnp.arcsin),
    "acos": _float(jnp.arccos),
    "atan": _float(jnp.arctan),
    "atan2": _both(jnp.arctan2),
    "sinh": _float(jnp.sinh),
    "cosh": _float(jnp.cosh),
    "tanh": _float(jnp.tanh),
    "asinh": _float(jnp.arcsinh),
    "acosh": _float(jnp.arccosh),
    "atanh": _float(jnp.arctanh),
    "floor": lambda x: jnp.floor(x) if floating(x) else x,
    "ceil": lambda x: jnp.ceil(x) if floating(x) else x,
    "trunc": lambda x: jnp.trunc(x) if floating(x) else x,
    "round round.decimals": _round,
    "frac": lambda x: x - jnp.trunc(x),
    "deg2rad": _float(jnp.deg2rad),
    "rad2deg": _float(jnp.rad2deg),
}

_LOGIC = {
    "eq.Tensor eq.Scalar": _both(jnp.equal),
    "ne.Tensor ne.Scalar": _both(jnp.not_equal),
    "lt.Tensor lt.Scalar": _both(jnp.less),
    "le.Tensor le.Scalar": _both(jnp.less_equal),
    "gt.Tensor gt.Scalar": _both(jnp.greater),
    "ge.Tensor ge.Scalar": _both(jnp.greater_equal),
    "isnan": jnp.isnan,
    "isinf": jnp.isinf,
    "isposinf": jnp.isposinf,
    "isneginf": jnp.isneginf,
    "logical_and": jnp.logical_and,
    "logical_or": jnp.logical_or,
    "logical_xor": jnp.logical_xor,
    "logical_not": jnp.logical_not,
    "bitwise_and.Tensor bitwise_and.Scalar bitwise_and.Scalar_Tensor": jnp.bitwise_and,
    "bitwise_or.Tensor bitwise_or.Scalar bitwise_or.Scalar_Tensor": jnp.bitwise_or,
    "bitwise_xor.Tensor bitwise_xor.Scalar bitwise_xor.Scalar_Tensor": jnp.bitwise_xor,
    "bitwise_not": jnp.bitwise_not,
    "bitwise_left_shift.Tensor bitwise_left_shift.Tensor_Scalar": jnp.left_shift,
    "bitwise_right_shift.Tensor bitwise_right_shift.Tensor_Scalar": jnp.right_shift,
    "where.self": _where,
}

ROWS = named({**_ARITHMETIC, **_ELEMENTARY, **_LOGIC})
