"""Ladder inference: a bottom-up estimate merged with the prior on the way down."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jax import Array
from numpyro.distributions import Distribution

from guides.parts.families.factors import Families, shifted
from ppl_models.parts.arguments.kinds import Count, Image, Whole

from ..parts.checks import Mean, Top, choose_tops
from .parts.conditionals import Conditionals, Parents, Reads, choose_evidence, choose_parents
from .parts.guide import TopDown, TopDownGuide, placed


class Ladder(TopDownGuide):
    """Port of `guides.Ladder`: same arguments and names of parameters; `key` seeds the weights."""

    factors: Conditionals

    def __init__(
        self,
        model: Callable,
        *args: Any,
        family: Families = "diagonal",
        encoder: str | eqx.Module = "bottom-up",
        parents: Parents = "needed",
        evidence: Reads = "needed",
        hidden: Count = 256,
        depth: Whole = 1,
        image: Image | None = None,
        top: Top = "estimate",
        mean: Mean = "shift",
        key: Array,
    ) -> None:
        super().__init__(model, *args)
        chosen = choose_parents(self.layout, self.order, parents)
        self.layout = choose_evidence(self.layout, chosen, evidence)
        sizes = hidden, depth, image
        tops = choose_tops(self.layout, top)
        factors = Conditionals(self.layout, chosen, family, encoder, *sizes, mean, tops, key=key)
        self.factors = placed(factors, model, args)

    @property
    def tops(self) -> frozenset[str]:
        """The latents whose factors are the estimate alone."""
        return frozenset(name for name, factor in self.factors.plan.items() if factor.top)

    @property
    def shifted(self) -> frozenset[str]:
        """The latents whose networks give the shift of the mean; before format 5 of files they gave its estimate."""
        return shifted(self.factors.plan)

    def get_posterior(self, name: str, prior: Distribution, run: TopDown) -> Distribution:
        """q(z_l | pa_l, x): estimate times prior, at the top the estimate."""
        return self.factors.precision_weighted(name, run.raw(name), prior)
