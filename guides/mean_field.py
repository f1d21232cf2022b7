"""Mean field: every latent from the data alone, and from covariates."""

from collections.abc import Callable
from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn

from ppl_models.parts.arguments.kinds import Count, Image, Positive, Whole

from .parts.conditionals import Conditionals, Reads, choose_evidence, choose_tied
from .parts.families.factors import Families
from .parts.families.starts import OfSite
from .parts.families.states import Discrete
from .parts.families.units import prior_starts
from .parts.guide import TopDownGuide, example_of


class MeanField(TopDownGuide):
    """Independent latents given the data.

        q(z | x) = prod_l q(z_l | x)

    Exact posteriors of more than one latent hardly ever factorize so: `LinearGaussian.gap("mean-field")` is the price.
    At a prior that is a mixture of an encoder's densities (`VampVAE`) the factor is that encoder of the model.

    Args:
        model: any Pyro model function.
        args: an example batch, the model's arguments.
        family: of each factor: "diagonal", "rank-one", "full", "flow", or autoregressive steps, "iaf", "nsf" or "maf",
            with sizes or without ("iaf:steps=4,hidden=320"); or a mapping latent -> family. "rank-one" on a `DLGM` is
            the recognition model of Rezende et al. 2014. At a prior that is a mixture of an encoder's densities, other
            families than "diagonal" have a network of the guide's own.
        encoder: see `guides.parts.encoders.encoder`.
        evidence: what the networks read: "needed", what is observed and those covariates (arguments that nothing
            observes) that a factor needs; "observed", that alone; or names of arguments. See
            `guides.parts.parents.choose_evidence`.
        hidden, depth: width and residual blocks of the networks.
        image: (channels, height, width) of a row, for `encoder="conv"`.
        init_loc_fn, init_scale: as for `Faithful`.
        discrete: how factors of discrete latents (Categorical, OneHotCategorical, Bernoulli, vectors of them) are
            trained: "enumerate", by exact sums over all states; or "relax", by draws that have the gradient of relaxed
            ones (`masses.RelaxedBernoulli`), of one-hot and 0-1 values alone. See docs/guides.md.

    Raises:
        ValueError: see `TopDownGuide`; an unknown family or encoder.

    Source: Kingma & Welling 2014 (arXiv 1312.6114); Rezende et al. 2014 (arXiv 1401.4082), eq. 15.

    >>> import torch
    >>> from ppl_models import HierarchicalVAE
    >>> from ppl_models.factorization import compare
    >>> model, x = HierarchicalVAE(event=4, latent=(2, 2, 2), hidden=8), torch.eye(4)[:3]
    >>> report = compare(model, MeanField(model, x, hidden=8), x)
    >>> print(report.guide)
    q(z1 | x) q(z2 | x) q(z3 | x)
    >>> report.verdict
    'unfaithful'

    A covariate is read where it is needed, here the label of a conditional VAE:

    >>> import pyro, pyro.distributions as dist
    >>> def conditional(x, c):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    ...         pyro.sample("x", dist.Normal(z + c.unsqueeze(-1), 1.0).to_event(1), obs=x)
    >>> x, c = torch.eye(3)[:, :2], torch.tensor([0, 2, 1])
    >>> print(compare(conditional, MeanField(conditional, x, c, hidden=8), x, c).guide)
    q(z | x, c)
    """

    density = "q(z | x) = prod_l q(z_l | x)"
    source = "Kingma & Welling 2014 (arXiv 1312.6114); Rezende et al. 2014 (arXiv 1401.4082), eq. 15."

    def __init__(
        self,
        model: Callable,
        *args: Any,
        family: Families = "diagonal",
        encoder: str | nn.Module = "separate",
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
        parents = dict.fromkeys(self.order, ())
        self.layout = choose_tied(choose_evidence(self.layout, parents, evidence), parents, family)
        starts = prior_starts(model, args, self.layout, init_loc_fn, init_scale)
        sizes = encoder, hidden, depth, image
        factors = Conditionals(self.layout, parents, family, *sizes, starts=starts, discrete=discrete)
        self.factors = factors.to(**self.place)

    def get_posterior(self, name: str, prior: TorchDistributionMixin) -> TorchDistributionMixin:
        """q(z_l | x)."""
        return self.factors.free(name, self.raw(name))
