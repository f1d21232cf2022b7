"""`strips`: rows of data as a page shows them: images side by side, or curves over the coordinates of vectors."""

import base64
import io
from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np

from ppl_models.inference.display.figures import lines
from ppl_models.views.drawing import GAP, images_of, mosaic

from .html import shown

WIDE = 640  # dots that a strip is at least
TALLEST = 6  # times an image's own dots
VECTORS = 7  # curves in one chart
VALUE = "value (data units)"


def strips(
    rows: Mapping[str, np.ndarray],
    shape: Sequence[int] | None,
    title: str,
    *,
    labels: Sequence[str] = (),
    columns: int | None = None,
    apart: bool = False,
) -> str:
    """Named rows of data, one strip or chart each.

    Args:
        rows: name -> (N, D), images in [0, 1].
        shape: of an image; None for vectors.
        title: what they show, for those who do not see it.
        labels: of the N, as a chart names them.
        columns: images in a line; all by default.
        apart: whether rows may stand beside each other.
    """
    if shape is None:
        charts = (curves(name, values, labels, title) for name, values in rows.items())
        return f'<div class="charts">{"".join(charts)}</div>'
    found = "".join(_strip(name, images_of(values, shape), title, columns) for name, values in rows.items())
    return f'<div class="strips">{found}</div>' if apart else found


def curves(name: str, values: np.ndarray, labels: Sequence[str], title: str, ordered: bool = True) -> str:
    """A few vectors, (N, D), as curves over their coordinates."""
    chosen = sorted({round(i) for i in np.linspace(0, len(values) - 1, min(VECTORS, len(values)))})
    places = list(range(1, values.shape[1] + 1))
    found = {labels[i]: (places, values[i].tolist()) for i in chosen}
    chart = lines(found, "coordinate", VALUE, title=f"{title}: {name}", whole=True, ordered=ordered)
    return f'<figure>{chart}<figcaption class="soft">{shown(name)}</figcaption></figure>'


def _strip(name: str, images: np.ndarray, title: str, columns: int | None) -> str:
    columns = min(columns or len(images), len(images))
    alt = f"{title}{f': {name}' if name else ''}, {len(images)} images"
    uri, width, height = _png(images, columns)
    picture = f'<img src="{uri}" width="{width}" height="{height}" alt="{shown(alt)}">'
    label = f"<figcaption>{shown(name)}</figcaption>" if name else ""
    return f'<figure class="strip">{label}<div class="frame">{picture}</div></figure>'


def _png(images: np.ndarray, columns: int) -> tuple[str, int, int]:
    """(data URI, width, height) of images with clear gaps, each of their dots a whole number of the picture's."""
    from PIL import Image

    page = mosaic(images, columns)
    height, width = images.shape[1:3]
    clear = np.add.outer(_between(page.shape[0], height), _between(page.shape[1], width)) > 0
    last = len(images) - (ceil(len(images) / columns) - 1) * columns  # images in the last line
    clear[page.shape[0] - height :, last * (width + GAP) :] = True
    dots = np.concatenate([page * 255, np.where(clear, 0.0, 255.0)[..., None]], -1).round().astype(np.uint8)
    scale = max(1, min(ceil(WIDE / page.shape[1]), TALLEST))
    dots = dots.repeat(scale, 0).repeat(scale, 1)
    file = io.BytesIO()
    Image.fromarray(dots, "RGBA").save(file, "PNG", optimize=True)
    code = base64.b64encode(file.getvalue()).decode()
    return f"data:image/png;base64,{code}", dots.shape[1], dots.shape[0]


def _between(length: int, size: int) -> np.ndarray:
    """1 where there is a gap, else 0."""
    return (np.arange(length) % (size + GAP) >= size).astype(int)
