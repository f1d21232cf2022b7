"""`check_evidence`: whether a guide of a file read other data than it does now, or its networks gave other numbers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .checkpoint_file import BEFORE_3, BEFORE_4, BEFORE_5, Checkpoint


def check_evidence(path: Path, found: Checkpoint, programs: Iterable[Any]) -> None:
    """Raise ValueError for a file of a guide that read its data in another order, or others, than it does now.

    Before format 3 guides read what a model observes, one site after another, where it was a copy of parts of the
    model's argument (the bands of a colour image); now they read the argument. Before format 4 they read no covariates,
    but for Faithful, whose encoders did; now a factor reads those that it needs beside what its encoder makes of the
    data. Before format 4 a Ladder multiplied its estimate of the top latent, too, with the prior, and before
    format 5 its networks gave means of estimates. A file without bases is of a SelfReflective whose bases were around
    the prior's.

    Args:
        path: the file.
        found: what it holds.
        programs: what is to have the weights; a guide has a `layout`, which says if its data were read otherwise.
    """
    for program in programs:
        if told := _otherwise(found, program):
            raise ValueError(f"{path} was written {told}")


def _otherwise(found: Checkpoint, program: Any) -> str:
    """When a guide was another one than now, and what to do; "" for one that has not changed, and for a model."""
    layout: Any = getattr(program, "layout", None)
    name, cure = type(program).__name__, "train it again, or load it with the version that wrote it"
    if found.form in BEFORE_3 and found.about.get("backend", "pyro") in getattr(layout, "moved", ()):
        return (
            f"before format 3 of files (ppl-models 0.1.0), when the guide {name} read the observed sites "
            f"{', '.join(layout.evidence_sites)} one after another; now it reads the rows that they are parts of, and "
            f"the weights do not fit; {cure}"
        )
    if found.form in BEFORE_4 and (covariates := getattr(layout, "covariates", None)):
        told = ", ".join(covariates.values())
        then = f"read {told} through its encoders" if name == "Faithful" else f"did not read {told}"
        cure = cure if name == "Faithful" else f"build it with evidence='observed', or {cure}"
        return (
            f"before format 4 of files (ppl-models 0.1.0), when the guide {name} {then}; now it reads covariates "
            f"beside what its encoder makes of the data, and the weights do not fit; {cure}"
        )
    if found.form in BEFORE_4 and (tops := getattr(program, "tops", None)):
        return (
            f"before format 4 of files (ppl-models 0.1.0), when the guide {name} multiplied its estimate of "
            f"{', '.join(sorted(tops))} with the prior; build it with top='product'"
        )
    if found.form in BEFORE_5 and (means := getattr(program, "shifted", None)):
        return (
            f"before format 5 of files (ppl-models 0.2.0), when the networks of the guide {name} gave the means of its "
            f"estimates of {', '.join(sorted(means))}; now they give the shift of the mean; build it with "
            "mean='estimate'"
        )
    based = getattr(getattr(program, "factors", None), "based", ())
    if based and not any(".base_" in key for key in found.weights):
        return (
            f"when the guide {name} built its factors around the bases of the priors; now they have their own; build "
            "it with base='prior'"
        )
    return ""
