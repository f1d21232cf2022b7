"""What a guide must know of a model before it can have parameters: its sites, shapes, plates and evidence."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import pyro
import torch
from pyro.infer.inspect import get_dependencies
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to, constraints

from ppl_models.factorization import Factorization


@dataclass(frozen=True)
class Plate:
    """A plate as one run of the model entered it: sizes are those of the example."""

    name: str
    dim: int
    size: int
    full_size: int


@dataclass(frozen=True)
class Site:
    """A sample site as one run of the model drew it.

    `keep` are the plate dims it shares with the data: one value a datum there. `private` are its other plates, whose
    sizes belong to the site as an event dimension does.
    """

    name: str
    event_shape: tuple[int, ...]
    support: Any
    plates: tuple[Plate, ...]
    keep: frozenset[int] = frozenset()
    is_global: bool = False

    @property
    def dims(self) -> tuple[int, ...]:
        """The dims of its plates, all negative."""
        return tuple(plate.dim for plate in self.plates)

    @property
    def private(self) -> tuple[Plate, ...]:
        """The plates it does not share with the data."""
        return tuple(plate for plate in self.plates if plate.dim not in self.keep)

    @property
    def unconstrained_shape(self) -> tuple[int, ...]:
        """Event shape of the values once mapped to all of R^n."""
        return tuple(biject_to(self.support).inverse_shape(torch.Size(self.event_shape)))


def is_real(support: Any) -> bool:
    """Whether `support` is all of R^n, up to reinterpreted dimensions."""
    while isinstance(support, type(constraints.real_vector)):
        support = support.base_constraint
    return support is constraints.real


def features(value: Tensor, event_dim: int, dims: tuple[int, ...], keep: frozenset[int]) -> Tensor:
    """Values with plates at `dims` as vectors, one for each index of the plates in `keep`: the others are folded in.

    Dimensions further left (particles) stay. (*particles, *plates, *event) -> (*particles, *kept plates, features);
    a folded plate leaves a dimension of size 1, so that the kept ones stay where they are.
    """
    value = value.unsqueeze(-1) if event_dim == 0 else value.flatten(-event_dim)
    for dim in dims:
        if dim not in keep and value.dim() > -dim:
            value = value.transpose(dim - 1, -2).flatten(-2).unsqueeze(-2).transpose(dim - 1, -2)
    return value


class Layout:
    """The latents, plates, factorization and evidence of a model, learned from one run of it on an example.

    Args:
        guide: name of the guide, for messages.
        model: any Pyro model function.
        args: an example batch: the model's arguments.

    Raises:
        ValueError: nothing latent, nothing observed, or a latent that is discrete.
    """

    def __init__(self, guide: str, model: Callable, args: tuple[Any, ...]) -> None:
        self.guide, self.model = guide, model
        # copies, so that no two arguments share memory and an observed value tells which one it came from
        args = tuple(a.detach().clone() if isinstance(a, Tensor) else a for a in args)
        trace = _run(model, args, {})
        nodes = {name: node for name, node in trace.nodes.items() if node["type"] == "sample"}
        nodes = {n: node for n, node in nodes.items() if not site_is_subsample(node) and not _is_empty(node)}
        observed = {n: node for n, node in nodes.items() if node["is_observed"]}
        latent = {n: node for n, node in nodes.items() if not node["is_observed"]}
        if not observed:
            found = ", ".join(map(repr, latent)) or "no site at all"
            raise ValueError(
                f"guide {guide}: the model observed nothing on the example (it drew {found}); "
                "pass the data the model takes, e.g. the first rows of the training set"
            )
        data_dims = frozenset(dim for node in observed.values() for dim in _site(node).dims)
        shared = {name: _site(node, data_dims) for name, node in latent.items() if not _is_enumerated(node)}
        if not shared:
            raise ValueError(f"guide {guide}: the model has no latent site to infer (observed: {list(observed)})")
        for name, node in latent.items():
            if name in shared and node["fn"].support.is_discrete:
                raise ValueError(
                    f"guide {guide}: site {name!r} is discrete ({type(node['fn']).__name__}), the guides here draw "
                    "continuous values; sum it out (infer={'enumerate': 'parallel'}, a BottomUp guide, TraceEnum_ELBO)"
                )
        self.latents: dict[str, Site] = shared
        # what is observed inside a plate belongs to that datum; outside all of them it belongs to none
        inside = {n: _site(node) for n, node in observed.items() if not data_dims or _site(node).plates}
        self.evidence_sites = {n: s for n, s in inside.items() if set(s.dims) <= data_dims}
        self.factorization = _factorization(model, args, latent, observed)
        self.draws_subsamples = any(site_is_subsample(node) and node["value"].numel() < node["fn"].size
                                    for node in trace.nodes.values() if node["type"] == "sample")
        self._sources = self._find_sources(args, observed)
        self._names = list(signature(getattr(model, "forward", model)).parameters)
        self.sizes = {key: tensor.shape[-1] for key, tensor in self.gather(self._values(observed)).items()}

    @property
    def keys(self) -> list[frozenset[int]]:
        """The distinct sets of plate dims that latents share with the data: one evidence tensor each."""
        return list(dict.fromkeys(site.keep for site in self.latents.values() if not site.is_global))

    def _values(self, nodes: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: nodes[name]["value"] for name in self.evidence_sites}

    def _find_sources(self, args: tuple[Any, ...], observed: Mapping[str, Any]) -> dict[str, int] | None:
        """Which argument each observed value is (or is a part of, where all its parts share their plates).

        None if a value is no view of an argument: then the model itself is run to see what it observes.
        """
        owner = {a.untyped_storage().data_ptr(): i for i, a in enumerate(args) if isinstance(a, Tensor) and a.numel()}
        sources: dict[str, int] = {}
        for name, site in self.evidence_sites.items():
            node = observed[name]
            value, batch = node["value"], tuple(node["fn"].batch_shape)
            i = owner.get(value.untyped_storage().data_ptr())
            if i is None or tuple(args[i].shape[: len(batch)]) != batch:
                return None
            if value.shape != args[i].shape:  # a part: every plate dim must be a leading dim of the argument
                if len(batch) != len(site.dims) or value.dim() == len(batch):
                    return None
            sources[name] = i
        return sources

    def evidence(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[dict[frozenset[int], Tensor], dict]:
        """What a run observes: one tensor (*plates, features) for each of `keys`, and the subsamples it was drawn with.

        Raises:
            ValueError: the run observes nothing (no data were passed), or data of another size than the example's.
        """
        if not self.keys:
            return {}, {}
        taken: dict[str, Any] = {}
        if self._sources is not None:
            given = {**dict(enumerate(args)), **{self._names.index(k): v for k, v in kwargs.items() if k in self._names}}
            taken = {name: given.get(i) for name, i in self._sources.items()}
        subsamples: dict[str, Tensor] = {}
        if not taken or not all(isinstance(v, Tensor) and v.is_floating_point() for v in taken.values()):
            nodes = _run(self.model, args, kwargs).nodes
            subsamples = {n: node["value"] for n, node in nodes.items() if site_is_subsample(node)}
            for name in self.evidence_sites:
                if name not in nodes or not nodes[name].get("is_observed"):
                    raise ValueError(
                        f"guide {self.guide}: site {name!r} was not observed in this run; a guide needs the data, "
                        "so pass what the guide was built with"
                    )
            taken = self._values(nodes)
        gathered = self.gather(taken)
        for key, tensor in gathered.items():
            if tensor.shape[-1] != self.sizes[key]:
                _run(self.model, args, kwargs)  # the model's own complaint, if it has one, says more
                raise ValueError(
                    f"guide {self.guide}: found {tensor.shape[-1]} observed values a datum "
                    f"(sites {', '.join(self.evidence_sites)}), built for {self.sizes[key]}; build it on an example of this size"
                )
        return gathered, subsamples

    def gather(self, values: Mapping[str, Tensor]) -> dict[frozenset[int], Tensor]:
        """Observed values as one feature tensor for each of `keys`; an argument observed in parts is taken once."""
        distinct = {id(v): (v, self.evidence_sites[name]) for name, v in values.items()}
        gathered = {}
        for key in self.keys:
            parts = []
            for value, site in distinct.values():
                if key and not key & set(site.dims):
                    continue  # observed in other plates than this latent's
                batch = max((-dim for dim in site.dims), default=0)
                part = features(value, value.dim() - min(batch, value.dim()), site.dims, key)
                parts.append(part if part.is_floating_point() else part.to(torch.get_default_dtype()))
            shape = torch.broadcast_shapes(*(p.shape[:-1] for p in parts))
            gathered[key] = torch.cat([p.expand(*shape, p.shape[-1]) for p in parts], -1) if len(parts) > 1 else parts[0]
        return gathered


def _run(model: Callable, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    with torch.no_grad(), pyro.poutine.block():
        return pyro.poutine.trace(model).get_trace(*args, **kwargs)


def _is_empty(node: Mapping[str, Any]) -> bool:
    return node["value"].numel() == 0  # pyro.factor and pyro.deterministic draw nothing


def _is_enumerated(node: Mapping[str, Any]) -> bool:
    return node["fn"].has_enumerate_support and node["infer"].get("enumerate") is not None


def _site(node: Mapping[str, Any], data_dims: frozenset[int] | None = None) -> Site:
    fn = node["fn"]
    plates = tuple(Plate(f.name, f.dim, f.size, f.full_size or f.size) for f in node["cond_indep_stack"] if f.vectorized)
    dims = frozenset(plate.dim for plate in plates)
    keep = dims if data_dims is None else dims & data_dims
    is_global = bool(data_dims) and not keep
    return Site(node["name"], tuple(fn.event_shape), fn.support, plates, keep, is_global)


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
