"""Joints of finitely many data and codes, where all that is estimated elsewhere is a sum: exact, in float64."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Is


@checked
@dataclass(frozen=True)
class Joint:
    """q(x, z) = p_data(x) q(z | x) as a table.

    Args:
        table: (data, codes), at least 0, of sum 1; kept in float64.

    Raises:
        ValueError: a table of another shape, with a negative entry, or whose sum is not 1.

    >>> joint = Joint(torch.tensor([[0.5, 0.0], [0.0, 0.5]]))
    >>> f"{joint.information:.4f} {joint.entropy:.4f}"  # the code says all: log 2
    '0.6931 0.6931'
    """

    table: Annotated[Tensor, Is("a table", lambda t: isinstance(t, Tensor) and t.layout is torch.strided)]

    def __post_init__(self) -> None:
        table = self.table.double()
        if table.ndim != 2 or bool((table < 0).any()) or not abs(table.sum().item() - 1) <= 1e-6:  # nor NaN
            raise ValueError(
                f"Joint: found a table of shape {tuple(table.shape)}, least entry {table.min():.3g} and sum "
                f"{table.sum():.6g}, want (data, codes), at least 0, of sum 1; try table / table.sum()"
            )
        object.__setattr__(self, "table", table / table.sum())

    @property
    def data(self) -> Tensor:
        """p_data(x), (data,)."""
        return self.table.sum(1)

    @property
    def codes(self) -> Tensor:
        """q(z), (codes,)."""
        return self.table.sum(0)

    @property
    def encoder(self) -> Tensor:
        """q(z | x), (data, codes); of a datum that never occurs uniform over the codes."""
        return (self.table / self.data[:, None]).nan_to_num(1 / len(self.codes))

    @property
    def decoder(self) -> Tensor:
        """q(x | z), (codes, data): the best decoder of any criterion E_q log p(x | z) + R(q)."""
        return (self.table / self.codes).nan_to_num(0.0).T  # a code that is never used has no data

    @property
    def entropy(self) -> float:
        """H(p_data) in nats."""
        return -torch.special.xlogy(self.data, self.data).sum().item()

    @property
    def conditional_entropy(self) -> float:
        """H_q(x | z) in nats: minus the largest value of the unregularized criterion."""
        return -torch.special.xlogy(self.table, self.decoder.T).sum().item()

    @property
    def information(self) -> float:
        """I_q(x; z) = H(x) - H(x | z) in nats."""
        return self.entropy - self.conditional_entropy

    def divergence(self, prior: Tensor) -> float:
        """KL(q(z) || prior) in nats, of a prior (codes,); infinite if a used code is none of the prior."""
        ratio = torch.where(self.codes > 0, self.codes / prior.double(), 1.0)  # unused codes add nothing
        return torch.special.xlogy(self.codes, ratio).sum().item()

    @property
    def transition(self) -> Tensor:
        """x -> z ~ q(z | x) -> x' ~ q(x' | z), (data, data): p_data is stationary, whatever q is."""
        return self.encoder @ self.decoder

    def variance(self, values: Tensor) -> Tensor:
        """Var[x | z] summed over the entries of a datum, (codes,), of data with values (data, D)."""
        values = values.double()
        return self.decoder @ values.square().sum(1) - (self.decoder @ values).square().sum(1)


def coupled(data: Tensor, codes: Tensor, strength: float) -> Joint:
    """A joint with these marginals, between independence (0) and the most ordered coupling of them (1).

    All of them have the same q(z), so that they differ in the information of the code and in nothing that the ELBO
    sees.

    Args:
        data, codes: (n,) and (m,), of sum 1.
        strength: in [0, 1].

    Raises:
        ValueError: a strength outside; marginals that are none.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"coupled: found strength = {strength}, want 0 to 1")
    data, codes = data.double(), codes.double()
    upper = torch.minimum(data.cumsum(0)[:, None], codes.cumsum(0))
    corners = torch.nn.functional.pad(upper, (1, 0, 1, 0))  # the largest joint distribution function of these marginals
    ordered = corners[1:, 1:] - corners[:-1, 1:] - corners[1:, :-1] + corners[:-1, :-1]
    return Joint((1 - strength) * data[:, None] * codes + strength * ordered.clamp(min=0))
