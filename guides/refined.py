"""`Refined`: any guide, whose draws go on by Hamiltonian steps towards the posterior."""

from collections.abc import Callable, Mapping
from math import log
from typing import Annotated, Any, Literal, cast

import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.guide import GuideMessenger
from torch import Tensor, nn

from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram, Count, Number, Whole
from ppl_models.parts.likelihoods import bounded_exp
from ppl_models.parts.nets import Net
from ppl_models.parts.program import Program
from ppl_models.programs.noise import FIRST_STEP, KEPT, Chain, refused
from ppl_models.programs.noise.pyro_refined import refined

from .parts.conditionals import Conditionals
from .parts.families.factors import network_of
from .parts.guide import Once, OrderedGuide, TopDownGuide
from .parts.refinement import reads


class Refined(Program):
    """Steps of Hamiltonian dynamics from a draw of another guide towards the posterior, with a bound for any number K.

        e_0 ~ N(0, I),  v_0 ~ N(0, I),        z(e) the guide's draw of noise e,        w(e) = p(x, z(e)) / q(z(e) | x)
        for k = 1 ... K:      e' = e + (h_k/2) v,   v^ = v + h_k d log f_k(e'),   e = e' + (h_k/2) v^
                              f_k(e) = N(e; 0, I) w(e)^b_k
        log w = log w(e_K) + log N(e_K) - log N(e_0) + sum_k ( log r_k(v^_k | e_k) - log N(v_{k-1}) )

    E[w] = p(x) whatever h_k, b_k and the normalized r_k are. The steps are taken in the guide's own noise, in which a
    hierarchy has no funnels: where the guide is exact, all f_k are N(0, I). Each costs a run of guide and model, whose
    gradient is differentiated again in training: networks of softplus, tanh or SiLU have curvature to learn from, and
    those of ReLU none.

    "dais" is annealed importance sampling without accept or reject: powers 0 < b_1 < ... < b_K = 1 and sizes are
    learned, r_k is N(0, I), and the momentum keeps the share c: v_k = c v^ + sqrt(1 - c^2) u, u ~ N(0, I). "hvi" is
    Hamiltonian variational inference: b_k = 1, the momentum is drawn anew, and r_k(v | e) is a Gaussian of a network
    that reads e and what the guide has encoded of the datum.

    Its structure is that of `guide`, which the inspector judges; its own density has no closed form. For global
    latents pass all the data: steps that follow a batch bound nothing, and are refused.

    Args:
        guide: any guide whose latents are Gaussian, pushed through bijections or not. Its parameters are trained, too.
        steps: K; 0 is `guide` itself.
        method: "dais" or "hvi".
        momentum: c, for "dais".
        hidden: of the networks of "hvi".
        model: of `guide`, where that does not know its own (a function).

    Raises:
        ValueError: a guide without a model; for "hvi", one that is not of this library, or a latent in a plate that
            holds no data; when called, a latent that is not Gaussian, or one outside of a plate that subsamples.

    Source: Salimans, Kingma, Welling 2015 (arXiv 1410.6460), eq. 4 and 10; Zhang et al. 2021 (arXiv 2107.10211), for
    "dais". The coordinates are ours.

    >>> import torch
    >>> from guides import MeanField
    >>> from ppl_models import HierarchicalVAE
    >>> from ppl_models.factorization import compare
    >>> model, x = HierarchicalVAE(event=4, latent=(2, 2), hidden=8), torch.eye(4)[:3]
    >>> report = compare(model, Refined(MeanField(model, x, hidden=8)), x)
    >>> print(report.guide)
    q(z1 | x) q(z2 | x)
    >>> report.notes[0]
    'refined: structure of the base'
    """

    asks = "guide "
    density = "log w = log w(e_K) + log N(e_K) - log N(e_0) + sum_k ( log r_k(v^_k | e_k) - log N(v_{k-1}) )"
    source = (
        "Salimans, Kingma, Welling 2015 (arXiv 1410.6460), eq. 4 and 10; Zhang et al. 2021 (arXiv 2107.10211), for "
        '"dais". The coordinates are ours.'
    )

    def __init__(
        self,
        guide: AnyGuide,
        *,
        steps: Whole = 4,
        method: Literal["dais", "hvi"] = "dais",
        momentum: Annotated[float, Number(least=0, most=1)] = KEPT,
        hidden: Count = 64,
        model: AnyProgram | None = None,
    ) -> None:
        super().__init__()
        self.guide, self.steps, self.method, self.momentum = guide, steps, method, momentum
        own = getattr(poutine.unwrap(guide), "model", None) if model is None else model
        if own is None:
            refused(
                f"a guide ({type(guide).__name__}) that does not know its model", "both", "Refined(guide, model=model)"
            )
        self._model = (own,)  # in a tuple: its parameters are not the guide's
        place = _place(guide)
        self.size = nn.Parameter(torch.full((steps,), log(FIRST_STEP / (1 - FIRST_STEP)), **place))
        self.power = nn.Parameter(torch.zeros(steps, **place)) if method == "dais" else None
        self.reverse = nn.ModuleDict()
        known = isinstance(guide, TopDownGuide | OrderedGuide)
        self.reads = reads(guide, known, Conditionals) if method == "hvi" and steps else {}
        for name, read in self.reads.items():
            net = Net((*read.inputs, steps), 2 * read.entries, hidden, gain=0.1)
            self.reverse[network_of(name)] = net.to(**place)

    @property
    def model(self) -> Callable:
        """The model of the guide."""
        return self._model[0]

    @property
    def refines(self) -> Callable:
        """The guide, whose structure is that of this one."""
        return self.guide

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample the latents given the model's arguments: {site: value}."""
        if not self.steps:
            return self._unmoved(args, kwargs)
        once = self.guide.reading_once() if isinstance(self.guide, TopDownGuide | OrderedGuide) else Once()
        with once as read:
            return refined(self.model, self.guide, args, kwargs, lambda events: self._chain(read.features, events))

    def _unmoved(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not isinstance(self.guide, GuideMessenger):
            return self.guide(*args, **kwargs)
        with poutine.block(hide_fn=lambda msg: msg["type"] == "sample" and msg["is_observed"]):  # of its model
            values = self.guide(*args, **kwargs)
        self.guide.trace = Trace()  # else it keeps the graph of the run
        return values

    def _chain(self, features: Mapping[str, Tensor], events: Mapping[str, int]) -> Chain:
        """The chain of this run, of what the guide has encoded, and how many dims an event of each noise has."""
        sizes = self.size.sigmoid().unbind()
        if self.power is not None:
            return Chain(sizes, self.power.softmax(0).cumsum(0).unbind(), self.momentum)

        def log_r(k: int, noise: Mapping[str, Tensor], momentum: Mapping[str, Tensor]) -> dict[str, Tensor]:
            found = {}
            rows = {u: e.flatten(-events[u]) if events[u] else e.unsqueeze(-1) for u, e in noise.items()}
            for name, e in noise.items():
                read, net = self.reads[name], cast(Net, self.reverse[network_of(name)])
                given = [*(rows[u] for u in read.latents), *([features[name]] if read.encodes else [])]
                numbers = net(*given, torch.eye(self.steps, dtype=e.dtype, device=e.device)[k])
                mean, spread = (part.reshape(e.shape) for part in numbers.chunk(2, -1))
                scale = bounded_exp(spread)
                found[name] = -(((momentum[name] - mean) / scale) ** 2) / 2 - scale.log()
            return found

        return Chain(sizes, [1.0] * self.steps, 0.0, log_r)


def _place(guide: Any) -> dict[str, Any]:
    """Device and dtype of the parameters of a guide."""
    own = next(iter(guide.parameters()), None) if isinstance(guide, nn.Module) else None
    return {} if own is None else {"device": own.device, "dtype": own.dtype}
