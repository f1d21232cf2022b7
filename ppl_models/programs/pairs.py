"""`Pair`: what one run of a model and a guide shows; and each message about a pair that does not fit, once.

`check_sites` is asked at every step, and takes names; other checks take the records of a run.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NoReturn, Self

import numpy as np

from .plates import data_plate, is_local, subsampled
from .record import Plate, Run

NO_DATA = "no data can be drawn from the model", "give it one"
PROPER = "pass the data that it observes, or give the site a proper prior"  # to be tried where it cannot be drawn
DENSE = "latent", "observed", "factor", "point"  # kinds of sites that have a density
# instead of a model that subsamples: a guide that knows its model is not to be paired with another one
INSTEAD = (
    "take a model of the same parameters whose plate does not, and the guide as it is built on that: "
    "new.load_state_dict(guide.state_dict())"
)
INSTEAD_OF_PORT = (
    "take a model of the same parameters whose plate does not, and the guide with that in place of its own: "
    "equinox.tree_at(lambda q: q.model, guide, whole)"
)


@dataclass(frozen=True)
class Pair:
    """One run of a model and of a guide, whose draws the model took.

    Attributes:
        model, guide: the records.
        data: the plate that enumerates the data, None where there is none.
    """

    model: Run
    guide: Run
    data: Plate | None

    @classmethod
    def of(
        cls, model: Run, guide: Run, first: Any = None, values: Callable[[], Mapping[str, Any]] | None = None
    ) -> Self:
        """The pair of two records; see `data_plate` for the other arguments."""
        return cls(model, guide, data_plate(model, first, values))

    @property
    def plate(self) -> str:
        """The name of the data plate as the passes take it, "" where there is none."""
        return self.data.name if self.data else ""

    @cached_property
    def nesting(self) -> int:
        """How many dims the plates of the pair take: particles go left of them."""
        return max((site.rank for run in (self.model, self.guide) for site in run.values()), default=0)

    @cached_property
    def densities(self) -> frozenset[str]:
        """The names of the sites that have a density."""
        return frozenset(self.model.of(*DENSE)) | frozenset(self.guide.of(*DENSE))

    @cached_property
    def kl(self) -> tuple[str, ...]:
        """The names of those of them that diverge: latents of the model, and what only the guide has."""
        dense = self.model.of(*DENSE)
        return *self.model.latents, *(name for name in self.guide.of(*DENSE) if name not in dense)

    @cached_property
    def shared(self) -> frozenset[str]:
        """Those of them that are outside the data plate in one of the programs at least."""
        sites = (site for run in (self.model, self.guide) for site in run.of(*DENSE).values())
        return frozenset(site.name for site in sites if not is_local(site, self.data))

    def units(self, rows: int) -> int:
        """The number that sums over data are divided by: their rows, or 1 where no site is in a plate of the data."""
        return 1 if self.shared == self.densities else rows

    def scales(self, full: int | None) -> Literal["", "data", "shared"]:
        """What the programs themselves scale, where they weigh a batch as one of `full` data.

        "data": all that is in the data plate is raised by full / seen; "shared": all that is outside is lowered by seen
        / full; "": neither. A plate that subsamples raises its data, too, and is none of these: its record tells.
        """
        if self.data is None or full is None or self.data.size == full or self.data.size != self.data.full_size:
            return ""
        found: dict[bool, list[Any]] = {True: [], False: []}
        for run in (self.model, self.guide):
            for site in run.of(*DENSE).values():
                scale = run.to_numpy(site.scale) if hasattr(site.scale, "shape") else site.scale
                found[is_local(site, self.data)].append(np.nan if scale is None else scale)
        factor = full / self.data.size
        local, shared = ([np.asarray(s) for s in found[kind]] for kind in (True, False))
        if _all(local, factor) and _all(shared, 1.0):
            return "data"
        return "shared" if shared and _all(shared, 1 / factor) and _all(local, 1.0) else ""

    def counts(self, rows: int, full: int | None) -> bool:
        """Whether the data plate is one of `full` data that takes a batch of so many rows as it comes."""
        return self.data is not None and rows == self.data.size != self.data.full_size == full

    @property
    def divided(self) -> bool:
        """Whether data, or a latent in one of the programs, are outside the data plate where they are in it else.

        So it is where a discrete site outside the plate is summed out: what depends on it is one for all the data.
        """
        both = ((site, self.guide.get(name, site)) for name, site in self.model.latents.items())
        apart = (is_local(one, self.data) != is_local(other, self.data) for one, other in both)
        return any(apart) or not all(is_local(site, self.data) for site in self.model.observed.values())

    @property
    def rough(self) -> tuple[str, str] | None:
        """(name, family) of the guide's first draw that no gradient goes through, None where there is none."""
        drawn = (site for name, site in self.guide.latents.items() if name not in self.enumerated)
        return next(((s.name, s.family) for s in drawn if not s.reparametrized), None)

    @property
    def enumerated(self) -> tuple[str, ...]:
        """The names of the discrete sites whose states the guide enumerates: they are summed over, not drawn."""
        return tuple(name for name, site in self.guide.latents.items() if site.enumerated)

    def check(
        self,
        asks: str,
        model: Callable,
        *,
        observes: bool = True,
        paired: bool = True,
        reparametrized: str | None = None,
        language: str = "pyro",
    ) -> None:
        """Raise ValueError unless they can work together; the message names the site.

        Args:
            asks: the function that asks, what a message starts with: "fit".
            model: the model.
            observes: whether the model must observe something, be it a factor.
            paired: whether the guide must draw what the model draws, as it need not where sites are summed out.
            reparametrized: what to try where a latent of the guide is not; None where none must be.
            language: of the programs.
        """
        if paired:
            given = self.guide.latents
            self._check_summed(asks, language)
            check_sites([*self.model.latents], [*given], [name for name, site in given.items() if site.auxiliary])
        if observes and not self.model.of("observed", "factor"):
            drawn = ", ".join(map(repr, self.model.latents)) or "nothing"
            raise ValueError(
                f"{asks}: the model {called(model)} observes nothing (it draws {drawn}); are model and guide in this "
                "order? If so, pass it the data that it observes"
            )
        if reparametrized is not None and self.rough:
            refuse_rough(*self.rough, reparametrized, f"{asks}: ")

    def _check_summed(self, asks: str, language: str) -> None:
        """Raise ValueError for a discrete latent that the guide leaves out, so that it is to be summed out."""
        for name, site in self.model.latents.items():
            if name in self.guide or not (site.enumerated or getattr(site.fn, "has_enumerate_support", False)):
                continue
            found = "which the model enumerates" if site.enumerated else f"a discrete one ({site.family})"
            mark = "" if site.enumerated else "mark it in the model, infer={'enumerate': 'parallel'}; then "
            elbo = f"pyro.infer.TraceEnum_ELBO(max_plate_nesting={self.nesting})"
            if language == "numpyro":
                instead = "numpyro's SVI does so with TraceEnum_ELBO; here draw it in the guide, too"
            elif asks == "fit":
                instead = f"pass loss={elbo}, which does so"
            elif asks == "evaluate":
                instead = "evaluate does so"
            else:
                instead = f"fit with loss={elbo} and evaluate do so; for {asks} draw it in the guide, too"
            raise ValueError(
                f"{asks}: the guide leaves out the site {name!r}, {found}, so that it is to be summed out; {mark}"
                f"{instead}"
            )


