"""Objectives with state: arrays that an objective hands on from step to step, and one of them, `adaptive_free_bits`.

Such an objective is any object with two methods (`Stateful`), written like the others for both languages at once:

    init(terms, data_size) -> {"weight": array, ...}                     before the first step, of one pass
    objective(terms, beta, data_size, state) -> (bound, state after it)   at every batch

The state is a dictionary of floating arrays whose names, shapes and types never change. It is a number to the gradient:
nothing is differentiated through it. The training carries it beside the parameters, in eager and captured steps and in
the loop of JAX; checkpoints keep it, and a resumed run has it exactly. With `accumulate` it is updated once a batch,
several times a step; several processes go on with its mean; a step that is not taken leaves it as it was. Validation
and `evaluate` go by the ELBO and know nothing of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from array_api_compat import array_namespace

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, NotNegative, Number, Positive
from ppl_models.programs.arguments import takes

from .bounds import Per, groups_of, with_groups
from .nested import inner_draws
from .terms import Array, Beta, Terms

State = Mapping[str, Array]


class Stateful(Protocol):
    """An objective with state: a bound in nats per datum, and the state that the next batch finds."""

    def init(self, terms: Terms, data_size: Count | None = None) -> dict[str, Array]:
        """The state before the first step, of one pass over a batch."""

    def __call__(
        self, terms: Terms, beta: Beta, data_size: Count | None, state: State
    ) -> tuple[Array, dict[str, Array]]:
        """(the bound, a scalar; the state after it)."""


def has_state(objective: Any) -> bool:
    """Whether an objective is one with state."""
    return hasattr(objective, "init")


def is_objective(found: Any) -> bool:
    """Whether something can be called with `Terms`, a weight and a number of data, and with its state if it has one.

    No loss of a library's can, and none for an optimizer (`Loss`).
    """
    return callable(found) and not hasattr(found, "num_particles") and takes(4 if has_state(found) else 3, found)


def begun(objective: Stateful, terms: Terms, data_size: Count | None) -> dict[str, Array]:
    """The state of an objective before its first step.

    Raises:
        ValueError: a state that is no dictionary of floating arrays.
    """
    state = objective.init(terms, data_size)
    for name, value in state.items():
        if not array_namespace(value).isdtype(value.dtype, "real floating"):
            raise ValueError(
                f"the objective {type(objective).__name__}: found the state {name!r} of {value.dtype}, want floating "
                "numbers, which several processes can average; try 0.0 and 1.0 for a condition"
            )
    return state


class Carried:
    """An objective with its state at hand, called like one without; `after` is the state that the call leaves.

    Raises:
        ValueError: when called, a state of other names or shapes than before.
    """

    def __init__(self, objective: Stateful, state: State) -> None:
        self.objective, self.state, self.after = objective, state, dict(state)
        self.inner = inner_draws(objective)

    def __call__(self, terms: Terms, beta: Beta = 1.0, data_size: Count | None = None) -> Array:
        value, self.after = self.objective(terms, beta, data_size, self.state)
        before, now = ({n: tuple(v.shape) for n, v in each.items()} for each in (self.state, self.after))
        if before != now:
            called = type(self.objective).__name__
            raise ValueError(f"the objective {called}: found a state of {now}, want that of its init, {before}")
        return value


@checked
@dataclass(frozen=True, kw_only=True)
class adaptive_free_bits:
    """`free_bits` by a controller: a weight of each group's divergence that holds it near `nats`, in nats per datum.

        E_q [log p(x | z)] - beta * sum_j gamma_j mean_n KL_jn,        0 < gamma_j <= 1

    After every batch gamma_j is multiplied by 1 + rate where KL_j > (1 + slack) nats, divided by it where KL_j < nats,
    and left alone between. `beta` weighs all divergences and moves no gamma. A shared site has one divergence, and so
    one gamma, for all data. Auxiliary sites of the guide have weight 1.

        fit(model, guide, data, steps=2000, objective=adaptive_free_bits(nats=2.0))

    State: "gamma.z" of each latent z, of shape (1,), or (units,) with per="unit"; 1 at first.

    Args:
        nats: the divergence of a group that is held.
        per: "layer", a group for each latent site, or "unit", one for each coordinate (see `Terms.kl_units`).
        rate: relative step of gamma; by the source 0.03 to 0.3 all work.
        slack: width of the band in which gamma stays.
        least: gamma falls no further, so that it is soon back.

    Raises:
        ValueError: options out of range; as for `free_bits`.

    Source: Chen et al. 2017, "Variational lossy autoencoder" (arXiv 1611.02731), appendix C.
    """

    nats: NotNegative = 0.5
    per: Per = "layer"
    rate: Positive = 0.1
    slack: NotNegative = 0.05
    least: Annotated[float, Number(above=0, most=1)] = 1e-6

    def init(self, terms: Terms, data_size: Count | None = None) -> dict[str, Array]:
        """Every gamma is 1."""
        groups = groups_of(terms, self.per)
        return {f"gamma.{name}": array_namespace(kl).ones_like(kl) for name, kl in groups.items()}

    def __call__(
        self, terms: Terms, beta: Beta, data_size: Count | None, state: State
    ) -> tuple[Array, dict[str, Array]]:
        """(the bound with the gammas of the state, the gammas that its divergences ask for)."""
        after: dict[str, Array] = {}

        def weighed(name: str, kl: Array) -> Array:
            gamma = state[f"gamma.{name}"]
            after[f"gamma.{name}"] = self._moved(gamma, kl)
            return gamma * kl

        return with_groups(terms, beta, data_size, self.per, weighed), after

    def _moved(self, gamma: Array, kl: Array) -> Array:
        where = array_namespace(kl).where
        up, down = gamma * (1 + self.rate), gamma / (1 + self.rate)
        up, down = where(up > 1, 1.0, up), where(down < self.least, self.least, down)
        return where(kl > (1 + self.slack) * self.nats, up, where(kl < self.nats, down, gamma))
