"""Other values for a site than those of a run, from its own distribution."""

from collections.abc import Iterator

import numpy as np

from ppl_models.programs.laboratory import Seen

MANY = 64  # so many states of a finite support are tried one by one


def another(seen: Seen) -> np.ndarray:
    """A value that differs from that of a run in every copy, drawn from the site's own distribution."""
    value = np.array(seen.value)
    if seen.fresh is None or not value.size:
        return value
    drawn = fitted(seen.fresh(), value.shape)
    for _ in range(16):
        equal = [copy for copy in seen.copies if np.array_equal(*_pair(seen, copy, drawn, value))]
        if not equal:
            break
        more = fitted(seen.fresh(), value.shape)
        drawn = more.copy() if len(equal) == len(seen.copies) else drawn  # with copies that are not looked at
        for copy in equal:
            at = seen.at(value, copy, seen.event_dim)
            drawn[at] = more[at]
    equal = [copy for copy in seen.copies if np.array_equal(*_pair(seen, copy, drawn, value))]
    if equal:
        rest = _unlikely(seen, value)
        for copy in equal if rest is not None else ():
            at = seen.at(value, copy, seen.event_dim)
            drawn[at] = rest[at]
    return drawn


def _unlikely(seen: Seen, value: np.ndarray) -> np.ndarray | None:
    """A value that differs everywhere, however improbable: the next of a finite support, or one more of a count."""
    if seen.states is None:
        counts = np.array_equal(value, np.round(value))
        return (value + 1).astype(value.dtype) if counts else None
    states = seen.states()  # (K, 1, ..., 1, *event)
    flat = states.reshape(len(states), -1)
    if flat.shape[1] == 1:  # scalars: each entry becomes the state after its own
        after = {float(a): float(b) for (a,), (b,) in zip(flat, np.roll(flat, -1, 0), strict=True)}
        return np.vectorize(lambda v: after.get(float(v), v))(value).astype(value.dtype)
    wide = flat.shape[1]
    rows = value.reshape(-1, wide)
    place = (rows[:, None, :] == flat[None]).all(-1).argmax(-1)
    return flat[(place + 1) % len(flat)].reshape(value.shape).astype(value.dtype)


def extremes(seen: Seen) -> Iterator[np.ndarray]:
    """Values that draws are unlikely to be: all of a finite support, else far ones of the signs that it takes."""
    value = np.array(seen.value)
    if seen.fresh is None or not value.size or (seen.joint and seen.states is None):
        return
    if seen.states is not None:
        states = seen.states()  # (K, 1, ..., 1, *event)
        for state in states[:MANY]:
            yield np.broadcast_to(state, value.shape).astype(value.dtype)
        return
    if np.array_equal(value, np.round(value)):
        for more in (2, 5, 20):
            yield (value + more).astype(value.dtype)
        return
    drawn = np.stack([value, *(fitted(seen.fresh(), value.shape) for _ in range(8))])
    both = (drawn < 0).any() and (drawn > 0).any()
    spread = drawn.std(0) + drawn.std()
    for factor in (3.0, 10.0, 30.0):
        if both:
            yield (value + factor * spread).astype(value.dtype)
            yield (value - factor * spread).astype(value.dtype)
        else:
            yield (value * factor).astype(value.dtype)
            yield (value / factor).astype(value.dtype)


def fitted(drawn: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A draw in the shape of a value, which may be smaller: observed once for all copies of a batch."""
    while drawn.ndim > len(shape):
        drawn = drawn[0]
    drawn = drawn[tuple(slice(0, 1) if n == 1 else slice(None) for n in shape[len(shape) - drawn.ndim :])]
    return np.broadcast_to(drawn, shape).copy()


def _pair(seen: Seen, copy: tuple[int, ...], a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    at = seen.at(b, copy, seen.event_dim)
    return a[at], b[at]
