"""Merging inference: on the way down a state gathers, layer by layer, what the data say and what was drawn."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
from jax import Array
from numpyro.distributions import Distribution

from guides.parts.families.factors import Families
from guides.parts.looks.evidence import EvidenceKey
from ppl_models.numpyro.parts.nets import Net
from ppl_models.parts.arguments.kinds import Count, Image, Whole

from ..parts.checks import MERGED, check_merged
from .parts.conditionals import Conditionals, Reads, choose_evidence, choose_parents
from .parts.guide import TopDown, TopDownGuide, placed
from .parts.table import Table


class Merging(TopDownGuide):
    """Port of `guides.Merging`: same arguments and names of parameters; `key` seeds the weights."""

    factors: "Merge"

    def __init__(
        self,
        model: Callable,
        *args: Any,
        family: Families = "diagonal",
        encoder: str | eqx.Module = "bottom-up",
        evidence: Reads = "needed",
        hidden: Count = 256,
        depth: Whole = 1,
        image: Image | None = None,
        key: Array,
    ) -> None:
        super().__init__(model, *args)
        chosen = choose_parents(self.layout, self.order, "previous")
        self.layout = choose_evidence(self.layout, chosen, evidence)
        check_merged(self.layout)
        key, own = jax.random.split(key)
        conditionals = Conditionals(self.layout, chosen, family, encoder, hidden, depth, image, key=own)
        self.factors = placed(Merge(conditionals, hidden, depth, key=key), model, args)

    def get_posterior(self, name: str, prior: Distribution, run: TopDown) -> Distribution:
        """q(z_l | z_<l, x)."""
        return self.factors.conditionals.free(name, run.raw(name))


class Merge(eqx.Module):
    """Port of `guides.merging.Merge`; `key` seeds the weights."""

    conditionals: Conditionals
    merges: dict[str, Net]

    def __init__(self, conditionals: Conditionals, hidden: int, depth: int, *, key: Array) -> None:
        self.conditionals, self.merges = conditionals, {}
        for factor in conditionals.plan.values():
            key, own = jax.random.split(key)
            width = factor.inputs[0]
            inputs = [*factor.inputs, *([width] if self.merges else [])]
            self.merges[factor.network] = Net(inputs, width, hidden, depth, norm=True, key=own)

    @property
    def parents(self) -> Table:
        """The latent before each."""
        return self.conditionals.parents

    def encode(self, evidence: Mapping[EvidenceKey, Array]) -> dict[str, Array]:
        """Features of the data by latent, (*plates, width); `raw` keeps the state of a run beside them."""
        return self.conditionals.encode(evidence)

    def raw(self, name: str, encoded: dict[str, Array], values: Mapping[str, Array]) -> Array:
        """The raw numbers of a factor, (*particles, *plates, count), of the state, which moves on by one layer."""
        read, state = self.conditionals.inputs(name, encoded, values), encoded.get(MERGED)
        merge = self.merges[self.conditionals.plan[name].network]
        merged = merge(*read) if state is None else state + merge(*read, state)
        encoded[MERGED] = merged
        return self.conditionals.raw(name, {name: merged}, values)
