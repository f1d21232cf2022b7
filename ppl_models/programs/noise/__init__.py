"""Base-noise coordinates: a guide's draw as a function of Gaussian noise, and chains of Hamiltonian steps in them."""

from .hamiltonian import (
    FIRST_STEP as FIRST_STEP,
    KEPT as KEPT,
    Chain as Chain,
    Moved as Moved,
    defaults as defaults,
    leapfrog as leapfrog,
)
from .structure import (
    check_shared as check_shared,
    check_unrefined as check_unrefined,
    going_notes as going_notes,
    refused as refused,
    structure_notes as structure_notes,
    structure_of as structure_of,
)
