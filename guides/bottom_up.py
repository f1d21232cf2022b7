"""Bottom-up inference: the latent next to the data first."""

from collections.abc import Callable
from typing import Any

from torch import nn

from ppl_models.parts.arguments.kinds import Count, Image, Positive, Whole

from .parts.conditionals import Conditionals, Parents, Reads, choose_evidence, choose_parents
from .parts.families.factors import Families
from .parts.families.starts import OfSite
from .parts.families.states import Discrete
from .parts.families.units import prior_starts
from .parts.guide import OrderedGuide, example_of


class BottomUp(OrderedGuide):
    """Inference in the reverse of the model's order, from the latent drawn last to the one drawn first.

        q(z | x) = q(z_L | x)  prod_{l<L}  q(z_l | pa_l, x),      pa_l among z_{l+1..L}     (z_{l+1} in a chain)

    Global latents, outside the plates of the data, are sampled before all others, from free parameters.

    Args:
        model, args, family, evidence, hidden, depth, image: as for `MeanField`.
        encoder: one network a latent by default.
        init_loc_fn, init_scale: as for `Faithful`.
        parents: "needed" (the fewest with which the guide can be exact), "all", "previous" (Markov), "none" or a
            mapping.
        discrete: as for `MeanField`.

    Raises:
        ValueError: see `OrderedGuide`; an unknown family, encoder or parent.

    Source: Rezende et al. 2014 and Burda et al. 2016 (arXiv 1509.00519), eq. 2, for chains; the parents in general by
    Webb et al. 2018 (arXiv 1712.00287).

    >>> import torch
    >>> from ppl_models import HierarchicalVAE
    >>> from ppl_models.factorization import compare
    >>> model, x = HierarchicalVAE(event=4, latent=(2, 2, 2), hidden=8), torch.eye(4)[:3]
    >>> report = compare(model, BottomUp(model, x, hidden=8), x)
    >>> print(report.guide)
    q(z3 | x) q(z2 | z3, x) q(z1 | z2, x)
    >>> report.verdict
    'faithful, not minimal, perfect'
    """

    density = "q(z | x) = q(z_L | x)  prod_{l<L}  q(z_l | pa_l, x)"
    source = (
        "Rezende et al. 2014 and Burda et al. 2016 (arXiv 1509.00519), eq. 2, for chains; the parents in general by "
        "Webb et al. 2018 (arXiv 1712.00287)."
    )

    def __init__(
        self,
        model: Callable,
        *args: Any,
        family: Families = "diagonal",
        encoder: str | nn.Module = "separate",
        parents: Parents = "needed",
        evidence: Reads = "needed",
        hidden: Count = 256,
        depth: Whole = 1,
        image: Image | None = None,
        init_loc_fn: OfSite | None = None,
        init_scale: Positive | None = None,
        discrete: Discrete = "enumerate",
    ) -> None:
        args = example_of(type(self).__name__, model, args)
        super().__init__(model, *args)
        sites = self.layout.latents
        outer = [name for name in sites if sites[name].is_global]
        self.order = outer + [name for name in reversed([*sites]) if name not in outer]
        chosen = choose_parents(self.layout, self.order, parents)
        self.layout = choose_evidence(self.layout, chosen, evidence)
        starts = prior_starts(model, args, self.layout, init_loc_fn, init_scale)
        sizes = encoder, hidden, depth, image
        factors = Conditionals(self.layout, chosen, family, *sizes, starts=starts, discrete=discrete)
        self.factors = factors.to(**self.place)
