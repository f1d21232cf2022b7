from .evaluation.evaluate import evaluate as evaluate
from .evaluation.nuts import Reference as Reference, nuts as nuts
from .passes.criteria import info_vae as info_vae, moment_matching as moment_matching, unregularized as unregularized
from .passes.discrepancies import mmd as mmd, moments as moments
from .passes.losses import estimate as estimate
from .passes.objectives import (
    elbo as elbo,
    free_bits as free_bits,
    importance_weighted as importance_weighted,
    soft_free_bits as soft_free_bits,
)
from .passes.terms import Terms as Terms, terms as terms
from .training.checkpoint import CHECKPOINT as CHECKPOINT, PREVIOUS as PREVIOUS, load as load
from .training.fit import fit as fit
from .training.run import Run as Run
