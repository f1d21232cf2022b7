"""Every pair of the collection on a device: Pyro's own step has the CPU's loss for the same noise, and `fit` trains.

`cuda` tests want the device; the same code runs on the CPU for one pair, so that it is known to run.
"""

import copy
import math
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from ppl_models.inference import fit
from ppl_models.parts.arguments.kinds import no_guide
from tests.helpers.collection import DENSITIES, PAIRS, pair


class DrawnOnTheCpu(TorchDispatchMode):
    """Draws by the CPU's generator, wherever they are to lie: the same noise on every device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **(kwargs or {}))
        here, own = tree_map(_here, (args, kwargs or {}))
        found = func(*here, **own | ({"device": "cpu"} if "device" in own else {}))
        if func._schema.is_mutable:
            args[0].copy_(found)
            return args[0]
        return tree_map(lambda t: t.to((kwargs or {}).get("device") or _device(args)) if _is_tensor(t) else t, found)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _here(value: Any) -> Any:
    return value.cpu().clone() if _is_tensor(value) else value


def _device(args: Any) -> Any:
    return next((t.device for t in args if _is_tensor(t)), torch.device("cpu"))


def loss_of_a_step(model: nn.Module, guide: nn.Module | None, x: Tensor) -> float:
    pyro.clear_param_store()
    pyro.set_rng_seed(3)
    with DrawnOnTheCpu():
        return SVI(model, guide or no_guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO()).step(x)


EVERY = [*PAIRS, *((model, None) for model in DENSITIES)]
CASES = [
    pytest.param(*PAIRS[0], "cpu"),
    pytest.param(DENSITIES[0], None, "cpu"),
    *(pytest.param(model, guide, "cuda", marks=pytest.mark.cuda) for model, guide in EVERY),
]


@pytest.mark.parametrize(("model", "guide", "device"), CASES)
def test_a_step_of_pyros_and_twenty_of_fit(model, guide, device):
    p, q, x = pair(model, guide, 40)
    others = [m and m.to(device) for m in copy.deepcopy((p, q))]
    here, there = loss_of_a_step(p, q, x), loss_of_a_step(*others, x.to(device))
    assert there == pytest.approx(here, rel=1e-4)
    run = fit(*others, x.to(device), steps=20, batch_size=20, compile=device == "cuda", seed=0, progress=False)
    assert not [note for note in run.notes if "uncompiled" in note]
    assert all(math.isfinite(r["loss"]) for r in run.history)
    assert all(t.device.type == device for m in others if m for t in m.state_dict().values())


def drawn() -> list[Tensor]:
    p = torch.full((3,), 0.4)
    return [torch.randn(3), torch.empty(2).normal_(), torch.bernoulli(p), p.exponential_()]


def test_draws_are_the_cpus_whatever_asks_for_them():
    torch.manual_seed(1)
    expected = drawn()
    torch.manual_seed(1)
    with DrawnOnTheCpu():
        found = drawn()
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
