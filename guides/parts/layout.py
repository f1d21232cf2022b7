"""`Layout`: what a guide knows of a model after one look at it, `inspect_model`, and how it reads its data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from math import prod
from typing import Any

from ppl_models.factorization import Factorization
from ppl_models.programs.plates import data_plate
from ppl_models.programs.record import Plate, Site

from .evidence import Array, Elements, Evidence, EvidenceKey, Origin, Shape, elements, gather, plate_sizes, width
from .language import Arguments, Language, Model
from .latents import Latent, decide

LANGUAGES = "pyro", "numpyro"  # as files call them


@dataclass(frozen=True, eq=False)
class Layout:
    """The latents, plates, factorization and evidence of a model, learned from one look at it.

    The plate that enumerates the rows is that of `programs.plates.data_plate`. A latent inside it has one value a
    datum, or one for each index of the further plates it shares with what is observed (data x time). A latent outside
    is global: plates it shares with what is observed (columns) are features of a row.

    It holds neither the model nor arrays.

    Attributes:
        guide: its name, for messages.
        language: of the model.
        latents: in the model's order, less the enumerated ones.
        evidence_sites: the observed sites that belong to a datum.
        factorization: of the model.
        rows: the plate that enumerates the data.
        reads: latent -> what it reads of evidence sites and covariates.
        covariates: index of an argument that nothing observes, but some latent reads -> its name.
        sizes: features a datum of each evidence.
        draws_subsamples: whether a plate took part of its copies on the example.
        names: of the model's parameters, in order.
        moved: the languages whose guides, when files were of format 2, read these data in another order or width: what
            the sites observe, one after another, in place of the rows of the arguments that they are parts of.
    """

    guide: str
    language: Language
    latents: Mapping[str, Latent]
    evidence_sites: Mapping[str, Site]
    factorization: Factorization
    rows: Plate | None
    draws_subsamples: bool
    names: tuple[str, ...]
    # the arguments whose rows are what the model observes: index -> (kind of their entries, elements of a row by site);
    # empty if a value is no part of an argument, and the model itself has to be run to see what it observes
    sources: Mapping[int, tuple[str, tuple[tuple[str, Elements], ...]]]
    moved: frozenset[str] = frozenset()
    example: tuple[Evidence, ...] = ()  # shapes alone
    others: Mapping[int, Shape] = field(default_factory=dict)  # the arguments that nothing observes
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    covariates: Mapping[int, str] = field(default_factory=dict)
    sizes: Mapping[EvidenceKey, int] = field(default_factory=dict)

    def reading(self, needed: Mapping[str, Iterable[str]], covariates: bool = True) -> "Layout":
        """The layout in which each latent reads those observed sites only, and all of them if it is not mentioned.

        Elements that no site observes, of arguments of which some site observes others, are read by every local latent;
        with `covariates` also whole arguments (of floats or truth values, one row a datum) may be among what is needed,
        by their names.
        """
        every = tuple(self.evidence_sites)
        named = {i: self._called(i) for i in self.others} if covariates else {}
        known = (*every, *named.values())
        reads = {name: tuple(s for s in known if s in set(needed.get(name, every))) for name in self.latents}
        found = [*self.example, *(self._covariate(name, self.others[i]) for i, name in named.items())]
        local = (name for name, latent in self.latents.items() if not latent.is_global)
        keys = dict.fromkeys(EvidenceKey(self.latents[name].shared_plates, reads[name]) for name in local)
        sizes = {key: sum(width(each.value.shape, each, key) for each in found) for key in keys}
        sizes = {key: size for key, size in sizes.items() if size}
        return replace(self, reads=reads, covariates=named, sizes=sizes)

    def key(self, name: str) -> EvidenceKey | None:
        """The evidence that the latent `name` reads, None if it reads no data."""
        key = EvidenceKey(self.latents[name].shared_plates, self.reads[name])
        return None if self.latents[name].is_global or key not in self.sizes else key

    def given(self, args: Arguments, kwargs: Mapping[str, Any]) -> list[Evidence] | None:
        """The evidence as rows of arguments, if the arguments are all there is to it."""
        if not self.sources or self.draws_subsamples:
            return None
        given, found = self._by_index(args, kwargs), []
        for i, (kind, inside) in self.sources.items():
            value, site = given.get(i), self.evidence_sites[inside[0][0]]
            found_kind = self.language.kind(value)
            if found_kind is None or (found_kind != kind and not self.moved):
                return None
            value = self.language.floats(value)
            found.append(Evidence(value, len(value.shape) - site.rank, site.plates, inside))
        return found

    def seen(self, values: Mapping[str, Array]) -> list[Evidence]:
        """The evidence from the values of the observed sites of a run.

        Raises:
            ValueError: a site is not observed.
        """
        found = []
        for name, site in self.evidence_sites.items():
            if name not in values:
                raise ValueError(
                    f"guide {self.guide}: site {name!r} was not observed in this run; a guide needs the data, "
                    "so pass what the guide was built with"
                )
            value = values[name]
            event_dim = min(max(len(value.shape) - site.rank, site.event_dim), len(value.shape))
            found.append(Evidence(value, event_dim, site.plates, ((name, None),)))
        return found

    def evidence(
        self,
        model: Model,
        args: Arguments,
        kwargs: Mapping[str, Any],
        inside: bool = False,
        given: list[Evidence] | None = None,
    ) -> tuple[dict[EvidenceKey, Array], dict[str, tuple[Array, int]], dict[str, int]]:
        """The data of a run: arrays (*plates, features) by `key`, subsamples (indices, full size), sizes of plates.

        Arguments whose rows the model observes, if only in part, are read whole, or less what only sites observe that
        the latent does not read. Discrete values are read as numbers. `inside` a run of the model it cannot be run
        again: then `given`, what the arguments gave, is all there is.

        Raises:
            ValueError: the run observes nothing (no data were passed), or data of another size than the example's.
        """
        language = self.language
        if all(latent.is_global for latent in self.latents.values()) and not self.draws_subsamples:
            return {}, {}, {}
        found, subsamples = self.given(args, kwargs) if given is None else list(given), {}
        if found is None:
            values, subsamples = language.observe(model, args, kwargs, self.draws_subsamples)
            found = [each._replace(value=language.floats(each.value)) for each in self.seen(values)]
        arguments = self._by_index(args, kwargs) if self.covariates else {}
        for i, name in self.covariates.items():
            value = arguments.get(i)
            if language.kind(value) is None:
                raise ValueError(
                    f"guide {self.guide}: found no {language.array} for the argument {self.names[i]!r} of the model, "
                    "want its rows as in the example; pass what the guide was built with"
                )
            value = language.floats(value)
            if self.rows and self.rows.name in subsamples:
                value = value[subsamples[self.rows.name][0]]
            found.append(self._covariate(name, value.reshape(_by_datum(value.shape, self.rows))))
        gathered = gather(found, self.sizes, language.join)
        for key, array in gathered.items():
            if array.shape[-1] != self.sizes[key]:
                if not inside:
                    language.observe(model, args, kwargs, False)  # the model's own complaint, if it has one, says more
                raise ValueError(
                    f"guide {self.guide}: found {array.shape[-1]} observed values a datum (sites "
                    f"{', '.join(key.sites)}), built for {self.sizes[key]}; build it on data of this size"
                )
        return gathered, subsamples, plate_sizes(found)

    def _called(self, i: int) -> str:
        """The name of an argument that is no site's: that of the parameter it is passed as."""
        return f"{self.names[i]} (not observed)" if self.names[i] in self.evidence_sites else self.names[i]

    def _covariate(self, name: str, value: Array) -> Evidence:
        """An argument that nothing observes as evidence: of one datum a row, or of the one there is without rows."""
        return Evidence(value, 1, (self.rows,) if self.rows else (), ((name, None),))

    def _by_index(self, args: Arguments, kwargs: Mapping[str, Any]) -> dict[int, Any]:
        return {**dict(enumerate(args)), **{self.names.index(k): v for k, v in kwargs.items() if k in self.names}}


