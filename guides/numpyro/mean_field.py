"""Mean field: every latent from the data alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
from jax import Array
from numpyro.distributions import Distribution

from .parts.conditionals import Conditionals
from .parts.families import Family
from .parts.guide import TopDown, TopDownGuide, placed


class MeanField(TopDownGuide):
    """Independent latents given the data.

        q(z | x) = prod_l q(z_l | x)

    Exact posteriors of more than one latent hardly ever factorize so: `LinearGaussian.gap("mean-field")` is the price.

    Args:
        model: any NumPyro model function with continuous latents.
        args: an example batch, the model's arguments.
        family: "diagonal", "rank-one" or "full"; or a mapping latent -> family. With "rank-one" on a `DLGM` it is the
            recognition model of Rezende et al. 2014.
        encoder: see `guides.numpyro.parts.encoders.encoder`.
        hidden, depth: width and residual blocks of the networks.
        image: (channels, height, width) of a row, for `encoder="conv"`.
        key: of the initial weights, a `jax.random.key`.

    Raises:
        ValueError: see `TopDownGuide`; an unknown family or encoder.

    Source: Kingma & Welling 2014 (arXiv 1312.6114); Rezende et al. 2014 (arXiv 1401.4082), eq. 15.

    >>> import jax, jax.numpy as jnp
    >>> from ppl_models.numpyro import HierarchicalVAE
    >>> from ppl_models.factorization import compare
    >>> model, x = HierarchicalVAE(event=4, latent=(2, 2, 2), hidden=8, key=jax.random.key(0)), jnp.eye(4)[:3]
    >>> report = compare(model, MeanField(model, x, hidden=8, key=jax.random.key(1)), x)
    >>> print(report.guide)
    q(z1 | x) q(z2 | x) q(z3 | x)
    >>> report.verdict
    'unfaithful'
    """

    factors: Conditionals

    def __init__(
        self,
        model: Callable,
        *args: Any,
        family: str | Family | Mapping[str, str | Family] = "diagonal",
        encoder: str | eqx.Module = "separate",
        hidden: int = 256,
        depth: int = 1,
        image: Sequence[int] | None = None,
        key: Array,
    ) -> None:
        super().__init__(model, *args)
        parents = dict.fromkeys(self.order, ())
        factors = Conditionals(self.layout, parents, family, encoder, hidden, depth, image, key=key)
        self.factors = placed(factors, model, args)

    def get_posterior(self, name: str, prior: Distribution, run: TopDown) -> Distribution:
        """q(z_l | x)."""
        return self.factors.free(name, run.raw(name))
