from .checkpoint import (
    CHECKPOINT as CHECKPOINT,
    PREVIOUS as PREVIOUS,
    contents as contents,
    load as load,
    save as save,
    write_atomically as write_atomically,
    write_json as write_json,
)
from .criteria import info_vae as info_vae, moment_matching as moment_matching, unregularized as unregularized
from .discrepancies import mmd as mmd, moments as moments
from .discrete import Joint as Joint
from .evaluation import Evaluation as Evaluation, evaluate as evaluate
from .images import sharpness as sharpness
from .information import MutualInformation as MutualInformation, mutual_information as mutual_information
from .inversion import Reversal as Reversal, reversal as reversal
from .losses import Loss as Loss
from .objectives import (
    elbo as elbo,
    free_bits as free_bits,
    importance_weighted as importance_weighted,
    soft_free_bits as soft_free_bits,
)
from .run import Callback as Callback, Run as Run
from .sampling import (
    Chain as Chain,
    ancestral as ancestral,
    decode as decode,
    markov_chain as markov_chain,
)
from .schedules import (
    Constant as Constant,
    Cosine as Cosine,
    Cyclic as Cyclic,
    Exponential as Exponential,
    Linear as Linear,
)
from .single_pass import Terms as Terms, plate_nesting as plate_nesting, terms as terms
from .stepping import TrainingStep as TrainingStep, training_step as training_step
from .tensorboard import TensorBoard as TensorBoard
from .training import fit as fit
