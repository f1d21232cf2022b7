"""`TopDownGuide`, in the model's order, and `OrderedGuide`, in one of its own: what all guides are built on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any, cast

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine import Trace
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from ppl_models.parts.program import Program
from ppl_models.parts.vamp import EncoderMixture
from ppl_models.programs.arguments import spread
from ppl_models.programs.pyro import as_tensors, unwrapped

from .checks import check_drawn, check_finite, check_followed, check_unaltered, refuse_coupled
from .conditionals import Conditionals
from .families.continuous import masked_alike
from .families.masses import enumerated, limited
from .looks.evidence import Evidence
from .looks.layout import inspect_model
from .pyro import PYRO


def place_of(model: Callable, args: Sequence[Any]) -> dict[str, Any]:
    """The device and dtype for a guide's parameters: those of the model's, or of the example if it has none."""
    tensors = [*(model.parameters() if isinstance(model, nn.Module) else ()), *args]
    found = next((t for t in tensors if isinstance(t, Tensor) and t.is_floating_point()), None)
    return {} if found is None else {"device": found.device, "dtype": found.dtype}


def example_of(guide: str, model: Callable, args: Sequence[Any]) -> tuple[Any, ...]:
    """An example as the arguments of a model, arrays and data frames as tensors where the model is."""
    asks = f"guide {guide}"
    return as_tensors(spread(args, model, asks), asks, model, place_of(model, ()).get("device"))


class Once:
    """What a guide has encoded, kept from call to call inside of this context, and nowhere else."""

    def __init__(self) -> None:
        self._inside, self._kept = False, None

    def __enter__(self) -> "Once":
        self._inside, self._kept = True, None
        return self

    def __exit__(self, *raised: object) -> None:
        self._inside, self._kept = False, None

    @property
    def features(self) -> dict[str, Tensor]:
        """What was encoded, by latent; nothing before the first call."""
        return {} if self._kept is None else self._kept[0]

    def encoded(self, read: Callable[[], Any], encode: Callable[[Any], dict[str, Tensor]]) -> Any:
        """(the encoded evidence, subsamples, sizes of plates) of what is read; see `Layout.evidence`."""
        if self._kept is None:
            evidence, subsamples, sizes = read()
            found = encode(evidence), subsamples, sizes
            if not self._inside:
                return found
            self._kept = found
        encoded, *others = self._kept
        return dict(encoded), *others  # a guide may change its own as it goes on


class TopDownGuide(GuideMessenger, Program, ABC):
    """A guide that runs the model itself and replaces each prior by a posterior as its site is reached.

    One pass gives both traces: `pyro.infer.Trace_ELBO` and `TraceMeanField_ELBO` know such guides. A concrete guide
    sets `self.factors` in its constructor, as `Conditionals(...).to(**self.place)`, once it has a layout of
    `choose_evidence` where it reads covariates, and says in `get_posterior(name, prior)` what a factor is; it may use
    the prior's own parameters, `self.raw(name)` (its network of evidence and parents) and `self.upstream_value(name)`
    of latents and of what the model tells at deterministic sites (`layout.told`).

    A plain `guide(x)` keeps the trace of its run, and with it the graph of its gradients, until the next call: sample
    under `torch.no_grad()`.

    Args:
        model: any Pyro model function. A guide's parameters are made on the device and in the dtype of the model's.
        args: an example batch, run once through the model to learn sites, shapes, plates and parents; it also gives
            device and dtype where the model has no parameters.

    Raises:
        ValueError: nothing latent, nothing observed, a discrete latent that is enumerated, or that the guide has no
            factor for (`states.check_states`); when called, a run without data, with data of another size, or with a
            latent that the example did not have; a mask of single entries of an event (`.mask(m).to_event(1)`) where
            the factor couples them.
    """

    asks = "guide "
    order: Sequence[str]
    factors: Any  # `Conditionals`, or what has their `parents`, `encode` and `raw`
    place: dict[str, Any]

    def __init__(self, model: Callable, *args: Any) -> None:
        """Build it for a model on rows of its data, which run it once; sizes and factors are told by the class."""
        super().__init__(model)  # GuideMessenger keeps the model in a tuple: its parameters are not the guide's
        args = example_of(type(self).__name__, model, args)
        self.layout = inspect_model(PYRO, type(self).__name__, model, args)
        check_followed(self.layout)
        self.order, self.place = list(self.layout.latents), place_of(model, args)
        self._encoded: dict[str, Tensor] | None = None
        self._subsamples: dict[str, tuple[Tensor, int]] = {}
        self._given: list[Evidence] | None = None
        self._once = Once()

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample the latents given the model's arguments: {site: value}."""
        self._encoded, self._subsamples = None, {}
        self.args_kwargs = args, kwargs
        try:
            self._given = self.layout.given(args, kwargs)
            if self._given is None:
                self._encode()  # by a run of the model, which cannot take place within another
            with self:
                self.collect_parameters()  # into the trace: `Trace_ELBO` goes backward only if it sees parameters there
                self.model(*args, **kwargs)
        finally:
            del self.args_kwargs
            self._encoded, self._subsamples, self._given = None, {}, None
        nodes: Any = self.trace.nodes
        return {name: nodes[name]["value"] for name in self.layout.latents if name in nodes}

    def _encode(self) -> dict[str, Tensor]:
        if self._encoded is None:  # else at the first latent: by then the model itself has looked at its data
            args, kwargs = self.args_kwargs
            read = partial(self.layout.evidence, self.model, args, kwargs, True, self._given)
            self._encoded, self._subsamples, _ = self._once.encoded(read, self.factors.encode)
        return self._encoded

    def reading_once(self) -> AbstractContextManager["Once"]:
        """Inside, all calls are of the same data, which are read and encoded once (`Once`)."""
        return self._once

    def raw(self, name: str) -> Tensor:
        """The numbers that the network of `name` gives for this run's evidence and upstream values."""
        values = {u: self.upstream_value(u) for u in self.factors.parents[name]}
        return self.factors.raw(name, self._encode(), values)

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"]:
            if msg["infer"].get("_deterministic"):
                # the model's own affair: of the handlers around the guide, plates alone see it
                for handler in reversed(_PYRO_STACK[: _PYRO_STACK.index(self)]):
                    if isinstance(handler, IndepMessenger):
                        handler._process_message(msg)
                msg["stop"] = True
            return
        if site_is_subsample(msg):
            if msg["name"] in self._subsamples:  # the evidence was read at these indices
                msg["value"], msg["done"] = self._subsamples[msg["name"]][0], True
        else:
            check_drawn(self.layout, msg["name"])
            prior, facts = msg["fn"], self.layout.latents[msg["name"]].facts
            posterior = self._factor(msg["name"], prior)
            if facts.is_discrete:
                posterior = limited(posterior, prior) if facts.limited else posterior
                msg["infer"] = {**msg["infer"], **enumerated(posterior)}
            posterior = masked_alike(posterior, prior)
            if posterior is None:
                refuse_coupled(self.layout, msg["name"])
            # either may lack the particles: a prior that reads no latent, a factor that reads the evidence alone
            if prior.batch_shape != posterior.batch_shape:
                shape = torch.broadcast_shapes(prior.batch_shape, posterior.batch_shape)
                prior = prior if prior.batch_shape == shape else prior.expand(shape)
                posterior = posterior if posterior.batch_shape == shape else posterior.expand(shape)
            msg["infer"]["prior"], msg["fn"] = prior, posterior

    def _factor(self, name: str, prior: TorchDistributionMixin) -> TorchDistributionMixin:
        """The factor of a site: the encoder that its prior is made of, where it is tied, else `get_posterior`."""
        tied, own = name in self.layout.tied, cast(EncoderMixture, unwrapped(prior))
        return own.encoder(self._encode()[name]) if tied else self.get_posterior(name, prior)

    @abstractmethod
    def get_posterior(self, name: str, prior: TorchDistributionMixin) -> TorchDistributionMixin:
        """The factor of site `name`, in place of `prior`, whose parameters are those of the upstream samples."""

    def __getstate__(self) -> dict[str, Any]:
        """The state that a copy takes over: all but the values of the last run."""
        return {**self.__dict__, "trace": Trace()}

    def get_traces(self) -> tuple[Trace, Trace]:
        """(model trace, guide trace) of the last run, which is then let go: it holds the graph of a whole step."""
        traces = super().get_traces()
        self.trace = Trace()
        return traces


