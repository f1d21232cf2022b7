"""What a guide learns of a model from one run on an example: latents, plates, factorization, where the evidence is."""

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import Any

import pyro
import torch
from pyro.infer.inspect import get_dependencies
from pyro.ops.provenance import get_provenance, track_provenance
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppl_models.factorization import Factorization
from ppl_models.factorization.probing.recover import provenance
from ppl_models.parts.plates import data_plate

from .evidence import Taken, covariate, elements, gather, is_part
from .families import gaussian_base, unwrapped
from .readings import Plate, Reading
from .sites import altered, bounds, check_latent, read_site


class Layout:
    """The latents, plates, factorization and evidence of a model, learned from one run of it on an example.

    The plate that enumerates the rows is that of `ppl_models.parts.plates.data_plate`. A latent inside it has one value
    a datum, or one for each index of the further plates it shares with what is observed (data x time). A latent outside
    is global: plates it shares with what is observed (columns) are features of a row.

    Args:
        guide: name of the guide, for messages.
        model: any Pyro model function.
        args: an example batch: the model's arguments.
        loose: in a model without any plate, let latents have batch dims and take them for event dims.
        joint: give the copies of a global latent in plates of its own one factor.
        classical: in a model without any plate, take every latent for global, and the data for constants.

    Raises:
        ValueError: nothing latent, nothing observed, or a latent that is discrete, has batch dims outside all plates,
            or a support whose bounds change from run to run.
    """

    def __init__(
        self,
        guide: str,
        model: Callable,
        args: tuple[Any, ...],
        loose: bool = False,
        classical: bool = False,
        joint: bool = False,
    ) -> None:
        if not callable(model):
            raise TypeError(f"guide {guide}: found the model {model!r}, want a Pyro program, a function or a module")
        self.guide, self.model = guide, model
        # compact copies, so that no two arguments share memory and an observed value tells which one it came from
        args = tuple(_copy(a) if isinstance(a, Tensor) else a for a in args)
        trace = _run(model, args, {})
        nodes = _sample_nodes(trace)
        observed = {n: node for n, node in nodes.items() if node["is_observed"]}
        every = {n: node for n, node in nodes.items() if not node["is_observed"]}
        if not observed:
            found = ", ".join(map(repr, every)) or "no site at all"
            raise ValueError(
                f"guide {guide}: the model observed nothing on the example (it drew {found}); "
                "pass the data the model takes, e.g. the first rows of the training set"
            )
        sites = {name: read_site(node) for name, node in observed.items()}
        data = frozenset(plate.name for s in sites.values() for plate in s.plates)
        plate = data_plate(trace, args[0] if args else None)
        self._rows = plate and Plate(plate.name, plate.dim, plate.size, plate.full_size or plate.size)
        rows = plate and plate.name
        latent = {n: node for n, node in every.items() if not _is_enumerated(node)}
        if not latent:
            raise ValueError(f"guide {guide}: the model has no latent site to infer (observed: {list(observed)})")
        loose = loose and not any(f.vectorized for node in nodes.values() for f in node["cond_indep_stack"])
        for node in latent.values():
            check_latent(guide, node, loose)
        moving = any(bounds(node["fn"].support)[1] for node in latent.values())
        again = _sample_nodes(_run(model, args, {})) if moving else latent  # bounds that depend on a latent move
        kind = {"rows": rows, "loose": loose, "classical": classical, "joint": joint}
        self.latents = {n: read_site(node, data, guide, again.get(n), **kind) for n, node in latent.items()}
        # what is observed inside a plate belongs to that datum; outside all of them it belongs to none
        self.evidence_sites = {name: s for name, s in sites.items() if s.plates or not data}
        self.factorization = _factorization(model, args, every, observed)
        found = {name: node["fn"] for name, node in latent.items() if gaussian_base(node["fn"]) is None}
        self.not_gaussian = {name: type(unwrapped(fn)).__name__ for name, fn in found.items()}
        self.altered = {name: how for name in self.latents if (how := altered(latent[name]))}
        drawn = [node for node in trace.nodes.values() if node["type"] == "sample" and site_is_subsample(node)]
        self.draws_subsamples = any(len(node["value"]) < node["fn"].size for node in drawn)
        self._names = list(signature(getattr(model, "forward", model)).parameters)
        self._sources = self._find_sources(args, observed)
        taken = self.given(args, {}) or self._seen(nodes)
        self._others = self._find_covariates(args, observed)
        # their shapes alone: one number in memory, however large the example
        shapes = [t._replace(value=t.value.new_zeros(()).expand(t.value.shape)) for t in taken]
        self._shapes = shapes, [args[i].new_zeros(()).expand(args[i].shape) for i in self._others]
        self.read({}, covariates=False)

    def read(self, reads: Mapping[str, Iterable[str]], covariates: bool = True) -> None:
        """Set which observed sites each latent reads: all of them if it is not mentioned.

        Elements that no site observes, of arguments of which some site observes others, are covariates, which every
        local latent reads; with `covariates` also whole arguments (of floats or truth values, one row a datum) may be
        among what is read, by their names.
        """
        every = tuple(self.evidence_sites)
        self.covariates = {i: self.called(i) for i in self._others} if covariates else {}
        known = (*every, *self.covariates.values())
        self.reads = {name: tuple(s for s in known if s in set(reads.get(name, every))) for name in self.latents}
        local = [name for name, site in self.latents.items() if not site.is_global]
        self._readings = list(dict.fromkeys(Reading(self.latents[name].keep, self.reads[name]) for name in local))
        taken, others = self._shapes
        taken = [*taken, *map(lambda name, a: covariate(name, a, self._rows, None), self.covariates.values(), others)]
        self.sizes = {reading: t.shape[-1] for reading, t in gather(taken, self._readings).items()}

    def called(self, i: int) -> str:
        """The name of an argument that is no site's: that of the parameter it is passed as."""
        return f"{self._names[i]} (not observed)" if self._names[i] in self.evidence_sites else self._names[i]

    def reading(self, name: str) -> Reading | None:
        """Which evidence tensor the latent `name` reads, None if it reads no data."""
        reading = Reading(self.latents[name].keep, self.reads[name])
        return None if self.latents[name].is_global or reading not in self.sizes else reading

    def _find_sources(
        self, args: tuple[Any, ...], observed: Mapping[str, Any]
    ) -> dict[int, tuple[torch.dtype, dict[str, frozenset[int]]]] | None:
        """The arguments whose rows are what the model observes, whole or in parts: index -> (dtype, elements by site).

        None if a value is no such view of an argument: then the model itself is run to see what it observes.
        """
        owner = {a.untyped_storage().data_ptr(): i for i, a in enumerate(args) if isinstance(a, Tensor) and a.numel()}
        sources: dict[int, tuple[torch.dtype, dict[str, frozenset[int]]]] = {}
        for name, site in self.evidence_sites.items():
            value, batch = observed[name]["value"], tuple(observed[name]["fn"].batch_shape) if site.rank else ()
            i = owner.get(value.untyped_storage().data_ptr())
            if i is None or not is_part(value, args[i], batch):
                return None
            inside = sources.setdefault(i, (args[i].dtype, {}))[1]
            if inside and self.evidence_sites[next(iter(inside))].plates != site.plates:
                return None
            inside[name] = elements(value, len(batch))
        return sources

    def _find_covariates(self, args: tuple[Any, ...], observed: Mapping[str, Any]) -> list[int]:
        """The arguments that nothing observed is made of: floats or truth values with a row for each datum."""
        owner = {a.untyped_storage().data_ptr(): i for i, a in enumerate(args) if isinstance(a, Tensor)}
        used = {owner.get(node["value"].untyped_storage().data_ptr()) for node in observed.values()}
        if self._sources is None:
            tagged = [track_provenance(a, frozenset({i})) if isinstance(a, Tensor) else a for i, a in enumerate(args)]
            try:
                with torch.random.fork_rng([]):  # one run more must not change what is drawn next
                    nodes = _sample_nodes(_run(self.model, tuple(tagged), {}))
                used |= {i for name in observed for i in get_provenance(nodes[name]["value"])}
            except Exception:  # noqa: BLE001 (a program may do anything with a tensor subclass)
                return []
        return [
            i
            for i, a in enumerate(args)
            if isinstance(a, Tensor)
            and a.numel()
            and i not in used
            and (a.is_floating_point() or a.dtype == torch.bool)
            if self._rows is None or a.shape[:1] == (self._rows.full_size,)
        ]

    def _by_index(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[int, Any]:
        return {**dict(enumerate(args)), **{self._names.index(k): v for k, v in kwargs.items() if k in self._names}}

    def given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Taken] | None:
        """The evidence as rows of arguments, if the arguments are all there is to it."""
        if not self._sources or self.draws_subsamples:
            return None
        given, taken = self._by_index(args, kwargs), []
        for i, (dtype, inside) in self._sources.items():
            value, site = given.get(i), self.evidence_sites[next(iter(inside))]
            if not isinstance(value, Tensor) or not value.is_floating_point() or not dtype.is_floating_point:
                return None
            taken.append(Taken(value, value.dim() - site.rank, site, tuple(inside.items())))
        return taken

    def _seen(self, nodes: Mapping[str, Any]) -> list[Taken]:
        """The evidence from the sites of a run.

        Raises:
            ValueError: a site is not observed.
        """
        seen = []
        for name, site in self.evidence_sites.items():
            if name not in nodes or not nodes[name].get("is_observed"):
                raise ValueError(
                    f"guide {self.guide}: site {name!r} was not observed in this run; a guide needs the data, "
                    "so pass what the guide was built with"
                )
            value = nodes[name]["value"]
            seen.append(Taken(value, min(max(value.dim() - site.rank, len(site.event_shape)), value.dim()), site))
        return seen

    def evidence(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        inside: bool = False,
        taken: list[Taken] | None = None,
    ) -> tuple[dict[Reading, Tensor], dict[str, Tensor], dict[str, int]]:
        """What a run observes: one tensor (*plates, features) for each `reading`, its subsamples and sizes of plates.

        Arguments whose rows the model observes, if only in part, are read whole, or less what only sites observe that
        the latent does not read. Discrete values are read as numbers.
        `inside` a run of the model it cannot be run again: then it must be `given` by the arguments. `taken` is what
        they gave, where that is known.

        Raises:
            ValueError: the run observes nothing (no data were passed), or data of another size than the example's.
        """
        subsamples: dict[str, Tensor] = {}
        if all(site.is_global for site in self.latents.values()) and not self.draws_subsamples:
            return {}, subsamples, {}
        taken = self.given(args, kwargs) if taken is None else list(taken)
        if taken is None:
            nodes = _run(self.model, args, kwargs).nodes
            subsamples = {n: node["value"] for n, node in nodes.items() if site_is_subsample(node)}
            taken = self._seen(nodes)
        given = self._by_index(args, kwargs) if self.covariates else {}
        for i in self.covariates:
            if not isinstance(given.get(i), Tensor):
                raise ValueError(
                    f"guide {self.guide}: found no tensor for the argument {self._names[i]!r} of the model, want its "
                    "rows as in the example; pass what the guide was built with"
                )
            rows = subsamples.get(self._rows.name) if self._rows else None
            taken.append(covariate(self.covariates[i], given[i], self._rows, rows))
        gathered = gather(taken, self._readings)
        for reading, tensor in gathered.items():
            if tensor.shape[-1] != self.sizes[reading]:
                if not inside:
                    _run(self.model, args, kwargs)  # the model's own complaint, if it has one, says more
                raise ValueError(
                    f"guide {self.guide}: found {tensor.shape[-1]} observed values a datum (sites "
                    f"{', '.join(reading.sites)}), built for {self.sizes[reading]}; build it on data of this size"
                )
        sizes: dict[str, int] = {}
        for value, event_dim, site, _ in taken:
            for plate in site.plates:
                if value.dim() >= event_dim - plate.dim:
                    sizes[plate.name] = max(sizes.get(plate.name, 1), value.shape[plate.dim - event_dim])
        return gathered, subsamples, sizes


