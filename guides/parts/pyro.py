"""`PYRO`: how guides look at Pyro programs and read their data; see `language.Language`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.inspect import get_dependencies
from pyro.ops.provenance import get_provenance, track_provenance
from torch import Tensor
from torch.distributions import biject_to, constraints

from ppl_models.factorization import Factorization
from ppl_models.factorization.probing.recover import provenance
from ppl_models.parts.vamp import EncoderMixture
from ppl_models.programs import pyro as programs
from ppl_models.programs.record import Run, Site

from .families.continuous import gaussian_base
from .looks.covariates import Covariate
from .looks.evidence import Origin, Shape
from .looks.language import Arguments, Look, Model, every_edge
from .looks.latents import Facts, altered, fixed
from .origins import origins


class Pyro:
    """See `guides.parts.looks.language.Language`."""

    name = "Pyro"
    array = "tensor"

    def look(self, model: Model, args: Arguments, unplated: bool) -> Look:
        """See `Language.look`: a run of the model, and another one for bounds of supports, which may move."""
        # compact copies, so that no two arguments share memory and an observed value tells which one it came from
        args = tuple(_compact(a) if isinstance(a, Tensor) else a for a in args)
        run = programs.run(model, args)
        latents = {name: site for name, site in run.latents.items() if not site.enumerated}
        moving = any(_bounds(programs.support_of(site.fn, site.value)) for site in latents.values())
        again, unplated = programs.run(model, args) if moving else run, unplated and not run.plates
        facts = {name: _facts(site, again.get(name), unplated) for name, site in latents.items()}
        values = {name: site.value for name, site in run.observed.items()}
        sites = (replace(site, value=Shape(site.shape), fn=None, mask=None, scale=1.0) for site in run.values())
        return Look(
            Run(sites, programs.to_numpy),
            facts,
            _origins(model, args, values),
            lambda: values,
            lambda given: _factorization(model, args, list(run.latents), list(run.observed), given),
        )

    def observe(
        self, model: Model, args: Arguments, kwargs: Mapping[str, Any], subsamples: bool
    ) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, int]]]:
        """See `Language.observe`."""
        with torch.no_grad(), pyro.poutine.block(), pyro.poutine.trace() as capture:
            model(*args, **kwargs)
        observed, indices = (programs.nodes_of(capture.trace, kind).items() for kind in ("observed", "subsample"))
        return {n: node["value"] for n, node in observed}, {n: (node["value"], node["fn"].size) for n, node in indices}

    def kind(self, value: object) -> str | None:
        """See `Language.kind`."""
        if not isinstance(value, Tensor):
            return None
        return "float" if value.is_floating_point() else "bool" if value.dtype == torch.bool else "int"

    def floats(self, value: Tensor) -> Tensor:
        """See `Language.floats`."""
        return value if value.is_floating_point() else value.to(torch.get_default_dtype())

    def join(self, parts: list[Tensor]) -> Tensor:
        """See `Language.join`."""
        shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        return torch.cat([part.expand(*shape, part.shape[-1]) for part in parts], -1)


PYRO = Pyro()


def _bounds(support: Any) -> dict[str, Tensor]:
    """Those attributes of a constraint that are tensors."""
    own = vars(programs.elementwise(support))
    return {key: value for key, value in own.items() if isinstance(value, Tensor)}


def _facts(site: Site, again: Site | None, unplated: bool) -> Facts:
    support = programs.support_of(site.fn, site.value)
    batch = site.shape[: len(site.shape) - site.event_dim]
    if support.is_discrete:
        event = site.shape if unplated else site.event_shape
        own: Any = programs.unwrapped(site.fn)
        states, shape = _states(own, event)
        limited = states == "categorical" and bool((own.probs == 0).any())
        return Facts(support, "", True, False, shape, False, altered(site, _number), states=states, limited=limited)
    base, found, moving = programs.elementwise(support), _bounds(support), ""
    event = site.shape if unplated else site.event_shape
    if found:
        other = _bounds(programs.support_of(again.fn, again.value)) if again else {}
        base, moving = fixed(base, found, other, site.shape, event, torch.Tensor.expand)
        support = constraints.independent(base, len(event)) if event else base
    elif unplated and batch:
        support = constraints.independent(support, len(batch))
    shape = () if moving else tuple(biject_to(support).inverse_shape(torch.Size(event)))
    is_real = base is constraints.real
    own = programs.unwrapped(site.fn)
    encodes = own.encodes if isinstance(own, EncoderMixture) else 0
    is_gaussian = gaussian_base(site.fn) is not None
    return Facts(support, moving, False, is_real, shape, is_gaussian, altered(site, _number), encodes)


def _states(fn: Any, event: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """(`Facts.states`, the shape of a code) of a discrete distribution, over events of this shape."""
    if type(fn) is dist.Categorical:
        return "categorical", (*event, fn.probs.shape[-1])
    if type(fn) is dist.OneHotCategorical:
        return "one-hot", tuple(event)
    return ("bernoulli", tuple(event)) if type(fn) is dist.Bernoulli else ("", ())


def _compact(a: Tensor) -> Tensor:
    return a.detach().clone(memory_format=torch.contiguous_format)


def _number(value: Any) -> Any:
    return value if isinstance(value, (int, float)) else value.detach().cpu().numpy()


def _origins(model: Model, args: Arguments, values: Mapping[str, Tensor]) -> dict[str, Origin] | None:
    """Origins of observed values, told by memory: a view of an argument is a part of it; or else by following a run.

    Values alone do not tell: those of zeros, or of binary data, are everywhere. Of what is computed provenance tells
    the arguments.
    """
    owner = {a.untyped_storage().data_ptr(): i for i, a in enumerate(args) if isinstance(a, Tensor) and a.numel()}
    found = {}
    for name, value in values.items():
        i = owner.get(value.untyped_storage().data_ptr())
        if i is not None and value.dtype == args[i].dtype:
            places = torch.arange(args[i].numel()).as_strided(value.shape, value.stride(), value.storage_offset())
            found[name] = Origin(frozenset({i}), places.numpy(), frozenset({"pyro", "numpyro"}))
    if len(found) == len(values):
        return found
    tagged = [track_provenance(a, frozenset({i})) if isinstance(a, Tensor) else a for i, a in enumerate(args)]
    # runs more must not change what is drawn next; a program may do anything when it is followed
    with torch.random.fork_rng([]):
        try:
            found = origins(lambda: _observed(model, args), args) | found
        except Exception:  # noqa: BLE001
            pass
        if values.keys() <= found.keys():
            return found
        try:
            observed = _observed(model, tuple(tagged))
        except Exception:  # noqa: BLE001
            return None
    return {name: Origin(get_provenance(observed[name])) for name in values} | found


def _observed(model: Model, args: Arguments) -> dict[str, Tensor]:
    return {name: site.value for name, site in programs.run(model, args).observed.items()}


def _factorization(
    model: Callable, args: Arguments, latents: list[str], observed: list[str], given: Sequence[Covariate]
) -> Factorization:
    """The model's own factorization by provenance; every earlier latent where the model cannot be traced so."""
    order = [*latents, *observed]
    try:
        with torch.no_grad(), pyro.poutine.block():
            found: Any = get_dependencies(model, args)["prior_dependencies"]
        more = _provenance(model, args, given)  # it sees factors, masks and what data depend on: more is never wrong
        order += [site for site in more.observed if site not in order]
        known = {site: {*found.get(site, ())} | {*more.parents.get(site, ())} for site in order}
        places = [site for site in more.parents if site in order] + [s for s in order if s not in more.parents]
        parents = {s: tuple(u for u in (*places[:i], *more.given) if u in known[s]) for i, s in enumerate(places)}
        return Factorization(parents, tuple(site for site in places if site not in latents), more.given)
    except Exception:  # noqa: BLE001 (a program may do anything with a tensor subclass)
        return every_edge(latents, observed, given)


def _provenance(model: Callable, args: Arguments, given: Sequence[Covariate]) -> Factorization:
    """By tags alone; where covariates cannot have any (one says how long a loop is), all depends on each of them."""
    try:
        names = {each.argument: each.name for each in given}
        return provenance(model, args, names, [each.argument for each in given if each.free is None])
    except Exception:  # noqa: BLE001
        found, names = provenance(model, args), tuple(each.name for each in given)
        return Factorization({s: (*p, *names) for s, p in found.items()}, found.observed, names)
