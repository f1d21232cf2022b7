"""Controlled runs of programs, for an inspection: `experiments` of a laboratory, one of Pyro and one of NumPyro."""

from .experiments import (
    Density as Density,
    Experiment as Experiment,
    Laboratory as Laboratory,
    Leaves as Leaves,
    Modes as Modes,
    Owners as Owners,
    Tags as Tags,
    Values as Values,
    choose as choose,
    experiments as experiments,
)
from .site_records import (
    FEW as FEW,
    Copy as Copy,
    Node as Node,
    ProgramRun as ProgramRun,
    SiteRecord as SiteRecord,
    rows as rows,
)
