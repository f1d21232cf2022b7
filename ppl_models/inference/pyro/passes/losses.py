"""Losses for an optimizer: an objective of a pair, its gradient estimators, and the same as a loss of Pyro's."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import unwrap
from typing import Annotated, Any

import torch
from pyro import poutine
from pyro.infer.elbo import ELBO
from torch import Tensor

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, Is
from ppl_models.programs.pairs import refuse_rough

from ...config import Gradient
from ...objectives.bounds import elbo, is_doubly
from ...objectives.nested import inner_draws
from ...objectives.stateful import Carried, begun, has_state, is_objective
from ...objectives.terms import Beta
from ...training.weighing import Weighing
from .checks import evaluating, forked
from .dreg import Cut, doubly_reparametrized
from .messengers import Weighed
from .pair_info import ENUMERATE, pair_info
from .terms import Terms, concatenated, terms, traces

Objective = Callable[..., Tensor]
_terms = unwrap(terms)  # what a step hands on was looked at before the first one


def estimate(
    objective: Objective,
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    beta: float | Tensor = 1.0,
    data_size: int | None = None,
    particles: int = 1,
    passes: int = 1,
    nesting: int | None = None,
    analytic: bool = True,
    gradient: str = "reparametrized",
    plate: str | None = None,
    states: bool = False,
) -> tuple[Tensor, list[Terms]]:
    """(the negative objective, to be minimized, in nats per datum; the `Terms` of each pass it was made of).

    The passes are one sample of particles * passes draws, so that a bound keeps its K however they are run.

    "reparametrized" differentiates the objective along its draws. "doubly-reparametrized" has the value of
    `importance_weighted` and another gradient of the same mean, without the guide's score: with w~_k = w_k / sum_j w_j,

        sum_k  w~_k d log p(x, z_k) + c_k (d log w_k / d z_k) d z_k,      c_k = (1 - beta) w~_k + beta w~_k^2

    where the first d is at fixed draws, over the parameters of p, and the last over all that the draws depend on. The
    draws of all latents are one vector: it holds for factors that condition on each other, and where the guide shares
    parameters with the prior. As K grows the plain gradient of a guide drowns in its noise (Rainforth et al. 2018,
    arXiv 1802.04537), and this one stands out from it; what is the guide's alone has no gradient at all, not only on
    average, where the guide is exact.

    Args:
        objective: of `Terms`, to be maximized.
        model, guide, args, kwargs: the pair and its arguments; latents must be reparametrized.
        beta, data_size: see the objective.
        particles: draws in one vectorized pass; see `vectorizes`.
        passes: how many such passes.
        nesting, plate, states: see `terms`.
        analytic: divergences in closed form where there is one.
        gradient: the word. Doubly reparametrized, no datum's draws may act on another's weight (as they do through
            batch normalization behind a latent), and nothing may scale or mask latents but plates that subsample.

    Raises:
        ValueError: another word; "doubly-reparametrized" with another objective or with a latent that is not
            reparametrized; see `terms` and the objective.

    Source: Tucker et al. 2019 (arXiv 1810.04152); for hierarchies Bauer & Mnih 2021 (arXiv 2101.11046), whose second
    gradient, for the prior's own score, is not taken here. c_k for beta below 1 is ours, by the same derivation.
    """
    doubly = is_doubly(objective, gradient)

    def run() -> Terms:
        inner = inner_draws(objective)
        return _terms(model, guide, args, kwargs, particles, nesting, analytic, plate, inner=inner, states=states)

    if not doubly or not torch.is_grad_enabled():
        found = [run() for _ in range(passes)]
        return -objective(concatenated(found), beta, data_size), found
    found, drawn = [], []
    for _ in range(passes):
        with Cut() as cut:
            found.append(run())
        drawn.append(cut.drawn)
    return -doubly_reparametrized(found, drawn, beta, data_size), found


def initial_state(
    objective: Any,
    model: Callable,
    guide: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    data_size: int | None = None,
    analytic: bool = True,
    passes: int = 1,
    around: AbstractContextManager | None = None,
    **how: Any,
) -> dict[str, Tensor]:
    """The state that an objective begins with (`objectives.stateful`), of one run of a pair; {} where it has none.

    The generators are as before afterwards. The arguments are those of `estimate`; a handler may go around the passes.
    """
    if not has_state(objective):
        return {}
    alone = forked([*args, *(kwargs or {}).values()])
    with alone, torch.no_grad(), poutine.block(), evaluating(model, guide), around or nullcontext():
        how |= {"analytic": analytic, "inner": inner_draws(objective)}
        found = [terms(model, guide, args, kwargs, **how) for _ in range(passes)]
        return {name: t.detach().clone() for name, t in begun(objective, concatenated(found), data_size).items()}


@checked
class Loss(ELBO):
    """An objective as a loss of Pyro's: for `pyro.infer.SVI`, or as a module for any torch optimizer.

        loss = -size * objective,      size: what the pass saw, or the full size of a plate that subsamples

    in nats over the batch, the scale of `pyro.infer.Trace_ELBO`, for which it is a drop-in: `Loss()` has its mean, and
    the value of `TraceMeanField_ELBO`. No number is read on the way but the one that `loss` and `loss_and_grads`
    return, so that a device waits once a step.

        SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), Loss(importance_weighted, particles=8)).step(x)
        Loss(elbo)(model, guide)(x).backward()

    The first time that it meets a pair it looks at it, with the generators and running statistics left as they were:
    particles run in one vectorized pass if the programs are right with one, else (and with keyword arguments) one by
    one. Its attribute `beta` may be set between steps.

    Args:
        objective: of `Terms`: `elbo`, `partial(free_bits, nats=1.0)`, `importance_weighted`, or one of yours. One with
            state (`objectives.stateful`) has it in the attribute `state`, which moves where gradients are asked for.
        particles, analytic, beta, gradient: see `estimate`.
        data_size: number of data of which the pass saw a batch, where the program does not subsample; global latents
            then weigh batch / data_size.

    Raises:
        TypeError: an objective that cannot be called.
        ValueError: particles below 1, see `estimate`; when called, a latent that is not reparametrized.

    >>> import torch
    >>> from ppl_models import VAE
    >>> from guides import MeanField
    >>> model, x = VAE(event=4, latent=2, hidden=8), torch.eye(4)
    >>> module = Loss(elbo, particles=3)(model, MeanField(model, x, hidden=8))
    >>> optimizer = torch.optim.Adam(module.parameters())
    >>> module(x).backward()
    >>> optimizer.step()
    """

    def __init__(
        self,
        objective: Annotated[Objective, Is("a function of Terms", is_objective)] = elbo,
        *,
        particles: Count = 1,
        analytic: bool = True,
        beta: Beta = 1.0,
        data_size: Count | None = None,
        gradient: Gradient = "reparametrized",
    ) -> None:
        is_doubly(objective, gradient)
        super().__init__(num_particles=particles)
        self.objective, self.gradient, self.analytic = objective, gradient, analytic
        self.beta, self.data_size = beta, data_size
        self.state: dict[str, Tensor] = {}
        self._seen: tuple[Any, Any, dict[str, Any], tuple[str, str] | None, Weighing] | None = None

    def _get_trace(self, model: Callable, guide: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return traces(model, guide, args, kwargs)[:2]

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """The loss, in nats over the batch, without gradients."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def differentiable_loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """The loss as a scalar tensor, in nats over the batch, whose gradient is that of the estimator."""
        how = {"data_size": self.data_size, "analytic": self.analytic}
        if self._seen is None or self._seen[0] != model or self._seen[1] != guide:
            with evaluating(model, guide):
                draws = {"particles": self.num_particles, "inner": inner_draws(self.objective)}
                info = pair_info("Loss", model, guide, args, kwargs, **draws, observes=False)
            rows = len(args[0]) if args and hasattr(args[0], "__len__") else 1
            weighing = Weighing.of(info.pair, self.data_size)
            self._seen = model, guide, info.how, info.pair.rough, weighing
            self.state = initial_state(
                self.objective, model, guide, args, kwargs, around=Weighed(weighing, rows), **how, **info.how
            )
        how, rough, weighing = how | self._seen[2], *self._seen[3:]
        if rough and torch.is_grad_enabled():
            refuse_rough(*rough, f"take pyro.infer.Trace_ELBO(), {ENUMERATE}", "Loss: ")
        objective = Carried(self.objective, self.state) if self.state else self.objective
        with Weighed(weighing, len(args[0])) if weighing.scales else nullcontext():
            value, found = estimate(
                objective, model, guide, args, kwargs, beta=self.beta, gradient=self.gradient, **how
            )
        if self.state and torch.is_grad_enabled():
            self.state = {name: t.detach() for name, t in objective.after.items()}
        seen = found[0]
        alone = seen.shared >= seen.log_likelihood.keys() | seen.kl.keys()
        return value * (seen.full_size or (self.data_size if alone and self.data_size else seen.seen))

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """The loss, in nats over the batch; its gradient is added to that of the parameters."""
        value = self.differentiable_loss(model, guide, *args, **kwargs)
        if value.requires_grad:
            value.backward(retain_graph=self.retain_graph)
        return value.item()