def inspect_model(
    language: Language,
    guide: str,
    model: Model,
    args: Arguments,
    *,
    unplated: bool = False,
    all_global: bool = False,
    joint: bool = False,
) -> Layout:
    """The layout of a model, from a look at it on an example.

    Args:
        language: of the model.
        guide: name of the guide, for messages.
        model: any model function.
        args: an example batch: the model's arguments.
        unplated: in a model without any plate, let latents have batch dims and take them for event dims.
        all_global: in a model without any plate, take every latent for global, and the data for constants.
        joint: give the copies of a global latent in plates of its own one factor.

    Raises:
        TypeError: the model cannot be called.
        ValueError: nothing latent, nothing observed, or a latent that is discrete, has batch dims outside all plates,
            or a support whose bounds change from run to run.
    """
    if not callable(model):
        found = f"found the model {model!r}, want a {language.name} program, a function or a module"
        raise TypeError(f"guide {guide}: {found}")
    look = language.look(model, args, unplated)
    run, observed = look.run, look.run.observed
    if not observed:
        raise ValueError(
            f"guide {guide}: the model observed nothing on the example (it drew "
            f"{', '.join(map(repr, run.latents)) or 'no site at all'}); "
            "pass the data the model takes, e.g. the first rows of the training set"
        )
    if not look.facts:
        raise ValueError(f"guide {guide}: the model has no latent site to infer (observed: {list(observed)})")
    rows, unplated = data_plate(run, args[0] if args else None, look.values), unplated and not run.plates
    data = frozenset(plate.name for site in observed.values() for plate in site.plates)
    latents = {
        name: decide(guide, language.name, run[name], facts, data, rows, unplated, all_global, joint)
        for name, facts in look.facts.items()
    }
    # what is observed inside a plate belongs to that datum; outside all of them it belongs to none
    sites = {name: site for name, site in observed.items() if site.plates or not data}
    layout = Layout(
        guide,
        language,
        latents,
        sites,
        look.factorization(),
        rows,
        any(plate.size < plate.full_size for plate in run.plates.values()),
        tuple(signature(getattr(model, "forward", model)).parameters),
        *_sources(language, sites, look.origins or {}, args),
    )
    found = layout.given(args, {}) or layout.seen({name: site.value for name, site in observed.items()})
    example = tuple(each._replace(value=Shape(tuple(each.value.shape))) for each in found)
    others = {} if look.origins is None else _others(language, look.origins, rows, args)
    return replace(layout, example=example, others=others).reading({}, covariates=False)


