"""`noise_of_then`: seeded draws of Pyro programs begin where they began when the golden files were made."""

from collections.abc import Sequence
from typing import Any

import pyro
import pytest
import torch

import ppl_models.inference.pyro.passes.pair_info as looks
import ppl_models.inference.pyro.training.fit as training
from ppl_models.inference.pyro.passes.pair_info import PairInfo, pair_info
from ppl_models.inference.pyro.passes.terms import run_pair
from ppl_models.programs.pyro import PARTICLES


@pytest.fixture(autouse=True)
def noise_of_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw as often as 0.1.0 did before its work began, on looks at the pair that took from the generator of the work.

    Today all looks leave it as it was. Everything else is the same, number for number.
    """

    def looked(asks: str, model: Any, guide: Any, args: Sequence[Any], kwargs: Any = None, **how: Any) -> PairInfo:
        info = pair_info(asks, model, guide, args, kwargs, **how)
        few = args if asks == "fit" or info.pair.shared else tuple(a[:5] for a in args)
        with torch.no_grad():
            for rows in {"fit": [few, few], "evaluate": [args, few, few]}.get(asks, [few, few]):
                run_pair(model, guide, rows, {})
            if asks == "evaluate":
                with pyro.plate(PARTICLES, 4 if len(few[0]) == 3 else 3, dim=-1 - info.pair.nesting):
                    run_pair(model, guide, few, {})
        return info

    for module in (looks, training):
        monkeypatch.setattr(module, "pair_info", looked)
