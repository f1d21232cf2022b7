"""Mean field: every latent from the data alone."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jax import Array
from numpyro.distributions import Distribution

from guides.parts.families.factors import Families
from guides.parts.families.starts import OfSite
from guides.parts.families.states import Discrete
from ppl_models.parts.arguments.kinds import Count, Image, Positive, Whole

from .parts.conditionals import Conditionals, Reads, choose_evidence, choose_tied
from .parts.guide import TopDown, TopDownGuide, example_of, placed
from .parts.units import prior_starts


class MeanField(TopDownGuide):
    """Port of `guides.MeanField`: same arguments and names of parameters; `key` seeds the weights."""

    factors: Conditionals

    def __init__(
        self,
        model: Callable,
        *args: Any,
        family: Families = "diagonal",
        encoder: str | eqx.Module = "separate",
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
        parents = dict.fromkeys(self.order, ())
        self.layout = choose_tied(choose_evidence(self.layout, parents, evidence), parents, family)
        starts = prior_starts(model, args, self.layout, init_loc_fn, init_scale)
        sizes = encoder, hidden, depth, image
        factors = Conditionals(self.layout, parents, family, *sizes, starts=starts, discrete=discrete, key=key)
        self.factors = placed(factors, model, args)

    def get_posterior(self, name: str, prior: Distribution, run: TopDown) -> Distribution:
        """q(z_l | x)."""
        return self.factors.free(name, run.raw(name))
