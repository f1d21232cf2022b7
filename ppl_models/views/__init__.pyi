from .arviz import to_arviz as to_arviz
from .calibration import rank_ecdfs as rank_ecdfs
from .chains import Mixing as Mixing, mixing as mixing
from .criteria import curves as curves, latent_map as latent_map
from .plots import (
    film_strip as film_strip,
    history as history,
    image_grid as image_grid,
    reconstructions as reconstructions,
    save_figure as save_figure,
)
