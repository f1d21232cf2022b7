from .config import FitConfig as FitConfig
from .evaluation.active import ActiveUnits as ActiveUnits
from .evaluation.annealing.result import Annealed as Annealed, Sandwich as Sandwich
from .evaluation.calibration.result import Calibration as Calibration
from .evaluation.prices import EdgePrice as EdgePrice, Prices as Prices
from .evaluation.probes import Probe as Probe
from .objectives.bounds import (
    elbo as elbo,
    free_bits as free_bits,
    importance_weighted as importance_weighted,
    soft_free_bits as soft_free_bits,
)
from .objectives.constrained import geco as geco, rewo as rewo
from .objectives.criteria import (
    info_vae as info_vae,
    moment_matching as moment_matching,
    unregularized as unregularized,
)
from .objectives.discrepancies import mmd as mmd, moments as moments
from .objectives.labelled import semi_supervised as semi_supervised
from .objectives.nested import vhp as vhp
from .objectives.stateful import adaptive_free_bits as adaptive_free_bits
from .objectives.terms import Terms as Terms
from .pyro.diagnostics.annealed import ais as ais
from .pyro.diagnostics.calibration import sbc as sbc
from .pyro.evaluation.active import active_units as active_units
from .pyro.evaluation.discrete import Joint as Joint
from .pyro.evaluation.edges import price_edges as price_edges
from .pyro.evaluation.encode import encode as encode, probe as probe
from .pyro.evaluation.encoder_posterior import Reversal as Reversal, reversal as reversal
from .pyro.evaluation.evaluate import evaluate as evaluate
from .pyro.evaluation.exported import encoder as encoder
from .pyro.evaluation.information import (
    MutualInformation as MutualInformation,
    mutual_information as mutual_information,
)
from .pyro.evaluation.sharpness import sharpness as sharpness
from .pyro.passes.losses import Loss as Loss
from .pyro.passes.terms import plate_nesting as plate_nesting, terms as terms
from .pyro.sampling.sampling import (
    Chain as Chain,
    ancestral as ancestral,
    decode as decode,
    markov_chain as markov_chain,
)
from .pyro.sampling.walks import interpolate as interpolate, reconstruct as reconstruct, traverse as traverse
from .pyro.training.checkpoint import contents as contents, load as load, save as save
from .pyro.training.fit import fit as fit
from .pyro.training.tensorboard import TensorBoard as TensorBoard
from .pyro.training.training_step import TrainingStep as TrainingStep, training_step as training_step
from .results import Callback as Callback, Difference as Difference, Evaluation as Evaluation, Run as Run
from .schedules import (
    Constant as Constant,
    Cosine as Cosine,
    Cyclic as Cyclic,
    Exponential as Exponential,
    Linear as Linear,
    Saturating as Saturating,
)
from .training.trackers.mlflow import MLflow as MLflow
from .training.trackers.wandb import WandB as WandB
