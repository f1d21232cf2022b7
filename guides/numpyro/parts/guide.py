"""`TopDownGuide`, in the model's order, and `OrderedGuide`, in one of its own: what all guides are built on."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import copy
from typing import Any, ClassVar, Self, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from jax.core import Tracer
from numpyro.contrib.module import eqx_module
from numpyro.distributions import Distribution, TransformedDistribution
from numpyro.primitives import Messenger

from guides.parts.looks.evidence import Evidence
from guides.parts.looks.layout import Layout, inspect_model
from ppl_models.numpyro.parts.program import Program
from ppl_models.numpyro.parts.vamp import EncoderMixture
from ppl_models.programs.arguments import spread
from ppl_models.programs.numpyro import as_arrays, unwrapped

from ...parts.checks import check_drawn, check_finite, check_followed, check_unaltered, refuse_coupled
from .conditionals import Conditionals
from .families import masked_alike
from .masses import enumerated, limited
from .numpyro import NUMPYRO

M = TypeVar("M", bound=eqx.Module)
Trace = dict[str, dict[str, Any]]


def placed(module: M, model: Callable, args: Sequence[Any]) -> M:
    """The module in the dtype for a guide's parameters: that of the model's, or of the example if it has none."""
    arrays = [leaf for leaf in jax.tree.leaves((model, args)) if eqx.is_inexact_array_like(leaf)]
    found = next((a.dtype for a in arrays if hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.floating)), None)
    dtype = jax.dtypes.canonicalize_dtype(found or float)
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, module)


def example_of(guide: str, model: Callable, args: Sequence[Any]) -> tuple[Any, ...]:
    """An example as the arguments of a model, data frames and tensors as arrays."""
    asks = f"guide {guide}"
    return as_arrays(spread(args, model, asks), asks)


class TopDownGuide(Program):
    """A guide that runs the model itself and replaces each prior by a posterior as its site is reached.

    A concrete guide sets `self.factors` in its constructor, as `placed(Conditionals(...), model, args)`, and says in
    `get_posterior(name, prior, run)` what a factor is; it may use the prior's own parameters, `run.raw(name)` (its
    network of evidence and parents) and `run.upstream_value(name)`.

    The model's parameters are in the run of the guide under the name they have in the model, which NumPyro shares, and
    not among the guide's own. `traces` gives both traces of one pass. Latents in a `numpyro.contrib.control_flow.scan`
    cannot be intercepted.

    Args:
        model: any NumPyro model function. A guide's parameters are made in the dtype of the model's.
        args: an example batch, run through the model to learn sites, shapes, plates and parents; it also gives the
            dtype where the model has no parameters.

    Raises:
        ValueError: nothing latent, nothing observed, a discrete latent that is enumerated, or that the guide has no
            factor for (`states.check_states`), or one in a scan; when called, a run without data, with data of another
            size, or with a latent that the example did not have; a mask of single entries of an event
            (`.mask(m).to_event(1)`) where the factor couples them.
    """

    asks: ClassVar[str] = "guide "
    factors: eqx.AbstractVar[Any]  # `Conditionals`, or what has their `parents`, `encode` and `raw`
    model: Callable
    layout: Layout = eqx.field(static=True)

    def __init__(self, model: Callable, *args: Any) -> None:
        args = example_of(type(self).__name__, model, args)
        self.model, self.layout = model, inspect_model(NUMPYRO, type(self).__name__, model, args)
        check_followed(self.layout)

    @property
    def order(self) -> tuple[str, ...]:
        """The latents as the model draws them."""
        return tuple(self.layout.latents)

    def own(self) -> Self:
        """The guide without its model."""
        return with_model(self, None)

    def restored(self, own: Self) -> Self:
        """The guide with other parameters and its own model."""
        return with_model(own, self.model)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Sample the latents given the model's arguments: {site: value}."""
        with TopDown(self, args, kwargs) as run:
            self.model(*args, **kwargs)
        return {name: run.values[name] for name in self.order if name in run.values}

    def traces(self, *args: Any, **kwargs: Any) -> tuple[Trace, Trace]:
        """(model trace, guide trace) of one run, as `numpyro.handlers.trace` records them; call it where a guide is.

        A latent's site has its prior in the one and its posterior in the other. Where both are pushed through the same
        bijections, the prior's `intermediates` are those of the draw, so that its density needs no inverse.
        """
        bound = self.restored(eqx_module(type(self).__name__, self.own()))
        with TopDown(bound, args, kwargs), numpyro.handlers.trace() as both:
            bound.model(*args, **kwargs)
        guide = {name: both[name] for name in self.order if name in both}
        priors = {name: _with_prior(site) for name, site in guide.items()}
        return {name: priors.get(name, site) for name, site in both.items()}, guide

    @abstractmethod
    def get_posterior(self, name: str, prior: Distribution, run: "TopDown") -> Distribution:
        """The factor of site `name`, in place of `prior`, whose parameters are those of the upstream samples."""


