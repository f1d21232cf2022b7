"""Controlled runs of programs, for an inspection: `experiments` of a laboratory, one of Pyro and one of NumPyro."""

from .experiments import (
    FEW as FEW,
    Copy as Copy,
    Density as Density,
    Experiment as Experiment,
    Laboratory as Laboratory,
    Leaves as Leaves,
    Modes as Modes,
    Node as Node,
    Owners as Owners,
    ProgramRun as ProgramRun,
    SiteRecord as SiteRecord,
    Tags as Tags,
    Values as Values,
    choose as choose,
    experiments as experiments,
    rows as rows,
)
