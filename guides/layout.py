"""What a guide learns of a model from one run on an example: latents, plates, factorization, where the evidence is."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from math import prod
from typing import Any

import pyro
import torch
from pyro.infer.inspect import get_dependencies
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppl_models.factorization import Factorization
from ppl_models.parts.plates import data_plate

from .families import gaussian_base, unwrapped
from .sites import Site, altered, bounds, check_latent, features, read_site


class Layout:
    """The latents, plates, factorization and evidence of a model, learned from one run of it on an example.

    The plate that enumerates the rows is that of `ppl_models.parts.plates.data_plate`. A latent inside it has one value
    a datum, or one for each index of the further plates it shares with what is observed (data x time). A latent outside
    is global: plates it shares with what is observed (columns) are features of a row.

    Args:
        guide: name of the guide, for messages.
        model: any Pyro model function.
        args: an example batch: the model's arguments.

    Raises:
        ValueError: nothing latent, nothing observed, or a latent that is discrete, has batch dims outside all plates,
            or a support whose bounds change from run to run.
    """

    def __init__(self, guide: str, model: Callable, args: tuple[Any, ...]) -> None:
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
        rows = getattr(data_plate(trace, args[0] if args else None), "name", None)
        latent = {n: node for n, node in every.items() if not _is_enumerated(node)}
        if not latent:
            raise ValueError(f"guide {guide}: the model has no latent site to infer (observed: {list(observed)})")
        for node in latent.values():
            check_latent(guide, node)
        moving = any(bounds(node["fn"].support)[1] for node in latent.values())
        again = _sample_nodes(_run(model, args, {})) if moving else latent  # bounds that depend on a latent move
        self.latents = {name: read_site(node, data, guide, again.get(name), rows) for name, node in latent.items()}
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
        self.sizes = {key: t.shape[-1] for key, t in self._gather(self.given(args, {}) or self._seen(nodes)).items()}

    @property
    def keys(self) -> list[frozenset[str]]:
        """The distinct sets of plates that latents share with the data: one evidence tensor each."""
        return list(dict.fromkeys(site.keep for site in self.latents.values() if not site.is_global))

    def _find_sources(
        self, args: tuple[Any, ...], observed: Mapping[str, Any]
    ) -> dict[int, tuple[str, torch.dtype]] | None:
        """The arguments whose rows are what the model observes, whole or in parts: index -> (a site, dtype).

        None if a value is no such view of an argument: then the model itself is run to see what it observes.
        """
        owner = {a.untyped_storage().data_ptr(): i for i, a in enumerate(args) if isinstance(a, Tensor) and a.numel()}
        sources: dict[int, tuple[str, torch.dtype]] = {}
        for name, site in self.evidence_sites.items():
            value, batch = observed[name]["value"], tuple(observed[name]["fn"].batch_shape)
            i = owner.get(value.untyped_storage().data_ptr())
            if i is None or not _is_part(value, args[i], batch):
                return None
            first, _ = sources.setdefault(i, (name, args[i].dtype))
            if self.evidence_sites[first].plates != site.plates:
                return None
        return sources

    def given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[tuple[Tensor, int, Site]] | None:
        """The evidence as (value, event dims, a site with its plates), if the arguments are all there is to it."""
        if not self._sources or self.draws_subsamples:
            return None
        given = {**dict(enumerate(args)), **{self._names.index(k): v for k, v in kwargs.items() if k in self._names}}
        taken = []
        for i, (name, dtype) in self._sources.items():
            value, site = given.get(i), self.evidence_sites[name]
            if not isinstance(value, Tensor) or value.dtype != dtype or not dtype.is_floating_point:
                return None
            taken.append((value, value.dim() - site.rank, site))
        return taken

    def _seen(self, nodes: Mapping[str, Any]) -> list[tuple[Tensor, int, Site]]:
        """The evidence as (value, event dims, site), from the sites of a run.

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
            seen.append((value, min(max(value.dim() - site.rank, len(site.event_shape)), value.dim()), site))
        return seen

    def evidence(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], inside: bool = False
    ) -> tuple[dict[frozenset[str], Tensor], dict]:
        """What a run observes: one tensor (*plates, features) for each of `keys`, and the subsamples it was drawn with.

        Arguments whose rows the model observes, if only in part, are read whole. Discrete values are read as numbers.
        `inside` a run of the model it cannot be run again: then it must be `given` by the arguments.

        Raises:
            ValueError: the run observes nothing (no data were passed), or data of another size than the example's.
        """
        subsamples: dict[str, Tensor] = {}
        if not self.keys and not self.draws_subsamples:
            return {}, subsamples
        taken = self.given(args, kwargs)
        if taken is None:
            nodes = _run(self.model, args, kwargs).nodes
            subsamples = {n: node["value"] for n, node in nodes.items() if site_is_subsample(node)}
            taken = self._seen(nodes)
        gathered = self._gather(taken)
        for key, tensor in gathered.items():
            if tensor.shape[-1] != self.sizes[key]:
                if not inside:
                    _run(self.model, args, kwargs)  # the model's own complaint, if it has one, says more
                raise ValueError(
                    f"guide {self.guide}: found {tensor.shape[-1]} observed values a datum (sites "
                    f"{', '.join(self.evidence_sites)}), built for {self.sizes[key]}; build it on data of this size"
                )
        return gathered, subsamples

    def _gather(self, taken: Sequence[tuple[Tensor, int, Site]]) -> dict[frozenset[str], Tensor]:
        """Observed values as one feature tensor for each of `keys`."""
        gathered = {}
        for key in self.keys:
            parts = []
            for value, event_dim, site in taken:
                if key and key.isdisjoint(plate.name for plate in site.plates):
                    continue  # observed in other plates than this latent's
                part = features(value, event_dim, site.plates, key)
                parts.append(part if part.is_floating_point() else part.to(torch.get_default_dtype()))
            shape = torch.broadcast_shapes(*(p.shape[:-1] for p in parts))
            parts = [p.expand(*shape, p.shape[-1]) for p in parts]
            gathered[key] = torch.cat(parts, -1) if len(parts) > 1 else parts[0]
        return gathered


