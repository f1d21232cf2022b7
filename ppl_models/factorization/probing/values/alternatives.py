"""Alternatives to the value of a site: `another` draws one from its distribution, `extremes` are far ones; `poles`."""

from collections.abc import Iterator

import numpy as np

from ppl_models.programs.laboratory import Copy, ProgramRun, SiteRecord

MAX_STATES = 64  # of a finite support that are tried one by one


def another(record: SiteRecord) -> np.ndarray:
    """A value that differs from that of a run in every copy, drawn from the site's own distribution.

    What is observed from a density that cannot be drawn from has its own values in another order.

    Raises:
        NotImplementedError: a latent of such a density.
    """
    value = np.array(record.value)
    if record.fresh is None or not value.size:
        return value
    drawn = redrawn(record)
    if drawn is None and record.kind == "observed":
        return _rearranged(record, value)
    if drawn is None:
        raise NotImplementedError(f"the site {record.name!r} cannot be drawn")
    for _ in range(16):
        equal = _equal(record, drawn)
        if not equal:
            break
        more = fitted(record.fresh(), value.shape)
        drawn = more.copy() if len(equal) == len(record.copies) else drawn  # with copies that are not looked at
        for copy in equal:
            at = record.at(value, copy)
            drawn[at] = more[at]
    equal = _equal(record, drawn)
    rest = _unlikely(record, value) if equal else None
    if rest is not None:
        for copy in equal:
            at = record.at(value, copy)
            drawn[at] = rest[at]
    return drawn


def redrawn(record: SiteRecord) -> np.ndarray | None:
    """A draw from a site's own distribution in the shape of its value; None where that has no way to draw."""
    try:
        return None if record.fresh is None else fitted(record.fresh(), record.value.shape)
    except NotImplementedError:
        return None


def _rearranged(record: SiteRecord, value: np.ndarray) -> np.ndarray:
    """The values of other copies, where those differ; else of other elements, else the value moved."""
    axes = (value.ndim + plate.dim - record.site.event_dim for plate in record.plates)
    for axis in (axis for axis in axes if axis >= 0):
        for k in range(1, value.shape[axis]):
            if not _equal(record, np.roll(value, k, axis)):
                return np.roll(value, k, axis)
    rolled = np.roll(value, 1)
    return rolled if not _equal(record, rolled) else value + np.ones((), value.dtype)


def _unlikely(record: SiteRecord, value: np.ndarray) -> np.ndarray | None:
    """A value that differs everywhere, however improbable: the next of a finite support, or one more of a count.

    Of a count that ends somewhere, each copy's elsewhere, one less.
    """
    states = None if record.states is None else record.states()  # (K, 1, ..., 1, *event)
    if states is None:
        ends, counts = record.states is not None, np.array_equal(value, np.round(value))
        return np.where(ends & (value > 0), value - 1, value + 1).astype(value.dtype) if counts else None
    flat = states.reshape(len(states), -1)
    if flat.shape[1] == 1:  # scalars: each entry becomes the state after its own
        after = {float(a): float(b) for (a,), (b,) in zip(flat, np.roll(flat, -1, 0), strict=True)}
        return np.vectorize(lambda v: after.get(float(v), v))(value).astype(value.dtype)
    wide = flat.shape[1]
    rows = value.reshape(-1, wide)
    place = (rows[:, None, :] == flat[None]).all(-1).argmax(-1)
    return flat[(place + 1) % len(flat)].reshape(value.shape).astype(value.dtype)


def extremes(record: SiteRecord) -> Iterator[np.ndarray]:
    """Values that draws are unlikely to be: all of a finite support, else far ones of the signs that it takes."""
    value = np.array(record.value)
    if record.fresh is None or not value.size or (record.joint and record.states is None):
        return
    states = None if record.states is None else record.states()  # (K, 1, ..., 1, *event)
    if states is not None:
        for state in states[:MAX_STATES]:
            yield np.broadcast_to(state, value.shape).astype(value.dtype)
        return
    if np.array_equal(value, np.round(value)):
        if record.states is not None:
            yield np.zeros_like(value)
        for more in (2, 5, 20):
            yield (value + more).astype(value.dtype)
        return
    drawn = np.stack([value, *(v for v in (redrawn(record) for _ in range(8)) if v is not None)])
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


def _equal(record: SiteRecord, drawn: np.ndarray) -> list[Copy]:
    """The copies that a draw leaves as they are."""
    value = np.asarray(record.value)
    places = {copy: record.at(value, copy) for copy in record.copies}
    return [copy for copy, at in places.items() if np.array_equal(drawn[at], value[at])]


def poles(leaf: np.ndarray, base: ProgramRun) -> list[tuple[float, float]]:
    """Two values that the elements of a leaf may take: its own extremes, else its value and one that is drawn."""
    finite = leaf[np.isfinite(leaf)] if leaf.dtype.kind in "fiub" else leaf[:0]
    if not finite.size:
        return []
    low, high = finite.min(), finite.max()
    if low != high:
        return [(low, high)]
    drawn: dict[float, None] = {}
    for record in base.of("observed").values():
        values = redrawn(record) if record.value.dtype.kind == leaf.dtype.kind else None
        if values is not None:
            drawn = {**drawn, **dict.fromkeys(np.unique(values)[:3].tolist())}
    return [(low, value) for value in (*drawn, 1 - low if low in (0, 1) else low + 1) if value != low]
