"""`Layout`: what a guide knows of a model after one look at it, `inspect_model`, and how it reads its data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from inspect import signature
from math import prod
from typing import Any

from ppl_models.factorization import Factorization
from ppl_models.factorization.probing.recover import unobserved
from ppl_models.parts.arguments.checked import told
from ppl_models.programs.arguments import check_count
from ppl_models.programs.plates import data_plate
from ppl_models.programs.record import Plate, Site

from .covariates import Covariate, arguments_of, check_rows, covariates_of, settled
from .evidence import Array, Elements, Evidence, EvidenceKey, Origin, Shape, elements, gather, plate_sizes, width
from .language import Arguments, Language, Model
from .latents import Latent, decide, told_before

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
        others: index of an argument -> the covariate that it is, or is in part, read or not.
        arguments: name of one that is an array -> the evidence sites that observe it, if only in part.
        told: latent -> the deterministic sites between the latent before it and itself.
        sizes: features a datum of each evidence, those of covariates last.
        tied: latents whose factors are the encoders that their priors are made of (`parents.choose_tied`).
        draws_subsamples: whether a plate took part of its copies on the example.
        names: of the model's parameters, in order.
        moved: the languages whose guides, in files of format 2, read these data in another order or width.
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
    others: Mapping[int, Covariate] = field(default_factory=dict)
    arguments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    told: Mapping[str, tuple[Site, ...]] = field(default_factory=dict)
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sizes: Mapping[EvidenceKey, int] = field(default_factory=dict)
    tied: frozenset[str] = frozenset()

    def reading(self, wanted: Mapping[str, Iterable[str]]) -> "Layout":
        """The layout in which each latent reads these observed sites and covariates, by name, and no others.

        One that is not mentioned reads all that is observed. Elements that no site observes, of arguments whose rows
        are read since some site observes others, are read by every local latent.
        """
        every = tuple(self.evidence_sites)
        known = (*every, *(each.name for each in self.others.values()))
        reads = {name: tuple(s for s in known if s in set(wanted.get(name, every))) for name in self.latents}
        found = [*self.example, *(each.example for each in self.others.values())]
        local = (name for name, latent in self.latents.items() if not latent.is_global)
        keys = dict.fromkeys(EvidenceKey(self.latents[name].shared_plates, reads[name]) for name in local)
        sizes = {key: sum(width(each.value.shape, each, key) for each in found) for key in keys}
        sizes = {key: size for key, size in sizes.items() if size}
        return replace(self, reads=reads, sizes=sizes)

    @cached_property
    def covariates(self) -> dict[int, str]:
        """Those covariates that some latent reads, by the index of their argument."""
        read = {site for key in self.sizes for site in key.sites}
        return {i: each.name for i, each in self.others.items() if each.name in read}

    @cached_property
    def trunks(self) -> dict[tuple[str, ...], int]:
        """Latents, less the tied, that read the same of what is observed -> its features; then those of covariates."""
        found: dict[EvidenceKey, tuple[list[str], int]] = {}
        for key in self.sizes:
            alike = key._replace(sites=tuple(site for site in key.sites if site in self.evidence_sites))
            size = sum(width(each.value.shape, each, key) for each in self.example)
            own = [n for n in self.latents if self.key(n) == key and n not in self.tied]
            found.setdefault(alike, ([], size))[0].extend(own)
        return {tuple(n for n in self.latents if n in names): size for names, size in found.values() if size and names}

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
        arguments, sizes = self._by_index(args, kwargs) if self.covariates else {}, plate_sizes(found)
        for i in self.covariates:
            value = arguments.get(i)
            if language.kind(value) is None:
                told = f"no {language.array} for the argument {self.others[i].argument!r} of the model"
                raise ValueError(
                    f"guide {self.guide}: found {told}, want its rows as in the example; pass what the guide was built "
                    "with"
                )
            covariate = self.others[i].read(language.floats(value), subsamples)
            check_rows(self.guide, self.others[i].argument, covariate, sizes)
            found.append(covariate)
        gathered = gather(found, self.sizes, language.join)
        for key, array in gathered.items():
            if array.shape[-1] != self.sizes[key]:
                if not inside:
                    language.observe(model, args, kwargs, False)  # the model's own complaint, if it has one, says more
                raise ValueError(
                    f"guide {self.guide}: found {array.shape[-1]} observed values a datum (sites "
                    f"{', '.join(key.sites)}), built for {self.sizes[key]}; build it on data of this size"
                )
        return gathered, subsamples, plate_sizes(found) if self.covariates else sizes

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
    if not callable(model) or isinstance(model, type):
        instead = f"; try {model.__name__}()" if isinstance(model, type) else ""
        found = f"found the model {told(model)}, want a {language.name} program, a function or a module{instead}"
        raise TypeError(f"guide {guide}: {found}")
    check_count(len(args), f"guide {guide}", model)
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
    origins = look.origins or {}
    sources, moved = _sources(language, sites, origins, args)
    names = arguments_of(model, args, [language.kind(each) is not None for each in args]) if origins else {}
    others = covariates_of(args, names, origins, sources, run, sites, rows)
    others, factorization = settled(others, look.factorization(list(others.values())), lambda: unobserved(model, args))
    layout = Layout(
        guide,
        language,
        latents,
        sites,
        factorization,
        rows,
        any(plate.size < plate.full_size for plate in run.plates.values()),
        tuple(signature(getattr(model, "forward", model)).parameters),
        sources,
        moved,
        others=others,
        arguments={name: tuple(s for s in sites if i in origins[s].arguments) for i, name in names.items()},
        told=told_before(run),
    )
    found = layout.given(args, {}) or layout.seen({name: site.value for name, site in observed.items()})
    example = tuple(each._replace(value=Shape(tuple(each.value.shape))) for each in found)
    return replace(layout, example=example).reading({})


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
