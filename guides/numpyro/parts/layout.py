"""What a guide learns of a model from one run on an example: latents, plates, factorization, where the evidence is."""

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array

from ...parts.readings import Plate, Reading
from .evidence import Origin, Taken, covariate, elements, gather, is_array, is_floating, origins
from .families import gaussian_base
from .runs import factorization, full_sizes, is_enumerated, observed_values, run, sample_nodes, shape_of
from .sites import Table, altered, bounds, check_latent, data_plate, read_site, unwrapped


class Layout:
    """The latents, plates, factorization and evidence of a model, learned from one run of it on an example.

    The plate that enumerates the rows is that of `guides.numpyro.parts.sites.data_plate`. A latent inside it has one
    value a datum, or one for each index of the further plates it shares with what is observed (data x time). A latent
    outside is global: plates it shares with what is observed (columns) are features of a row.

    It holds neither the model nor arrays of JAX's, so that it can be static in a guide.

    Args:
        guide: name of the guide, for messages.
        model: any NumPyro model function.
        args: an example batch: the model's arguments.
        loose: in a model without any plate, let latents have batch dims and take them for event dims.
        joint: give the copies of a global latent in plates of its own one factor.
        classical: in a model without any plate, take every latent for global, and the data for constants.

    Raises:
        TypeError: the model cannot be called.
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
            raise TypeError(f"guide {guide}: found the model {model!r}, want a NumPyro program, a function or a module")
        self.guide, self._kind = guide, {"loose": loose, "classical": classical, "joint": joint}
        self._names = list(signature(getattr(model, "forward", model)).parameters)
        self._origins = origins(lambda *given: observed_values(run(model, given, {})), args)
        try:  # shapes are all that is needed of most models: a run that computes nothing
            jax.eval_shape(lambda: self._learn(model, args))
        except Exception:  # noqa: BLE001 (bounds of a support, a branch on data; or an error, which is then raised)
            self._learn(model, args)
        self.factorization = factorization(model, args, self._drawn, self._observed)
        self.read({}, covariates=False)

    def _learn(self, model: Callable, args: tuple[Any, ...]) -> None:
        """All that a run on the example shows, but the factorization."""
        guide, trace, first = self.guide, run(model, args, {}), args[0] if args else None
        nodes, full = sample_nodes(trace), full_sizes(trace)
        observed = {n: node for n, node in nodes.items() if node["is_observed"]}
        every = {n: node for n, node in nodes.items() if not node["is_observed"]}
        self._drawn, self._observed = (
            {n: shape_of(node["value"]) for n, node in found.items()} for found in (every, observed)
        )
        if not observed:
            found = ", ".join(map(repr, every)) or "no site at all"
            raise ValueError(
                f"guide {guide}: the model observed nothing on the example (it drew {found}); "
                "pass the data the model takes, e.g. the first rows of the training set"
            )
        sites = {name: read_site(node, full) for name, node in observed.items()}
        data = frozenset(plate.name for s in sites.values() for plate in s.plates)
        found = self._origins or {}
        places = {n: o.places for n, o in found.items() if o.places is not None and o.arguments == {0}}
        plate = data_plate(every.values(), observed.values(), full, first, places)
        self._rows = plate and Plate(plate.name, plate.dim, plate.size, full[plate.name])
        latent = {n: node for n, node in every.items() if not is_enumerated(node)}
        if not latent:
            raise ValueError(f"guide {guide}: the model has no latent site to infer (observed: {list(observed)})")
        loose = self._kind["loose"] and not any(node["cond_indep_stack"] for node in nodes.values())
        for node in latent.values():
            check_latent(guide, node, loose)
        moving = any(bounds(node["fn"].support)[1] for node in latent.values())
        again = sample_nodes(run(model, args, {}, 1)) if moving else latent  # bounds that depend on a latent move
        kind = {**self._kind, "loose": loose, "rows": plate and plate.name}
        self.latents = Table(
            {n: read_site(node, full, data, guide, again.get(n), **kind) for n, node in latent.items()}
        )
        # what is observed inside a plate belongs to that datum; outside all of them it belongs to none
        self.evidence_sites = {name: s for name, s in sites.items() if s.plates or not data}
        found = {name: node["fn"] for name, node in latent.items() if gaussian_base(node["fn"]) is None}
        self.not_gaussian = {name: type(unwrapped(fn)).__name__ for name, fn in found.items()}
        self.altered = {name: how for name in self.latents if (how := altered(latent[name], full))}
        self.scanned = tuple(name for name in self.latents if latent[name].get("_control_flow_done"))
        drawn = (node for node in trace.values() if node["type"] == "plate")
        self.draws_subsamples = any(len(node["value"]) < node["args"][0] for node in drawn)
        self._sources = self._find_sources(args, observed)
        taken = self.given(args, {}) or self._seen(nodes)
        self._others = self._find_covariates(args)
        self._shapes = [t._replace(value=shape_of(t.value)) for t in taken], [shape_of(args[i]) for i in self._others]

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
        self.sizes: dict[Reading, int] = {}

        def sizes(values: list[Array], others: list[Array]) -> None:
            taken = [t._replace(value=value) for t, value in zip(self._shapes[0], values, strict=True)]
            names = self.covariates.values()
            taken += [covariate(name, a, self._rows, None) for name, a in zip(names, others, strict=bool(names))]
            self.sizes |= {reading: t.shape[-1] for reading, t in gather(taken, self._readings).items()}

        jax.eval_shape(sizes, [t.value for t in self._shapes[0]], self._shapes[1] if covariates else [])

    def called(self, i: int) -> str:
        """The name of an argument that is no site's: that of the parameter it is passed as."""
        return f"{self._names[i]} (not observed)" if self._names[i] in self.evidence_sites else self._names[i]

    def reading(self, name: str) -> Reading | None:
        """Which evidence array the latent `name` reads, None if it reads no data."""
        reading = Reading(self.latents[name].keep, self.reads[name])
        return None if self.latents[name].is_global or reading not in self.sizes else reading

    def _find_sources(
        self, args: tuple[Any, ...], observed: Mapping[str, Any]
    ) -> dict[int, tuple[bool, dict[str, frozenset[int]]]] | None:
        """The arguments whose rows are what the model observes, whole or in parts: index -> (floats, elements by site).

        None if a value is no such part of an argument: then the model itself is run to see what it observes.
        """
        sources: dict[int, tuple[bool, dict[str, frozenset[int]]]] = {}
        for name, site in self.evidence_sites.items():
            origin = (self._origins or {}).get(name, Origin(frozenset()))
            if origin.places is None:
                return None
            (i,) = origin.arguments
            batch = tuple(observed[name]["fn"].batch_shape) if site.rank else ()
            found = elements(np.asarray(origin.places), batch, args[i].shape)
            inside = sources.setdefault(i, (is_floating(args[i]), {}))[1]
            if found is None or (inside and self.evidence_sites[next(iter(inside))].plates != site.plates):
                return None
            inside[name] = found
        return sources

    def _find_covariates(self, args: tuple[Any, ...]) -> list[int]:
        """The arguments that nothing observed is made of: floats or truth values with a row for each datum."""
        if self._origins is None:
            return []
        used = frozenset().union(*(self._origins[name].arguments for name in self._observed))
        return [
            i
            for i, a in enumerate(args)
            if is_array(a) and a.size and i not in used and (is_floating(a) or a.dtype == bool)
            if self._rows is None or a.shape[:1] == (self._rows.full_size,)
        ]

    def _by_index(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[int, Any]:
        return {**dict(enumerate(args)), **{self._names.index(k): v for k, v in kwargs.items() if k in self._names}}

    def given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Taken] | None:
        """The evidence as rows of arguments, if the arguments are all there is to it."""
        if not self._sources or self.draws_subsamples:
            return None
        given, taken = self._by_index(args, kwargs), []
        for i, (floats, inside) in self._sources.items():
            value, site = given.get(i), self.evidence_sites[next(iter(inside))]
            if not is_array(value) or not is_floating(value) or not floats:
                return None
            taken.append(Taken(value, value.ndim - site.rank, site, tuple(inside.items())))
        return taken

    def _seen(self, nodes: Mapping[str, Any]) -> list[Taken]:
        """The evidence from the sites of a run.

        Raises:
            ValueError: a site is not observed.
        """
        seen = []
        for name, site in self.evidence_sites.items():
            if name not in nodes or not nodes[name]["is_observed"]:
                raise ValueError(
                    f"guide {self.guide}: site {name!r} was not observed in this run; a guide needs the data, "
                    "so pass what the guide was built with"
                )
            value = jnp.asarray(nodes[name]["value"])
            seen.append(Taken(value, min(max(value.ndim - site.rank, len(site.event_shape)), value.ndim), site))
        return seen

    def evidence(
        self,
        model: Callable,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        inside: bool = False,
        taken: list[Taken] | None = None,
    ) -> tuple[dict[Reading, Array], dict[str, tuple[Array, int]], dict[str, int]]:
        """What a run observes: an array (*plates, features) for each `reading`, its subsamples and sizes of plates.

        Arguments whose rows the model observes, if only in part, are read whole, or less what only sites observe that
        the latent does not read. Discrete values are read as numbers. A subsample is (indices, size of the plate).
        `inside` a run of the model it cannot be run again: then it must be `given` by the arguments. `taken` is what
        they gave, where that is known.

        Raises:
            ValueError: the run observes nothing (no data were passed), or data of another size than the example's.
        """
        subsamples: dict[str, tuple[Array, int]] = {}
        if all(site.is_global for site in self.latents.values()) and not self.draws_subsamples:
            return {}, subsamples, {}
        taken = self.given(args, kwargs) if taken is None else list(taken)
        if taken is None:
            trace = run(model, args, kwargs, numpyro.prng_key(), plates=self.draws_subsamples)
            plates = {n: node for n, node in trace.items() if node["type"] == "plate"}
            subsamples = {n: (p["value"], p["args"][0]) for n, p in plates.items() if len(p["value"]) < p["args"][0]}
            taken = self._seen(sample_nodes(trace))
        given = self._by_index(args, kwargs) if self.covariates else {}
        for i, name in self.covariates.items():
            if not is_array(given.get(i)):
                raise ValueError(
                    f"guide {self.guide}: found no array for the argument {self._names[i]!r} of the model, want its "
                    "rows as in the example; pass what the guide was built with"
                )
            rows = subsamples.get(self._rows.name, (None,))[0] if self._rows else None
            taken.append(covariate(name, given[i], self._rows, rows))
        gathered = gather(taken, self._readings)
        for reading, array in gathered.items():
            if array.shape[-1] != self.sizes[reading]:
                if not inside:
                    run(model, args, kwargs)  # the model's own complaint, if it has one, says more
                raise ValueError(
                    f"guide {self.guide}: found {array.shape[-1]} observed values a datum (sites "
                    f"{', '.join(reading.sites)}), built for {self.sizes[reading]}; build it on data of this size"
                )
        sizes: dict[str, int] = {}
        for value, event_dim, site, _ in taken:
            for plate in site.plates:
                if value.ndim >= event_dim - plate.dim:
                    sizes[plate.name] = max(sizes.get(plate.name, 1), value.shape[plate.dim - event_dim])
        return gathered, subsamples, sizes