class OrderedGuide(Program, ABC):
    """A guide that samples the latents in an order of its own, each in the plates the model draws it in.

    A concrete guide sets `self.order` and `self.factors` in its constructor, the latter as for `TopDownGuide`. Where
    nothing is in a plate, batch dims are taken for event dims: `Normal(torch.zeros(8), 1)` is one factor over R^8.

    Args:
        model, args: as for `TopDownGuide`.
        classical: where nothing is in a plate, take every latent for global (free parameters, the data constants).

    Raises:
        ValueError: as for `TopDownGuide`, but an enumerated latent is left to `pyro.infer.TraceEnum_ELBO`; a mask or a
            scale on a latent.
    """

    asks = "guide "
    order: Sequence[str]
    factors: Conditionals
    place: dict[str, Any]

    @abstractmethod
    def __init__(self, model: Callable, *args: Any, classical: bool = False) -> None:
        """Build it for a model on rows of its data, which run it once; sizes and factors are told by the class."""
        super().__init__()
        self._model = (model,)  # in a tuple, as GuideMessenger keeps it: its parameters are not the guide's
        options = {"unplated": True, "all_global": classical, "joint": True}
        args = example_of(type(self).__name__, model, args)
        self.layout = inspect_model(PYRO, type(self).__name__, model, args, **options)
        self.place, self._once = place_of(model, args), Once()
        check_unaltered(self.layout)

    @property
    def model(self) -> Callable:
        """The model that it was built for."""
        return self._model[0]

    def reading_once(self) -> AbstractContextManager["Once"]:
        """Inside, all calls are of the same data, which are read and encoded once (`Once`)."""
        return self._once

    def _read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        found = self.layout.evidence(self.model, args, kwargs)
        if torch.distributions.Distribution._validate_args:
            check_finite(self.layout, all(torch.isfinite(tensor).all() for tensor in found[0].values()))
        return found

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample the latents given the model's arguments: {site: value}."""
        encoded, subsamples, sizes = self._once.encoded(partial(self._read, args, kwargs), self.factors.encode)
        plates: dict[str, pyro.plate] = {}
        values: dict[str, Tensor] = {}
        for name in self.order:
            with ExitStack() as stack:
                latent = self.layout.latents[name]
                for plate in latent.plates:
                    if plate.name not in plates:
                        size = sizes.get(plate.name, plate.size) if plate.name in latent.shared_plates else plate.size
                        index, size = subsamples.get(plate.name, (None, size))
                        plates[plate.name] = pyro.plate(plate.name, size, subsample=index, dim=plate.dim)
                    stack.enter_context(plates[plate.name])
                q = self.factors.free(name, self.factors.raw(name, encoded, values))
                values[name] = pyro.sample(name, q, infer=enumerated(q) if latent.facts.is_discrete else None)
        return values