def _sources(
    language: Language, sites: Mapping[str, Site], origins: Mapping[str, Origin], args: Sequence[Any]
) -> tuple[dict[int, tuple[str, tuple[tuple[str, Elements], ...]]], frozenset[str]]:
    """(`Layout.sources`, `Layout.moved`)."""
    sources: dict[int, tuple[str, tuple[tuple[str, Elements], ...]]] = {}
    read: list[tuple[int, int]] = []  # (argument, element of its row) of each value, one site after another
    before, cast = frozenset(LANGUAGES), False
    for name, site in sites.items():
        origin = origins.get(name, Origin(frozenset()))
        if origin.places is None:
            return {}, frozenset()
        (i,) = origin.arguments
        batch = site.shape[: len(site.shape) - site.event_dim] if site.rank else ()
        found = None if len(batch) < site.rank else elements(origin.places, batch, tuple(args[i].shape))
        kind, inside = sources.get(i, (language.kind(args[i]) or "", ()))
        if found is None or (inside and sites[inside[0][0]].plates != site.plates):
            return {}, frozenset()
        sources[i] = kind, (*inside, (name, found))
        width = prod(args[i].shape[len(batch) :])
        read += [(i, element) for element in (origin.places.reshape(prod(batch), -1)[0] % width).tolist()]
        before &= origin.before if kind == "float" else frozenset()
        cast |= origin.cast
    rows = [(i, e) for i, (_, inside) in sources.items() for e in range(_width(args[i], sites[inside[0][0]]))]
    if any(kind != "float" for kind, _ in sources.values()) and set(rows) != set(read):
        return {}, frozenset()  # integers that nothing observes may be words: they are not read as numbers
    if read == rows:
        return {} if cast else sources, frozenset()  # what is observed has the type that the model gives it
    return sources, frozenset(LANGUAGES) - before


def _width(argument: Any, site: Site) -> int:
    """The elements in a row of an argument, of which a site observes some."""
    return prod(argument.shape[len(site.shape) - site.event_dim if site.rank else 0 :])


def _others(
    language: Language, origins: Mapping[str, Origin], rows: Plate | None, args: Sequence[Any]
) -> dict[int, Shape]:
    """The arguments that nothing observed is made of: floats or truth values with a row for each datum."""
    used = frozenset().union(*(origin.arguments for origin in origins.values()))
    shapes = {i: a.shape for i, a in enumerate(args) if i not in used and language.kind(a) in ("float", "bool")}
    shapes = {i: s for i, s in shapes.items() if prod(s) and (rows is None or tuple(s[:1]) == (rows.full_size,))}
    return {i: Shape(_by_datum(shape, rows)) for i, shape in shapes.items()}


def _by_datum(shape: Sequence[int], rows: Plate | None) -> tuple[int, ...]:
    """The shape of an argument with a vector for each datum, in the dim of the plate of rows, or of one vector."""
    return (prod(shape),) if rows is None else (shape[0], *[1] * (-rows.dim - 1), prod(shape[1:]))
