"""`geco` and `rewo`: objectives that hold the reconstruction at a tolerance, by a multiplier that is their state.

Both minimize the divergences under a constraint, in nats per datum,

    min KL(q(z | x) || p(z))     such that     C = E_q [-log p(x | z)] - tolerance <= 0

by the Lagrangian KL + lambda C. They differ in the end: GECO stays where the constraint holds just so, whatever lambda
that takes; REWO goes on to lambda = 1, the ELBO. After every batch the constraint is averaged,

    C_ma <- 0.99 C_ma + 0.01 C

and lambda moves by it, as the classes say. Validation, records of the negative ELBO and `evaluate` go by the ELBO.
"""

from dataclasses import dataclass

from array_api_compat import array_namespace

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, Positive

from .bounds import elbo
from .nested import within
from .stateful import State
from .terms import Array, Beta, Terms

MEMORY = 0.99  # share of the average in the next one
LEAST, MOST = 0.9, 1.05  # factors of lambda at one move
SMALLEST, LARGEST = 1e-6, 1e8  # lambda
EVERY, STEEP = 100, 100.0  # REWO: batches between two moves, and tau


@checked
@dataclass(frozen=True, kw_only=True)
class geco:
    """Generalized ELBO with constrained optimization: the least divergence at a given reconstruction error.

        maximize    -beta * KL(q(z | x) || p(z)) - lambda C,          C = E_q [-log p(x | z)] - tolerance
        then        lambda <- lambda * clamp(exp(rate * C_ma), 0.9, 1.05),       within 1e-6 and 1e8

    Lambda rises while the data are reconstructed worse than the tolerance asks, and falls while they are better. The
    value is no bound of log p(x); its gradient is lambda times that of the ELBO whose divergences weigh beta / lambda.

        fit(model, guide, data, steps=2000, objective=geco(tolerance=80.0))

    State: "lambda", 1 at first, and "constraint", C_ma, at first the C of a pass before the first step; scalars.

    Args:
        tolerance: the reconstruction error -log p(x | z) that is asked for, in nats per datum (of images: of all their
            pixels). Of continuous data it may be negative.
        rate: of lambda, per nat. The source has 1, of an error in units of its own; in nats per datum lambda would then
            nearly always move by 0.9 or 1.05. 1 for an error per dimension is 1 / dimensions here.
        inner: draws of the latents behind the first one that the guide draws, for the bound of `vhp` in place of the
            ELBO; 1 for none.

    Raises:
        ValueError: options out of range; as for `vhp`.

    Source: Rezende and Viola 2018, "Taming VAEs" (arXiv 1810.00597), algorithm 1. There the value is C_ma in place of
    C, with the same gradient; the ends of the clamp are those of later code, the bounds of lambda ours.
    """

    tolerance: float
    rate: Positive = 1e-3
    inner: Count = 1

    def init(self, terms: Terms, data_size: Count | None = None) -> dict[str, Array]:
        """Lambda is 1, and the average of the constraint what it is in this pass."""
        constraint = _constraint(terms, data_size, self.tolerance)
        return {"lambda": array_namespace(constraint).ones_like(constraint), "constraint": constraint}

    def __call__(
        self, terms: Terms, beta: Beta, data_size: Count | None, state: State
    ) -> tuple[Array, dict[str, Array]]:
        """(minus the Lagrangian at the lambda of the state, the state that its constraint asks for)."""
        multiplier, average = state["lambda"], _averaged(terms, data_size, self.tolerance, state)
        value = multiplier * (within(terms, beta / multiplier, data_size, self.inner) + self.tolerance)
        return value, {"lambda": _moved(multiplier, self.rate * average), "constraint": average}


