"""Deterministic latents, G+."""

from collections.abc import Callable

import pyro
import torch
from torch import nn

from .pair import ANY, WRONG, add
from .parts import Head, normal, real


def reflective_model(skip: bool = False):
    """e_l, then z_l = f_l(e_l; z_{l-1}) and a block of the data that reads the block before."""
    maps = nn.ModuleList(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4)) for _ in range(3))
    heads = nn.ModuleList(Head(2 + (3 if i else 0) + (2 if skip and i == 2 else 0), 3) for i in range(3))

    def push(layer, e, above):
        loc, scale = maps[layer](torch.zeros_like(e) if above is None else above).chunk(2, -1)
        return pyro.deterministic(f"z{layer + 1}", loc + scale.tanh().exp() * e, event_dim=1)

    def model(x):
        pyro.module("maps", maps)
        pyro.module("heads", heads)
        blocks, values = x.split(3, -1), []
        with pyro.plate("data", len(x)):
            for i in range(3):
                e = pyro.sample(f"e{i + 1}", normal())
                values.append(push(i, e, values[-1] if i else None))
                before = [blocks[i - 1]] if i else []
                before += [values[0]] if skip and i == 2 else []
                pyro.sample(f"x{i + 1}", heads[i](values[-1], *before), obs=blocks[i])

    return model, push


def reflective(skip: bool, reads: str) -> Callable:
    """reads: "z" above, "nothing" above, every "e" above."""

    def build():
        model, push = reflective_model(skip)
        heads = nn.ModuleList(Head(9 + {"z": 2 * bool(i), "nothing": 0, "e": 2 * i}[reads]) for i in range(3))

        def guide(x):
            pyro.module("posteriors", heads)
            es, z = [], None
            with pyro.plate("data", len(x)):
                for i in range(3):
                    above = {"z": [z] if i else [], "nothing": [], "e": es}[reads]
                    es.append(pyro.sample(f"e{i + 1}", heads[i](x, *above)))
                    z = push(i, es[-1], z)

        return model, guide, (real(3, 9),)

    return build


SERE = (
    "p(e1) p(z1 | e1) p(x1 | z1) p(e2) p(z2 | e2, z1) p(x2 | z2, x1) p(e3) p(z3 | e3, z2) p(x3 | z3, x2)",
    "p(e1) p(z1 | e1) p(x1 | z1) p(e2) p(z2 | e2, z1) p(x2 | z2, x1) p(e3) p(z3 | e3, z2) p(x3 | z3, x2, z1)",
)


def reflective_formula(reads: str) -> str:
    x, text = "x1, x2, x3", []
    for i in (1, 2, 3):
        above = {"z": [f"z{i - 1}"] if i > 1 else [], "nothing": [], "e": [f"e{j}" for j in range(1, i)]}[reads]
        text.append(f"q(e{i} | {', '.join([*above, x])}) q(z{i} | {', '.join([f'e{i}', *[f'z{i - 1}'][: i - 1]])})")
    return " ".join(text)


G_PLUS = {"determined": {"z1": ("e1",), "z2": ("e2",), "z3": ("e3",)}, "printed": False}
add(
    *("self-reflective, G+", reflective(False, "z"), SERE[0], reflective_formula("z"), (True, False, ANY)),
    superfluous={"e3": {"x1"}},
    **G_PLUS,
)
add(
    *("self-reflective, skip, G+", reflective(True, "z"), SERE[1], reflective_formula("z"), WRONG),
    missing={"e3": {"z1"}},
    superfluous=ANY,
    says=("e3 - z3 - z1",),
    **G_PLUS,
)
add(
    *("self-reflective, mean field, G+", reflective(False, "nothing"), SERE[0], reflective_formula("nothing"), WRONG),
    missing={"e2": {"z1"}, "e3": {"z2"}},
    superfluous=ANY,
    **G_PLUS,
)
add(
    *("self-reflective, by noise, G+", reflective(False, "e"), SERE[0], reflective_formula("e"), (True, ANY, ANY)),
    superfluous=ANY,
    **G_PLUS,
)
