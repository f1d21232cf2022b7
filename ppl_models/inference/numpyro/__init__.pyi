import ppl_models.inference as _both

from .diagnostics.annealed import ais as ais
from .diagnostics.calibration import sbc as sbc
from .evaluation.active import active_units as active_units
from .evaluation.edges import price_edges as price_edges
from .evaluation.encode import encode as encode, probe as probe
from .evaluation.evaluate import evaluate as evaluate
from .evaluation.nuts import Reference as Reference, nuts as nuts
from .passes.losses import estimate as estimate
from .passes.terms import terms as terms
from .sampling.sampling import ancestral as ancestral, decode as decode
from .sampling.walks import interpolate as interpolate, reconstruct as reconstruct, traverse as traverse
from .training.checkpoint import CHECKPOINT as CHECKPOINT, PREVIOUS as PREVIOUS, load as load
from .training.fit import fit as fit

ActiveUnits = _both.ActiveUnits
Calibration = _both.Calibration
MLflow = _both.MLflow
Annealed = _both.Annealed
Sandwich = _both.Sandwich
Probe = _both.Probe
Run = _both.Run
Terms = _both.Terms
WandB = _both.WandB
adaptive_free_bits = _both.adaptive_free_bits
elbo = _both.elbo
free_bits = _both.free_bits
geco = _both.geco
importance_weighted = _both.importance_weighted
info_vae = _both.info_vae
mmd = _both.mmd
moment_matching = _both.moment_matching
moments = _both.moments
rewo = _both.rewo
soft_free_bits = _both.soft_free_bits
unregularized = _both.unregularized
semi_supervised = _both.semi_supervised
vhp = _both.vhp
