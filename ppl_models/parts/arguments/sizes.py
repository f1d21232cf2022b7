"""Sizes as a user gives them: one integer, several, or the shape of an event; checked, with one-line messages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any, Literal, cast

from .checked import check, told
from .kinds import Kind, Number, Sizes, kind_of

Network = Literal["mlp", "conv"]


def one_size(owner: str, name: str, found: Any, least: int = 1) -> int:
    """`found` as an int, if it is an integer (numpy's too) of at least `least`.

    Args:
        owner: the program it is for, and `name` the argument, for the message.

    Raises:
        ValueError: it is not.

    >>> one_size("VAE", "latent", 0)
    Traceback (most recent call last):
    ValueError: VAE: found latent=0, want an integer of at least 1
    """
    return check(owner, name, found, Number(whole=True, least=least))


def all_sizes(owner: str, name: str, found: Any) -> tuple[int, ...]:
    """One size, or a sequence of them, as a tuple.

    Raises:
        ValueError: nothing in it, or something else than integers of at least 1.

    >>> all_sizes("DLGM", "latent", 3), all_sizes("DLGM", "latent", [5, 4])
    ((3,), (5, 4))
    """
    return check(owner, name, found, Sizes(always=True))


def event_size(owner: str, event: Any, network: str = "mlp") -> tuple[int, tuple[int, ...] | None]:
    """(number of values in a row, its shape as an image where a network is convolutional, else None).

    Raises:
        ValueError: a size that is not a positive integer; an unknown network; a "conv" without (channels, height,
            width).

    >>> event_size("VAE", (1, 8, 8)), event_size("VAE", (1, 8, 8), "conv")
    ((64, None), (64, (1, 8, 8)))
    """
    check(owner, "network", network, cast(Kind, kind_of(Network)))
    if network == "conv":
        shape = image_size(owner, event, "network 'conv' wants")
        return prod(shape), shape
    return prod(all_sizes(owner, "event", event)), None


def image_size(owner: str, event: Any, want: str = "want", name: str = "event") -> tuple[int, int, int]:
    """(channels, height, width) as the user gives them, in an argument of this name.

    Raises:
        ValueError: they are no such three integers of at least 1.

    >>> image_size("PixelVAE", 784)
    Traceback (most recent call last):
    ValueError: PixelVAE: found event=784, want event (channels, height, width)
    """
    shape = all_sizes(owner, name, event)
    if len(shape) != 3:
        raise ValueError(f"{owner}: found {name}={event!r}, {want} {name} (channels, height, width)")
    return shape


def scales(image: Sequence[int]) -> list[tuple[int, int]]:
    """Sizes of the maps of a ladder, each half of the one before it, until neither side is above 7; at least one.

    >>> scales((3, 64, 64)), scales((1, 28, 20))
    ([(32, 32), (16, 16), (8, 8), (4, 4)], [(14, 10), (7, 5)])
    """
    return halvings([(side + 1) // 2 for side in image[1:]])


def halvings(size: Sequence[int]) -> list[tuple[int, ...]]:
    """The size of a map and those of its halves, until neither side is above 7.

    >>> halvings((28, 20))
    [(28, 20), (14, 10), (7, 5)]
    """
    sizes = [tuple(size)]
    while max(sizes[-1]) > 7:
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
    return sizes


def state_shapes(layers: int, hidden: int, image: Sequence[int] | None) -> list[tuple[int, ...]]:
    """Of the states of a top-down hierarchy: vectors, or maps that double from the smallest up to half of an image.

    Args:
        layers: how many states.
        hidden: width of a vector; hidden // 16 (at least 4) are the channels of the largest map, twice as many of one
            half as large, 128 at most.
        image: (channels, height, width), or None for vectors.

    >>> state_shapes(2, 64, None), state_shapes(4, 64, (1, 28, 28))
    ([(64,), (64,)], [(8, 7, 7), (4, 14, 14), (4, 14, 14), (4, 14, 14)])
    """
    if image is None:
        return [(hidden,)] * layers
    maps = scales(image)
    maps = [(min(max(hidden // 16, 4) * 2**k, 128), *size) for k, size in enumerate(maps)][::-1]
    return [maps[min(i, len(maps) - 1)] for i in range(layers)]


def data_shape(count: int, event: int, image: Sequence[int] | None) -> tuple[int, ...]:
    """Of what a decoder gives: so many numbers for each value of a vector, or channels for each of an image.

    >>> data_shape(2, 784, None), data_shape(2, 784, (1, 28, 28))
    ((1568,), (2, 28, 28))
    """
    return (count * event,) if image is None else (count * image[0], *image[1:])


def layer_widths(owner: str, hidden: Any, latent: Sequence[int]) -> tuple[int, ...]:
    """The width of each network of a hierarchy, one for all or one a latent.

    Raises:
        ValueError: a size that is not a positive integer, or another number of them.

    >>> layer_widths("HierarchicalVAE", 8, (2, 4))
    (8, 8)
    """
    widths = all_sizes(owner, "hidden", hidden)
    widths = widths * len(latent) if len(widths) == 1 else widths
    if len(widths) != len(latent):
        raise ValueError(
            f"{owner}: found hidden={hidden!r} for latent={latent}, want one width for all networks or one a latent"
        )
    return widths


@dataclass(frozen=True)
class Blocks:
    """The blocks that rows are cut into: equal stretches, or bands of rows of an image; the last takes the rest.

    Args:
        owner: the model, for messages.
        layers: how many.
        event: values in a row.
        image: its shape, (channels, height, width), where it is cut into bands.

    Raises:
        ValueError: more blocks than values, or than rows of the image.

    >>> Blocks("SeReVAE", 3, 64, (1, 8, 8)).shapes, Blocks("SeReVAE", 3, 7).sizes
    ([(1, 2, 8), (1, 2, 8), (1, 4, 8)], [2, 2, 3])
    """

    owner: str
    layers: int
    event: int
    image: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.layers > self._units:
            raise ValueError(
                f"{self.owner}: found {self.layers} layers for {self._units} rows or values, want 1 to {self._units}"
            )

    @property
    def _units(self) -> int:
        return self.event if self.image is None else self.image[1]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of each block: (values,), or (channels, rows, width)."""
        parts = shared_among(self._units, self.layers)
        return [(part,) if self.image is None else (self.image[0], part, self.image[2]) for part in parts]

    @property
    def sizes(self) -> list[int]:
        """Values of each block."""
        return [prod(shape) for shape in self.shapes]

    def cut(self, x: Any) -> list[Any]:
        """The blocks (*batch, size) of rows x (*batch, event), arrays of any library."""
        batch, ends = x.shape[:-1], list(accumulate(shape[-2:][0] for shape in self.shapes))
        cuts = [slice(end - shape[-2:][0], end) for end, shape in zip(ends, self.shapes, strict=True)]
        if self.image is None:
            return [x[..., cut] for cut in cuts]
        image = x.reshape(*batch, *self.image)
        return [image[..., cut, :].reshape(*batch, -1) for cut in cuts]

    def join(self, blocks: Sequence[Any], concat: Callable[..., Any]) -> Any:
        """The rows (*batch, event) of their blocks; `concat(arrays, axis)` is the library's."""
        if self.image is None:
            return concat(blocks, -1)
        batch = blocks[0].shape[:-1]
        bands = [block.reshape(*batch, *shape) for block, shape in zip(blocks, self.shapes, strict=True)]
        return concat(bands, -2).reshape(*batch, -1)


def worded(where: str, text: str) -> tuple[str, dict[str, int]]:
    """The name and the sizes of a word such as "iaf:steps=2,hidden=100"; a word without a colon is all name.

    Raises:
        ValueError: sizes that are not NAME=INTEGER each, or one given twice; `where` begins the message.

    >>> worded("family", "iaf:steps=2,hidden=100"), worded("family", "full")
    (('iaf', {'steps': 2, 'hidden': 100}), ('full', {}))
    """
    name, colon, rest = text.partition(":")
    found: dict[str, int] = {}
    for part in rest.split(",") if colon else ():
        key, equals, number = (each.strip() for each in part.partition("="))
        if not (equals and key.isidentifier() and number.isdecimal() and key not in found):
            raise ValueError(f"{where}: found {told(text)}, want a name and sizes; try {name + ':steps=2'!r}")
        found[key] = int(number)
    return name, found


def slices_of(sizes: Mapping[str, int]) -> dict[str, slice]:
    """The place of each of some vectors in their concatenation.

    >>> slices_of({"z1": 2, "x": 3})
    {'z1': slice(0, 2, None), 'x': slice(2, 5, None)}
    """
    ends = list(accumulate(sizes.values()))
    return {name: slice(end - sizes[name], end) for name, end in zip(sizes, ends, strict=True)}


def shared_among(total: int, count: int) -> list[int]:
    """`total` in `count` equal whole parts, the last of which takes the rest.

    >>> shared_among(40, 4), shared_among(10, 3)
    ([10, 10, 10, 10], [3, 3, 4])
    """
    each = total // count
    return [each] * (count - 1) + [total - each * (count - 1)]


def code_sizes(owner: str, latent: Any, image: Sequence[int] | None) -> list[int]:
    """Sizes of the parts of a code, one for each of the `scales` of an image, even or as given; one without an image.

    Raises:
        ValueError: a size that is not a positive integer, fewer than one for each scale, or another number of them.

    >>> code_sizes("SequentialVAE", 40, (3, 64, 64)), code_sizes("SequentialVAE", 40, None)
    ([10, 10, 10, 10], [40])
    """
    if image is None:
        return [one_size(owner, "latent", latent)]
    count, given = len(scales(image)), all_sizes(owner, "latent", latent)
    if len(given) == 1:
        given = tuple(shared_among(given[0], count))
    if len(given) != count or min(given) < 1:
        raise ValueError(
            f"{owner}: found latent={latent!r}, want at least {count}, or one size for each of the {count} scales of "
            f"images {tuple(image)}"
        )
    return list(given)


def map_sizes(owner: str, latent: Sequence[int], image: Sequence[int]) -> list[tuple[int, ...]]:
    """(height, width) of a map of latents, a quarter of the image's and rounded up; then of the half, and of the image.

    Raises:
        ValueError: other than two latents, a vector and the channels of the map.

    >>> map_sizes("HierarchicalPixelVAE", (512, 64), (3, 32, 32))
    [(8, 8), (16, 16), (32, 32)]
    """
    if len(latent) != 2:
        raise ValueError(f"{owner}: found latent={tuple(latent)}, want two sizes; try (512, 64), a vector and channels")
    full = tuple(image[1:])
    half = tuple((side + 1) // 2 for side in full)
    return [tuple((side + 1) // 2 for side in half), half, full]


class _Rows(Number):
    """A count of data, in words of its own."""

    def want(self, value: Any) -> str:
        """See `Kind`."""
        return "the number of data to generate, an integer of at least 1"


GENERATED = _Rows(whole=True, least=1)


def check_count(n: int) -> int:
    """Return `n` if it is a number of data that can be generated.

    Raises:
        ValueError: not an integer, or below 1.
    """
    return check("n", "n", n, GENERATED, 1)
