"""A state space, one sequence, no plate."""

from collections.abc import Callable

import pyro
import torch
from torch import nn

from .pair import LOOSE, SURE, WRONG, add
from .parts import Head, normal, real


def state_space():
    transition, emission = Head(2), Head(2, 3)

    def model(x):
        z = pyro.sample("z0", normal())
        for t in range(len(x)):
            z = z if t == 0 else pyro.sample(f"z{t}", transition(z))
            pyro.sample(f"x{t}", emission(z), obs=x[t])

    return model


def recurrent(way: str, mean_field: bool = False):
    gru = nn.GRU(3, 8, bidirectional=way == "both")
    head = Head((16 if way == "both" else 8) + (0 if mean_field else 2))
    start = nn.Parameter(torch.randn(2))

    def guide(x):
        pyro.module("gru", gru)
        pyro.module("head", head)
        h = gru(x.flip(0))[0].flip(0) if way == "backward" else gru(x)[0]
        z = pyro.param("start", lambda: start.detach().clone())
        for t in range(len(x)):
            z = pyro.sample(f"z{t}", head(h[t]) if mean_field else head(h[t], z))

    return guide


def in_time(way: str, mean_field: bool = False) -> tuple[Callable, str]:
    """A builder of the pair, and the guide's formula."""
    reads = {"forward": lambda t: range(t + 1), "backward": lambda t: range(t, 4), "both": lambda t: range(4)}[way]
    factors = []
    for t in range(4):
        behind = [f"z{t - 1}"] if t and not mean_field else []
        factors.append(f"q(z{t} | {', '.join(behind + [f'x{s}' for s in reads(t)])})")
    return lambda: (state_space(), recurrent(way, mean_field), (real(4),)), " ".join(factors)


STEPS = " ".join(f"p(z{t} | z{t - 1}) p(x{t} | z{t})" if t else "p(z0) p(x0 | z0)" for t in range(4))
PAST = {f"z{t}": {f"x{s}" for s in range(t)} for t in range(1, 4)}
FUTURE = {f"z{t}": {f"x{s}" for s in range(t + 1, 4)} for t in range(3)}

build, formula = in_time("forward")
add(
    *("state space, filtering", build, STEPS, formula, WRONG),
    missing=FUTURE,
    superfluous=PAST,
    says=("z0 - z1 - x1",),
)
build, formula = in_time("backward")
add("state space, smoothing", build, STEPS, formula, SURE)
build, formula = in_time("both")
add("state space, bidirectional", build, STEPS, formula, LOOSE, superfluous=PAST)
build, formula = in_time("both", mean_field=True)
add(
    *("state space, mean field", build, STEPS, formula, WRONG),
    missing={f"z{t}": {f"z{t - 1}"} for t in range(1, 4)},
    superfluous={},
)