def _all(scales: Iterable[np.ndarray], value: float) -> bool:
    return all(np.allclose(scale, value, rtol=1e-5) for scale in scales)


def called(program: Any) -> str:
    """A name of a program for messages."""
    return getattr(program, "__name__", type(program).__name__)


def addressed(program: Any) -> str:
    """A name of a program for messages, with the address that tells two instances apart."""
    return f"{called(program)} at {id(program):#x}"


def check_sites(needed: Sequence[str], given: Sequence[str], auxiliary: Collection[str] = ()) -> None:
    """Raise ValueError unless a guide draws what its model draws.

    Args:
        needed: the latents of the model.
        given: those of the guide.
        auxiliary: those of them that the guide says are none of the model's.
    """
    for name in given:
        if name not in needed and name not in auxiliary:
            raise ValueError(
                f"the guide samples the site {name!r}, which the model does not draw (latents: {', '.join(needed)}); "
                "build the guide on this model, and pass it the data it was built with"
            )
    for name in needed:
        if name not in given:
            raise ValueError(
                f"the guide has no factor for the site {name!r} of the model (the guide samples: "
                f"{', '.join(given) or 'nothing'}); build the guide on this model"
                + ("" if given else ", MeanField(model, x), or name one, -g mean-field")
            )


def refuse_shape(name: str, what: str, found: tuple[int, ...], want: tuple[int, ...], instead: str) -> NoReturn:
    """Raise ValueError for a site that a guide draws with another shape (`what`: "event shape") than the model."""
    raise ValueError(
        f"the guide draws the site {name!r} with the {what} {found}, want {want}, as in the model; {instead}"
    )


