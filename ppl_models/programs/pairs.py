"""`Pair`: what one run of a model and a guide shows; and each message about a pair that does not fit, once.

`check_sites` is asked at every step, and takes names; other checks take the records of a run.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn, Self

from .plates import data_plate, is_local, subsampled
from .record import Plate, Run

DENSE = "latent", "observed", "factor"  # kinds of sites that have a density
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
        return next(((s.name, s.family) for s in self.guide.latents.values() if not s.reparametrized), None)

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
                f"the guide has no factor for the site {name!r} of the model (the guide samples: {', '.join(given)}); "
                "build the guide on this model"
            )


def check_order(guide: Callable, observed: Iterable[str], language: str) -> None:
    """Raise ValueError for a guide that observes something: then it may be the model.

    Args:
        guide: the guide.
        observed: the sites that it observes.
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


def refuse_rough(name: str, family: str, instead: str, asks: str = "") -> NoReturn:
    """Raise ValueError for a site of a guide, of this family, that is not reparametrized."""
    raise ValueError(
        f"{asks}the guide draws the site {name!r} from a {family}, not reparametrized, so that no gradient goes "
        f"through the draw; {instead}"
    )


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


def fits(runs: Iterable[Run], rows: int | None) -> bool:
    """Whether each plate of some runs has as many copies as what is in it has values, and no more than there are.

    One value may stand for all copies, unless it is all that there is of so many `rows` of data, one.
    """
    for site in (site for run in runs for site in run.of(*DENSE).values()):
        for plate in site.plates:
            dim = plate.dim - site.event_dim
            size = site.shape[dim] if len(site.shape) >= -dim else None
            one = size is None or (size == 1 and not (rows == 1 and site.kind == "observed"))
            if not (one or size == plate.size) or plate.size > plate.full_size:
                return False
    return True


def rows_in(args: Sequence[Any]) -> int | None:
    """The number of rows in the first of some arguments, None where it is no array of rows."""
    return len(args[0]) if args and getattr(args[0], "ndim", 0) else None


def refuse_rows(asks: str, found: int, whose: str, made: int) -> NoReturn:
    """Raise ValueError for a number of rows that a pair does not take, as "model" or "guide" was made for another."""
    instead = {
        "guide": "take a guide that reads its rows (MeanField, BottomUp), or train another one on these",
        "model": "write its plate for any number of rows, with len(x)",
    }
    raise ValueError(
        f"{asks}: found {found} row{'s' * (found != 1)}, want the {made} that the {whose} was made for, as it has a "
        f"plate or a value for each of them; pass those, or {instead[whose]}"
    )


def rows_taken(
    found: int, sizes: Iterable[int], runs: Callable[[int, bool], bool], most: int = 8
) -> tuple[str, int] | None:
    """(program, number of rows) for a pair that does not run on the rows found, but on another number of them.

    Args:
        found: the number of rows on which it failed.
        sizes: of plates, then of parameters, among which the number is looked for.
        runs: whether so many rows run through the pair, or through the model alone.
        most: how many sizes are tried.
    """
    for size in [size for size in dict.fromkeys(sizes) if size > 0 and size != found][:most]:
        if runs(size, False) and not runs(size + 1, False):  # else it takes many a number
            return "guide" if runs(found, True) else "model", size
    return None
