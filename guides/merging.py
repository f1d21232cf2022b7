"""Merging inference: on the way down a state gathers, layer by layer, what the data say and what was drawn."""

from collections.abc import Callable, Mapping
from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ppl_models.parts.arguments.kinds import Count, Image, Whole
from ppl_models.parts.nets import Net

from .parts.checks import MERGED, check_merged
from .parts.conditionals import Conditionals, Reads, choose_evidence
from .parts.families.factors import Families
from .parts.guide import TopDownGuide
from .parts.looks.evidence import EvidenceKey
from .parts.parents import choose_parents


class Merging(TopDownGuide):
    """Top-down inference with a residual state that merges features of the data with the latents as they are drawn.

        q(z | x) = prod_l q(z_l | z_<l, x)
        m_1 = MLP(b_1),      m_l = m_{l-1} + MLP(b_l, z_{l-1}, m_{l-1}),      q(z_l | .) by a network of m_l and z_{l-1}

    b_l are features of a deterministic pass from the data up. Through the state m_l each factor reads all latents above
    it, whether it needs them or not, and costs the same at every layer.

    Args:
        model, args, family, evidence, hidden, depth, image: as for `MeanField`; all latents must be in the plate of the
            data and read the same of them.
        encoder: by default the bottom-up chain, as for `Ladder`.

    Raises:
        ValueError: see `TopDownGuide`; an unknown family or encoder; latents that are outside the plate of the data, or
            read other data than the first latent does.

    Source: Bachman 2016 (arXiv 1612.04739), MatNet. There the merge reads the generator's state h_{l-1}; here it reads
    z_{l-1}, which moved that state, so that any model will do. Networks are the library's.

    >>> import torch
    >>> from ppl_models import MatNet
    >>> from ppl_models.factorization import compare
    >>> model, x = MatNet(event=4, latent=(2, 2, 2), hidden=8), torch.eye(4)[:3]
    >>> report = compare(model, Merging(model, x, hidden=8), x)
    >>> print(report.guide)
    q(z1 | x) q(z2 | z1, x) q(z3 | z1, z2, x)
    >>> report.verdict
    'faithful, minimal, perfect'
    """

    density = "q(z | x) = prod_l q(z_l | z_<l, x)"
    source = "Bachman 2016 (arXiv 1612.04739), MatNet"

    def __init__(
        self,
        model: Callable,
        *args: Any,
        family: Families = "diagonal",
        encoder: str | nn.Module = "bottom-up",
        evidence: Reads = "needed",
        hidden: Count = 256,
        depth: Whole = 1,
        image: Image | None = None,
    ) -> None:
        super().__init__(model, *args)
        chosen = choose_parents(self.layout, self.order, "previous")
        self.layout = choose_evidence(self.layout, chosen, evidence)
        check_merged(self.layout)
        factors = Merge(Conditionals(self.layout, chosen, family, encoder, hidden, depth, image), hidden, depth)
        self.factors = factors.to(**self.place)

    def get_posterior(self, name: str, prior: TorchDistributionMixin) -> TorchDistributionMixin:
        """q(z_l | z_<l, x)."""
        return self.factors.conditionals.free(name, self.raw(name))


class Merge(nn.Module):
    """The factors of `Merging`: `Conditionals` that read a merged state in place of features of the data.

    Args:
        conditionals: the factors, each with the latent before it for a parent.
        hidden, depth: of the networks of the state.
    """

    def __init__(self, conditionals: Conditionals, hidden: int, depth: int) -> None:
        super().__init__()
        self.conditionals, self.parents = conditionals, conditionals.parents
        self.merges = nn.ModuleDict()
        for factor in conditionals.plan.values():
            width = factor.inputs[0]
            inputs = [*factor.inputs, *([width] if self.merges else [])]
            self.merges[factor.network] = Net(inputs, width, hidden, depth, norm=True)

    def encode(self, evidence: Mapping[EvidenceKey, Tensor]) -> dict[str, Tensor]:
        """Features of the data by latent, (*plates, width); `raw` keeps the state of a run beside them."""
        return self.conditionals.encode(evidence)

    def raw(self, name: str, encoded: dict[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
        """The raw numbers of a factor, (*particles, *plates, count), of the state, which moves on by one layer."""
        read, state = self.conditionals.inputs(name, encoded, values), encoded.get(MERGED)
        merge = self.merges[self.conditionals.plan[name].network]
        merged = merge(*read) if state is None else state + merge(*read, state)
        encoded[MERGED] = merged
        return self.conditionals.raw(name, {name: merged}, values)
