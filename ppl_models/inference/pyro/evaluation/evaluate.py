"""`evaluate`: how well a (model, guide) pair explains data, with one call for any pair."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from math import isfinite, log
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyro
import torch
from torch import Tensor

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram, Count, Place, Seed, Whole
from ppl_models.programs.doubts import mismatches, weighed
from ppl_models.programs.noise import check_unrefined, going_notes
from ppl_models.programs.noise.pyro_refined import Going
from ppl_models.programs.pyro import run, support_of
from ppl_models.programs.record import Run
from ppl_models.programs.state.torch import modules_of

from ...display.progress import BOUNDS, Progress
from ...evaluation.blocks import Blocks
from ...evaluation.tally import ONE, SHARED, Tally
from ...objectives.bounds import elbo
from ...objectives.finite import counted, infinite_terms, refuse
from ...results import Evaluation as Evaluation
from ...resuming.unfinished import Unfinished, check_seeded, digest_of
from ..feeding.columns import Columns
from ..passes.checks import CHUNK, as_they_come, check_values, evaluating, forked
from ..passes.pair_info import first_look, pair_info
from ..passes.particles import vectorizes
from ..passes.rows import SMALL, Few, check_rows, fewer
from ..passes.terms import Terms, terms
from ..training.state import rng_state, set_rng_state
from .captured_pass import Passes


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

    Memory stays that of `rows` rows, whatever the particles and the data. Where the program has global latents, all
    the data count as one datum and the numbers are divided by their count; then every pass takes all the data at once,
    and memory is that of all of them, however small `rows` is. So it is of a pair that takes one number of rows alone.

    Discrete sites that the model enumerates (`pyro.infer.config_enumerate`) and the guide leaves out are summed out
    exactly: z is what the guide draws, and p(x, z) is their sum, as in `pyro.infer.TraceEnum_ELBO`.

    Args:
        model, guide: any Pyro programs; modules are put in eval mode for the time of the call. None for the guide of a
            model without latents, whose log p(x) is computed exactly, by one particle.
        data: rows, as for `fit`; they are moved to the modules' device.
        particles: K, importance samples a datum.
        rows: how many (datum, particle) rows go through the programs at once; at least all the data where the program
            has global latents.
        vectorize: run particles in one pass. "auto" does so if a pass of a few particles gives the numbers of the same
            draws taken one by one; else particles run one at a time and a note says why.
        analytic: take divergences in closed form where there is one, or sample all. The nll is sampled in any case.
        refine: so many Hamiltonian steps go on from the guide's draws towards the posterior, in the guide's own noise,
            with nothing learned (`guides.Refined` learns them): still bounds, and tighter ones where the guide is poor.
            Each costs a gradient of the pair.
        resume: a file that keeps the state now and then, from which an evaluation of the same pair and data that was
            stopped goes on, if the first data have the numbers that they had; it is removed at the end. Not of data
            that count as one.
        seed: of the draws, and of the noise of the data, which is the same for any pair; the global generator is as
            before afterwards. None continues the global generator.
        progress: show a bar.

    Raises:
        ValueError: no data, particles or rows below 1, a file to resume without a seed, another word for vectorize; a
            model that subsamples its data; a model that observes nothing or a guide that does (are they swapped?); a
            value in any row that the model does not take; a pair that was made for another number of rows; numbers
            that are not finite, with the first site whose terms are not; what the programs themselves raise.

    Source: Burda et al. 2016 (arXiv 1509.00519), eq. 8 and section 5.
    """
    check_seeded(resume, seed)
    data = Columns(data, "evaluate: data", model, guide)
    places = list(dict.fromkeys(p.device for module in modules_of(model, guide) for p in module.parameters()))
    with nullcontext() if seed is None else forked(places), torch.no_grad(), evaluating(model, guide):
        if seed is not None:
            torch.manual_seed(seed)
        device = places[0] if places else None
        if refine:
            guide = Going(model, check_unrefined("evaluate", guide), refine)
        about = {"particles": particles, "rows": rows, "vectorize": vectorize, "analytic": analytic, "seed": seed}
        if resume is not None:
            about |= {"data": data.fingerprint().text, "weights": digest_of(_weights(model, guide))}
        unfinished = Unfinished(None if resume is None else Path(resume), about | {"refine": refine})
        how = {"vectorize": vectorize, "analytic": analytic, "progress": progress, "device": device, "seed": seed}
        found = _evaluate(model, guide, data, particles, rows, unfinished=unfinished, **how)
        return replace(found, refined=refine, notes=[*found.notes, *going_notes(refine)])


