"""Models, guides and what theory says of them: the cases of test_verdicts. Plain Pyro programs on purpose.

Each file registers its pairs in `PAIRS`.
"""

from . import (
    autoguides as autoguides,
    data_elsewhere as data_elsewhere,
    determined as determined,
    discrete as discrete,
    globals_and_locals as globals_and_locals,
    hierarchies as hierarchies,
    one_latent as one_latent,
    other_arguments as other_arguments,
    small_graphs as small_graphs,
    state_space as state_space,
)
from .pair import ANY as ANY, PAIRS as PAIRS, SURE as SURE, UNKNOWN as UNKNOWN, WRONG as WRONG, parse as parse
from .parts import Head as Head, Pixels as Pixels, normal as normal, real as real
from .plates import prior_of_x as prior_of_x
from .uncertain import UNCERTAIN as UNCERTAIN
