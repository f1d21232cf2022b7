"""`evaluate`: how well a (model, guide) pair of NumPyro programs explains data, with one call for any pair."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import log
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.scipy.special import logsumexp

from ppl_models.numpyro.data import Rows
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram, Count, Place, Seed, Whole
from ppl_models.programs.doubts import mismatches, weighed
from ppl_models.programs.noise import check_unrefined, going_notes
from ppl_models.programs.noise.numpyro_refined import Going
from ppl_models.programs.numpyro import runs, support_of
from ppl_models.programs.pairs import INSTEAD_OF_PORT, check_whole
from ppl_models.programs.record import Run
from ppl_models.programs.state.jax import tidied

from ...display.progress import BOUNDS, Progress
from ...evaluation.blocks import Blocks
from ...evaluation.tally import ONE, SHARED, Tally
from ...objectives.bounds import elbo
from ...objectives.finite import counted, infinite_terms, refuse
from ...results import Evaluation
from ...resuming.unfinished import Unfinished, check_seeded, digest_of
from ..engine.parameters import find
from ..feeding.batches import columns_of, drawn, fingerprint, is_plain
from ..passes.checks import CHUNK, Look, as_they_come, check_values
from ..passes.rows import fewer
from ..passes.terms import Terms, terms

# what a pass gives: log w, (particles, n) or (particles, 1); the bound; the mean divergence of each site
Pass = tuple[Array, Array, dict[str, Array]]


@checked
def evaluate(
    model: AnyProgram,
    guide: AnyGuide,
    data: Any,
    *,
    particles: Count = 1000,
    rows: Count = 20_000,
    vectorize: Literal["auto"] | bool = "auto",
    analytic: bool = True,
    refine: Whole = 0,
    resume: Place | None = None,
    seed: Seed | None = 0,
    progress: bool = True,
) -> Evaluation:
    """Bound the log-likelihood of data under a pair.

        elbo = mean_n mean_k [log p(x_n | z_k) - KL],      nll = -mean_n log 1/K sum_k p(x_n, z_k) / q(z_k | x_n)

    See `ppl_models.inference.evaluate`, whose arguments and numbers these are. Passes are compiled, once for each
    number of rows and particles.

    Args:
        model, guide: any NumPyro programs: of a training, those of its `Run`; of `SVI`, those with their parameters by
            `handlers.substitute(model, svi.get_params(state))`. None for the guide of a model without latents.
        data: rows, as for `fit`.
        particles: K, importance samples a datum.
        rows: how many (datum, particle) rows go through the programs at once; at least all the data where the program
            has global latents, or takes one number of rows alone.
        vectorize: run particles in one pass of `jax.vmap`, as "auto" does; False runs them one by one.
        analytic: take divergences in closed form where there is one, or sample all. The nll is sampled in any case.
        refine: Hamiltonian steps after each draw of the guide, with nothing learned.
        resume: a file from which an evaluation that was stopped goes on.
        seed: of the draws; None draws one.
        progress: show a bar.

    Raises:
        ValueError: no data, particles or rows below 1, another word for vectorize; a model that subsamples its data; a
            model that observes nothing or a guide that does (are they swapped?); a value in any row that the model does
            not take; a pair that was made for another number of rows; numbers that are not finite, with the first site
            whose terms are not; what the programs themselves raise.

    Source: Burda et al. 2016 (arXiv 1509.00519), eq. 8 and section 5.

    >>> import numpyro, numpyro.distributions as dist
    >>> def model(x):
    ...     with numpyro.plate("data", len(x)):
    ...         z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    ...         numpyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     with numpyro.plate("data", len(x)):
    ...         numpyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
    >>> print(evaluate(model, guide, np.array([-1.0, 2.0, 0.5]), particles=10, progress=False))
    ELBO                  -1.772  nats per datum
    NLL           1.703 +- 0.286  nats per datum, 10 importance samples
                                  the bound was 1.703 by 1
    distortion             1.456  nats, the reconstruction: mean of -log p(x | z)
    KL z                   0.315  nats
    data                       3
    """
    if refine:
        how = {"particles": particles, "rows": rows, "vectorize": vectorize, "analytic": analytic, "seed": seed}
        how |= {"progress": progress, "resume": resume}
        found = evaluate(model, Going(model, check_unrefined("evaluate", guide), refine), data, **how)
        return replace(found, refined=refine, notes=[*found.notes, *going_notes(refine)])
    check_seeded(resume, seed)
    columns = columns_of(data, "evaluate: data", model)
    n = len(columns[0])
    key = random.key(int(np.random.default_rng().integers(2**31)) if seed is None else seed)
    few = drawn(columns, _rows(columns, 0, max(rows, CHUNK)), key)
    try:
        free, parameters, pair = find(model, guide, few, key, "evaluate")
    except Exception:  # of a plate of a fixed size, all rows may be no fewer than it takes
        if n == len(few[0]):
            raise
        few = drawn(columns, _rows(columns, 0, n), key)
        free, parameters, pair = find(model, guide, few, key, "evaluate")
    params = parameters.constrained(free)
    pair.check("evaluate", model, language="numpyro")
    check_whole("evaluate", pair.model, INSTEAD_OF_PORT)
    look = Look("evaluate", model, guide, columns, params, pair.plate)
    check_values(look, len(few[0]))
    notes = [*mismatches(pair, runs(guide, few, params)), *weighed(pair)]
    whole = bool(pair.shared)
    size = n if whole else max(1, min(n, rows // (1 if vectorize is False else particles)))
    if size < n:
        reason = fewer(model, guide, few, pair, params, key)
        if reason is not None:
            size, notes = n, [*notes, f"all rows in every pass: {reason}"]
    # without a plate around the data there is but one datum, whatever the length of the arguments
    units = pair.units(n)
    particles = particles if pair.kl else 1  # is exact
    at_once = 1 if vectorize is False else min(particles, max(1, rows // size))
    chunks = [min(at_once, particles - k) for k in range(0, particles, at_once)]
    bits_of = columns[0].bits if _has_bits(columns, pair.model) and not whole else None

    @partial(jax.jit, static_argnums=3)
    def run(params: Mapping[str, Any], batch: Sequence[Array], key: Array, chunk: int) -> Pass:
        how = {"particles": chunk, "analytic": analytic, "plate": pair.plate}
        found = terms(model, guide, batch, **how, key=key, params=params)
        if found.full_size is not None:  # a program may subsample batches of some sizes only
            check_whole("evaluate", find(model, guide, batch, key, "evaluate")[2].model, INSTEAD_OF_PORT)
        log_w = _total(found) if whole else found.log_w
        kl = {s: v.mean() / (units if s in found.shared else 1) for s, v in found.kl.items()}
        return log_w, elbo(found, data_size=units), kl

    @partial(jax.jit, static_argnums=3)
    def untold(params: Mapping[str, Any], batch: Sequence[Array], key: Array, chunk: int) -> dict[str, Array]:
        how = {"particles": chunk, "analytic": analytic, "plate": pair.plate}
        return infinite_terms(terms(model, guide, batch, **how, key=key, params=params))

    about = {"particles": particles, "rows": rows, "vectorize": vectorize, "analytic": analytic, "seed": seed}
    if resume is not None:
        leaves = [leaf for leaf in jax.tree.leaves(params) if hasattr(leaf, "dtype")]
        about |= {
            "data": fingerprint(columns).text,
            "weights": digest_of((str(i), np.asarray(leaf)) for i, leaf in enumerate(leaves)),
        }
    unfinished = Unfinished(None if resume is None or whole else Path(resume), about)
    tally = Tally(particles, units if whole else 0)
    state, done = unfinished.read(), 0
    # in full single precision, where a GPU would round products further
    precise, bar = (
        jax.default_matmul_precision("float32"),
        Progress(-(-n // size) * len(chunks), progress, BOUNDS),
    )
    rest, rows_of = as_they_come(look, -(-n // size)), _seeded(columns, random.fold_in(key, n))
    with tidied(model, guide), precise, bar:
        for i, start in enumerate(range(0, n, size)):
            if 0 < start < tally.done:
                continue  # it is told by the file
            of_pass = random.split(random.fold_in(key, i))[1]
            rest((np.arange(start, min(start + size, n)),), i)
            batch = rows_of(start, min(start + size, n))
            count, parts, bounds, kls = len(batch[0]), [], 0.0, dict.fromkeys(pair.kl, 0.0)
            for k, chunk in enumerate(chunks):
                log_w, bound, kl = run(params, batch, random.fold_in(of_pass, k), chunk)
                parts.append(log_w)
                # nothing is waited for here, but to show it
                bounds += bound * (count * chunk / particles)
                kls = {site: total + kl[site] * (count * chunk / particles) for site, total in kls.items()}
                done += 1
                if bar.due(done):
                    bar.advance(done, -float(bound), float(_nll(log_w).mean()) / (units if whole else 1))
            log_w = jnp.concatenate(parts)
            nll = tally.add(np.asarray(log_w), float(bounds), {site: float(total) for site, total in kls.items()})
            if bits_of is not None:
                tally.keep(bits=np.asarray(bits_of(jnp.asarray(nll), batch[0])))
            if start == 0 and state and tally.begins(state):  # else it is of another pair
                tally.go_on(state)
                done = -(-tally.done // size) * len(chunks)
            unfinished.keep(tally.state)
    if whole:
        notes.append(ONE if units == 1 else SHARED)
    if not tally.finite(n):
        counts: dict[str, int] = {}
        for i, start in enumerate(range(0, n, size)):  # the same draws again, for their terms
            of_pass = random.split(random.fold_in(key, i))[1]
            batch, masks = rows_of(start, min(start + size, n)), {}
            for k, chunk in enumerate(chunks):
                found = untold(params, batch, random.fold_in(of_pass, k), chunk)
                masks = {part: mask | masks.get(part, mask) for part, mask in found.items()}
            counts = counted(masks, counts)
        refuse("evaluate", tally.numbers(n), counts, n)
    unfinished.end()
    return tally.result(n, notes, not columns[0].discrete)


def _rows(columns: Sequence[Rows], start: int, count: int) -> list[Any]:
    return [column.values[start : start + count] for column in columns]


def _seeded(columns: Sequence[Rows], key: Array) -> Callable[[int, int], tuple[Array, ...]]:
    """Rows from one to another, whose noise is that of the key and of their place, whatever the rows of a pass are."""

    def rows(start: int, stop: int, key: Array = key) -> tuple[Array, ...]:
        return drawn(columns, _rows(columns, start, stop - start), key)

    def make(k: int, start: int, stop: int) -> tuple[np.ndarray, ...]:
        return tuple(map(np.asarray, rows(start, stop, random.fold_in(key, k))))

    plain = all(map(is_plain, columns))
    return rows if plain else Blocks(len(columns[0]), make, np.concatenate)


def _nll(log_w: Array) -> Array:
    """-log mean_k w_k, (particles, n) -> (n,)."""
    return log(len(log_w)) - logsumexp(log_w, 0)


def _total(found: Terms) -> Array:
    """log w of all data as one datum, (particles, 1)."""
    signed = [*found.log_likelihood.values(), *found.log_p.values(), *(-q for q in found.log_q.values())]
    return sum(t.sum(1, keepdims=True) for t in signed)


def _has_bits(columns: Sequence[Rows], run: Run) -> bool:
    """Whether bits per dimension mean something: one column whose kind, mass or density, is that of the likelihood."""
    if len(columns) > 1 or columns[0].bits is None:
        return False
    return all(support_of(s.fn, s.value).is_discrete == columns[0].discrete for s in run.observed.values())
