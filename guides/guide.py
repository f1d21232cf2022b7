"""The two abstract guides: one that follows the model's order, and one that samples in an order of its own."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine import Trace
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppl_models.parts.program import Program

from .conditionals import Conditionals
from .sites import Layout


class TopDownGuide(GuideMessenger, Program, ABC):
    """A guide that runs the model itself and replaces each prior by a posterior as its site is reached.

    One pass gives both traces: `pyro.infer.Trace_ELBO` and `TraceMeanField_ELBO` know such guides. A concrete guide
    sets `self.factors` in its constructor and says in `get_posterior(name, prior)` what a factor is; it may use the
    prior's own parameters, `self.raw(name)` (its network of evidence and parents) and `self.upstream_value(name)`.

    Args:
        model: any Pyro model function.
        args: an example batch, run once through the model to learn sites, shapes, plates and parents.

    Raises:
        ValueError: nothing latent, nothing observed, a discrete latent; when called, a run without data, with data of
            another size, or with a latent that the example did not have.
    """

    factors: Conditionals

    def __init__(self, model: Callable, *args: Any) -> None:
        super().__init__(model)  # GuideMessenger keeps the model in a tuple: its parameters are not the guide's
        self.layout = Layout(type(self).__name__, model, args)
        self._encoded: dict[str, Tensor] | None = None
        self._subsamples: dict[str, Tensor] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample the latents given the model's arguments: {site: value}."""
        self.collect_parameters()
        self._encoded, self._subsamples = None, {}
        self.args_kwargs = args, kwargs
        try:
            if self.layout.draws_subsamples:
                self._encode()
            with self:
                self.model(*args, **kwargs)
        finally:
            del self.args_kwargs
            self._encoded, self._subsamples = None, {}
        return {name: self.trace.nodes[name]["value"] for name in self.layout.latents if name in self.trace.nodes}

    def _encode(self) -> dict[str, Tensor]:
        if self._encoded is None:  # at the first latent: by then the model itself has looked at its data
            args, kwargs = self.args_kwargs
            evidence, self._subsamples = self.layout.evidence(args, kwargs)
            self._encoded = self.factors.encode(evidence)
        return self._encoded

    def raw(self, name: str) -> Tensor:
        """The numbers that the network of `name` gives for this run's evidence and upstream values."""
        values = {u: self.upstream_value(u) for u in self.factors.parents[name]}
        return self.factors.raw(name, self._encode(), values)

    def _pyro_sample(self, msg: dict) -> None:
        if site_is_subsample(msg) and msg["name"] in self._subsamples:  # the evidence was read at these indices
            msg["value"], msg["done"] = self._subsamples[msg["name"]], True
        elif not msg["is_observed"] and not site_is_subsample(msg) and msg["name"] not in self.layout.latents:
            raise ValueError(
                f"guide {type(self).__name__}: the model drew the site {msg['name']!r}, which it did not draw on the "
                f"example (latents: {', '.join(self.layout.latents)}); observe it, or build the guide on an example "
                "where it is latent"
            )
        else:
            super()._pyro_sample(msg)

    @abstractmethod
    def get_posterior(self, name: str, prior: TorchDistributionMixin) -> TorchDistributionMixin:
        """The factor of site `name`, in place of `prior`, whose parameters are those of the upstream samples."""

    def get_traces(self) -> tuple[Trace, Trace]:
        """(model trace, guide trace) of the last run, which is then let go: it holds the graph of a whole step."""
        traces = super().get_traces()
        self.trace = Trace()
        return traces


class OrderedGuide(Program, ABC):
    """A guide that samples the latents in an order of its own, each in the plates the model draws it in.

    A concrete guide sets `self.order` and `self.factors` in its constructor.

    Args, Raises: as for `TopDownGuide`.
    """

    order: Sequence[str]
    factors: Conditionals

    def __init__(self, model: Callable, *args: Any) -> None:
        super().__init__()
        self.layout = Layout(type(self).__name__, model, args)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample the latents given the model's arguments: {site: value}."""
        evidence, subsamples = self.layout.evidence(args, kwargs)
        if torch.distributions.Distribution._validate_args:
            for tensor in evidence.values():
                if not torch.isfinite(tensor).all():
                    sites = ", ".join(self.layout.evidence_sites)
                    raise ValueError(f"guide {type(self).__name__}: NaN or infinite values observed (sites {sites})")
        sizes = {dim: t.shape[dim - 1] for key, t in evidence.items() for dim in key}
        plates: dict[str, pyro.plate] = {}
        encoded = self.factors.encode(evidence)
        values: dict[str, Tensor] = {}
        for name in self.order:
            with ExitStack() as stack:
                for plate in self.layout.latents[name].plates:
                    if plate.name not in plates:
                        index = subsamples.get(plate.name)
                        size = plate.full_size if index is not None else sizes.get(plate.dim, plate.size)
                        plates[plate.name] = pyro.plate(plate.name, size, subsample=index, dim=plate.dim)
                    stack.enter_context(plates[plate.name])
                q = self.factors.free(name, self.factors.raw(name, encoded, values))
                values[name] = pyro.sample(name, q)
        return values