@checked
@dataclass(frozen=True, kw_only=True)
class rewo:
    """Reconstruction-error-based weighting of the objective: divergences that come in late, and end at weight 1.

        maximize    E_q [log p(x | z)] - beta / lambda * KL(q(z | x) || p(z))

    At first the divergences are left out, until C_ma < 0 for the first time. From then on every 100th batch moves

        lambda <- lambda * clamp(exp(rate * f * C_ma), 0.9, 1.05),               within 1e-6 and 1e8
        f = 1 if C_ma >= 0, else -tanh(100 (1 / lambda - 1))

    While the constraint is violated the weight 1 / lambda falls, as in `geco`; while it holds the weight goes to 1 from
    either side, so that a training ends at the ELBO. With a tolerance that is never reached the divergences never come
    in: look at the records of the divergences, or at the state.

        fit(model, guide, data, steps=20000, objective=rewo(tolerance=80.0))

    State: "lambda", 1 / `weight` at first; "constraint", C_ma, at first the C of a pass before the first step; "phase",
    1 from where the divergences came in, else 0; "batches", since the last move or try; scalars.

    Args:
        tolerance: the reconstruction error -log p(x | z) that is asked for, in nats per datum (of images: of all their
            pixels). Of continuous data it may be negative.
        rate: nu, per nat. The source divides the error by the number of dimensions of a datum, so that its nu = 1 is
            1 / dimensions here: 0.0013 for MNIST. Near weight 1 a move is 100 * rate * |C_ma| of what is missing: at
            2 and more, as of 20 nats below the tolerance, the weight swings about 1 by up to a tenth.
        weight: of the divergences where they come in.
        inner: as for `geco`; the source's own pair is `vhp` with 16.

    Raises:
        ValueError: options out of range; as for `vhp`.

    Source: Klushyn et al. 2019, "Learning hierarchical priors in VAEs" (arXiv 1905.04982), algorithm 1; the phases, the
    100 batches and the clamps as in the authors' later code, argmax-ai/deep-variational-bayes-filters.
    """

    tolerance: float
    rate: Positive = 1e-3
    weight: Positive = 1.0
    inner: Count = 1

    def init(self, terms: Terms, data_size: Count | None = None) -> dict[str, Array]:
        """The phase without divergences; the average of the constraint is what it is in this pass."""
        constraint = _constraint(terms, data_size, self.tolerance)
        zero, one = 0.0 * constraint, array_namespace(constraint).ones_like(constraint)
        return {"lambda": one / self.weight, "constraint": constraint, "phase": zero, "batches": zero}

    def __call__(
        self, terms: Terms, beta: Beta, data_size: Count | None, state: State
    ) -> tuple[Array, dict[str, Array]]:
        """(the bound with the weight of the state, the state that its constraint asks for)."""
        multiplier, average = state["lambda"], _averaged(terms, data_size, self.tolerance, state)
        xp = array_namespace(average)
        begun = (average < 0) | (state["phase"] > 0)  # several processes have its mean: where one has begun, all go on
        phase = xp.where(begun, xp.ones_like(average), 0.0)
        value = within(terms, beta * phase / multiplier, data_size, self.inner)
        batches = state["batches"] + 1
        due = batches >= EVERY
        side = xp.where(average < 0, -xp.tanh(STEEP * (1 / multiplier - 1)), 1.0)
        moved = xp.where(due & begun, _moved(multiplier, self.rate * side * average), multiplier)
        after = {"lambda": moved, "constraint": average, "phase": phase, "batches": xp.where(due, 0.0, batches)}
        return value, after


def _constraint(terms: Terms, data_size: Count | None, tolerance: float) -> Array:
    """C of a pass, in nats per datum."""
    return -elbo(terms, 0.0, data_size) - tolerance


def _averaged(terms: Terms, data_size: Count | None, tolerance: float, state: State) -> Array:
    return MEMORY * state["constraint"] + (1 - MEMORY) * _constraint(terms, data_size, tolerance)


def _moved(multiplier: Array, logarithm: Array) -> Array:
    """Lambda after a move, of which this is the logarithm before it is clamped."""
    xp = array_namespace(multiplier)
    return xp.clip(multiplier * xp.clip(xp.exp(logarithm), LEAST, MOST), SMALLEST, LARGEST)
