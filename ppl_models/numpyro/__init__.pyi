from .dlgm import DLGM as DLGM
from .hierarchical_vae import HierarchicalVAE as HierarchicalVAE
from .inference import Run as Run, evaluate as evaluate, fit as fit
from .infusion import Infusion as Infusion
from .linear_gaussian import LinearGaussian as LinearGaussian
from .pixel_vae import PixelVAE as PixelVAE
from .sequential_vae import SequentialVAE as SequentialVAE
from .sere_vae import SeReVAE as SeReVAE
from .vae import VAE as VAE
from .weights import from_torch as from_torch, like_torch as like_torch, to_torch as to_torch
