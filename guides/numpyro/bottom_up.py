"""Bottom-up inference: the latent next to the data first."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jax import Array

from guides.parts.families.factors import Families
from guides.parts.families.starts import OfSite
from guides.parts.families.states import Discrete
from ppl_models.parts.arguments.kinds import Count, Image, Positive, Whole

from .parts.conditionals import Conditionals, Parents, Reads, choose_evidence, choose_parents
from .parts.guide import OrderedGuide, example_of, placed
from .parts.units import prior_starts


class BottomUp(OrderedGuide):
    """Port of `guides.BottomUp`: same arguments and names of parameters; `key` seeds the weights."""

    factors: Conditionals
    order: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        model: Callable,
        *args: Any,
        family: Families = "diagonal",
        encoder: str | eqx.Module = "separate",
        parents: Parents = "needed",
        evidence: Reads = "needed",
        hidden: Count = 256,
        depth: Whole = 1,
        image: Image | None = None,
        init_loc_fn: OfSite | None = None,
        init_scale: Positive | None = None,
        discrete: Discrete = "enumerate",
        key: Array,
    ) -> None:
        args = example_of(type(self).__name__, model, args)
        super().__init__(model, *args)
        sites = self.layout.latents
        outer = [n for n in sites if sites[n].is_global]
        self.order = (*outer, *(n for n in reversed([*sites]) if n not in outer))
        chosen = choose_parents(self.layout, self.order, parents)
        self.layout = choose_evidence(self.layout, chosen, evidence)
        starts = prior_starts(model, args, self.layout, init_loc_fn, init_scale)
        sizes = encoder, hidden, depth, image
        factors = Conditionals(self.layout, chosen, family, *sizes, starts=starts, discrete=discrete, key=key)
        self.factors = placed(factors, model, args)
