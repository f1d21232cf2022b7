"""Faithful inversion: for any model, a guide that can be exact, with the fewest parents for its order."""

from collections.abc import Callable
from typing import Any

from torch import nn

from ppl_models.factorization import Factorization
from ppl_models.parts.arguments.kinds import Count, Image, Positive, Whole

from .parts.conditionals import Conditionals, Reads
from .parts.families.factors import Families
from .parts.families.starts import OfSite
from .parts.families.states import Discrete
from .parts.families.units import prior_starts
from .parts.guide import OrderedGuide, example_of
from .parts.parents import Order, faithful_inverse, read_off


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
    among their parents. A local latent, given the globals, reads what it needs of the data of its own datum and of the
    covariates: arguments, or elements of them, that nothing observes. Within globals and within locals the order is the
    one asked for, outer plates before inner ones; latents that no datum depends on come last. Each factor is one over
    R^n, pushed to the support of its site by `biject_to`.

    What is promised is the structure between sites. A family that does not hold p(z_i | pa_i) leaves a gap. The copies
    of a local latent in a further plate are independent given their parents: where the exact ones are not, make them
    one event by `.to_event`. All copies of a global in a plate of its own (groups, topics) have one factor, which
    "full" and "flow" couple; where the exact ones are independent, a verdict calls the other copies superfluous.

    Args:
        model: any Pyro model function.
        args: an example batch, the model's arguments, by position (`functools.partial` takes the others); a datum is a
            row of them: documents first, then words.
        order: in which latents are sampled: "top-down" as in the model, "bottom-up" in its reverse, or "min-fill" with
            the fewest parents, nearly.
        family: "diagonal", "rank-one", "full" or "flow"; or a mapping latent -> family.
        encoder: see `guides.parts.encoders.encoder`; each latent's network reads those observed sites that it needs.
        evidence: as for `MeanField`, less the observed sites that a latent does not need.
        hidden, depth: width and residual blocks of the networks.
        image: (channels, height, width) of a row, for `encoder="conv"`.
        amortized: whether locals read data, as they do wherever the data have a plate. Where nothing is in a plate the
            default is that every latent is global (classical variational inference); True takes all data for one datum
            of many, for instance a sequence.
        init_loc_fn, init_scale: the location of globals, a function of a site, and their standard deviation in
            unconstrained coordinates, as for Pyro's AutoNormal. By default those of their priors, from which `fit` goes
            to the mode of all rows before its first step.
        discrete: as for `MeanField`.

    Raises:
        ValueError: an unknown order, family or encoder; `amortized=False` with latents in the plate of the data; see
            `OrderedGuide`.

    Source: Webb et al. 2018, "Faithful inversion of generative models" (arXiv 1712.00287).
    """

    density = "q(z | x) = prod_i q(z_i | pa_i)"
    source = 'Webb et al. 2018, "Faithful inversion of generative models" (arXiv 1712.00287).'

    def __init__(
        self,
        model: Callable,
        *args: Any,
        order: Order = "top-down",
        family: Families = "diagonal",
        encoder: str | nn.Module = "separate",
        evidence: Reads = "needed",
        hidden: Count = 64,
        depth: Whole = 1,
        image: Image | None = None,
        amortized: bool | None = None,
        init_loc_fn: OfSite | None = None,
        init_scale: Positive | None = None,
        discrete: Discrete = "enumerate",
    ) -> None:
        args = example_of(type(self).__name__, model, args)
        super().__init__(model, *args, classical=not amortized)
        self.layout, self.order, parents = faithful_inverse(self.layout, model, args, order, amortized, evidence)
        starts = prior_starts(model, args, self.layout, init_loc_fn, init_scale)
        sizes = encoder, hidden, depth, image
        factors = Conditionals(self.layout, parents, family, *sizes, small_init=True, starts=starts, discrete=discrete)
        self.factors = factors.to(**self.place)

    @property
    def factorization(self) -> Factorization:
        """The factorization of the guide: what each latent is sampled given, latents and observed sites by name."""
        return read_off(self.layout, self.order, self.factors.parents)
