"""Objectives: small pure functions of the `Terms` of one pass, each a bound in nats per datum to be maximized.

Any `objective(terms, beta=1.0, data_size=None) -> scalar` is one (`Objective`); give options with `functools.partial`:
`partial(free_bits, nats=0.5, per="unit")`. The same function serves Pyro and NumPyro, eager, captured and jitted:
write yours with operators and the methods that tensors and arrays share (`value.mean(0).sum()`), and take the rest from
`array_api_compat.array_namespace(value)`. No objective reads a number, so none makes a device wait.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import log
from typing import Literal, Protocol

from array_api_compat import array_namespace

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, NotNegative, Positive

from .states import refuse_draws
from .terms import Array, Beta, Terms

Per = Literal["layer", "unit"]


class Objective(Protocol):
    """A bound in nats per datum, to be maximized: a pure function of the `Terms` of one pass."""

    def __call__(self, terms: Terms, beta: Beta = 1.0, data_size: Count | None = None) -> Array:
        """The bound, a scalar, with divergences of weight `beta`, of a batch of `data_size` data."""


def elbo(terms: Terms, beta: Beta = 1.0, data_size: Count | None = None) -> Array:
    """The evidence lower bound, a scalar in nats per datum.

        E_q [log p(x | z)] - beta * sum_l KL(q(z_l | .) || p(z_l | .)),       mean over data and particles

    A shared site (a global latent) counts once for the whole data set: its term is divided by `data_size`.

    Args:
        terms: of one pass; with `analytic` they hold divergences in closed form, else sampled ones.
        beta: weight of the divergences, below 1 during a warm-up.
        data_size: number of data of which the pass saw a batch; by default what it saw.

    Source: Kingma & Welling 2014 (arXiv 1312.6114), eq. 3; warm-up by Bowman et al. 2016 (arXiv 1511.06349); beta as a
    constant by Higgins et al. 2017, eq. 4.
    """
    one, none = (isinstance(beta, float | int) and beta == number for number in (1, 0))
    sums: dict[tuple[bool, tuple[int, ...]], Array] = {}  # sites of one shape are added up before they are reduced
    for name, value in terms.log_likelihood.items():
        key = name in terms.shared, value.shape
        sums[key] = sums[key] + value if key in sums else value
    for name, value in () if none else terms.kl.items():  # an infinite divergence without weight counts for nothing
        key, value = (name in terms.shared, value.shape), value if one else beta * value
        sums[key] = sums[key] - value if key in sums else -value
    local, shared = 0.0, 0.0
    for (outside, _), value in sums.items():
        if outside:
            shared = shared + value.mean(0).sum()
        else:
            local = local + value.mean(0).sum()
    # a program that subsamples has scaled its local terms up to its full size already
    size = terms.full_size or terms.seen
    return local / size + shared / (terms.full_size or data_size or size)


@checked
def free_bits(
    terms: Terms,
    beta: Beta = 1.0,
    data_size: Count | None = None,
    *,
    nats: NotNegative = 0.5,
    per: Literal["layer", "unit", "sample"] = "layer",
) -> Array:
    """The evidence lower bound in which no group of latents gains by a divergence below `nats`, in nats per datum.

        E_q [log p(x | z)] - beta * sum_j max(nats, mean_n KL_jn),       mean over data and particles inside the maximum

    With per="sample" the maximum is taken before the mean, of log q - log p of every draw: max(nats, log q - log p).

    The gradient of a group below the floor is zero: it may use that many nats for nothing. `beta` weighs the floored
    divergences, so that a warm-up changes no floor. A shared site has one divergence, and so one floor, for all data:
    max(nats, KL) / data_size. Auxiliary sites of the guide have no prior and no floor.

    Args:
        terms, beta, data_size: as for `elbo`.
        nats: the floor of a group.
        per: "layer", a group for each latent site; "unit", one for each coordinate (see `Terms.kl_units`); or "sample",
            one for each draw of a site for each datum.

    Raises:
        ValueError: another word for per, a negative floor; per="unit" with a factor that is no product.

    Source: Kingma et al. 2016 (arXiv 1606.04934), appendix C.8, eq. 15; by sample Maaloe et al. 2019 (arXiv
    1902.02102) in the authors' code, with 2 nats.
    """
    if per == "sample":
        scale = (terms.full_size or terms.seen) / terms.seen  # of the local terms of a program that subsamples
        own = [name for name in terms.kl if name not in terms.auxiliary]
        floors = {name: nats * (1 if name in terms.shared else scale) for name in own}
        floored = {name: _floor(terms.log_q[name] - terms.log_p[name], floor) for name, floor in floors.items()}
        return elbo(replace(terms, kl=terms.kl | floored), beta, data_size)
    return with_groups(terms, beta, data_size, per, lambda _, kl: _floor(kl, nats))


@checked
def soft_free_bits(
    terms: Terms,
    beta: Beta = 1.0,
    data_size: Count | None = None,
    *,
    nats: NotNegative = 0.5,
    width: Positive = 0.1,
    per: Per = "layer",
) -> Array:
    """`free_bits` with a smooth maximum, a scalar in nats per datum.

        E_q [log p(x | z)] - beta * sum_j { nats + width log(1 + exp[(mean_n KL_jn - nats) / width]) }

    The weight of a group's divergence is sigmoid((KL_j - nats) / width) instead of a step from 0 to 1: 1/2 at the
    floor, within 5% of its end three widths from it. It is above `free_bits`' penalty, by at most width log 2.

    Chen et al. also replace the step by a weight of each group between 0 and 1, but one that is a state: raised or
    lowered by a tenth after every step. Here the weight is a function of the divergence, so that an objective stays a
    pure function, with nothing to checkpoint; this form is ours.

    Args:
        terms, beta, data_size, nats, per: as for `free_bits`.
        width: of the transition, in nats.

    Raises:
        ValueError: as for `free_bits`; a width that is not positive.

    Source: after the "soft free bits" of Chen et al. 2017 (arXiv 1611.02731), appendix.
    """
    return with_groups(terms, beta, data_size, per, lambda _, kl: _soft_floor(kl, nats, width))


def importance_weighted(terms: Terms, beta: Beta = 1.0, data_size: Count | None = None) -> Array:
    """The importance-weighted bound of K particles, a scalar in nats per datum.

        log 1/K sum_k w_k,      log w_k = log p(x | z_k) + beta * [log p(z_k) - log q(z_k | x)],       mean over data

    It is `elbo` (sampled) for K = 1 and rises to log p(x) with K. With a shared site (a global latent) all data are one
    datum with one weight, and the bound is divided by their number. `beta` tempers the weights; at 1, and only there,
    this is a bound on the evidence.

    Args:
        terms: of one pass with K particles.
        beta: weight of the divergences, below 1 during a warm-up.
        data_size: as for `elbo`.

    Raises:
        ValueError: shared sites, and a pass that saw some of the data only.

    Source: Burda et al. 2016 (arXiv 1509.00519), eq. 8.
    """
    log_w, size = log_weights(terms, beta, data_size)
    return (log_sum_exp(log_w) - log(len(log_w))).sum() / size


def log_weights(terms: Terms, beta: Beta = 1.0, data_size: Count | None = None) -> tuple[Array, int]:
    """(log w of every particle and datum, (particles, n), the number that their sum over data is divided by).

    Weights of one datum each, whatever a subsampling program scales its terms by; (particles, 1) with shared sites.

    Raises:
        ValueError: as for `importance_weighted`.
    """
    if terms.enumerated:
        refuse_draws(terms.enumerated, "importance_weighted")
    seen, names = terms.seen, {*terms.log_likelihood, *terms.kl}
    parts = [*terms.log_likelihood.values(), *(beta * (terms.log_p[n] - terms.log_q[n]) for n in terms.log_p)]
    if not terms.shared:
        log_w = sum(parts)
        return (log_w if terms.full_size is None else log_w * (seen / terms.full_size)), seen
    if terms.shared >= names:  # no plate around the data: one datum, whatever the length of the arguments
        return sum(parts), data_size or 1
    if terms.full_size is not None or data_size not in (None, seen):
        raise ValueError(
            f"importance_weighted: found the sites {', '.join(sorted(terms.shared))} outside the data plate and "
            f"{seen} of {terms.full_size or data_size} data; all data have one weight then, want every datum in every "
            "pass; take a batch of all the data, or elbo"
        )
    return sum(t.sum(1)[:, None] for t in parts), seen


def mean_kl(terms: Terms, names: Iterable[str], data_size: Count | None = None) -> list[Array]:
    """The divergence of each of these latents, scalars in nats per datum: the mean over data and particles.

    Args:
        terms: of one pass.
        names: of latents; the divergence of a shared site is divided by all data, as in `elbo`. One that this pass did
            not draw has none, 0.
        data_size: as for `elbo`.
    """
    size = terms.full_size or terms.seen
    whole = terms.full_size or data_size or size
    none = 0 * next(iter((*terms.kl.values(), *terms.log_likelihood.values())))[:1, :1]
    return [terms.kl.get(name, none).mean(0).sum() / (whole if name in terms.shared else size) for name in names]


def groups_of(terms: Terms, per: Per) -> dict[str, Array]:
    """Latent site -> the divergence of each of its groups, summed over the data and averaged over particles.

    (1,) with per="layer", (units,) with per="unit"; auxiliary sites of the guide have none.
    """
    units = {name: value[..., None] for name, value in terms.kl.items()} if per == "layer" else terms.kl_units
    return {name: units[name].mean(0).sum(0) for name in terms.kl if name not in terms.auxiliary}


def with_groups(
    terms: Terms,
    beta: Beta,
    data_size: Count | None,
    per: Per,
    penalty: Callable[[str, Array], Array],
) -> Array:
    """The bound with `penalty(site, divergences of its groups)` summed in place of the divergences."""
    groups = groups_of(terms, per)
    size = terms.full_size or terms.seen
    whole = terms.full_size or data_size or size
    total = 0.0
    for name, value in terms.log_likelihood.items():
        total = total + value.mean(0).sum() / (whole if name in terms.shared else size)
    for name, value in terms.kl.items():
        shared = name in terms.shared
        if name in terms.auxiliary:
            found = value.mean(0).sum() / (whole if shared else size)
        elif shared:
            found = penalty(name, groups[name]).sum() / whole
        else:
            found = penalty(name, groups[name] / size).sum()
        total = total - beta * found
    return total


def _floor(kl: Array, nats: float) -> Array:
    """max(nats, KL): at the floor itself the gradient is that of the divergence; one that is no number stays none."""
    return array_namespace(kl).where(kl < nats, nats, kl)


def _soft_floor(kl: Array, nats: float, width: float) -> Array:
    xp, over = array_namespace(kl), (kl - nats) / width
    return nats + width * xp.logaddexp(over, xp.zeros_like(over))


def log_sum_exp(x: Array) -> Array:
    """log sum exp over the first axis, which the standard lacks; what is -inf has weight and gradient zero."""
    xp = array_namespace(x)
    top = xp.max(x, axis=0)
    top = xp.where(xp.isfinite(top), top, 0.0)
    return xp.log(xp.exp(x - top).sum(0)) + top


def is_doubly(objective: Objective, gradient: str) -> bool:
    """Whether the gradient is the doubly-reparametrized one.

    Raises:
        ValueError: an objective that has no such gradient.
    """
    if gradient != "reparametrized" and objective is not importance_weighted:
        called = getattr(objective, "__name__", repr(objective))
        raise ValueError(
            f"found gradient={gradient!r} with the objective {called}, want importance_weighted: of the others the "
            "gradient is 'reparametrized'"
        )
    return gradient != "reparametrized"