def refuse_unplaced(name: str, found: tuple[int, ...], plate: Plate) -> NoReturn:
    """Raise ValueError for a site whose batch is in a plate in the model and in none in the guide."""
    raise ValueError(
        f"the guide draws the site {name!r} as a batch of shape {found} in no plate at dim {plate.dim}, want the plate "
        f"{plate.name!r} there, as in the model; draw it inside of that plate"
    )


def refuse_support(name: str, family: str, prior: str) -> NoReturn:
    """Raise ValueError for a latent that a guide draws, from one family, where its prior's has no density."""
    raise ValueError(
        f"the guide draws the site {name!r} from a {family}, found values outside of the support of the model's "
        f"{prior}, want all of them inside; take a family on that support, or transform this one to it"
    )


def check_order(guide: Callable, observed: Iterable[str], language: str) -> None:
    """Raise ValueError for a guide that observes something: then it may be the model.

    Args:
        guide, observed: the guide, and the sites that it observes.
        language: of the programs, "pyro" or "numpyro".
    """
    for name in observed:
        raise ValueError(
            f"the guide, {addressed(guide)}, observes the site {name!r}; are model and guide in this order? A guide "
            f"draws every latent and observes nothing but a {language}.factor"
        )


def refuse_model(guide: Callable, own: Any, model: Callable) -> NoReturn:
    """Raise ValueError for a guide that runs a model of its own, `own`, and not the one that it is paired with."""
    raise ValueError(
        f"the guide {type(guide).__name__} runs its own model, {addressed(own)}, which is not the "
        f"{addressed(model)} it is paired with; build the guide on this model"
    )


def refuse_unsized(asks: str, guide: Any, plate: str) -> NoReturn:
    """Raise ValueError for a guide of a library's that makes the model's plates again, one of which has no size."""
    raise ValueError(
        f"{asks}: the guide {type(guide).__name__} makes the model's plate {plate!r} again, which was given no size; "
        f"write pyro.plate({plate!r}, len(x)), or take a guide that makes no plates (MeanField, BottomUp)"
    )


def refuse_rough(name: str, family: str, instead: str, asks: str = "") -> NoReturn:
    """Raise ValueError for a site of a guide, of this family, that is not reparametrized."""
    raise ValueError(
        f"{asks}the guide draws the site {name!r} from a {family}, not reparametrized, so that no gradient goes "
        f"through the draw; {instead}"
    )


class Undrawn(ValueError):
    """A site has to be drawn, and cannot be."""


def refuse_undrawn(asks: str, name: str, family: str, error: BaseException, instead: str) -> NoReturn:
    """Raise Undrawn for a site whose distribution, of this family, has no way to draw; `instead` is to be tried."""
    said = f" ({error})" if str(error) else ""
    raise Undrawn(f"{asks}: the site {name!r} cannot be drawn, as {family} has no `sample`{said}; {instead}") from error


def check_whole(asks: str, run: Run, instead: str = INSTEAD) -> None:
    """Raise ValueError for a model that saw some of its data only: its weights, raised to N / B, bound nothing.

    Args:
        asks: the function that asks, "evaluate".
        run: of the model.
        instead: to be tried.
    """
    for plate in subsampled(run):
        raise ValueError(
            f"{asks}: the plate {plate.name!r} draws {plate.size} of {plate.full_size} data, want every datum; "
            f"{instead}"
        )