def _run(model: Callable, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    with torch.no_grad(), pyro.poutine.block(), pyro.poutine.trace() as capture:
        model(*args, **kwargs)
    return capture.trace


def _copy(a: Tensor) -> Tensor:
    return a.detach().clone(memory_format=torch.contiguous_format)


def _sample_nodes(trace: Any) -> dict[str, Any]:
    """The sites that draw or observe something: no subsamples, factors or deterministic values."""
    nodes = {n: node for n, node in trace.nodes.items() if node["type"] == "sample" and not site_is_subsample(node)}
    return {n: node for n, node in nodes.items() if node["value"].numel() and not node["infer"].get("_deterministic")}


def _is_part(value: Tensor, argument: Tensor, batch: tuple[int, ...]) -> bool:
    """Whether row i of `value` lies inside row i of `argument`, a compact tensor whose memory it shares."""
    k = len(batch)
    if value.dtype != argument.dtype or tuple(value.shape[:k]) != batch or tuple(argument.shape[:k]) != batch:
        return False
    aligned = all(v == a for n, v, a in zip(batch, value.stride(), argument.stride(), strict=False) if n > 1)
    event = zip(value.shape[k:], value.stride()[k:], strict=True)
    end = value.storage_offset() + sum((n - 1) * stride for n, stride in event)
    return aligned and end < prod(argument.shape[k:])


def _is_enumerated(node: Mapping[str, Any]) -> bool:
    return node["fn"].has_enumerate_support and node["infer"].get("enumerate") is not None


def _factorization(model: Callable, args: tuple[Any, ...], latent: Mapping, observed: Mapping) -> Factorization:
    """The model's own factorization by provenance; every earlier latent where the model cannot be traced so."""
    order = [*latent, *observed]
    try:
        with torch.no_grad(), pyro.poutine.block():
            found = get_dependencies(model, args)["prior_dependencies"]
        parents = {site: tuple(u for u in found[site] if u != site and u in latent) for site in order}
        return Factorization(parents, tuple(observed))
    except Exception:  # noqa: BLE001 (a program may do anything with a tensor subclass): more parents are never wrong
        names = list(latent)
        everything = {site: tuple(names[: names.index(site)]) if site in latent else tuple(names) for site in order}
        return Factorization(everything, tuple(observed))
