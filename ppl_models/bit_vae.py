"""A VAE of relaxed bits, after Webb et al. 2018 (arXiv 1712.00287) and Maddison et al. 2017 (arXiv 1611.00712)."""

import pyro
import torch
from torch import Tensor, nn

from .parts import likelihoods
from .parts.arguments.kinds import Count, Event, Positive, Whole
from .parts.arguments.sizes import event_size
from .parts.bits import LOGIT, RelaxedBits
from .parts.nets import Net
from .parts.program import Program
from .parts.states import states_of


class BitVAE(Program):
    """A vector of relaxed bits, decoded by a network.

        p(x, z) = prod_i p(z_i) p(x | z),      x ~ likelihood(net(sigmoid(z)))
        z_i = (a_i + log u_i - log(1 - u_i)) / t,      u_i uniform on (0, 1)

    z_i is the logit of a relaxed bit. t -> 0 is the model of the bits themselves, b_i ~ Bernoulli(sigmoid(a_i)), which
    `parts.Discretized(model)` is, with the same weights: what is trained is the bound of the relaxed model, and says
    nothing of that one. `log_evidence` is exact, of the bits.

    Given x all bits depend on each other, as one layer of the decoder reads them all. In `guides.MeanField` with
    `family="bits"`, the usual encoder, every factor lacks the others; with `family="autoregressive-bits"` none does.

    Shapes: x (n, event), z (n, latent); sites z1 and x.

    Args:
        event: number of values in a row of x, or its shape.
        latent: number of bits.
        temperature: t.
        hidden: width of the network.
        depth: residual blocks in it.
        likelihood: see `parts.likelihoods.likelihood`.

    Raises:
        ValueError: a size that is not a positive integer, a temperature that is not positive; x of the wrong width,
            outside the support, not finite, empty.

    Source: Webb et al. 2018 have such a model of 30 bits among their experiments, as the self-reflective paper quotes
    it. Unverified in the originals: temperatures of 1/2 here and 2/3 in the guide (Maddison et al. 2017), that the a_i
    are learned (from 0 on), and the sizes of the network, which are ours.

    >>> BitVAE(event=64, latent=5)(n=3).shape
    torch.Size([3, 64])

    >>> import torch
    >>> from guides import MeanField
    >>> from ppl_models.factorization import compare, factorization
    >>> model, x = BitVAE(event=4, latent=3, hidden=8), torch.eye(4)[:3]
    >>> print(factorization(model, x))
    p(z1) p(x | z1)
    >>> for family in ("bits", "autoregressive-bits"):
    ...     report = compare(model, MeanField(model, x, family=family, hidden=8), x, level="element")
    ...     print(report.verdict, report.missing)
    unfaithful {'z1.1': ('z1.0',), 'z1.2': ('z1.0', 'z1.1')}
    faithful, minimal, perfect {}
    """

    density = "p(x, z) = prod_i p(z_i) p(x | z)"
    source = "Webb et al. 2018 (arXiv 1712.00287) and Maddison et al. 2017 (arXiv 1611.00712)"

    def __init__(
        self,
        event: Event = 784,
        latent: Count = 30,
        temperature: Positive = 0.5,
        hidden: Count = 256,
        depth: Whole = 1,
        likelihood: str | nn.Module = "bernoulli",
    ) -> None:
        super().__init__()
        self.event, _ = event_size("BitVAE", event)
        self.latent, self.temperature = latent, temperature
        self.likelihood = likelihoods.likelihood(likelihood, "BitVAE")
        self.logits = nn.Parameter(torch.zeros(latent))
        self.decoder = Net([latent], self.likelihood.count * self.event, hidden, depth, norm=True)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.logits.dtype)
        with pyro.plate("data", n):
            # p(z): logits of relaxed bits
            z = pyro.sample("z1", RelaxedBits(self.logits, self.temperature).to_event(1))
            # p(x | z)
            return pyro.sample("x", self.likelihood(self.decoder(z.sigmoid())), obs=x)

    def states(self) -> Tensor:
        """All values that z has once the bits are bits, as logits: (2^latent, latent).

        Raises:
            ValueError: more than 16 bits.
        """
        return (2 * torch.from_numpy(states_of(self.latent)) - 1).to(self.logits) * LOGIT

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, b) of the bits themselves for all `states`, in nats; (n, event) to (n, 2^latent).

        Its softmax is the exact posterior of the bits.

        Raises:
            ValueError: more than 16 bits, or data that the model cannot have made.
        """
        likelihoods.rows(x, 1, self.event, self.likelihood, self.logits.dtype)
        z = self.states()
        prior = RelaxedBits(self.logits, 0.0).to_event(1).log_prob(z)
        return prior + self.likelihood(self.decoder(z.sigmoid())).log_prob(x.unsqueeze(-2))

    def log_evidence(self, x: Tensor) -> Tensor:
        """Exact log p(x) of the bits themselves, in nats; (n, event) to (n,). Raises as `log_joint`."""
        return self.log_joint(x).logsumexp(-1)
