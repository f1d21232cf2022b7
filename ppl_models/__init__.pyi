import guides as guides

from . import (
    data as data,
    factorization as factorization,
    inference as inference,
    numpyro as numpyro,
    parts as parts,
    runs as runs,
    views as views,
)
from .bit_vae import BitVAE as BitVAE
from .biva import BIVA as BIVA
from .dlgm import DLGM as DLGM
from .draw import DRAW as DRAW
from .glow import Glow as Glow
from .hierarchical_pixel_vae import HierarchicalPixelVAE as HierarchicalPixelVAE
from .hierarchical_vae import HierarchicalVAE as HierarchicalVAE
from .infusion import Infusion as Infusion
from .linear_gaussian import LinearGaussian as LinearGaussian
from .maf import MAF as MAF
from .matnet import MatNet as MatNet
from .nsf import NSF as NSF
from .pixel_cnn import PixelCNN as PixelCNN
from .pixel_vae import PixelVAE as PixelVAE
from .real_nvp import RealNVP as RealNVP
from .semi_supervised_vae import SemiSupervisedVAE as SemiSupervisedVAE
from .sequential_vae import SequentialVAE as SequentialVAE
from .sere_maf import SeReMAF as SeReMAF
from .sere_vae import SeReVAE as SeReVAE
from .vae import VAE as VAE
from .vamp_vae import VampVAE as VampVAE

__version__: str
