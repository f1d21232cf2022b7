"""Arrays and records in, figures out; matplotlib is imported when the first figure is made."""

from .plots import (
    comparison as comparison,
    history as history,
    image_grid as image_grid,
    reconstructions as reconstructions,
    save_figure as save_figure,
)
