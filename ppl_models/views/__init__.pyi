from .arviz import to_arviz as to_arviz
from .plots import (
    comparison as comparison,
    history as history,
    image_grid as image_grid,
    reconstructions as reconstructions,
    save_figure as save_figure,
)
