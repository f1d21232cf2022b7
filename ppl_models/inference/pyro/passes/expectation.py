"""`Expectation`: the exact mean of log densities over the states of discrete sites that a guide enumerates."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, Self

import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppl_models.programs.pyro import nodes_of, unmasked, unwrapped

from ...objectives.states import refuse_copies, refuse_draws
from ..sites.divergences import log_density


class AllStates(Messenger):
    """Give a discrete site that is marked, `infer={"enumerate": ...}`, all of its states in place of a draw.

    Each site has a dim of its own, whatever `pyro.markov` says, so that a mean over it is over it alone.

    Args:
        first: the dim of the first site, left of particles and of all plates; the others go left of it.
    """

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = self.next = first

    def __enter__(self) -> Any:
        self.next = self.first
        return super().__enter__()

    def _pyro_sample(self, msg: Any) -> None:
        if msg["done"] or msg["is_observed"] or not msg["infer"].get("enumerate"):
            return
        fn: Any = msg["fn"]
        if not unwrapped(fn).has_enumerate_support:
            return
        states = fn.enumerate_support(expand=False)
        event = states.shape[states.dim() - fn.event_dim :]
        msg["value"], msg["done"] = states.reshape(len(states), *[1] * (-self.next - 1), *event), True
        msg["infer"]["_enumerate_dim"] = self.next
        self.next -= 1


class States(NamedTuple):
    """The states of one site.

    Attributes:
        name: of the site.
        dim: at which they are, among batch dims.
        masses: of each, (states, ..., *plates).
        plates: around the site, those of more than one copy.
    """

    name: str
    dim: int
    masses: Tensor
    plates: frozenset[str]


class Expectation:
    """Means over the discrete sites of a guide whose states are side by side in the arrays of a pass.

        E_q f(s_1 .. s_n) = sum_{s_1} q(s_1) sum_{s_2} q(s_2 | s_1) ... f        the last site first

    so that a sum costs the states of what one term depends on, and of no others: in a chain two sites at a time.

    Args:
        sites: in the order in which they are drawn.
    """

    def __init__(self, sites: Sequence[States]) -> None:
        self.sites = sites

    @classmethod
    def of(cls, guide_trace: Trace, drawn: Mapping[str, Tensor] | None = None) -> Self:
        """That of the sites whose states an `AllStates` gave.

        Args:
            guide_trace: of the guide.
            drawn: site -> a draw; then all the mass is on its state, and a mean is the number of that state.
        """
        found = []
        for name, node in nodes_of(guide_trace, "latent").items():
            dim = node["infer"].get("_enumerate_dim")
            if dim is None:
                continue
            value, fn = node["value"], node["fn"]
            if drawn is None:
                masses = log_density(unmasked(fn), value).exp()
            else:
                same = value == drawn[name]
                masses = (same.flatten(-fn.event_dim).all(-1) if fn.event_dim else same).float()
            found.append(States(name, dim, masses, _plates(node)))
        return cls(found)

    @property
    def names(self) -> frozenset[str]:
        """Those of the sites."""
        return frozenset(site.name for site in self.sites)

    def mean(self, value: Tensor, node: Mapping[str, Any], events: int = 0) -> Tensor:
        """The mean of numbers of a site, (states, ..., *plates, *event), with states of size 1.

        Raises:
            ValueError: the site depends on a discrete one in a plate that it is not in itself: on all of its copies,
                which are in one state at a time here.
        """
        for site in reversed(self.sites):
            dim = site.dim - events
            if value.dim() < -dim or value.shape[dim] == 1:  # its masses sum to one
                continue
            outside = site.plates - _plates(node)
            if outside:
                refuse_copies(node["name"], site.name, min(outside))
            masses = site.masses[(..., *[None] * events)]
            value = (torch.where(masses > 0, value, 0.0) * masses).sum(dim, keepdim=True)  # 0 log 0 = 0
        return value

    def refuse_draws(self) -> NoReturn:
        """Raise ValueError where draws are asked for."""
        refuse_draws(self.names)


def _plates(node: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(f.name for f in node["cond_indep_stack"] if f.vectorized and f.size != 1)
