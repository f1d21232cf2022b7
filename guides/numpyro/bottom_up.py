"""Bottom-up inference: the latent next to the data first."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
from jax import Array

from ..parts.factors import Families
from .parts.conditionals import Conditionals, Parents, Reads, choose_evidence, choose_parents
from .parts.guide import OrderedGuide, placed


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
        hidden: int = 256,
        depth: int = 1,
        image: Sequence[int] | None = None,
        key: Array,
    ) -> None:
        super().__init__(model, *args)
        sites = self.layout.latents
        outer = [n for n in sites if sites[n].is_global]
        self.order = (*outer, *(n for n in reversed([*sites]) if n not in outer))
        chosen = choose_parents(self.layout, self.order, parents)
        self.layout = choose_evidence(self.layout, chosen, evidence)
        factors = Conditionals(self.layout, chosen, family, encoder, hidden, depth, image, key=key)
        self.factors = placed(factors, model, args)
