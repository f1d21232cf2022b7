"""Train and evaluate any (model, guide) pair of Pyro programs."""

from .checkpoint import (
    CHECKPOINT as CHECKPOINT,
    contents as contents,
    load as load,
    save as save,
    write_atomically as write_atomically,
    write_json as write_json,
)
from .evaluation import Evaluation as Evaluation, evaluate as evaluate
from .objectives import elbo as elbo
from .terms import Terms as Terms, plate_nesting as plate_nesting, terms as terms
from .training import Run as Run, fit as fit
