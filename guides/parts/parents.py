"""`choose_parents`, `choose_evidence`, `faithful_inverse`, ...: the latents, entries and data a latent is given."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from ppl_models.factorization import Factorization
from ppl_models.factorization.elements import Elements
from ppl_models.factorization.probing.inspect_model import inspect_model
from ppl_models.factorization.probing.inspection import Inspection
from ppl_models.factorization.probing.recover import examine
from ppl_models.parts.arguments.checked import checked, told
from ppl_models.parts.arguments.kinds import AnyProgram
from ppl_models.parts.checks import check_names
from ppl_models.programs.laboratory import experiments
from ppl_models.programs.legible import warn

from .looks.language import Arguments, Model
from .looks.layout import Layout

Parents = Literal["needed", "all", "previous", "none"] | Mapping[str, Sequence[str]]
TwoWays = Literal["apart"] | Parents
Reads = str | Sequence[str]
Order = Literal["top-down", "bottom-up", "min-fill"]


@checked
def choose_parents(layout: Layout, order: Sequence[str], parents: Parents) -> dict[str, tuple[str, ...]]:
    """The parents of each latent, among those sampled before it, in a guide that samples in `order`.

    "needed": those that the exact posterior depends on, no more (`Factorization.needed_parents`); "all": every earlier
    one; "previous": the one sampled just before; "none"; or a mapping latent -> names (a latent left out gets none).
    A global latent is given globals only.

    Raises:
        ValueError: an unknown word or latent, a bare string for names, or a parent that is not sampled before its
            child.
    """
    if not isinstance(parents, str):
        for name in parents:
            check_latent(layout, "parents", name)
            check_names(f"guide {layout.guide}: found parents[{name!r}] =", parents[name])
    chosen: dict[str, tuple[str, ...]] = {}
    for i, name in enumerate(order):
        earlier = [u for u in order[:i] if layout.latents[u].is_global or not layout.latents[name].is_global]
        if not isinstance(parents, str):
            wanted = tuple(parents.get(name, ()))
            late = [u for u in wanted if u not in earlier]
            if late:
                raise ValueError(
                    f"guide {layout.guide}: parents[{name!r}] has {late[0]!r}, which this guide does not sample before "
                    f"it; it can be given {', '.join(earlier) or 'nothing'}"
                )
        elif parents == "needed":
            wanted = tuple(u for u in layout.factorization.needed_parents(name, earlier) if u in earlier)
        else:
            wanted = {"all": tuple(earlier), "previous": tuple(earlier[-1:]), "none": ()}[parents]
        chosen[name] = wanted
    return chosen


def two_ways(layout: Layout, parents: TwoWays) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """(order, parents) of a guide that infers one latent of each layer on the way up, and all others on the way down.

    A layer is the local latents that the model draws given the same; the last of several is that of the way up.
    "apart": each is given the earlier latents that it needs, but that of its own layer; else as for `choose_parents`.

    Raises:
        ValueError: as for `choose_parents`.
    """
    latents, layers = layout.latents, {}
    for name in (name for name in latents if not latents[name].is_global):
        given = layout.factorization.parents[name]
        layers.setdefault(frozenset(given), []).append(name)
    several = [layer for layer in layers.values() if len(layer) > 1]
    twins = {name: layer[-1] for layer in several for name in layer[:-1]}
    up = [layer[-1] for layer in reversed(several)]
    outer = [name for name in latents if latents[name].is_global]
    order = [*outer, *up, *(name for name in latents if name not in (*outer, *up))]
    chosen = choose_parents(layout, order, "needed" if parents == "apart" else parents)
    if parents == "apart":
        chosen = {name: tuple(u for u in given if u != twins.get(name)) for name, given in chosen.items()}
    return order, chosen


def choose_evidence(
    layout: Layout, parents: Mapping[str, tuple[str, ...]], evidence: Reads, needed_sites: bool = False
) -> Layout:
    """The layout in which each local latent reads what `evidence` says. Globals read no data, and take all for fixed.

    "needed": what is observed, and those covariates that its exact factor, given its parents and the data, depends on;
    "observed": what is observed, whatever else the factor needs; names of arguments: these, needed or not, and where
    none of them is observed, what is observed, too. What a model observes of no argument at all is always read.

    Args:
        layout: of the model.
        parents: latent -> the latents it is given.
        evidence: as above.
        needed_sites: whether a latent reads those observed sites alone that its exact factor depends on.

    Raises:
        ValueError: an unknown word, a bare string for names, or a name of no argument that is an array.
    """
    words, every = ("needed", "observed"), tuple(layout.evidence_sites)
    if isinstance(evidence, str) and evidence not in words:
        want = f"one of {', '.join(map(repr, words))}, or a tuple of names of arguments"
        hint = f"; try ({evidence!r},)" if evidence in layout.arguments else ""
        raise ValueError(f"guide {layout.guide}: found evidence={told(evidence)}, want {want}{hint}")
    named, seen = () if isinstance(evidence, str) else tuple(evidence), set(every)
    for name in named:
        if name not in layout.arguments:
            raise ValueError(
                f"guide {layout.guide}: evidence names {name!r}, want one of the arguments of the model that are "
                f"{layout.language.array}s: {', '.join(layout.arguments) or 'none is known'}"
            )
    if observed := {site for name in named for site in layout.arguments[name]}:
        seen = observed | {s for s in every if not any(s in found for found in layout.arguments.values())}
    chosen = {each.name for each in layout.others.values() if each.argument in named}
    reads = {}
    for name, given in parents.items():
        needed = set(layout.factorization.needed_parents(name, given))
        covariates = needed - set(every) if evidence == "needed" else chosen
        reads[name] = {*(seen & needed if needed_sites else seen), *covariates}
    return layout.reading(reads)


def choose_tied(layout: Layout, parents: Mapping[str, tuple[str, ...]], family: object) -> Layout:
    """The layout in which a latent has the encoder for its factor that its prior is made of, where this fits.

    It does where the factor is given no latent, reads the rows that the encoder reads and nothing beside them, and is
    of the family "diagonal".

    Args:
        layout: of `choose_evidence`.
        parents: latent -> the latents it is given.
        family: of every factor, or a mapping latent -> family.
    """
    tied = set()
    for name, latent in layout.latents.items():
        own = family.get(name, "diagonal") if isinstance(family, Mapping) else family
        key = layout.key(name)
        reads = 0 if key is None else layout.sizes[key]
        if latent.facts.encodes and latent.facts.encodes == reads and own == "diagonal" and not parents[name]:
            tied.add(name)
    return replace(layout, tied=frozenset(tied))


def check_latent(layout: Layout, argument: str, name: str) -> None:
    """Raise ValueError if an argument names a site that is no latent."""
    if name not in layout.latents:
        raise ValueError(
            f"guide {layout.guide}: {argument} names the site {name!r}, want one of the latents "
            f"{', '.join(layout.latents)}"
        )


class Inverse(NamedTuple):
    """A faithful inverse.

    Attributes:
        layout: of the model, each latent reading the data it needs.
        order: in which latents are sampled.
        parents: the latents that each is given.
    """

    layout: Layout
    order: list[str]
    parents: dict[str, tuple[str, ...]]


def faithful_inverse(
    layout: Layout, model: Model, args: Arguments, order: str, amortized: bool | None, evidence: Reads
) -> Inverse:
    """Globals first, then locals, within both in the order asked for, outer plates before inner ones; barren ones last.

    Args:
        layout: of the model.
        model, args: the model and an example, on which it is inspected.
        order: "top-down", "bottom-up" or "min-fill".
        amortized: whether locals read data; None where either will do.
        evidence: what locals read of the data that they need, see `choose_evidence`.

    Raises:
        ValueError: `amortized=False` with a latent in the plate of the data; see `choose_evidence`.

    Warns:
        UserWarning: the structure is known by provenance alone, and why.

    Source: Webb et al. 2018, "Faithful inversion of generative models" (arXiv 1712.00287).
    """
    latents = layout.latents
    local = [name for name, latent in latents.items() if not latent.is_global]
    if amortized is False and local:
        raise ValueError(
            f"guide Faithful: found amortized=False, but site {local[0]!r} has a value for each datum, which a "
            f"network of the data must give; leave it out, or try an autoguide of {layout.language.name}'s"
        )
    found, doubts = examine(model, args, {})
    for doubt in doubts:
        warn(f"guide Faithful: structure by provenance alone, as {doubt}", stacklevel=3)
    layout = layout if doubts else replace(layout, factorization=found)
    model_side, barren = layout.factorization, set(layout.factorization.barren())

    def place(name: str) -> tuple[bool, int]:
        return name in barren, 0 if name in barren else len(latents[name].shared_plates)

    inverse = model_side.faithful_inverse(order).parents
    chosen = sorted((name for name in inverse if name in latents), key=place)  # not the enumerated
    parents = choose_parents(layout, chosen, "needed")
    return Inverse(choose_evidence(layout, parents, evidence, needed_sites=True), chosen, parents)


def read_off(layout: Layout, order: Sequence[str], parents: Mapping[str, tuple[str, ...]]) -> Factorization:
    """The factorization of a guide: what each latent is sampled given, latents and observed sites by name."""
    data = {name: layout.reads[name] if layout.key(name) else () for name in order}
    known = (*layout.evidence_sites, *layout.covariates.values())
    given = [site for site in known if any(site in read for read in data.values())]
    return Factorization({n: (*parents[n], *data[n]) for n in order}, given=tuple(given), letter="q")


@checked
def needed_entries(model: AnyProgram, *args: Any, site: str = "z1") -> tuple[tuple[bool, ...], ...]:
    """Whether the exact factor of each entry of a latent reads each entry before it: n rows of n.

    It is the faithful inverse of the model by entries, in their order, for `bits.AutoregressiveBits(reads=...)`. A
    decoder that mixes all entries makes a clique of them, one whose weights have a pattern may leave less.

    Args:
        model: any model function.
        args: an example batch, about three rows.
        site: the latent.

    Raises:
        ValueError: no such latent, too many entries to look at, or a structure that is not certain.

    Source: Webb et al. 2018, "Faithful inversion of generative models" (arXiv 1712.00287).

    >>> import torch
    >>> from ppl_models import BitVAE
    >>> print(needed_entries(BitVAE(event=4, latent=3, hidden=8), torch.eye(4)[:3]))
    ((False, False, False), (True, False, False), (True, True, False))
    """
    with experiments([model], args, {}) as (experiment,):
        found = inspect_model(experiment)
        if site not in found.latents:
            raise ValueError(f"needed_entries: found the site {told(site)}, want one of {', '.join(found.latents)}")
        # the prior in the place of a guide: only the model is asked about
        elements = Elements(Inspection(model=found, guide=found.probed, sampled=found.latents))
        inverse = elements.markov().faithful_inverse().parents
        doubts = [*found.probed.doubts, *elements.doubts]
    if doubts:
        raise ValueError(f"needed_entries: the structure of the model is not certain, as {doubts[0]}")
    names = [elements.name(element) for element in elements.latents if element[0] == site]
    return tuple(tuple(other in inverse[name] for other in names) for name in names)
