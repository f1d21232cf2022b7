"""`Stepwise`: the sizes of a family of autoregressive steps, of which each language makes modules."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from ppl_models.parts.arguments.kinds import Count
from ppl_models.parts.flows.orders import Kind


@dataclass(frozen=True)
class Stepwise(ABC):
    """A family of autoregressive steps over R^n, whose context are numbers that the factor's network gives.

    | family | kind | a draw | a density |
    |---|---|---|---|
    | "iaf" (Kingma et al. 2016, arXiv 1606.04934) | gate | one call a step | no call for its own draw, else n a step |
    | "nsf" (Durkan et al. 2019, arXiv 1906.04032) | spline | one call a step | the same |
    | "maf" (Papamakarios et al. 2017, arXiv 1705.07057) | affine, backward | n calls a step | one call a step |

    Calls are those of the networks of the steps. All entries of a site depend on each other (a clique); the dependences
    between sites are those of the guide.

    Args:
        kind: the map of an entry, see `parts.flows.autoregressive`.
        backward: whether a draw goes through the steps backward.
        steps: number of steps; the order of the entries is reversed from one to the next.
        hidden, depth: width and number of hidden layers of the networks.
        context: how many numbers of context the networks read.
    """

    kind: Kind
    backward: bool = False
    steps: Count = 2
    hidden: Count = 100
    depth: Count = 1
    context: Count = 32

    units: ClassVar[str] = "diagonal"
    estimated: ClassVar[bool] = True

    @property
    def bent(self) -> bool:
        """Whether a factor over R^1 is no Gaussian."""
        return self.kind == "spline"

    def count(self, n: int, precision_weighted: bool = False) -> int:
        """2 n + context: a mean and a log scale each, and the context."""
        return 2 * n + self.context

    @abstractmethod
    def over(self, n: int, *args: Any, **kwargs: Any) -> Any:
        """The family as a module, for one factor over R^n."""
