"""`Refined`: any guide, whose draws go on by Hamiltonian steps towards the posterior."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from copy import copy
from math import log
from typing import Annotated, Any, Literal, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from numpyro import handlers

from guides.parts.families.factors import network_of
from ppl_models.numpyro.parts.likelihoods import bounded_exp
from ppl_models.numpyro.parts.nets import Net
from ppl_models.numpyro.parts.program import Program, named_parameters
from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram, Count, Number, Whole
from ppl_models.programs.noise import FIRST_STEP, KEPT, Chain, refused
from ppl_models.programs.noise.numpyro_refined import refined

from ..parts.refinement import Reads, reads
from .parts.conditionals import Conditionals
from .parts.guide import OrderedGuide, TopDownGuide, placed


class Refined(Program):
    """Port of `guides.Refined`: same arguments and names of parameters; `key` seeds the weights.

    A guide of this library is a part of it, and so is its model.
    """

    guide: Any
    other: Callable | None
    size: Array
    power: Array | None
    reverse: dict[str, Net]
    steps: int = eqx.field(static=True)
    method: str = eqx.field(static=True)
    momentum: float = eqx.field(static=True)
    reads: dict[str, Reads] = eqx.field(static=True)
    asks = "guide "

    def __init__(
        self,
        guide: AnyGuide,
        *,
        steps: Whole = 4,
        method: Literal["dais", "hvi"] = "dais",
        momentum: Annotated[float, Number(least=0, most=1)] = KEPT,
        hidden: Count = 64,
        model: AnyProgram | None = None,
        key: Array,
    ) -> None:
        self.guide, self.other = guide, model
        self.steps, self.method, self.momentum = steps, method, momentum
        if self.model is None:
            called = type(guide).__name__
            refused(f"a guide ({called}) that does not know its model", "both", "Refined(guide, model=model)")
        own = named_parameters(guide) if isinstance(guide, Program) else {}
        dtype = next((leaf.dtype for leaf in own.values()), jnp.result_type(float))
        self.size = jnp.full(steps, log(FIRST_STEP / (1 - FIRST_STEP)), dtype)
        self.power = jnp.zeros(steps, dtype) if method == "dais" else None
        known = isinstance(guide, TopDownGuide | OrderedGuide)
        self.reads = reads(guide, known, Conditionals) if method == "hvi" and steps else {}
        self.reverse = {}
        for name, read in self.reads.items():
            key, own_key = jax.random.split(key)
            net = Net((*read.inputs, steps), 2 * read.entries, hidden, gain=0.1, key=own_key)
            self.reverse[network_of(name)] = placed(net, guide.model, [self.size])

    @property
    def model(self) -> Any:
        """The model of the guide."""
        return getattr(self.guide, "model", None) if self.other is None else self.other

    @property
    def refines(self) -> Callable:
        """The guide, whose structure is that of this one."""
        return self.guide

    def own(self) -> Self:
        """The guide without its model."""
        return self._with(self.guide.own() if isinstance(self.guide, Program) else self.guide, None)

    def restored(self, own: Self) -> Self:
        """The guide with other parameters and its own model."""
        guide = self.guide.restored(own.guide) if isinstance(self.guide, Program) else self.guide
        return own._with(guide, self.other)

    def _with(self, guide: Callable, other: Callable | None) -> Self:
        new = copy(self)
        object.__setattr__(new, "guide", guide)  # as Equinox itself fills a module
        object.__setattr__(new, "other", other)
        return new

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Sample the latents given the model's arguments: {site: value}."""
        with ExitStack() as stack:
            if isinstance(self.guide, Program):  # its parameters are among those of this one
                stack.enter_context(handlers.block(hide=[self.guide.param]))
                weights = eqx.filter(self.guide.own(), eqx.is_inexact_array)
                stack.enter_context(handlers.substitute(data={self.guide.param: weights}))
            if not self.steps:
                return self.guide(*args, **kwargs)
            return refined(self.model, self.guide, args, kwargs, lambda events: self._chain(args, kwargs, events))

    def _chain(self, args: tuple[Any, ...], kwargs: dict[str, Any], events: Mapping[str, int]) -> Chain:
        """The chain of this run, of how many dims an event of each noise has."""
        sizes = [*jax.nn.sigmoid(self.size)]
        if self.power is not None:
            return Chain(sizes, [*jnp.cumsum(jax.nn.softmax(self.power))], self.momentum)
        features: dict[str, Array] = {}
        if any(read.encodes for read in self.reads.values()):
            features = self.guide.factors.encode(self.guide.layout.evidence(self.model, args, kwargs)[0])

        def log_r(k: int, noise: Mapping[str, Array], momentum: Mapping[str, Array]) -> dict[str, Array]:
            found = {}
            rows = {u: e.reshape(*e.shape[: e.ndim - events[u]], -1) for u, e in noise.items()}
            for name, e in noise.items():
                read, net = self.reads[name], self.reverse[network_of(name)]
                given = [*(rows[u] for u in read.latents), *([features[name]] if read.encodes else [])]
                numbers = net(*given, jnp.eye(self.steps, dtype=e.dtype)[k])
                mean, spread = (part.reshape(e.shape) for part in jnp.split(numbers, 2, -1))
                scale = bounded_exp(spread)
                found[name] = -(((momentum[name] - mean) / scale) ** 2) / 2 - jnp.log(scale)
            return found

        return Chain(sizes, [1.0] * self.steps, 0.0, log_r)
