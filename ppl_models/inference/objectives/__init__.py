"""Objectives: what a training maximizes, pure functions of `Terms`, one source for both languages.

`terms.py` has what they are functions of, `bounds.py` the ELBO and its kin, `criteria.py` what is no bound,
`nested.py` a bound inside a bound, `labelled.py` one with labels, `discrepancies.py` distances between draws,
`stateful.py` objectives that hand arrays on from step to step, `constrained.py` two of them, `states.py` what cannot be
where states are summed over.
"""

from .bounds import (
    Objective as Objective,
    elbo as elbo,
    free_bits as free_bits,
    importance_weighted as importance_weighted,
    soft_free_bits as soft_free_bits,
)
from .constrained import geco as geco, rewo as rewo
from .criteria import info_vae as info_vae, moment_matching as moment_matching, unregularized as unregularized
from .discrepancies import mmd as mmd, moments as moments
from .labelled import semi_supervised as semi_supervised
from .nested import vhp as vhp
from .stateful import adaptive_free_bits as adaptive_free_bits
from .terms import Terms as Terms
