"""Self-reflective inference: the model's own order and bijections, new bases."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jax import Array
from numpyro.distributions import Distribution

from guides.parts.families.factors import Families
from guides.parts.families.states import Discrete
from ppl_models.parts.arguments.kinds import Count, Image, Whole

from ..parts.checks import Bases
from .parts.conditionals import Conditionals, Parents, Reads, choose_evidence, choose_parents, choose_tied
from .parts.guide import TopDown, TopDownGuide, example_of, placed
from .parts.units import prior_bases


class SelfReflective(TopDownGuide):
    """Port of `guides.SelfReflective`: same arguments and names of parameters; `key` seeds the weights."""

    factors: Conditionals

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
        base: Bases = "own",
        discrete: Discrete = "enumerate",
        key: Array,
    ) -> None:
        args = example_of(type(self).__name__, model, args)
        super().__init__(model, *args)
        chosen = choose_parents(self.layout, self.order, parents)
        self.layout = choose_tied(choose_evidence(self.layout, chosen, evidence), chosen, family)
        bases = prior_bases(model, args, self.layout) if base == "own" else None
        sizes = encoder, hidden, depth, image
        factors = Conditionals(self.layout, chosen, family, *sizes, bases=bases, discrete=discrete, key=key)
        self.factors = placed(factors, model, args)

    def get_posterior(self, name: str, prior: Distribution, run: TopDown) -> Distribution:
        """q(z_l | pa_l, x): the prior's own bijection over a new base."""
        return self.factors.residual(name, run.raw(name), prior)