def _evaluate(
    model: Callable,
    guide: Callable,
    data: Columns,
    particles: int,
    rows: int,
    *,
    vectorize: str | bool,
    analytic: bool,
    progress: bool,
    device: torch.device | None,
    seed: int | None,
    unfinished: Unfinished,
) -> Evaluation:
    n, rows_of = data.size, _seeded(data, device, seed)
    most = max(rows, CHUNK)
    info, batch = first_look("evaluate", model, guide, lambda k: data.rows(slice(0, k), device), n, most, sums=True)
    pair, scored = info.pair, _has_bits(data.columns, info.pair.model)
    check_rows("evaluate", model, guide, batch, pair)
    check_values(model, guide, data, len(batch[0]), device)
    _ = info.terms.log_w  # and draws outside the support of their prior, whose densities are computed when asked for
    sites, nesting, plate = pair.kl, pair.nesting, "" if pair.divided else pair.plate
    particles = particles if sites else 1  # is exact
    # what has no row for each datum takes all the data at once
    whole = bool(pair.shared)
    # without a plate around the data there is but one datum, whatever the length of the arguments
    units = pair.units(n)
    with forked(batch):
        notes = [*mismatches(pair, partial(run, guide, batch)), *weighed(pair)]
    few = Few(batch, info.traces)
    # rows are left out only where that saves something, and only of a pair that is right without them
    split = not whole and n > 1 and (n * particles > rows or (n > SMALL and particles > 1))
    if split:
        found, reason = fewer(model, guide, batch, pair, info.traces, sums=True)
        few, split = found or few, found is not None
        if not split:
            notes.append(f"all rows in every pass: {reason}")
    del info, pair  # which hold all that was computed of these rows
    if vectorize == "auto":
        reason = None
        if particles > 1:
            with forked(few.args):
                reason = vectorizes(model, guide, few.args, nesting, plate=plate, single=few.traces, sums=True)
        if reason is not None:
            notes.append(f"particles run one by one: {reason}")
        vectorize = reason is None
    del few
    size = max(1, min(n, rows // (particles if vectorize else 1))) if split else n
    at_once = min(particles, max(1, rows // size)) if vectorize else 1
    chunks = [min(at_once, particles - k) for k in range(0, particles, at_once)]

    rest = as_they_come(model, guide, data, -(-n // size), device)
    tally = Tally(particles, units if whole else 0)
    how = {"nesting": nesting, "analytic": analytic, "plate": plate, "sums": True}

    def numbers(batch: Sequence[Any], count: int) -> list[Tensor]:
        """Of a pass: log w, and the bound with the mean divergences."""
        found = terms(model, guide, batch, particles=count, **how)
        if found.full_size is not None:  # all the data at once, where it is more than was looked at
            check_rows("evaluate", model, guide, batch, pair_info("evaluate", model, guide, batch, sums=True).pair)
        log_w = _total(found) if whole else found.log_w
        return [log_w, _means(found, units, sites)]

    passes = Passes(numbers, (model, guide), n // size * len(chunks))
    infinite: dict[str, int] = {}
    with (
        pyro.validation_enabled(False),
        Progress(-(-n // size) * len(chunks), progress, BOUNDS) as bar,
    ):
        state, i, done = {} if whole else unfinished.read(), 0, 0
        while i < n:
            batch = rows_of(i, min(i + size, n))
            rest(batch, i // size)
            count = len(batch[0])
            parts: list[tuple[Tensor, float, dict[str, float]]] = []
            masks: dict[str, Tensor] = {}
            for chunk in chunks:
                drawn = rng_state(device)
                log_w, means = passes(batch, chunk)
                bound, *each = means.tolist()
                kl = dict(zip(sites, each, strict=True))
                parts.append((log_w, bound, kl))
                if not isfinite(bound):  # which site is it? the same pass, in all its terms
                    with forked(batch):
                        set_rng_state(drawn, device)
                        found = terms(model, guide, batch, particles=chunk, **how)
                    masks = {part: mask | masks.get(part, mask) for part, mask in infinite_terms(found).items()}
                done += 1
                if bar.due(done):
                    bar.advance(done, -parts[-1][1], _nll(log_w).mean().item() / (units if whole else 1))
            infinite = counted(masks, infinite) if masks else infinite
            log_w = torch.cat([part[0] for part in parts])
            weights = [chunk / particles for chunk in chunks]
            bound = count * sum(w * part[1] for w, part in zip(weights, parts, strict=True))
            kl = {s: count * sum(w * p[2][s] for w, p in zip(weights, parts, strict=True)) for s in sites}
            nll = tally.add(log_w.double().cpu().numpy(), bound, kl)
            if scored and not whole:
                found = data.columns[0].bits_per_dim(torch.from_numpy(nll).to(batch[0].device), batch[0])
                if found is not None:
                    tally.keep(bits=found.cpu().numpy())
            if i == 0 and state and tally.begins(state):  # else it is of another pair
                tally.go_on(state)
                done = -(-tally.done // size) * len(chunks)
                before = {key[4:]: torch.from_numpy(v) for key, v in state.items() if key.startswith("rng.")}
                set_rng_state(before, device)
            i = n if whole else tally.done
            if not whole:
                unfinished.keep(lambda: tally.state() | {f"rng.{k}": v.numpy() for k, v in rng_state(device).items()})
    if whole:
        notes.append(ONE if units == 1 else SHARED)
    if not tally.finite(n):
        refuse("evaluate", tally.numbers(n), infinite, n)
    unfinished.end()
    return tally.result(n, notes, scored and not data.columns[0].discrete)


def _seeded(data: Columns, device: torch.device | None, seed: int | None) -> Callable[[int, int], tuple[Any, ...]]:
    """Rows from one to another, whose noise is that of the seed and of their place, whatever else is drawn."""
    if seed is None or not data.known or all(isinstance(column, Tensor) for column in data.columns):
        return lambda start, stop: data.rows(slice(start, stop), device)

    def make(k: int, start: int, stop: int) -> tuple[Any, ...]:
        with forked(data.places):
            torch.manual_seed(int(np.random.SeedSequence([seed, k]).generate_state(1)[0]))
            return data.rows(slice(start, stop), device)

    return Blocks(data.size, make, torch.cat)


def _weights(*pair: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values of all that a pair has learned, in modules or in Pyro's store."""
    states = [module.state_dict() for module in modules_of(*pair)]
    store = {name: pyro.get_param_store()[name] for name in sorted(pyro.get_param_store().keys())}
    for i, state in enumerate([*states, store]):
        yield from ((f"{i}.{name}", value.detach().cpu().numpy()) for name, value in state.items())


def _nll(log_w: Tensor) -> Tensor:
    """-log mean_k w_k, (particles, n) -> (n,)."""
    return log(len(log_w)) - torch.logsumexp(log_w, 0)


def _total(found: Terms) -> Tensor:
    """log w of all data as one datum, (particles, 1)."""
    signed = [*found.log_likelihood.values(), *found.log_p.values(), *(-q for q in found.log_q.values())]
    return sum(t.sum(1, keepdim=True) for t in signed)


def _means(found: Terms, n: int, sites: Iterable[str]) -> Tensor:
    """The bound and the mean divergence of each latent, in nats per datum; a shared one counts once for all n data."""
    means = [found.kl[site].mean() / (n if site in found.shared else 1) for site in sites]
    return torch.stack([t.double() for t in (elbo(found, data_size=n), *means)])  # read at once: a device waits once


def _has_bits(columns: Sequence[Any], run: Run) -> bool:
    """Whether bits per dimension mean something: one column whose kind, mass or density, is that of the likelihood."""
    if len(columns) > 1 or not hasattr(columns[0], "bits_per_dim"):
        return False
    return all(support_of(s.fn, s.value).is_discrete == columns[0].discrete for s in run.observed.values())
