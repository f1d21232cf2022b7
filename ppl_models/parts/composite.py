"""`Composite`: one model whose codes are the data of another, as one program that draws both."""

from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from .checks import check_batch
from .codes import DATA, refuse_codes, renamed, slice_of
from .likelihoods import TENSORS
from .program import Program


class Composite(Program):
    """Two models, the second of which is the prior of the first one's codes in the place of its own.

        p(u, z, x) = p_2(u) p_2(z | u) p_1(x | z)

    Codes z of a datum are the latents of the first model, one after another; the second model was trained on them as
    its data. Sites: those of the second model, z1, z2, ... under the names u1, u2, ..., its x under the name z; and x.
    The paper shows means of x, `ppl_models.inference.ancestral(model, x, draws=False)`.

    Shapes: x (n, event of the first), z (n, event of the second).

    Args:
        first: a model of `ppl_models` of data x; its own prior is not used.
        second: a model of codes.

    Raises:
        ValueError: when called, rows of the second model of another size than the codes of the first; see the first
            for x.

    Source: Dai & Wipf 2019 (arXiv 1903.05789), section 4: the two-stage VAE.

    >>> import torch
    >>> from ppl_models import VAE
    >>> from ppl_models.factorization import factorization
    >>> two = Composite(VAE(event=4, latent=2, hidden=8), VAE(event=2, latent=3, hidden=8, likelihood="gaussian"))
    >>> print(factorization(two, torch.eye(4)[:3]))
    p(u1) p(z | u1) p(x | z)
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Observe the rows of x, or generate n of them; returns them."""
        if x is not None:  # by its rows here, and by what the first model wants of a row there
            check_batch(TENSORS, "x", x, tuple(getattr(x, "shape", ()))[1:], None)
        with _AsPrior():
            codes = self.second(n=n if x is None else len(x))
        with _Given(codes) as given:
            rows = self.first(x, n)
        if given.taken < codes.shape[-1]:
            refuse_codes(codes.shape[-1], "fewer")
        return rows


class _AsPrior(Messenger):
    """Inside, sites have the names that they have above another model, whose plate of data is theirs."""

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            msg["stop"] = True  # the first model draws it again, under this name
        else:
            msg["name"] = renamed(msg["name"])


class _Given(Messenger):
    """Inside, the latents of a model are the parts of these codes, in their order, and handlers around see none."""

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.codes, self.taken = codes, 0

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["name"] == DATA or site_is_subsample(msg):
            return
        event = tuple(msg["fn"].event_shape)
        part = slice_of(self.taken, event, self.codes.shape[-1])
        self.taken, value = part.stop, self.codes[..., part]
        msg["value"], msg["done"], msg["stop"] = value.reshape(value.shape[:-1] + event), True, True
