"""The generative model of semi-supervised learning, M2: a class and a code (Kingma et al. 2014, arXiv 1406.5298)."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .parts import likelihoods
from .parts.arguments.kinds import Count, Event, Whole
from .parts.arguments.sizes import event_size
from .parts.distributions import StandardNormal
from .parts.nets import Net
from .parts.program import Program
from .parts.states import check_classes, check_labels


class SemiSupervisedVAE(Program):
    """A class and a latent vector, independent a priori, decoded by one network.

        p(x, y, z) = p(y) p(z) p(x | y, z),      y ~ Categorical(1/K),   z ~ N(0, I),   x ~ likelihood(net(z, y))

    Of a row with a label the prior of y is that label alone, so that its bound is one of log p(x | y), which is
    log p(x, y) + log K; of a row without, -1, it is one of log p(x). A guide in the model's order (`SelfReflective`)
    gives q(y | x) q(z | y, x) and leaves out, of its q(y | x), what the prior leaves out. Give it rows with labels in
    its example, and `evidence=("x",)`, so that its network for y never reads the label; then `q(y | x)` classifies,
    and `semi_supervised` trains it on the labels, too.

    Shapes: x (n, event), labels (n,) whole numbers, -1 for none, y (n,), z1 (n, latent); sites y, z1 and x.

    Args:
        event: number of values in a row of x, or its shape.
        latent: size of z1.
        classes: K.
        hidden: width of the network.
        depth: residual blocks in it.
        likelihood: as for `VAE`.

    Raises:
        TypeError: labels that are no whole numbers.
        ValueError: a size that is not a positive integer; an unknown likelihood; x of the wrong width, outside the
            support, not finite, empty; labels of another number than the rows, or above K - 1.

    Source: Kingma, Mohamed, Rezende, Welling 2014 (arXiv 1406.5298), eq. 2 and section 3.1.2; networks are the
    library's.

    >>> from guides import SelfReflective
    >>> from ppl_models.factorization import compare
    >>> model, x = SemiSupervisedVAE(event=4, latent=2, classes=3, hidden=8), torch.eye(4)[:3]
    >>> report = compare(model, SelfReflective(model, x, hidden=8), x)
    >>> print(report.model, report.guide, sep="\\n")
    p(y) p(z1) p(x | y, z1)
    q(y | x) q(z1 | y, x)
    >>> report.verdict
    'faithful, minimal, perfect'
    """

    density = "p(x, y, z) = p(y) p(z) p(x | y, z)"
    source = "Kingma, Mohamed, Rezende, Welling 2014 (arXiv 1406.5298), eq. 2 and section 3.1.2"

    def __init__(
        self,
        event: Event = 784,
        latent: Count = 50,
        classes: Count = 10,
        hidden: Count = 500,
        depth: Whole = 1,
        likelihood: str | nn.Module = "bernoulli",
    ) -> None:
        super().__init__()
        self.event, _ = event_size("SemiSupervisedVAE", event)
        self.latent, self.classes = latent, classes
        self.likelihood = likelihoods.likelihood(likelihood, "SemiSupervisedVAE")
        self.prior = StandardNormal(latent)
        self.decoder = Net([latent, classes], self.likelihood.count * self.event, hidden, depth, norm=True)

    def forward(self, x: Tensor | None = None, labels: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x (n, event), some of them with labels (n,), or generate n of them; returns them."""
        n = likelihoods.rows(x, n, self.event, self.likelihood, self.prior.loc.dtype)
        states = torch.arange(self.classes, device=self.prior.loc.device)
        with pyro.plate("data", n):
            # p(y), 1/K, or 1 for the label that is known
            y = pyro.sample("y", dist.Categorical(self.masses(labels, n, states)))
            # p(z)
            z = pyro.sample("z1", self.prior())
            # p(x | y, z)
            code = (y.unsqueeze(-1) == states).to(self.prior.loc.dtype)
            return pyro.sample("x", self.likelihood(self.decoder(z, code)), obs=x)

    def masses(self, labels: Tensor | None, n: int, states: Tensor) -> Tensor:
        """The prior masses of the classes: (classes,), or (n, classes) where there are labels."""
        even = torch.full((self.classes,), 1 / self.classes, dtype=self.prior.loc.dtype, device=states.device)
        if labels is None:
            return even
        check_labels(likelihoods.TENSORS, labels, n)
        if torch.distributions.Distribution._validate_args:
            check_classes(labels[(labels < -1) | (labels >= self.classes)], self.classes)
        labels = labels.unsqueeze(-1)
        return torch.where(labels < 0, even, (labels == states).to(even.dtype))
