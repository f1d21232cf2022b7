"""Faithful inversion: for any model, a guide that can be exact, with the fewest parents for its order."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jax import Array

from guides.parts.families.factors import Families
from guides.parts.families.starts import OfSite
from guides.parts.families.states import Discrete
from ppl_models.factorization import Factorization
from ppl_models.parts.arguments.kinds import Count, Image, Positive, Whole

from ..parts.parents import Order, faithful_inverse, read_off
from .parts.conditionals import Conditionals, Reads
from .parts.guide import OrderedGuide, example_of, placed
from .parts.units import prior_starts


class Faithful(OrderedGuide):
    """Port of `guides.Faithful`: same arguments and names of parameters; `key` seeds the weights."""

    factors: Conditionals
    order: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        model: Callable,
        *args: Any,
        order: Order = "top-down",
        family: Families = "diagonal",
        encoder: str | eqx.Module = "separate",
        evidence: Reads = "needed",
        hidden: Count = 64,
        depth: Whole = 1,
        image: Image | None = None,
        amortized: bool | None = None,
        init_loc_fn: OfSite | None = None,
        init_scale: Positive | None = None,
        discrete: Discrete = "enumerate",
        key: Array,
    ) -> None:
        args = example_of(type(self).__name__, model, args)
        super().__init__(model, *args, classical=not amortized)
        self.layout, chosen, parents = faithful_inverse(self.layout, model, args, order, amortized, evidence)
        self.order = tuple(chosen)
        starts = prior_starts(model, args, self.layout, init_loc_fn, init_scale)
        sizes = encoder, hidden, depth, image
        factors = Conditionals(
            self.layout, parents, family, *sizes, small_init=True, starts=starts, discrete=discrete, key=key
        )
        self.factors = placed(factors, model, args)

    @property
    def factorization(self) -> Factorization:
        """The factorization of the guide: what each latent is sampled given, latents and observed sites by name."""
        return read_off(self.layout, self.order, self.factors.parents)
