"""`summed_out`: the trace of a model without the discrete sites that it enumerates, which exact sums take out."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import Distribution

from ppl_models.programs.pairs import DENSE
from ppl_models.programs.pyro import nodes_of, to_numpy
from ppl_models.programs.record import Run

BEFORE = ", not summed"  # after the names of sites as they were
FIRST = -12  # the dim of the first enumerated site, left of particles and of all plates


class Summed(TorchDistribution):
    """What a site is drawn from, given the sites before it, with the discrete ones summed out.

    Args:
        fn: of the site in the model, given discrete sites, too.
        density: at the value of the site.
    """

    has_rsample = False
    arg_constraints: Mapping[str, Any] = {}

    def __init__(self, fn: Distribution, density: Tensor) -> None:
        super().__init__(density.shape, fn.event_shape, validate_args=False)
        self.fn, self.density = fn, density

    @property
    def support(self) -> Any:
        """That of the site."""
        return self.fn.support

    def log_prob(self, value: Tensor) -> Tensor:
        """The density at the value of the site, whichever is asked for."""
        return self.density


def summed_out(trace: Trace) -> Trace:
    """The trace of a model in which an `EnumMessenger` enumerated sites, without these; itself if there are none.

        log p(site | sites before) = log sum_k p(k, all up to the site) - log sum_k p(k, all before the site)

    with the sums by Pyro's own tensor contraction, as `TraceEnum_ELBO` has them, so that plates, masks and markov
    chains mean what they mean there. Observed sites between two latents become one. Where an enumerated site is outside
    a plate, what depends on it is one term for the whole plate.

    Raises:
        ValueError: scales that differ among the sites that are summed together, or what Pyro does not enumerate.
    """
    nodes = nodes_of(trace, *DENSE)
    states = {name: node for name, node in nodes.items() if node["infer"].get("_enumerate_dim") is not None}
    if not states:
        return trace
    for name, node in states.items():
        count = node["infer"].get("num_samples")
        if count:
            raise ValueError(
                f"site {name!r}: found infer={{'num_samples': {count}}}, want all states for an exact sum; leave it out"
            )
    trace.compute_log_prob()
    trace.pack_tensors()
    symbols = {node["infer"]["_enumerate_symbol"] for node in states.values()}
    touched = {name: node for name, node in nodes.items() if symbols & set(node["packed"]["log_prob"]._pyro_dims)}
    scale = _common_scale(touched) if touched else 1.0
    sums = _Sums(trace, touched, symbols)
    found = trace.copy()
    for name, node in touched.items():  # no sites any more, but their plates are still those of the program
        if name not in states:
            whole = f"{name}{BEFORE}"
            found.nodes[whole] = _without_density({**node, "name": whole})
    for names, density in sums.terms([name for name, node in touched.items() if name not in states]):
        *merged, last = names
        node = touched[last]
        frames = tuple(f for f in node["cond_indep_stack"] if trace.plate_to_symbol.get(f.name) in sums.ordinal)
        changed = {"fn": Summed(node["fn"], density), "cond_indep_stack": frames, "scale": scale, "mask": None}
        found.nodes[last] = {**node, **changed}
        for name in merged:
            del found.nodes[name]
    for name in states:
        found.nodes[name] = _without_density(states[name])
    return found


def with_states(run: Run) -> Run:
    """The record of a model as it was before its discrete sites were summed out, of the record of `summed_out`."""
    before = {name.removesuffix(BEFORE): site for name, site in run.items() if name.endswith(BEFORE)}
    kinds = {name: run[name].kind if name in run else "observed" for name in before}
    sites = {**before, **run}.items()
    return Run([replace(before.get(n, s), name=n, kind=kinds.get(n, s.kind)) for n, s in sites], to_numpy)


def _without_density(node: Mapping[str, Any]) -> dict[str, Any]:
    return {**node, "infer": {**node["infer"], "_deterministic": True}}


class _Sums:
    """Sums over all states of log densities, of the first sites of a run up to any of them.

    Args:
        trace: packed.
        touched: the enumerated sites and those whose densities depend on one.
        symbols: the dims of the enumerated sites.
    """

    def __init__(self, trace: Trace, touched: Mapping[str, Mapping[str, Any]], symbols: set[str]) -> None:
        self.trace, self.touched, self.symbols = trace, touched, symbols
        self.names = [*touched]
        self.ordinal = frozenset.intersection(*self._contracted(len(touched)) or [frozenset()])

    def terms(self, kept: Sequence[str]) -> Iterator[tuple[list[str], Tensor]]:
        """(sites, their log density given the sites before them) for each latent and each run of observed ones."""
        before, observed = self._until(0), []
        for i, name in enumerate(self.names):
            if name not in kept:
                continue
            if self.touched[name]["is_observed"]:
                observed.append((i, name))
                continue
            if observed:
                after = self._until(observed[-1][0] + 1)
                yield [n for _, n in observed], after - before
                before, observed = after, []
            after = self._until(i + 1)
            yield [name], after - before
            before = after
        if observed:
            yield [n for _, n in observed], self._until(observed[-1][0] + 1) - before

    def _until(self, count: int) -> Tensor:
        """log of the sum of p(the first sites) over their discrete ones, in the plates that all sums share."""
        total = torch.zeros(())
        for terms in self._contracted(count).values():
            for term in terms:
                others = [i for i, dim in enumerate(term._pyro_dims) if dim not in self.ordinal]
                dims = "".join(dim for dim in term._pyro_dims if dim in self.ordinal)
                term = term.sum(others) if others else term[...]
                term._pyro_dims = dims
                total = total + packed.unpack(term, self.trace.symbol_to_dim)
        return total

    def _contracted(self, count: int) -> Mapping[frozenset[str], list[Tensor]]:
        factors: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
        for name in self.names[:count]:
            node = self.touched[name]
            ordinal = frozenset(self.trace.plate_to_symbol[f.name] for f in node["cond_indep_stack"] if f.vectorized)
            density = node["packed"]["unscaled_log_prob"]
            if node["infer"].get("_enumerate_dim") is None:
                density = packed.scale_and_mask(density, mask=node["packed"]["mask"])
            factors.setdefault(ordinal, []).append(density)
        return contract_tensor_tree(factors, set(self.symbols)) if factors else {}


def _common_scale(touched: Mapping[str, Mapping[str, Any]]) -> float:
    scales = {float(node["scale"]): name for name, node in touched.items()}
    if len(scales) > 1:
        told = ", ".join(f"{name!r} has {scale:g}" for scale, name in scales.items())
        raise ValueError(
            f"found different scales of sites that are summed together ({told}), want one for all of them; drop "
            "poutine.scale, or put it around all"
        )
    return next(iter(scales))
