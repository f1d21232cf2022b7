"""`ROWS` of factorizations of matrices, what is solved with them, and determinants."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import expm

from .rows import named


def _mt(x: Array) -> Array:
    return jnp.conj(jnp.swapaxes(x, -1, -2))


def _fine(x: Array) -> Array:
    """What LAPACK says of matrices: zero, or where it stopped; JAX leaves no number there."""
    return jnp.any(jnp.isnan(x), (-2, -1)).astype(jnp.int32)


def _cholesky(x: Array, upper: bool = False) -> Array:
    found = lax.linalg.cholesky(_mt(x) if upper else x, symmetrize_input=False)
    return _mt(found) if upper else found


def _cholesky_ex(x: Array, upper: bool = False, check_errors: bool = False) -> tuple[Array, Array]:
    found = _cholesky(x, upper)
    return found, _fine(found)


def _solved(a: Array, b: Array, *, upper: bool, left: bool = True, **given: bool) -> Array:
    """A solution for a triangular matrix, over batches of either."""
    batch = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = jnp.broadcast_to(a, batch + a.shape[-2:]), jnp.broadcast_to(b, batch + b.shape[-2:])
    return lax.linalg.triangular_solve(a, b, left_side=left, lower=not upper, **given)


def _solve_triangular(a: Array, b: Array, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Array:
    return _solved(a, b, upper=upper, left=left, unit_diagonal=unitriangular)


def _triangular_solve(
    b: Array, a: Array, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> tuple[Array, Array]:
    found = _solved(a, b, upper=upper, transpose_a=transpose, unit_diagonal=unitriangular)
    return found, jnp.broadcast_to(a, found.shape[:-2] + a.shape[-2:])


def _cholesky_solve(b: Array, factor: Array, upper: bool = False) -> Array:
    half = _solved(factor, b, upper=upper, transpose_a=upper, conjugate_a=upper and jnp.iscomplexobj(factor))
    return _solved(factor, half, upper=upper, transpose_a=not upper, conjugate_a=not upper and jnp.iscomplexobj(factor))


def _lu(x: Array) -> tuple[Array, Array, Array]:
    """Both factors in one, pivots counted from one, and rows in their new order."""
    found, pivots, order = lax.linalg.lu(x)
    return found, pivots + 1, order


def _lu_solve(lu: Array, pivots: Array, b: Array, left: bool = True, adjoint: bool = False) -> Array:
    if not left:
        return _mt(_lu_solve(lu, pivots, _mt(b), adjoint=not adjoint))
    batch = jnp.broadcast_shapes(lu.shape[:-2], b.shape[:-2])
    b = jnp.broadcast_to(b, batch + b.shape[-2:])
    order = lax.linalg.lu_pivots_to_permutation(pivots - 1, lu.shape[-1])
    order = jnp.broadcast_to(order, batch + order.shape[-1:])[..., None]
    if not adjoint:
        half = _solved(lu, jnp.take_along_axis(b, order, -2), upper=False, unit_diagonal=True)
        return _solved(lu, half, upper=True)
    back = {"transpose_a": True, "conjugate_a": jnp.iscomplexobj(lu)}
    half = _solved(lu, b, upper=True, **back)
    return jnp.take_along_axis(_solved(lu, half, upper=False, unit_diagonal=True, **back), jnp.argsort(order, -2), -2)


def _factor_as_torch(a: Array) -> tuple[Array, Array, Array, bool]:
    """The factors that torch keeps: of the transposed matrix where numbers are real, see `FACTORED`."""
    turned = not jnp.iscomplexobj(a)
    return *_lu(jnp.swapaxes(a, -1, -2) if turned else a), turned


def _solve_ex(a: Array, b: Array, left: bool = True, check_errors: bool = False) -> tuple[Array, ...]:
    vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    lu, pivots, _, turned = _factor_as_torch(a)
    found = _lu_solve(lu, pivots, b[..., None] if vector else b, left, adjoint=turned)
    return found[..., 0] if vector else found, lu, pivots, _fine(lu)


def _parity(pivots: Array) -> Array:
    moved = jnp.sum(pivots != jnp.arange(1, pivots.shape[-1] + 1), -1)
    return 1 - 2 * (moved % 2)


def _det(a: Array) -> tuple[Array, Array, Array]:
    lu, pivots, *_ = _factor_as_torch(a)
    return jnp.prod(jnp.diagonal(lu, 0, -2, -1), -1) * _parity(pivots), lu, pivots


def _slogdet(a: Array) -> tuple[Array, Array, Array, Array]:
    lu, pivots, *_ = _factor_as_torch(a)
    diagonal = jnp.diagonal(lu, 0, -2, -1)
    sign = jnp.prod(jnp.sign(diagonal), -1) * _parity(pivots)
    return sign, jnp.sum(jnp.log(jnp.abs(diagonal)), -1), lu, pivots


def _inverse_ex(a: Array, check_errors: bool = False) -> tuple[Array, Array]:
    found = jnp.linalg.inv(a)
    return found, _fine(found)


def _lu_factor_ex(a: Array, pivot: bool = True, check_errors: bool = False) -> tuple[Array, Array, Array]:
    if not pivot:
        raise NotImplementedError("an LU factor without pivots")
    lu, pivots, _ = _lu(a)
    return lu, pivots, _fine(lu)


def _lu_unpack(
    lu: Array, pivots: Array, unpack_data: bool = True, unpack_pivots: bool = True
) -> tuple[Array, Array, Array]:
    rows, columns = lu.shape[-2:]
    least = min(rows, columns)
    empty = jnp.zeros((0,), lu.dtype)
    lower = jnp.tril(lu[..., :, :least], -1) + jnp.eye(rows, least, dtype=lu.dtype) if unpack_data else empty
    upper = jnp.triu(lu[..., :least, :]) if unpack_data else empty
    order = lax.linalg.lu_pivots_to_permutation(pivots - 1, rows)
    moves = jnp.swapaxes(jnp.eye(rows, dtype=lu.dtype)[order], -1, -2) if unpack_pivots else empty
    return moves, lower, upper


def _eigh(a: Array, UPLO: str = "L", compute_v: bool = True) -> tuple[Array, Array]:  # noqa: N803 (its name in torch)
    vectors, values = lax.linalg.eigh(a, lower=UPLO.upper() == "L", symmetrize_input=False)
    return values, vectors if compute_v else jnp.zeros((0,), a.dtype)


def _svd(a: Array, full_matrices: bool = False, compute_uv: bool = True, driver: Any = None) -> tuple[Array, ...]:
    if not compute_uv:
        return jnp.zeros((0,), a.dtype), jnp.linalg.svd(a, compute_uv=False), jnp.zeros((0,), a.dtype)
    return tuple(jnp.linalg.svd(a, full_matrices=full_matrices))


def _qr(a: Array, mode: str = "reduced") -> tuple[Array, Array]:
    if mode == "r":
        return jnp.zeros((0,), a.dtype), jnp.linalg.qr(a, mode="r")
    return tuple(jnp.linalg.qr(a, mode=mode))


def _cholesky_inverse(factor: Array, upper: bool = False) -> Array:
    return _cholesky_solve(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor, upper)


def _lu_parts(a: Array, pivot: bool = True) -> tuple[Array, Array, Array]:
    lu, pivots, _ = _lu_factor_ex(a, pivot)
    return _lu_unpack(lu, pivots)


def _pinv(a: Array, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> Array:
    u, s, vh = jnp.linalg.svd(a, full_matrices=False)
    least = 0.0 if atol is None else atol
    share = (max(a.shape[-2:]) * jnp.finfo(s.dtype).eps if atol is None else 0.0) if rtol is None else rtol
    least = jnp.maximum(jnp.asarray(least)[..., None], jnp.asarray(share)[..., None] * s[..., :1])
    inverse = jnp.where(s > least, 1 / s, 0)
    return _mt(vh) @ (inverse[..., None] * _mt(u))


def _reflections(a: Array) -> tuple[Array, Array]:
    found, tau = jnp.linalg.qr(a, mode="raw")
    return jnp.swapaxes(found, -1, -2), tau


def _turned(a: Array, tau: Array, b: Array, left: bool = True, transpose: bool = False) -> Array:
    """A matrix times the square one of whose reflections `geqrf` tells."""
    size = a.shape[-2]
    full = jnp.concatenate([a, jnp.zeros((*a.shape[:-1], size - a.shape[-1]), a.dtype)], -1)
    q = lax.linalg.householder_product(full, tau)
    q = _mt(q) if transpose else q
    return q @ b if left else b @ q


ROWS = named(
    {
        "cholesky": _cholesky,
        "linalg_cholesky_ex": _cholesky_ex,
        "cholesky_solve _cholesky_solve_helper": _cholesky_solve,
        "cholesky_inverse": _cholesky_inverse,
        "linalg_solve_triangular": _solve_triangular,
        "triangular_solve": _triangular_solve,
        "_linalg_solve_ex": _solve_ex,
        "_linalg_det": _det,
        "_linalg_slogdet": _slogdet,
        "linalg_lu_factor_ex": _lu_factor_ex,
        "linalg_lu_solve": _lu_solve,
        "lu_unpack": _lu_unpack,
        "linalg_inv_ex": _inverse_ex,
        "_linalg_eigh": _eigh,
        "_linalg_svd": _svd,
        "linalg_qr": _qr,
        "linalg_lu": _lu_parts,
        "geqrf": _reflections,
        "ormqr": _turned,
        "linalg_householder_product": lambda a, tau: lax.linalg.householder_product(a, tau),
        "linalg_pinv.atol_rtol_tensor": _pinv,
        # a factor that failed has no numbers, so that neither has the loss
        "_linalg_check_errors": lambda info, api_name, is_matrix: None,
        "linalg_cross": lambda a, b, dim=-1: jnp.cross(*jnp.broadcast_arrays(a, b), axis=dim),
        "linalg_matrix_exp": expm,
    }
)

# Torch factorizes a transposed matrix where that one is contiguous, and the gradient counts on it.
FACTORED = ("aten._linalg_solve_ex.default", "aten._linalg_det.default", "aten._linalg_slogdet.default")
