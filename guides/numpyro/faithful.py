"""Faithful inversion: for any model, a guide that can be exact, with the fewest parents for its order."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
from jax import Array

from ppl_models.factorization import Factorization
from ppl_models.factorization.graph import ORDERS
from ppl_models.factorization.probing.recover import examine

from .parts.conditionals import Conditionals, choose_parents
from .parts.families import Family
from .parts.guide import OrderedGuide, placed


class Faithful(OrderedGuide):
    """Port of `guides.Faithful`: same arguments and names of parameters; `key` seeds the weights."""

    factors: Conditionals
    order: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        model: Callable,
        *args: Any,
        order: str = "top-down",
        family: str | Family | Mapping[str, str | Family] = "diagonal",
        encoder: str | eqx.Module = "separate",
        hidden: int = 64,
        depth: int = 1,
        image: Sequence[int] | None = None,
        amortized: bool | None = None,
        key: Array,
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"guide Faithful: found order {order!r}, want one of {', '.join(map(repr, ORDERS))}")
        super().__init__(model, *args, classical=not amortized)
        layout, sites = self.layout, self.layout.latents
        local = [name for name, site in sites.items() if not site.is_global]
        if amortized is False and local:
            raise ValueError(
                f"guide Faithful: found amortized=False, but site {local[0]!r} has a value for each datum, which a "
                "network of the data must give; leave it out, or try an autoguide of NumPyro's"
            )
        found, doubts = examine(model, args, {})
        for doubt in doubts:
            warnings.warn(f"guide Faithful: structure by provenance alone, as {doubt}", stacklevel=2)
        if not doubts:
            layout.factorization = found
        model_side = layout.factorization
        barren = set(model_side.barren())
        inverse = [name for name in model_side.faithful_inverse(order).parents if name in sites]  # not the enumerated
        self.order = tuple(sorted(inverse, key=lambda n: (n in barren, 0 if n in barren else len(sites[n].keep))))
        chosen = choose_parents(layout, self.order, "needed")
        needed = {n: model_side.needed_parents(n, self.order[:i]) for i, n in enumerate(self.order)}
        layout.read(needed)
        factors = Conditionals(layout, chosen, family, encoder, hidden, depth, image, tame=True, key=key)
        self.factors = placed(factors, model, args)

    @property
    def factorization(self) -> Factorization:
        """What each latent is sampled given: latents, and observed sites by name."""
        layout = self.layout
        data = {n: layout.reads[n] if layout.reading(n) else () for n in self.order}
        parents = {n: (*self.factors.parents[n], *data[n]) for n in self.order}
        known = (*layout.evidence_sites, *layout.covariates.values())
        given = [site for site in known if any(site in read for read in data.values())]
        return Factorization(parents, given=tuple(given), letter="q")
