from .checkpoint import CHECKPOINT as CHECKPOINT, PREVIOUS as PREVIOUS, load as load
from .criteria import info_vae as info_vae, moment_matching as moment_matching, unregularized as unregularized
from .discrepancies import mmd as mmd, moments as moments
from .evaluation import evaluate as evaluate
from .losses import estimate as estimate
from .objectives import (
    elbo as elbo,
    free_bits as free_bits,
    importance_weighted as importance_weighted,
    soft_free_bits as soft_free_bits,
)
from .reference import Reference as Reference, nuts as nuts
from .run import Run as Run
from .single_pass import Terms as Terms, terms as terms
from .training import fit as fit
