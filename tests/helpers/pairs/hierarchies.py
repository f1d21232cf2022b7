"""A hierarchy."""

import pyro
from pyro.nn import PyroModule
from torch import nn

from .one_latent import ConditionalFlowHead
from .pair import LOOSE, SURE, WRONG, add
from .parts import Head, Pixels, binary, from_formula, normal


def hierarchy(skip: bool = False, layers: int = 3):
    """zL -> ... -> z1 -> x, and z2 -> x if `skip`; a PyroModule."""

    class Hierarchy(PyroModule):
        def __init__(self):
            super().__init__()
            self.priors = nn.ModuleList(Head(2) for _ in range(layers - 1))
            self.decoder = Pixels(4 if skip else 2)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                values = [pyro.sample(f"z{layers}", normal())]
                for i, prior in enumerate(self.priors):
                    values.append(pyro.sample(f"z{layers - 1 - i}", prior(values[-1])))
                pyro.sample("x", self.decoder(*(values[-1:-3:-1] if skip else values[-1:])), obs=x)

    return Hierarchy()


HVAE = "p(z3) p(z2 | z3) p(z1 | z2) p(x | z1)"
HVAE2 = "p(z2) p(z1 | z2) p(x | z1)"
SKIP = "p(z3) p(z2 | z3) p(z1 | z2) p(x | z1, z2)"
UP = "q(z1 | x) q(z2 | z1) q(z3 | z2)"
UP_READING = "q(z1 | x) q(z2 | z1, x) q(z3 | z2)"
FLAT = "q(z1 | x) q(z2 | x) q(z3 | x)"
DOWN = "q(z3 | x) q(z2 | z3, x) q(z1 | z2, x)"
DOWN2 = "q(z2 | x) q(z1 | z2, x)"


def skipping():
    return hierarchy(skip=True)


def two_layers():
    return hierarchy(layers=2)


add(
    *("hierarchy, mean field", from_formula(hierarchy, FLAT, binary), HVAE, FLAT, WRONG),
    missing={"z2": {"z1"}, "z3": {"z2"}},
    says=("z2 - z1", "z3 - z2"),
)
add("hierarchy, bottom-up", from_formula(hierarchy, UP, binary), HVAE, UP, SURE)
add(
    *("hierarchy, bottom-up reading x", from_formula(hierarchy, UP_READING, binary), HVAE, UP_READING, LOOSE),
    superfluous={"z2": {"x"}},
)
add("hierarchy, ladder", from_formula(hierarchy, DOWN, binary), HVAE, DOWN, SURE)
add("hierarchy, self-reflective", from_formula(hierarchy, DOWN, binary, ConditionalFlowHead), HVAE, DOWN, SURE)
add(
    *("two layers, ladder, elements", from_formula(two_layers, DOWN2, binary), HVAE2, DOWN2, WRONG),
    missing={"z2.1": {"z2.0"}, "z1.1": {"z1.0"}},
    level="element",
)
add(
    *("two layers, self-reflective, elements", from_formula(two_layers, DOWN2, binary, ConditionalFlowHead)),
    *(HVAE2, DOWN2, SURE),
    level="element",
)
add("skip, ladder", from_formula(skipping, DOWN, binary), SKIP, DOWN, SURE)
add("skip, bottom-up reading x", from_formula(skipping, UP_READING, binary), SKIP, UP_READING, SURE)
add("skip, bottom-up", from_formula(skipping, UP, binary), SKIP, UP, WRONG, missing={"z2": {"x"}})
PARTIAL = "q(z3 | x) q(z2 | z3) q(z1 | z2, x)"
add("hierarchy, x missing", from_formula(hierarchy, PARTIAL, binary), HVAE, PARTIAL, WRONG, missing={"z2": {"x"}})
CLIQUE = "q(z3 | x) q(z2 | z3, x) q(z1 | z2, z3, x)"
add(
    *("hierarchy, all above", from_formula(hierarchy, CLIQUE, binary), HVAE, CLIQUE, (True, False, False)),
    superfluous={"z1": {"z3"}},
)


def dlgm():
    """Independent noise at every layer of a deterministic decoder; closures over nn.Modules."""
    states = nn.ModuleList(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)) for _ in range(3))
    decoder = Pixels(2)

    def model(x):
        with pyro.plate("data", len(x)):
            h = 0.0
            for layer in (3, 2, 1):
                h = states[layer - 1](h + pyro.sample(f"z{layer}", normal()))
            pyro.sample("x", decoder(h), obs=x)

    return model


DLGM = "p(z3) p(z2) p(z1) p(x | z3, z2, z1)"
add(
    *("DLGM, mean field", from_formula(dlgm, FLAT, binary), DLGM, FLAT, WRONG),
    missing={"z2": {"z1"}, "z3": {"z1", "z2"}},
)
add(
    *("DLGM, bottom-up", from_formula(dlgm, UP, binary), DLGM, UP, WRONG),
    missing={"z2": {"x"}, "z3": {"x", "z1"}},
    superfluous={"z2": {"z1"}, "z3": {"z2"}},
)
UP_ALL = "q(z1 | x) q(z2 | z1, x) q(z3 | z1, z2, x)"
add("DLGM, clique", from_formula(dlgm, UP_ALL, binary), DLGM, UP_ALL, SURE)
