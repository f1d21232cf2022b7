"""Checks of data, likelihoods and networks that both languages make, with one message for each fault."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from numbers import Integral
from typing import Any, Literal, get_args

from .arguments.checked import told
from .arguments.kinds import WRONG, Number

Structure = Literal["mean-field", "top-down", "bottom-up"]
Family = Literal["full", "diagonal"]
STRUCTURES, FAMILIES = get_args(Structure), get_args(Family)
Criterion = Literal["elbo", "per-step"]
GLANCE = 4096  # values that most often tell that there are more than a few


@dataclass(frozen=True)
class Arrays:
    """What a language calls its arrays, and how they are mended: {0} is the name of one, {1} a type.

    Args:
        types: of its arrays, each `called` so.
        made, floated, converted, one, flat: how to make one of something else, one of floating numbers, or of a type, a
            batch of a single row, and rows of images.
        is_floating: whether one has floating numbers.
        dtype_of: the type that a program sees.
    """

    types: type | tuple[type, ...]
    called: str
    made: str
    floated: str
    converted: str
    one: str
    flat: str
    is_floating: Callable[[Any], bool]
    dtype_of: Callable[[Any], Any]


def check_batch(arrays: Arrays, name: str, x: Any, event: int | Sequence[int], dtype: Any) -> None:
    """Raise TypeError or ValueError unless `x` is a batch of rows of floating numbers.

    Args:
        arrays: of the language.
        name: of the site.
        event: the shape of a row.
        dtype: the model's own, None for any.
    """
    if not isinstance(x, arrays.types):
        raise TypeError(f"site {name!r}: found a {type(x).__name__}, want a float {arrays.called}; try {arrays.made}")
    if not arrays.is_floating(x):
        cure = arrays.floated.format(name)
        raise TypeError(f"site {name!r}: found dtype {x.dtype}, want a float {arrays.called}; try {cure}")
    if dtype is not None and (found := arrays.dtype_of(x)) != dtype:
        cure = arrays.converted.format(name, dtype)
        raise TypeError(f"site {name!r}: found dtype {found}, want the model's {dtype}; try {cure}")
    shape = (event,) if isinstance(event, int) else tuple(event)
    check_rows(name, tuple(x.shape), shape, arrays.one.format(name), arrays.flat.format(name))


def check_finite(where: str, finite: Any) -> None:
    """Raise ValueError for the first row with a value that is not finite.

    Args:
        where: the site, or who asks.
        finite: whether each value of the rows is, as an array of torch's or NumPy's.

    >>> import numpy as np
    >>> check_finite("site 'x'", np.isfinite([[1.0], [np.nan]]))
    Traceback (most recent call last):
    ValueError: site 'x': NaN or infinite values (first in row 1); clean or drop these rows
    """
    if not finite.all():
        row = finite.reshape(len(finite), -1).all(1).tolist().index(False)
        raise ValueError(f"{where}: NaN or infinite values (first in row {row}); clean or drop these rows")


def check_rows(name: str, shape: tuple[int, ...], event: tuple[int, ...], one: str, flat: str) -> None:
    """Raise ValueError unless `shape` is that of a batch of at least one row of shape `event`.

    Args:
        name: of the site.
        one, flat: how to make a batch of a single row, and rows of images, in the language of the data.

    >>> check_rows("x", (4,), (4,), "x[None]", "x.reshape(len(x), -1)")
    Traceback (most recent call last):
    ValueError: site 'x': found shape (4,), want (n, 4); try x[None]
    """
    if not shape or shape[1:] != event:
        want = ", ".join(["n", *map(str, event)])
        hint = "build the model for this size"
        if shape == event:
            hint = f"try {one}"
        elif len(shape) > 2 and prod(shape[1:]) == prod(event):
            hint = f"try {flat}"
        raise ValueError(f"site {name!r}: found shape {shape}, want ({want}); {hint}")
    if shape[0] == 0:
        raise ValueError(f"site {name!r}: the batch is empty (shape {shape}), want at least one row")


def check_binary(bad: Sequence[Any], name: str) -> None:
    """Raise ValueError for the first of the values that are neither 0 nor 1, if there are any."""
    if len(bad):
        raise ValueError(
            f"site {name!r}: found the value {bad[0].item():.4g}, a Bernoulli likelihood wants 0 or 1; "
            "binarize the data (transform='binarize') or use likelihood='gaussian' or 'logistic'"
        )


def check_levels(bad: Sequence[Any], name: str, levels: int) -> None:
    """Raise ValueError for the first of the values that are no grey level, if there are any."""
    if len(bad):
        raise ValueError(
            f"site {name!r}: found the value {bad[0].item():.4g}, a discretized logistic with {levels} "
            f"levels wants k / {levels - 1}; scale the data (transform='none') or use likelihood='gaussian'"
        )


def rounding(entries: int, eps: float) -> float:
    """The most by which so many entries may miss their sum of 1: 8 sqrt(entries) eps, and the libraries' 1e-6 at least.

    Args:
        eps: of the type of the entries, the distance of the next number from 1.
    """
    return max(1e-6, 8 * entries**0.5 * eps)


def check_spread(values: Any, unique: Callable[[Any], Any], name: str) -> None:
    """Raise ValueError for data of a density of real numbers that are all among a few grey levels, or zeros and ones.

    Args:
        values: flat, an array of torch's or NumPy's, of which a glance most often tells that there are enough.
        unique: the library's own.
        name: of the site.
    """
    glance = values[:GLANCE]
    if 2 * len(unique(glance)) >= len(glance):
        return
    found, total = unique(values), len(values)
    few = 2 <= len(found) <= 256 and 2 * len(found) < total
    if few and ((found == found.round()).all() or (found.min() >= 0 and found.max() <= 1)):
        raise ValueError(
            f"site {name!r}: found {len(found)} different values among {total}, from {found.min().item():.4g} to "
            f"{found.max().item():.4g}, want real numbers: on a few levels a density grows without bound; dequantize "
            "them (transform='dequantize' or 'logit'), or take a model of levels (PixelCNN)"
        )


def check_inside(values: Any, bound: float) -> None:
    """Warn of data of splines most of which lie where these are the identity, whatever they are trained on.

    Args:
        values: flat, an array of torch's or NumPy's.
        bound: splines are on [-bound, bound].
    """
    if 2 * (abs(values) > bound).sum() > len(values):
        warnings.warn(
            f"site 'x': more than half of the values lie outside of [-{bound:g}, {bound:g}], where splines are "
            "the identity and learn nothing; standardize the data, or take a larger bound",
            stacklevel=2,
        )


def check_scale(scale: float | None) -> None:
    """Raise ValueError unless the scale of a Gaussian likelihood is positive and finite, or None."""
    if scale is not None and Number(above=0).read(scale) is WRONG:
        raise ValueError(f"found scale {told(scale)}, want a positive finite number, or none to learn it")


def count_of_levels(levels: int) -> int:
    """The number of grey levels as an int; ValueError below 2."""
    if (found := Number(whole=True, least=2).read(levels)) is WRONG:
        raise ValueError(f"found {told(levels)} levels, want at least 2, an integer")
    return found


def check_network(inputs: Sequence[int], output: int, hidden: int, depth: int) -> None:
    """Raise ValueError unless widths are positive, and the depth is not negative."""
    wrong = [n for n in (*inputs, output, hidden) if Number(whole=True, least=1).read(n) is WRONG]
    if wrong or Number(whole=True, least=0).read(depth) is WRONG:
        raise ValueError(
            f"network: found inputs {tuple(inputs)}, output {output}, hidden {hidden}, depth {depth}; "
            "want positive widths and depth >= 0"
        )


def check_likelihood(found: Any, run: str, more: Sequence[str], owner: str, example: str) -> None:
    """Raise ValueError unless a user's likelihood has an integer `count` and the methods that a model calls.

    Args:
        found: the user's module, and `run` the name of its method that gives the distribution.
        more: methods that the model wants beside `mean` and `check`.
        owner: the model, and `example` a likelihood to look at, for the message.
    """
    needed = (run, "mean", "check", *more)
    lacking = [name for name in needed if not callable(getattr(found, name, None))]
    if not isinstance(getattr(found, "count", None), Integral) or lacking:
        raise ValueError(
            f"{owner and f'{owner}: '}likelihood: found a {type(found).__name__}, want a module with count (an "
            f"integer), {', '.join(needed[:-1])} and {needed[-1]}; take {example} as an example"
        )


def likelihood_of(spec: str, kinds: Mapping[str, Callable[..., Any]], owner: str) -> Any:
    """The likelihood of a name: "bernoulli", "gaussian", "gaussian:0.1", "unit-gaussian:0.1", "shared-gaussian" or
    "logistic:256".

    Args:
        kinds: what makes each of the five, in the language of the model.
        owner: the model, for the message.

    Raises:
        ValueError: an unknown name, or a number that does not parse or does not fit.
    """
    prefix = f"{owner}: " if owner else ""
    name, colon, number = str(spec).partition(":")
    try:
        if name in ("bernoulli", "shared-gaussian") and not colon:
            return kinds[name]()
        if name == "gaussian":
            return kinds[name](float(number) if colon else None)
        if name == "unit-gaussian" and colon:
            return kinds[name](float(number))
        if name == "logistic":
            return kinds[name](int(number) if colon else 256)
    except ValueError as error:
        raise ValueError(f"{prefix}likelihood {told(spec)}: {error}") from None
    raise ValueError(
        f"{prefix}likelihood: found {told(spec)}, want 'bernoulli', 'gaussian', 'gaussian:SCALE' or 'logistic:LEVELS', "
        "or a module (or 'unit-gaussian:SCALE', whose means are in [0, 1], or 'shared-gaussian', of one learned scale)"
    )


def check_names(where: str, found: Any) -> None:
    """Raise ValueError for what is no collection of names, a single name among that; `where` is what it was found for.

    >>> check_names("found parents of 'z2'", "z1")
    Traceback (most recent call last):
    ValueError: found parents of 'z2' 'z1', want a tuple of names; try ('z1',)
    """
    if isinstance(found, str | Mapping) or not isinstance(found, Collection):
        cure = f"({found!r},)" if isinstance(found, str) else "('z1',), or () for none"
        raise ValueError(f"{where} {told(found)}, want a tuple of names; try {cure}")


def parents_of(latents: tuple[str, ...], given: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The parents of every site of a `LinearGaussian` in model order: the given ones, else those in the chain.

    Raises:
        ValueError: parents of no site, or that are unknown, later or repeated.

    >>> parents_of(("z1", "z2"), {"x": ("z1", "z2")})
    {'z1': (), 'z2': ('z1',), 'x': ('z1', 'z2')}
    """
    sites = (*latents, "x")
    for site in given:
        if site not in sites:
            raise ValueError(
                f"LinearGaussian: found parents of {site!r}, which is no site, want some of {', '.join(sites)}; rename "
                "the key of parents, or give latent another length"
            )
    parents = {}
    for place, site in enumerate(sites):
        earlier = latents[:place]
        names = given.get(site, earlier[-1:])
        want = f"want earlier latents ({', '.join(earlier) or 'there are none'}), each once"
        check_names(f"LinearGaussian: found parents of {site!r}", names)
        prefix = f"LinearGaussian: found parents of {site!r} {names!r}, {want}"
        for name in names:
            if name not in earlier:
                raise ValueError(f"{prefix}; drop {name!r}, or number the latents in generation order")
        if len(set(names)) != len(names):
            raise ValueError(f"{prefix}; drop the repeats")
        parents[site] = tuple(names)
    return parents
