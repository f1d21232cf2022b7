"""Self-reflective inference: the model's own order and bijections, new bases."""

from collections.abc import Callable
from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn

from ppl_models.parts.arguments.kinds import Count, Image, Whole

from .parts.checks import Bases
from .parts.conditionals import Conditionals, Parents, Reads, choose_evidence, choose_parents, choose_tied
from .parts.families.factors import Families
from .parts.families.states import Discrete
from .parts.families.units import prior_bases
from .parts.guide import TopDownGuide, example_of


class SelfReflective(TopDownGuide):
    """The generator with each prior layer replaced by a posterior layer, its bijections shared.

        q(z | x) = prod_l q(z_l | pa_l, x),      pa_l = what p(z_l | z_<l, x) needs of z_<l   (z_{l-1} in a SeRe-VAE)

    Where the prior is a bijection f_l of N(mu_l, sigma_l^2), the factor is the *same* f_l of a new base, so that the
    divergence of a layer is that of two Gaussians. A network of z_l's parents and the evidence gives the new base. At a
    prior without a Gaussian base the factor has the family alone. If that prior is a mixture of an encoder's densities
    (`VampVAE`, `SeReVAE(prior="vamp")`) and the family is "diagonal", the factor is that encoder of the model.

    Args:
        model, args, family, evidence, hidden, depth, image: as for `MeanField`.
        encoder: one network a latent by default, as in the paper.
        parents: "needed" (the fewest with which the guide can be exact), "all", "previous", "none" or a mapping.
        base: "own", a base whose numbers are the network's alone, in units of the prior's on the example; or "prior",
            the prior's own mu_l and sigma_l, shifted and scaled by the network, as in files of version 0.1.
        discrete: as for `MeanField`.

    Raises:
        ValueError: see `TopDownGuide`; an unknown family, encoder, parent or word for the base.

    Source: Apostolopoulou, Rosenfeld, Dubrawski 2020 (arXiv 2007.05166), eq. 4. The paper does not say what the first
    estimate of the residual base is. A base around the prior's follows each of its steps in training, and fits worse:
    CHANGELOG has the numbers.

    >>> import torch
    >>> from ppl_models import HierarchicalVAE
    >>> from ppl_models.factorization import compare
    >>> model, x = HierarchicalVAE(event=4, latent=(2, 2, 2), hidden=8), torch.eye(4)[:3]
    >>> report = compare(model, SelfReflective(model, x, hidden=8), x)
    >>> print(report.guide)
    q(z1 | x) q(z2 | z1, x) q(z3 | z2, x)
    >>> report.verdict
    'faithful, minimal, perfect'
    """

    density = "q(z | x) = prod_l q(z_l | pa_l, x)"
    source = "Apostolopoulou, Rosenfeld, Dubrawski 2020 (arXiv 2007.05166), eq. 4"

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
        base: Bases = "own",
        discrete: Discrete = "enumerate",
    ) -> None:
        args = example_of(type(self).__name__, model, args)
        super().__init__(model, *args)
        chosen = choose_parents(self.layout, self.order, parents)
        self.layout = choose_tied(choose_evidence(self.layout, chosen, evidence), chosen, family)
        bases = prior_bases(model, args, self.layout) if base == "own" else None
        sizes = encoder, hidden, depth, image
        factors = Conditionals(self.layout, chosen, family, *sizes, bases=bases, discrete=discrete)
        self.factors = factors.to(**self.place)

    def get_posterior(self, name: str, prior: TorchDistributionMixin) -> TorchDistributionMixin:
        """q(z_l | pa_l, x): the prior's own bijection over a new base."""
        return self.factors.residual(name, self.raw(name), prior)
