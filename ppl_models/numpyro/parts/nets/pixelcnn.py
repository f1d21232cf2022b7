"""Port of `ppl_models.parts.nets.pixelcnn`: a network of an image whose output at a pixel has seen those before it."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.nn import relu, sigmoid

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, Several, Whole

from .layers import Conv, Linear


def gate(h: Array, dim: int) -> Array:
    """tanh(f) * sigmoid(g) of the two halves of a dim."""
    f, g = jnp.split(h, 2, dim)
    return jnp.tanh(f) * sigmoid(g)


class GatedLayer(eqx.Module):
    """Port of `ppl_models.parts.nets.pixelcnn.GatedLayer`; `key` seeds the weights."""

    vertical: Conv
    horizontal: Conv
    down: Conv
    out: Conv
    bias: Linear | Conv | None
    channels: int = eqx.field(static=True)
    radius: int = eqx.field(static=True)
    first: bool = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        channels: int,
        context: int,
        radius: int,
        first: bool = False,
        maps: bool = False,
        *,
        key: Array,
    ) -> None:
        self.radius, self.first, self.channels = radius, first, channels
        keys = jax.random.split(key, 5)
        self.vertical = Conv(inputs, 2 * channels, (self.seen, 2 * radius + 1), key=keys[0])
        self.horizontal = Conv(inputs, 2 * channels, (1, self.seen), bias=False, key=keys[1])
        self.down = Conv(2 * channels, 2 * channels, 1, key=keys[2])
        self.out = Conv(channels, channels, 1, key=keys[3])
        self.bias, wide = None, 4 * channels
        if context:
            own = keys[4]
            self.bias = Conv(context, wide, 1, bias=False, key=own) if maps else Linear(context, wide, False, key=own)

    @property
    def seen(self) -> int:
        """Rows of the vertical kernel, and columns of the horizontal one."""
        return self.radius if self.first else self.radius + 1

    def biases(self, context: Array) -> list[Array]:
        """Those of the vertical and of the horizontal stack, (n, 2 channels, 1, 1) each, or of every pixel its own."""
        none = self.bias is None
        both = jnp.zeros((len(context), 4 * self.channels), context.dtype) if none else self.bias(context)
        return jnp.split(both if both.ndim == 4 else both[..., None, None], 2, 1)

    def __call__(self, v: Array, h: Array, context: Array) -> tuple[Array, Array]:
        """v, h (n, inputs, height, width), c (n, context) or a map of it -> v', h' (n, channels, height, width)."""
        w = self.radius
        above, left = self.biases(context)
        if self.first:  # neither its own row nor its own pixel
            v, h = v[..., :-1, :], h[..., :-1]
        a = self.vertical(jnp.pad(v, ((0, 0), (0, 0), (w, 0), (w, w)))) + above
        b = self.horizontal(jnp.pad(h, ((0, 0), (0, 0), (0, 0), (w, 0)))) + self.down(a) + left
        moved = self.out(gate(b, 1))
        return gate(a, 1), moved if self.first else h + moved


@checked
class PixelCNN(eqx.Module):
    """Port of `ppl_models.parts.nets.pixelcnn.PixelCNN`; `key` seeds the weights."""

    layers: tuple[GatedLayer, ...]
    inner: Conv
    last: Conv
    image: tuple[int, ...] = eqx.field(static=True)
    context: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        image: Several,
        output: Count,
        context: Whole,
        channels: Count = 32,
        layers: Count = 12,
        radius: Count = 3,
        window: Count | None = None,
        maps: bool = False,
        *,
        key: Array,
    ) -> None:
        self.image = tuple(image)
        self.context = (context, *self.image[1:]) if maps else (context,)
        first = window or radius
        later = 1 if window is None else 0
        *keys, inner, last = jax.random.split(key, layers + 2)
        start = GatedLayer(self.image[0], channels, context, first, True, maps, key=keys[0])
        self.layers = (start, *(GatedLayer(channels, channels, context, later, maps=maps, key=k) for k in keys[1:]))
        self.inner = Conv(channels, channels, 1, key=inner)
        self.last = Conv(channels, output, 1, key=last)

    @property
    def output(self) -> int:
        """Numbers a pixel."""
        return len(self.last.weight)

    def __call__(self, x: Array, context: Array) -> Array:
        """Images (n, channels, height, width), context (n, values of it) -> (n, height, width, output)."""
        v = h = x
        context = context.reshape(len(context), *self.context)
        for layer in self.layers:
            v, h = layer(v, h, context)
        return self.last(relu(self.inner(relu(h)))).transpose(0, 2, 3, 1)

    @eqx.filter_jit
    def generate(self, context: Array, draw: Callable[[Array, Array], Array], key: Array) -> Array:
        """Images (n, channels, height, width) drawn pixel by pixel, what each layer has computed kept; no gradient.

        Args:
            context: (n, values of it).
            draw: from a key and the numbers of a pixel, (n, output), to its values, (n, channels). Of a pytree, such as
                a `jax.tree_util.Partial`, the loop is compiled once for all of one structure.
            key: of the draws.
        """
        net, context, draw = jax.tree.map(
            lambda leaf: lax.stop_gradient(leaf) if eqx.is_array(leaf) else leaf, (self, context, draw)
        )
        (depth, height, width), n, layers = net.image, len(context), net.layers
        sizes = [depth, *(len(layer.out.weight) for layer in layers[:-1])]
        context = context.reshape(n, *net.context)
        biases = [layer.biases(context) for layer in layers]
        # products of channels, the last dim of everything here: in a loop XLA's convolutions take ten times as long
        vertical, horizontal, down, out = (
            [_matrix(getattr(layer, name)) for layer in layers] for name in ("vertical", "horizontal", "down", "out")
        )
        inner, last = _matrix(net.inner), _matrix(net.last)
        # what each layer has read so far and reads again: the last w rows of all, and of this row the last w pixels
        rows = [jnp.zeros((n, each.radius, width, c), context.dtype) for each, c in zip(layers, sizes, strict=True)]
        pixels = [row[:, :, 0] for row in rows]

        def row(rows: list[Array], r: Array) -> tuple[list[Array], Array]:
            rows, above, v = list(rows), [], None  # above: what the horizontal stack takes from the vertical one
            for i, (layer, both) in enumerate(zip(layers, biases, strict=True)):
                # of the row, (n, width or 1, 2 channels): one that all pixels share has one row
                bias, left = (each[:, :, r % each.shape[2]].swapaxes(1, 2) for each in both)
                seen = rows[i] if layer.first else jnp.concatenate([rows[i], v[:, None]], 1)
                a = vertical[i](_windows(seen, layer.radius)) + bias
                above.append((down[i](a) + left).swapaxes(0, 1))
                rows[i], v = rows[i] if layer.first else seen[:, 1:], gate(a, -1)

            def pixel(pixels: list[Array], at: tuple[list[Array], Array]) -> tuple[list[Array], Array]:
                pixels, h = list(pixels), None
                for i, layer in enumerate(layers):
                    seen = pixels[i] if layer.first else jnp.concatenate([pixels[i], h[:, None]], 1)
                    moved = out[i](gate(horizontal[i](seen.reshape(n, -1)) + at[0][i], -1))
                    pixels[i], h = (pixels[i], moved) if layer.first else (seen[:, 1:], h + moved)
                drawn = draw(jax.random.fold_in(key, at[1]), last(relu(inner(relu(h))))).astype(context.dtype)
                pixels[0] = jnp.concatenate([pixels[0][:, 1:], drawn[:, None]], 1)
                return pixels, drawn

            drawn = lax.scan(pixel, pixels, (above, r * width + jnp.arange(width)))[1].swapaxes(0, 1)
            rows[0] = jnp.concatenate([rows[0][:, 1:], drawn[:, None]], 1)
            return rows, drawn

        return lax.scan(row, rows, jnp.arange(height))[1].transpose(1, 3, 0, 2)


def _matrix(layer: Conv) -> Callable[[Array], Array]:
    """A convolution of what its kernel sees of one pixel, (*batch, rows * columns * inputs) -> (*batch, output)."""
    weight = layer.weight.transpose(2, 3, 1, 0).reshape(-1, len(layer.weight))
    return lambda seen: seen @ weight if layer.bias is None else seen @ weight + layer.bias


def _windows(rows: Array, radius: int) -> Array:
    """The columns around each of some rows, (n, rows, width, c) -> (n, width, rows * (2 radius + 1) * c)."""
    wide = jnp.pad(rows, ((0, 0), (0, 0), (radius, radius), (0, 0)))
    columns = [wide[:, k, j : j + rows.shape[2]] for k in range(rows.shape[1]) for j in range(2 * radius + 1)]
    return jnp.concatenate(columns, -1)
