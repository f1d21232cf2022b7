"""Faithful inversion: for any model, a guide that can be exact, with the fewest parents for its order."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from ppl_models.factorization import Factorization
from ppl_models.factorization.graph import ORDERS
from ppl_models.factorization.probing.recover import examine

from .parts.conditionals import Conditionals, choose_parents
from .parts.families import Family
from .parts.guide import OrderedGuide


class Faithful(OrderedGuide):
    """The inverse of any model: each latent given exactly what its exact posterior needs, latents and data alike.

        q(z | x) = prod_i q(z_i | pa_i),      pa_i = the fewest of z_<i and x with  p(z_i | pa_i) = p(z_i | z_<i, x)

    A chain of two layers, sampled from the data up:

        >>> import pyro, pyro.distributions as dist, torch
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z1 = pyro.sample("z1", dist.Normal(0.0, 1.0))
        ...         z2 = pyro.sample("z2", dist.Normal(z1, 1.0))
        ...         pyro.sample("x", dist.Normal(z2, 1.0), obs=x)
        >>> print(Faithful(model, torch.zeros(3), order="bottom-up").factorization)
        q(z2 | x) q(z1 | z2)

    Global latents, outside the plate of the data, are sampled first in every order: they cannot be given one value for
    each datum. Their parameters are free, since for them the data are one fixed set of numbers, so that no data are
    among their parents. A local latent, given the globals, reads the data of its own datum, and covariates: arguments,
    or elements of them, with a row for each datum that nothing observes. Within globals and within locals the order is
    the one asked for, outer plates before inner ones; latents that no datum depends on come last.
    Each factor is one over R^n, pushed to the support of its site by `biject_to`.

    What is promised is the structure between sites. A family that does not hold p(z_i | pa_i) leaves a gap. The copies
    of a latent in a plate are independent given their parents: where the exact ones are not, as those of a global in a
    plate of its own (topics), make them one event by `.to_event`. Covariates are read whether needed or not.

    Args:
        model: any Pyro model function with continuous latents.
        args: an example batch, the model's arguments, by position (`functools.partial` takes the others); a datum is a
            row of them: documents first, then words.
        order: in which latents are sampled: "top-down" as in the model, "bottom-up" in its reverse, or "min-fill" with
            the fewest parents, nearly.
        family: "diagonal", "rank-one", "full" or "flow"; or a mapping latent -> family.
        encoder: see `guides.parts.encoders.encoder`; each latent's network reads those observed sites that it needs.
        hidden, depth: width and residual blocks of the networks.
        image: (channels, height, width) of a row, for `encoder="conv"`.
        amortized: whether locals read data, as they do wherever the data have a plate. Where nothing is in a plate the
            default is that every latent is global (classical variational inference); True takes all data for one datum
            of many, for instance a sequence.

    Raises:
        ValueError: an unknown order, family or encoder; `amortized=False` with latents in the plate of the data; see
            `OrderedGuide`.

    Source: Webb et al. 2018, "Faithful inversion of generative models" (arXiv 1712.00287).
    """

    def __init__(
        self,
        model: Callable,
        *args: Any,
        order: str = "top-down",
        family: str | Family | Mapping[str, str | Family] = "diagonal",
        encoder: str | nn.Module = "separate",
        hidden: int = 64,
        depth: int = 1,
        image: Sequence[int] | None = None,
        amortized: bool | None = None,
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"guide Faithful: found order {order!r}, want one of {', '.join(map(repr, ORDERS))}")
        super().__init__(model, *args, classical=not amortized)
        layout, sites = self.layout, self.layout.latents
        local = [name for name, site in sites.items() if not site.is_global]
        if amortized is False and local:
            raise ValueError(
                f"guide Faithful: found amortized=False, but site {local[0]!r} has a value for each datum, which a "
                "network of the data must give; leave it out, or try an autoguide of Pyro's"
            )
        found, doubts = examine(model, args, {})
        for doubt in doubts:
            warnings.warn(f"guide Faithful: structure by provenance alone, as {doubt}", stacklevel=2)
        if not doubts:
            layout.factorization = found
        model_side = layout.factorization
        barren = set(model_side.barren())
        inverse = [name for name in model_side.faithful_inverse(order).parents if name in sites]  # not the enumerated
        self.order = sorted(inverse, key=lambda n: (n in barren, 0 if n in barren else self._depth(n)))
        chosen = choose_parents(layout, self.order, "needed")
        needed = {n: model_side.needed_parents(n, self.order[:i]) for i, n in enumerate(self.order)}
        layout.read(needed)
        factors = Conditionals(layout, chosen, family, encoder, hidden, depth, image, tame=True)
        self.factors = factors.to(**self.place)

    def _depth(self, name: str) -> int:
        """How many plates a latent shares with the data: 0 for a global."""
        return len(self.layout.latents[name].keep)

    @property
    def factorization(self) -> Factorization:
        """What each latent is sampled given: latents, and observed sites by name."""
        layout = self.layout
        data = {n: layout.reads[n] if layout.reading(n) else () for n in self.order}
        parents = {n: (*self.factors.parents[n], *data[n]) for n in self.order}
        known = (*layout.evidence_sites, *layout.covariates.values())
        given = [site for site in known if any(site in read for read in data.values())]
        return Factorization(parents, given=tuple(given), letter="q")
