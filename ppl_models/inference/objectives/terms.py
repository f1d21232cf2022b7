"""`Terms`: log p and log q of one run of a pair, per site and datum. Every objective is a function of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NoReturn

import numpy as np

from ppl_models.parts.arguments.kinds import Either, Is, Number

Array = Any  # a tensor of torch, or an array of JAX


def is_scalar(found: Any) -> bool:
    """Whether something is an array of one floating number, of torch or JAX; it is not read: a step would wait."""
    numpys = isinstance(found, np.generic | np.ndarray)
    return not numpys and getattr(found, "shape", None) == () and "float" in str(getattr(found, "dtype", ""))


# the weight of the divergences
Beta = Annotated[float | Array, Either((Is("an array of one number", is_scalar), Number(least=0)))]


@dataclass(frozen=True)
class Terms:
    """Log densities of one pass of a pair, in nats, one number a datum.

    Every array, a tensor of torch or an array of JAX, is (particles, n), or (particles, 1) for what is outside the data
    plate (`shared`): global latents, and everything where there is no plate around the data. Scales and masks of the
    program are in the numbers.

    Attributes:
        log_likelihood: observed site -> log p(x | z).
        log_p: latent site -> log p(z | parents); of a pass, computed when it is first asked for.
        log_q: latent site -> log q(z | ...), likewise: an objective of divergences in closed form pays for neither.
        kl: latent site -> KL(q || p) of the factor, in closed form where there is one, else log q - log p.
        shared: the sites outside the data plate.
        full_size: size of the data plate before subsampling, None where the program does not subsample.
        auxiliary: the sites of `kl` that only the guide has (auxiliary latents, factors): a density, but no prior.
        units: gives `kl_units`; they cost nothing until something asks for them.
        drawn: latent site -> the guide's draws, (particles, n, units).
        prior: latent site -> as many draws of the model's prior, likewise; the first that is asked for runs the model
            as far as its last latent. In JAX only for as long as the transformation that the pass was made in.
        data_dim: dim of the data plate, None where there is none.
        inner: of the particles so many in a row share the latent that the guide draws first (`terms`).
        log_support: discrete latent whose prior leaves states out -> log of the mass that the guide gave to the others,
            before it left these out, too.
        enumerated: the discrete sites over whose states all numbers are exact means: no draws have weights then.
    """

    log_likelihood: dict[str, Array]
    log_p: Mapping[str, Array]
    log_q: Mapping[str, Array]
    kl: dict[str, Array]
    shared: frozenset[str]
    full_size: int | None = None
    auxiliary: frozenset[str] = frozenset()
    units: Callable[[], dict[str, Array]] | None = field(default=None, repr=False, compare=False)
    drawn: Mapping[str, Array] = field(default_factory=dict, repr=False, compare=False)
    prior: Mapping[str, Array] = field(default_factory=dict, repr=False, compare=False)
    data_dim: int | None = field(default=None, repr=False, compare=False)
    inner: int = 1
    enumerated: frozenset[str] = frozenset()
    log_support: Mapping[str, Array] = field(default_factory=dict, repr=False, compare=False)

    @property
    def kl_units(self) -> dict[str, Array]:
        """Latent site -> divergence of each unit, (particles, n, units); the units sum to `kl`.

        The units of a site are the coordinates of its event, times its plates other than data and particles. Under a
        transform that factor and prior share, they are those of the bases.

        Raises:
            ValueError: a factor or prior that is not a product over coordinates.
        """
        if self.units is None:
            raise ValueError("these Terms were put together without units; take those of `terms(model, guide, ...)`")
        return self.units()

    @property
    def seen(self) -> int:
        """The number of data in the pass: 1 where there is no plate around them."""
        return max(t.shape[1] for t in (*self.log_likelihood.values(), *self.kl.values()))

    @property
    def log_w(self) -> Array:
        """log p(x, z) - log q(z | x), (particles, n) for local sites; shared sites are added to every datum."""
        total = sum(self.log_likelihood.values())
        for name in self.log_p:
            total = total + self.log_p[name] - self.log_q[name]
        return total


class NoUnits(ValueError):
    """A factor and a prior that are not both products over coordinates."""


def refuse_units(name: str, factor: str, prior: str) -> NoReturn:
    """Raise NoUnits for a site whose factor and prior, of these families, are not both products over coordinates."""
    raise NoUnits(
        f"site {name!r} has no divergences by unit: found the factor {factor} and the prior {prior}, want products "
        "over coordinates (diagonal families), with the transforms of the prior if it has any; try per='layer', or "
        "another family"
    )


def refuse_mask(name: str) -> NoReturn:
    """Raise ValueError for a latent some of whose data are masked out: their values are none of the aggregate's."""
    raise ValueError(
        f"site {name!r}: found a mask on this latent, want a code for every datum where all codes are looked at "
        "together; drop the rows that are masked out"
    )
