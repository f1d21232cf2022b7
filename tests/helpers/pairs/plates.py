"""Data: closed over, subsampled, in several plates, read by the prior."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from .one_latent import ENCODER, VAE
from .pair import LOOSE, SURE, WRONG, add, pair
from .parts import Head, normal, real


def closed_over(layers: int) -> Callable:
    """No arguments: the data are constants of both programs."""

    def build():
        x, decoder = real(), Head(2 * layers, 3)
        heads = nn.ModuleList(Head(3) for _ in range(layers))

        def model():
            with pyro.plate("data", 3):
                z = [pyro.sample(f"z{i + 1}", normal()) for i in range(layers)]
                pyro.sample("x", decoder(*z), obs=x)

        def guide():
            with pyro.plate("data", 3):
                for i, head in enumerate(heads):
                    pyro.sample(f"z{i + 1}", head(x))

        return model, guide, ()

    return build


add("closed over", closed_over(1), "p(z1) p(x | z1)", "q(z1)", SURE, constant={"z1": ("x",)}, printed=False)
add(
    *("closed over, mean field", closed_over(2), "p(z1) p(z2) p(x | z1, z2)", "q(z1) q(z2)", WRONG),
    missing={"z2": {"z1"}},
    constant={"z1": ("x",), "z2": ("x",)},
    printed=False,
)


@pair(VAE, ENCODER, SURE)
def subsampled():
    """A plate of 6 data, 3 at a time."""
    decoder, head = Head(2, 3), Head(3)

    def model(x):
        with pyro.plate("data", len(x), subsample_size=3) as i:
            z = pyro.sample("z", normal())
            pyro.sample("x", decoder(z), obs=x[i])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=3) as i:
            pyro.sample("z", head(x[i]))

    return model, guide, (real(6),)


def nested(reads: bool) -> Callable:
    """u in an outer plate, z and x in an inner one, too."""

    def build():
        prior, decoder, top, head = Head(2), Head(2, 3), Head(3), Head(5 if reads else 3)

        def model(x):
            with pyro.plate("groups", x.shape[0], dim=-2):
                u = pyro.sample("u", normal())
                with pyro.plate("data", x.shape[1], dim=-1):
                    z = pyro.sample("z", prior(u.expand(*x.shape[:2], 2)))
                    pyro.sample("x", decoder(z), obs=x)

        def guide(x):
            with pyro.plate("groups", x.shape[0], dim=-2):
                u = pyro.sample("u", top(x.tanh().sum(1, keepdim=True)))
                with pyro.plate("data", x.shape[1], dim=-1):
                    pyro.sample("z", head(x, u.expand(*x.shape[:2], 2)) if reads else head(x))

        return model, guide, (torch.randn(2, 3, 3),)

    return build


NESTED = "p(u) p(z | u) p(x | z)"
add("nested plates", nested(True), NESTED, "q(u | x) q(z | u, x)", SURE)
add("nested plates, mean field", nested(False), NESTED, "q(u | x) q(z | x)", WRONG, missing={"z": {"u"}})


def crossed(reads: bool) -> Callable:
    """x_ij ~ N(a_i + b_j, 1), with variational parameters for every copy."""

    def build():
        def model(x):
            rows, columns = pyro.plate("rows", x.shape[0], dim=-2), pyro.plate("columns", x.shape[1], dim=-1)
            with rows:
                a = pyro.sample("a", dist.Normal(0.0, 1.0))
            with columns:
                b = pyro.sample("b", dist.Normal(0.0, 1.0))
            with rows, columns:
                pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

        def guide(x):
            n, m = x.shape
            with pyro.plate("rows", n, dim=-2):
                a = pyro.sample("a", dist.Normal(pyro.param("a_loc", torch.randn(n, 1)), 0.5))
            with pyro.plate("columns", m, dim=-1):
                shift = -a.mean(-2, keepdim=True) if reads else 0.0
                pyro.sample("b", dist.Normal(pyro.param("b_loc", torch.randn(m)) + shift, 0.5))

        return model, guide, (real(2, 3),)

    return build


CROSSED_PLATES = "p(a) p(b) p(x | a, b)"
for reads, missing in ((False, {"a": {"a[rows']"}, "b": {"a"}}), (True, {"a": {"a[rows']"}})):
    add(
        *("crossed plates" + ", mean field" * (not reads), crossed(reads), CROSSED_PLATES),
        *("q(a) q(b | a)" if reads else "q(a) q(b)", WRONG),
        missing=missing,
        constant={"a": ("x",), "b": ("x",)},
        printed=False,
    )


def leaking(leak: Callable, where: str = "model") -> Callable:
    """A VAE whose decoder, or encoder, mixes the data of a batch."""

    def build():
        decoder, head, mix = Head(2, 3), Head(3), leak()

        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", normal())
                pyro.sample("x", decoder(mix(z) if where == "model" else z), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", head(mix(x) if where == "guide" else x))

        return model, guide, (real(),)

    return build


MIXED = {"printed": False, "says": ("data", "leak")}
for name, leak in (
    ("mean", lambda: lambda z: z - z.mean(0)),
    ("roll", lambda: lambda z: z + z.roll(1, 0)),
    ("BatchNorm", lambda: nn.BatchNorm1d(2, track_running_stats=False)),
):
    missing = {"z": {"x[data']", "z[data']"}}
    add(f"leak, {name}", leaking(leak), VAE, ENCODER, WRONG, missing=missing, **MIXED)
add(
    *("leak, in the guide", leaking(lambda: lambda x: x - 0.5 * x.mean(0), "guide"), VAE, ENCODER, LOOSE),
    superfluous={"z": {"x[data']"}},
    **MIXED,
)
add(
    *("BatchNorm by its running statistics", leaking(lambda: nn.BatchNorm1d(2).eval())),
    *(VAE, ENCODER, SURE),
)


def covariate(reads: bool) -> Callable:
    """z and x are drawn given c, an argument that is never observed."""

    def build():
        prior, decoder, head = Head(2), Head(4, 3), Head(5 if reads else 3)

        def model(x, c):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", prior(c))
                pyro.sample("x", decoder(z, c), obs=x)

        def guide(x, c):
            with pyro.plate("data", len(x)):
                pyro.sample("z", head(x, c) if reads else head(x))

        return model, guide, (real(), real(3, 2))

    return build


# c is a root of both graphs; written as data, which comes to the same
COVARIATE, AS_DATA = "p(c) p(z | c) p(x | z, c)", {"observed": ("c", "x"), "printed": False}
add("covariate", covariate(True), COVARIATE, "q(z | c, x)", SURE, **AS_DATA)
add("covariate, not read", covariate(False), COVARIATE, "q(z | x)", WRONG, missing={"z": {"c"}}, **AS_DATA)


def conditional(reads: bool) -> Callable:
    """The prior of z reads x1, the first observed site."""

    def build():
        prior, decoder, head = Head(1), Head(2, 2), Head(3 if reads else 2)

        def model(x):
            with pyro.plate("data", len(x)):
                first = pyro.sample("x1", normal(1), obs=x[:, :1])
                z = pyro.sample("z", prior(first))
                pyro.sample("x2", decoder(z), obs=x[:, 1:])

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", head(x if reads else x[:, 1:]))

        return model, guide, (real(),)

    return build


CONDITIONAL = "p(x1) p(z | x1) p(x2 | z)"
add("prior given data", conditional(True), CONDITIONAL, "q(z | x1, x2)", SURE)
add("prior given data, not read", conditional(False), CONDITIONAL, "q(z | x2)", WRONG, missing={"z": {"x1"}})


def prior_of_x() -> tuple:
    """The prior reads the very x that is observed after it: no density of x, but p(z | x) needs x all the same."""
    prior, decoder, head = Head(3), Head(2, 3), Head(3)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", decoder(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", head(x))

    return model, guide, (real(),)
