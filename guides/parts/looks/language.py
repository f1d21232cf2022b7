"""`Language`: what guides ask of the language that a model is written in; `Look`: what it tells of a model's run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ppl_models.factorization import Factorization
from ppl_models.programs.record import Run

from .covariates import Covariate
from .evidence import Array, Origin
from .latents import Facts

Model = Callable[..., Any]
Arguments = tuple[Any, ...]


class Look(NamedTuple):
    """Facts of a run of a model on an example, less all arrays.

    Attributes:
        run: its sites, without values and distributions.
        facts: of the latents that are not enumerated.
        origins: where observed values come from; None if that cannot be told.
        values: runs the model for the values of its observed sites.
        factorization: of the model, with all edges that there may be, those from some covariates among them.
    """

    run: Run
    facts: Mapping[str, Facts]
    origins: Mapping[str, Origin] | None
    values: Callable[[], Mapping[str, Array]]
    factorization: Callable[[Sequence[Covariate]], Factorization]


class Language(Protocol):
    """Questions of a layout to the language that a model is written in.

    Attributes:
        name: "Pyro".
        array: what an array is called, "tensor".
    """

    name: str
    array: str

    def look(self, model: Model, args: Arguments, unplated: bool) -> Look:
        """Run a model on an example; `unplated` as for `inspect_model`."""
        ...

    def observe(
        self, model: Model, args: Arguments, kwargs: Mapping[str, Any], subsamples: bool
    ) -> tuple[dict[str, Array], dict[str, tuple[Array, int]]]:
        """Run a model for what it observes: values by site, and by plate the indices of a subsample, and of how many.

        It builds no record, since it is called in every step of a training where arguments do not tell the data.
        Handlers around the guide see no more of the run than plates, whose `subsamples` they may choose.
        """
        ...

    def kind(self, value: object) -> str | None:
        """Kind of the entries of an array: "float", "bool" or "int"; None for what is no array."""
        ...

    def floats(self, value: Array) -> Array:
        """The array in floating-point numbers: its own or those of the default precision."""
        ...

    def join(self, parts: list[Array]) -> Array:
        """Arrays side by side, along the last dim; the dims before are broadcast."""
        ...


def every_edge(latents: list[str], observed: list[str], given: Sequence[Covariate]) -> Factorization:
    """The factorization of a model that cannot be traced: more parents are never wrong."""
    names = tuple(each.name for each in given)
    earlier = {name: (*latents[:i], *names) for i, name in enumerate(latents)}
    return Factorization(earlier | dict.fromkeys(observed, (*latents, *names)), tuple(observed), names)
