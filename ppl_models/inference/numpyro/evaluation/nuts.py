"""Reference posteriors by Hamiltonian Monte Carlo, to hold a guide against where a model is small."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

import jax
import numpy as np
from jax import random
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyProgram, Count, Number, Seed
from ppl_models.programs.legible import legible
from ppl_models.programs.numpyro import run as run_program, support_of
from ppl_models.programs.pairs import check_whole
from ppl_models.programs.record import Run
from ppl_models.programs.state.jax import tidied

from ..passes.rounding import rounded

MIXED = 1.01  # an r-hat above it says that chains disagree (Vehtari et al. 2021)
STATS = {
    "diverging": "diverging",
    "accept_prob": "acceptance_rate",
    "energy": "energy",
    "num_steps": "n_steps",
    "potential_energy": "lp",
    "adapt_state.step_size": "step_size",
}


@dataclass(frozen=True)
class Reference:
    """Draws from a posterior, and how far they can be trusted: of ArviZ, `from_dict(posterior=..., sample_stats=...)`.

    Attributes:
        samples: site -> (chains, draws, *shape), of latent and deterministic sites.
        stats: (chains, draws) each, by ArviZ's names: diverging, acceptance_rate, energy, n_steps, lp, step_size.
        r_hat: site -> split r-hat of each entry, near 1 where the chains agree.
        ess: site -> effective number of draws of each entry, all chains together.
        notes: what is wrong with them: divergences, chains that disagree. None where nothing is.
    """

    samples: dict[str, np.ndarray] = field(repr=False)
    stats: dict[str, np.ndarray] = field(repr=False)
    r_hat: dict[str, np.ndarray] = field(repr=False)
    ess: dict[str, np.ndarray] = field(repr=False)
    notes: list[str]

    @classmethod
    def of(cls, samples: dict[str, np.ndarray], stats: dict[str, np.ndarray]) -> Self:
        """Look at draws, (chains, draws, *shape), and at what the sampler says of them."""
        with np.errstate(invalid="ignore", divide="ignore"):  # of what is the same in all draws
            r_hat = {name: np.asarray(split_gelman_rubin(value)) for name, value in samples.items()}
            ess = {name: np.asarray(effective_sample_size(value)) for name, value in samples.items()}
        return cls(samples, stats, r_hat, ess, _notes(stats, r_hat))

    @property
    def divergences(self) -> int:
        """The number of draws whose trajectory left the energy surface: the posterior is too curved there."""
        return int(self.stats["diverging"].sum())

    def mean(self, site: str) -> tuple[np.ndarray, np.ndarray]:
        """(posterior mean of a site, its standard error), each of the shape of the site."""
        draws = self.samples[site].reshape(-1, *self.samples[site].shape[2:])
        return draws.mean(0), draws.std(0, ddof=1) / np.sqrt(self.ess[site])

    def __str__(self) -> str:
        chains, draws = self.stats["diverging"].shape
        rows = [f"{chains} chains of {draws} draws, {self.divergences} divergences"]
        rows += [f"{s:<10} r-hat {self.r_hat[s].max():.3f}  ess {self.ess[s].min():.0f}" for s in self.samples]
        return legible("\n".join([*rows, *self.notes]))


@checked
def nuts(
    model: AnyProgram,
    *args: Any,
    warmup: Count = 1000,
    draws: Annotated[int, Number(whole=True, least=4)] = 1000,
    chains: Count = 4,
    thinning: Count = 1,
    seed: Seed = 0,
    accept: Annotated[float, Number(above=0, below=1)] = 0.8,
    dense: bool | Sequence[tuple[str, ...]] = False,
    progress: bool = False,
    **kwargs: Any,
) -> Reference:
    """Draw from p(z | x) of a model by the no-U-turn sampler, chains in one vectorized run.

    Every `numpyro.param` keeps its value: of a `Program` its weights, so that only what the model draws is inferred.

    Args:
        model: any NumPyro program with continuous latents.
        args, kwargs: of the model.
        warmup: steps of each chain in which step size and mass matrix are adapted, and which are dropped.
        draws: kept draws of each chain.
        chains: how many, from different starts.
        thinning: steps for a kept draw.
        seed: of starts and draws.
        accept: mean probability of acceptance that the step size is adapted to; higher for fewer divergences.
        dense: whether the mass matrix is dense, or the groups of sites in which it is.
        progress: show NumPyro's bar.

    Raises:
        ValueError: counts below 1, fewer than 4 draws (r-hat needs them); a model without latents, with a discrete one,
            or one that subsamples its data.

    Source: Hoffman & Gelman 2014, JMLR 15; r-hat and effective sample size by Vehtari et al. 2021 (arXiv 1903.08008),
    without ranks.

    >>> import numpyro, numpyro.distributions as dist
    >>> def model(x):
    ...     z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    ...     numpyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> found = nuts(model, 2.0, warmup=300, draws=700)
    >>> found.samples["z"].shape, found.divergences, found.notes
    ((4, 700), 0, [])
    >>> mean, error = found.mean("z")
    >>> bool(abs(mean - 1.0) < 4 * error)
    True
    """
    with tidied(model):
        _check(model, args, kwargs)
    sampler = MCMC(
        NUTS(model, target_accept_prob=accept, dense_mass=dense),
        num_warmup=warmup,
        num_samples=draws * thinning,
        num_chains=chains,
        thinning=thinning,
        chain_method="vectorized",
        progress_bar=progress,
    )
    with tidied(model), rounded():
        sampler.run(random.key(seed), *args, extra_fields=tuple(STATS), **kwargs)
    samples = {name: np.asarray(value) for name, value in sampler.get_samples(group_by_chain=True).items()}
    extra = sampler.get_extra_fields(group_by_chain=True)
    stats = {told: np.asarray(extra[name]) for name, told in STATS.items()}
    stats["lp"] = -stats["lp"]
    return Reference.of(samples, stats)


def _check(model: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise ValueError unless every latent is continuous and every datum is seen."""
    kept: list[Run] = []
    jax.eval_shape(lambda: kept.append(run_program(model, args, kwargs)))
    if not kept[-1].latents:
        raise ValueError("nuts: the model draws nothing, want latents; is everything observed?")
    for name, site in kept[-1].latents.items():
        if support_of(site.fn, site.value).is_discrete:
            raise ValueError(
                f"nuts: the site {name!r} is discrete, want continuous latents; sum it out, as MixtureSameFamily does"
            )
    check_whole("nuts", kept[-1], "sample from a model whose plate does not subsample")


def _notes(stats: dict[str, np.ndarray], r_hat: dict[str, np.ndarray]) -> list[str]:
    notes, diverging = [], int(stats["diverging"].sum())
    if diverging:
        notes.append(
            f"{diverging} of {stats['diverging'].size} draws diverged, so part of the posterior may be missing; try "
            "accept=0.99, or a non-centered model"
        )
    worst = {name: float(np.nanmax(value)) for name, value in r_hat.items() if not np.isnan(value).all()}
    apart = {name: value for name, value in worst.items() if value > MIXED}
    if apart:
        name = max(apart, key=apart.get)
        notes.append(f"the chains disagree: r-hat of {name!r} is {apart[name]:.3f}, want below {MIXED}; try more draws")
    return notes