def _run(model: Callable, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    with torch.no_grad(), pyro.poutine.block(), pyro.poutine.trace() as capture:
        try:
            model(*args, **kwargs)
        except NotImplementedError as error:  # an ImproperUniform
            raise ValueError(f"the model cannot be run: {error}; give the site a proper prior") from error
    return capture.trace


def _copy(a: Tensor) -> Tensor:
    return a.detach().clone(memory_format=torch.contiguous_format)


def _sample_nodes(trace: Any) -> dict[str, Any]:
    """The sites that draw or observe something: no subsamples, factors or deterministic values."""
    nodes = {n: node for n, node in trace.nodes.items() if node["type"] == "sample" and not site_is_subsample(node)}
    return {n: node for n, node in nodes.items() if node["value"].numel() and not node["infer"].get("_deterministic")}


def _is_enumerated(node: Mapping[str, Any]) -> bool:
    return node["fn"].has_enumerate_support and node["infer"].get("enumerate") is not None


def _factorization(model: Callable, args: tuple[Any, ...], latent: Mapping, observed: Mapping) -> Factorization:
    """The model's own factorization by provenance; every earlier latent where the model cannot be traced so."""
    order = [*latent, *observed]
    try:
        with torch.no_grad(), pyro.poutine.block():
            found = get_dependencies(model, args)["prior_dependencies"]
        more = provenance(model, args)  # it sees factors, masks and what data depend on, too: more is never wrong
        order += [site for site in more.observed if site not in order]
        known = {site: {*found.get(site, ())} | {*more.parents.get(site, ())} for site in order}
        places = [site for site in more.parents if site in order] + [s for s in order if s not in more.parents]
        parents = {s: tuple(u for u in places[:i] if u in known[s]) for i, s in enumerate(places)}
        return Factorization(parents, tuple(site for site in places if site not in latent))
    except Exception:  # noqa: BLE001 (a program may do anything with a tensor subclass): more parents are never wrong
        names = list(latent)
        everything = {site: tuple(names[: names.index(site)]) if site in latent else tuple(names) for site in order}
        return Factorization(everything, tuple(observed))
