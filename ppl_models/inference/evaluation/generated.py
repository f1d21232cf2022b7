"""`rows_from`: the values of a model's observed sites as rows of data; `interpolated`, `traversed`: walks among codes.

Written once for both languages, whose functions are passed in.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from math import prod
from typing import Any, Protocol

from array_api_compat import array_namespace, device

from ppl_models.programs.legible import listed
from ppl_models.programs.record import Layers

Array = Any
Codes = Mapping[str, Array]
LATENTS = "want some of the latents"


class Tools(Protocol):
    """What a walk asks of a language."""

    def encode(self, model: Any, guide: Any, data: Any, *, seed: int | None) -> dict[str, Array]:
        """Means of the latents of each row."""

    def decode(self, model: Any, codes: Codes, x: Array, *, seed: int | None) -> Array:
        """Means of the data given the latents."""

    def visit(self, model: Any, x: Array, value: Callable[[str, Any], Array]) -> None:
        """Run a model on rows, each latent at `value(name, distribution)`."""

    def layers(self, fn: Any) -> Layers:
        """A distribution taken apart."""


def rows_from(parts: Mapping[str, Array], width: int, join: Callable[[Sequence[Array]], Array] | None) -> Array:
    """The sites' values as rows of data: that of the first site of the width of a row, else all of them together.

    Raises:
        ValueError: they do not make rows of `width` values.
    """
    for part in parts.values():
        if part.shape[1] == width:
            return part
    if sum(part.shape[1] for part in parts.values()) != width:
        found = ", ".join(f"{name} {tuple(part.shape[1:])}" for name, part in parts.items())
        raise ValueError(f"the observed sites ({found or 'none of them local'}) do not make rows of {width} values")
    values = list(parts.values())
    return array_namespace(*values).concat(values, axis=-1) if join is None else join(values)


def chosen(asks: str, latents: Collection[str] | None, known: Collection[str]) -> list[str]:
    """The names of latents, all of them for None.

    Raises:
        ValueError: one that there is not.
    """
    if not known:
        raise ValueError(f"{asks}: found a model without latents, want codes to decode; try ancestral")
    names = [*known] if latents is None else [*latents]
    if other := [name for name in names if name not in known]:
        raise ValueError(f"{asks}: found {other[0]!r}, {LATENTS} {listed([*known])}")
    return names


def check_codes(asks: str, codes: Codes, n: int, events: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError for codes of what a model does not draw, or that are not n of the shape of an event."""
    for name, code in codes.items():
        if name not in events:
            raise ValueError(f"{asks}: found codes of {name!r}, {LATENTS} {listed([*events])}")
        want = n, *events[name]
        if tuple(code.shape) != want:
            raise ValueError(f"{asks}: found codes of {name!r} of shape {tuple(code.shape)}, want {want}")


def interpolated(tools: Tools, model: Any, guide: Any, x: Array, y: Array, steps: int, seed: int | None) -> Array:
    """See `ppl_models.inference.interpolate`."""
    if tuple(x.shape) != tuple(y.shape):
        raise ValueError(f"interpolate: found x {tuple(x.shape)} and y {tuple(y.shape)}, want as many rows in both")
    xp, n, parts = array_namespace(x), len(x), [k / (steps - 1) for k in range(steps)]
    ends = tools.encode(model, guide, xp.concat([x, y]), seed=seed)
    places = _Places("interpolate", tools, model, x, {name: code[:n] for name, code in ends.items()})
    if places.discrete:
        raise ValueError(f"interpolate: found the discrete latent {places.discrete[0]!r}, want codes with a between")
    codes = {name: xp.concat([(1 - t) * code[:n] + t * code[n:] for t in parts]) for name, code in ends.items()}
    return xp.reshape(tools.decode(model, codes, xp.concat([x] * steps), seed=seed), (steps, *x.shape))


def traversed(
    tools: Tools,
    model: Any,
    guide: Any,
    x: Array,
    latent: str,
    units: Sequence[int] | None,
    values: Sequence[float],
    codes: Codes | None,
    seed: int | None,
) -> Array:
    """See `ppl_models.inference.traverse`."""
    codes, xp = tools.encode(model, guide, x, seed=seed) if codes is None else codes, array_namespace(x)
    chosen("traverse", [latent], codes)
    if not units and units is not None or not values:
        raise ValueError("traverse: found no units or no values, want some of each")
    places = _Places("traverse", tools, model, x, codes)
    if latent not in places.noise:
        why = "is discrete" if latent in places.discrete else "has no known mean and variance under the model"
        raise ValueError(f"traverse: found the latent {latent!r}, which {why}, want one of real values")
    noise, n = places.noise[latent], len(x)
    size = prod(noise.shape[1:])
    units = range(size) if units is None else units
    if outside := [unit for unit in units if not 0 <= unit < size]:
        raise ValueError(f"traverse: found the unit {outside[0]} of {latent!r}, want 0 to {size - 1}")
    flat, order = xp.reshape(noise, (n, size)), xp.arange(size, device=device(noise))
    moved = [xp.where(order[None] == unit, xp.asarray(value), flat) for unit in units for value in values]
    count = len(moved)
    wide = {name: xp.concat([e] * count) for name, e in places.noise.items()}
    wide[latent] = xp.reshape(xp.concat(moved), (count * n, *noise.shape[1:]))
    rows, found = xp.concat([x] * count), {name: xp.concat([code] * count) for name, code in codes.items()}

    def value(name: str, fn: Any) -> Array:
        if name in wide:
            found[name] = made(tools.layers(fn), wide[name])
        return found[name]

    tools.visit(model, rows, value)
    return xp.reshape(tools.decode(model, found, rows, seed=seed), (len(units), len(values), *x.shape))


class _Places:
    """Codes as standard deviations from the means inside the model's own factors, given the codes before.

    Attributes:
        noise: latent -> e of z = f(mean + deviation e), where f are the bijections that the factor ends with.
        discrete: latents that have states.
    """

    def __init__(self, asks: str, tools: Tools, model: Any, x: Array, codes: Codes) -> None:
        self.noise: dict[str, Array] = {}
        self.discrete: list[str] = []

        def value(name: str, fn: Any) -> Array:
            if name not in codes:
                raise ValueError(f"{asks}: found no code of {name!r}, want a guide that draws each latent")
            if getattr(fn.support, "is_discrete", False):
                self.discrete.append(name)
            else:
                with suppress(NotImplementedError):
                    self.noise[name] = undone(tools.layers(fn), codes[name])
            return codes[name]

        tools.visit(model, x, value)


def undone(found: Layers, value: Array) -> Array:
    """The noise that a value is made of."""
    for transform in reversed(found.transforms):
        value = transform.inv(value)
    return (value - found.base.mean) / found.base.variance**0.5


def made(found: Layers, noise: Array | float) -> Array:
    """The value that is made of this noise."""
    value = found.base.mean + noise * found.base.variance**0.5
    for transform in found.transforms:
        value = transform(value)
    return value