class TopDown(Messenger):
    """The handler under which a guide runs the model: latents get posteriors, what is observed stays within.

    The prior of a site, in the batch shape of its posterior, is left in `msg["infer"]["prior"]`.

    Args:
        guide: the guide, its parameters those of the run.
        args, kwargs: of the model.
    """

    def __init__(self, guide: TopDownGuide, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.guide, self.args, self.kwargs = guide, args, kwargs
        self.values: dict[str, Array] = {}
        self._priors: dict[str, Distribution] = {}
        self._encoded: dict[str, Array] | None = None
        self._subsamples: dict[str, tuple[Array, int]] = {}
        self._given: list[Evidence] | None = guide.layout.given(args, kwargs)

    def __enter__(self) -> Self:
        if self._given is None:
            self._encode()  # by a run of the model, which cannot take place within another
        super().__enter__()
        return self

    def _encode(self) -> dict[str, Array]:
        if self._encoded is None:  # else at the first latent: by then the model itself has looked at its data
            given = self.guide.model, self.args, self.kwargs
            evidence, self._subsamples, _ = self.guide.layout.evidence(*given, True, self._given)
            self._encoded = self.guide.factors.encode(evidence)
        return self._encoded

    def raw(self, name: str) -> Array:
        """The numbers that the network of `name` gives for this run's evidence and upstream values."""
        values = {u: self.upstream_value(u) for u in self.guide.factors.parents[name]}
        return self.guide.factors.raw(name, self._encode(), values)

    def upstream_value(self, name: str) -> Array:
        """The value drawn at the latent `name`, or that the model told at the deterministic site of this name."""
        return self.values[name]

    def _factor(self, name: str, prior: Distribution) -> Distribution:
        """The factor of a site: the encoder that its prior is made of, where it is tied, else `get_posterior`."""
        tied, own = name in self.guide.layout.tied, cast(EncoderMixture, unwrapped(prior))
        return own.encoder(self._encode()[name]) if tied else self.guide.get_posterior(name, prior, self)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Replace the prior of a latent; what is observed or deterministic is hidden from handlers around the guide."""
        kind, name = msg["type"], msg.get("name", "")
        if kind == "plate" and name in self._subsamples:
            msg["value"] = self._subsamples[name][0]  # the evidence was read at these indices
        elif kind == "deterministic" or (kind == "sample" and msg["is_observed"]):
            msg["stop"] = True
        elif kind == "sample":
            check_drawn(self.guide.layout, name)
            prior, facts = msg["fn"], self.guide.layout.latents[name].facts
            posterior = self._factor(name, prior)
            if facts.is_discrete:
                posterior = limited(posterior, prior) if facts.limited else posterior
                msg["infer"] = {**msg["infer"], **enumerated(posterior)}
            posterior = masked_alike(posterior, prior)
            if posterior is None:
                refuse_coupled(self.guide.layout, name)
            # either may lack particles or plates: a prior that reads no latent, a factor that has one set of numbers
            shape = jnp.broadcast_shapes(prior.batch_shape, posterior.batch_shape)
            msg["infer"], self._priors[name] = {**msg["infer"]}, prior.expand(shape)
            msg["fn"] = posterior.expand(shape)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        """Remember what is drawn or told, and bring the prior into the plates around the guide."""
        if msg["type"] == "deterministic":
            self.values[msg["name"]] = msg["value"]
        elif msg["type"] == "sample" and not msg["is_observed"]:
            self.values[msg["name"]] = msg["value"]
            prior = self._priors[msg["name"]]
            shape = jnp.broadcast_shapes(prior.batch_shape, msg["fn"].batch_shape)
            msg["infer"]["prior"] = prior.expand(shape)  # only now: a replay around the guide brings its own


class OrderedGuide(Program):
    """A guide that samples the latents in an order of its own, each in the plates the model draws it in.

    A concrete guide sets `self.order` and `self.factors` in its constructor, the latter as for `TopDownGuide`. Where
    nothing is in a plate, batch dims are taken for event dims: `Normal(jnp.zeros(8), 1)` is one factor over R^8.

    Args:
        model, args: as for `TopDownGuide`.
        classical: where nothing is in a plate, take every latent for global (free parameters, the data constants).

    Raises:
        ValueError: as for `TopDownGuide`, but an enumerated latent is left to `numpyro.infer.TraceEnum_ELBO`; a mask or
            a scale on a latent.
    """

    factors: eqx.AbstractVar[Conditionals]
    asks: ClassVar[str] = "guide "
    order: eqx.AbstractVar[tuple[str, ...]]
    model: Callable
    layout: Layout = eqx.field(static=True)

    @abstractmethod
    def __init__(self, model: Callable, *args: Any, classical: bool = False) -> None:
        options = {"unplated": True, "all_global": classical, "joint": True}
        args = example_of(type(self).__name__, model, args)
        self.model, self.layout = model, inspect_model(NUMPYRO, type(self).__name__, model, args, **options)
        check_unaltered(self.layout)

    def own(self) -> Self:
        """The guide without its model."""
        return with_model(self, None)

    def restored(self, own: Self) -> Self:
        """The guide with other parameters and its own model."""
        return with_model(own, self.model)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Sample the latents given the model's arguments: {site: value}."""
        evidence, subsamples, sizes = self.layout.evidence(self.model, args, kwargs)
        if Distribution._validate_args:
            known = [array for array in evidence.values() if not isinstance(array, Tracer)]
            check_finite(self.layout, all(np.isfinite(array).all() for array in known))
        plates: dict[str, numpyro.plate] = {}
        encoded = self.factors.encode(evidence)
        values: dict[str, Any] = {}
        indices = {name: index for name, (index, _) in subsamples.items()}
        for name in self.order:
            with ExitStack() as stack:
                latent = self.layout.latents[name]
                for plate in latent.plates:
                    if plate.name not in plates:
                        size = sizes.get(plate.name, plate.size) if plate.name in latent.shared_plates else plate.size
                        index, size = subsamples.get(plate.name, (None, size))
                        count = None if index is None else len(index)
                        with numpyro.handlers.substitute(data=indices):
                            plates[plate.name] = numpyro.plate(plate.name, size, count, dim=plate.dim)
                    stack.enter_context(plates[plate.name])
                q = self.factors.free(name, self.factors.raw(name, encoded, values))
                values[name] = numpyro.sample(name, q, infer=enumerated(q) if latent.facts.is_discrete else None)
        return values


def with_model(guide: M, model: Callable | None) -> M:
    """The guide with another model of the same structure in place of its own: the trained one, say."""
    new = copy(guide)
    object.__setattr__(new, "model", model)  # as Equinox itself fills a module
    return new


def _with_prior(site: dict[str, Any]) -> dict[str, Any]:
    prior, drawn = site["infer"]["prior"], site["intermediates"]
    base, posterior, intermediates = unwrapped(prior), unwrapped(site["fn"]), []
    if drawn and isinstance(base, TransformedDistribution) and isinstance(posterior, TransformedDistribution):
        n = len(base.transforms)
        if len(posterior.transforms) >= n and all(
            a is b for a, b in zip(base.transforms, posterior.transforms[-n:], strict=True)
        ):
            intermediates = drawn[-n:]
    return {**site, "fn": prior, "intermediates": intermediates}
