"""`fit`: train any (model, guide) pair on any data."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import pyro
import torch
from torch import Tensor, nn

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import AnyGuide, AnyProgram, Place, Whole
from ppl_models.programs.doubts import mismatches
from ppl_models.programs.noise import check_shared
from ppl_models.programs.pyro import run as run_program
from ppl_models.programs.state.torch import modules_of

from ...config import Config, FitOptions, configured, shows_options
from ...display.progress import waiting
from ...objectives.nested import inner_draws
from ...results import Callback, Run, as_sequence
from ...resuming.identity import Identity, factorization_of
from ...schedules import Constant
from ...training.loop import Loop, check_call
from ...training.weighing import Weighing
from ..engine.optimizer_state import OptimizerState, trainable
from ..engine.step import Eager, StepConfig
from ..feeding import distributed
from ..feeding.batches import Batches
from ..feeding.columns import Columns
from ..feeding.distributed import Group
from ..passes.checks import as_they_come, check_enumeration, check_loss, check_values, evaluating, forked
from ..passes.indices import Indices
from ..passes.pair_info import pair_info
from ..passes.rows import refuse_others
from .checkpoint import CHECKPOINT, kept, prepared
from .engine import PyroEngine
from .modes import untrained
from .start import found_start

PACKAGES = "torch", "pyro-ppl", "ppl-models"  # by whose versions a run need not come to the same bits


@shows_options
@checked
def fit(
    model: AnyProgram,
    guide: AnyGuide,
    data: Any,
    config: Config = None,
    *,
    validation: Any = None,
    callbacks: Callback | Sequence[Callback] | None = None,
    folder: Place | None = None,
    resume: bool = False,
    workers: Whole = 0,
    progress: bool = True,
    **options: Unpack[FitOptions],
) -> Run:
    """Maximize a bound of a pair by stochastic gradient steps, with one AdamW over all its parameters.

    However it ends, the pair is left with the (averaged) parameters of the steps done; an error or a Ctrl-C has the
    `Run` as its attribute `run`. Under `torchrun` every process calls it alike: each trains on its share of the data,
    with noise of its own.

    Args:
        model, guide: any Pyro programs with reparametrized latents (others with a `loss`), None for the guide of a
            model without latents, whose log p(x) is maximized. Parameters of modules and of `pyro.param` are trained,
            frozen ones (`requires_grad_(False)`) are not. A module counts however it is wrapped; but a network that a
            function calls must be handed to `pyro.module`, as for `pyro.infer.SVI`. For the time of the call modules
            are in training mode, except those with no trainable parameter; for the validation all are in evaluation
            mode.
        data: rows, as `Columns` takes them: a tensor, an array of NumPy, a data frame of numbers, a map-style data set,
            anything with a length that tensors index (`ppl_models.data.Data`); for a model of several arguments a tuple
            of such, or a dict by their names. It is drawn from in shuffled batches, on the modules' device where it
            fits.
        config, options: `FitConfig`, whose fields may be given here one by one: `steps=2000, lr=5e-3`.
        validation: data of the same kind: the bound on them is recorded with every record.
        callbacks: called with the `Run` after every record; one that returns True ends the training.
        folder: where to write checkpoint.safetensors and history.jsonl with every record, and history.json now and
            then. It must not hold a checkpoint, but to resume; a new one is removed if there was no record. One process
            at a time has it.
        resume: go on from the checkpoint in the folder, if there is one, as if there had been no interruption: model,
            guide, data and arguments must be those that it was started with; the notes tell what could not be compared.
        workers: processes that make batches (`torch.utils.data.DataLoader`), for data that are slow to index; scripts
            then need `if __name__ == "__main__":`.
        progress: show a bar with loss, negative ELBO and time left.

    Returns:
        The `Run`; model and guide are trained in place.

    Raises:
        TypeError: data that have no length, that cannot be indexed or that are no numbers; a loss that is no objective
            of Pyro's; an option that is not in `FitConfig`.
        ValueError: arguments that contradict each other; data that are empty or not finite, or a value in any row that
            the model does not take; a pair without parameters, in the wrong order, or with latents that are not
            reparametrized; a loss without gradients; a folder that cannot be written to, or to resume that holds
            another run or a damaged file; a loss or gradient that is not finite (the message names the first site whose
            term is not; that step is not taken, and files are left as the last record wrote them).
    """
    config = configured(config, options)
    config.check_alone("Pyro")
    if config.loss is not None:
        check_loss(config.loss)
    check_call(config, validation, folder, resume)
    check_enumeration(config.loss, guide)
    called = as_sequence(callbacks)
    data = Columns(data, "fit: data", model, guide)
    validation = None if validation is None else Columns(validation, "fit: validation", model, guide)
    device = next((p.device for module in modules_of(model, guide) for p in module.parameters()), None)
    group = distributed.current(device or torch.device("cpu"))
    _seed(config.seed, group)
    run = Run(folder=None if folder is None else Path(folder), model=model, guide=guide)

    with prepared(run.folder if group is None or group.is_main else None, resume) as notes, ExitStack() as looking:
        run.notes += notes
        shown = progress and (group is None or group.is_main)
        looking.enter_context(waiting("looking at model, guide and data", shown))
        with evaluating(model, guide):  # looking does not move running statistics
            rows = max(min(config.batch_size, data.size // (1 if group is None else group.world)), 1)
            batches = Batches(data, rows, device, workers=workers, group=group)
            there = run.folder is not None and resume and (run.folder / CHECKPOINT).exists()
            _agreed(there, run.folder, group)
            example = data.rows(slice(0, rows), device) if there else batches.peek()
            ours = config.loss is None
            draws = {"particles": config.particles, "inner": inner_draws(config.objective)}
            info = pair_info("fit", model, guide, example, **draws, paired=ours, reparametrized=ours)
            of_pair, saved = info.how, kept(model, guide, info.params, info.ran)
            check_shared("fit", guide, info.pair.shared & {*info.pair.model.latents}, len(example[0]), data.size)
            passed, sites = info.ran.called, factorization_of(info.pair)
            told, shared = info.pair.kl if ours else (), info.pair.shared
            with forked(example):
                run.notes += mismatches(info.pair, partial(run_program, guide, example))
            weighing = Weighing.of(info.pair, data.size)
            indices = Indices.of(info.pair, model, guide, example, data.size)
            del info  # which holds a batch, and all that was computed of it
            slots = OptimizerState(trainable(saved), average=config.ema is not None)
            for each in (data, validation):
                if each is not None:
                    try:
                        check_values(model, guide, each, min(rows, each.size), device)
                    except Exception:
                        if each is validation:
                            refuse_others("fit: validation", model, guide, each.rows(slice(0, rows), device))
                        raise
        if not there:
            run.notes += found_start(model, guide, data, weighing, len(example[0]), device)
        run.notes += [*untrained(passed, slots.parameters), *weighing.notes(data.size, len(example[0]))]
        if indices.numbered:
            batches.close()
            batches = Batches(data.numbered(), rows, device, workers=workers, group=group)
        if group is not None:
            group.broadcast_(_tensors(saved))
            slots = OptimizerState(trainable(saved), average=config.ema is not None)
        how = StepConfig(config, **of_pair, data_size=weighing.size, weighing=weighing, indices=indices, kl_of=told)
        betas = config.betas()
        eager = Eager(model, guide, slots, how, betas.value if isinstance(betas, Constant) else None, group)
        eager.begin((*example, None) if indices.numbered else example)
        threads = torch.get_num_threads() if slots.parameters[0].device.type == "cpu" else None
        prints = {"data": data.fingerprint(), "validation": None if validation is None else validation.fingerprint()}
        identity = Identity(config, sites, (model, guide), prints, PACKAGES, threads)
        path = None if run.folder is None else run.folder / CHECKPOINT
        rest = as_they_come(model, guide, data, batches.per_epoch, device)
        of_held_out = None
        if validation is not None:
            of_held_out = as_they_come(model, guide, validation, -(-validation.size // config.batch_size), device)
        total = config.total(batches.per_epoch)
        engine = PyroEngine(config, total, eager, batches, validation, rest, of_held_out, saved, path)
        loop = Loop(engine, config, batches.per_epoch, validation is not None, run, called, identity, None, shared)
        if there:
            loop.resume()
        looking.close()
        loop(progress)
    return run


def _seed(seed: int | None, group: Group | None) -> None:
    """Seed the generators: each process of a group differently, whether there is a seed or not."""
    if group is not None:
        drawn = torch.randint(2**31, (1,), dtype=torch.int64) if seed is None else torch.tensor([seed])
        group.broadcast_([drawn])
        pyro.set_rng_seed(distributed.seed_of(int(drawn), group.rank))
    elif seed is not None:
        pyro.set_rng_seed(seed)


def _agreed(there: bool, folder: Path | None, group: Group | None) -> None:
    """Raise ValueError where some processes see a checkpoint and others do not."""
    if group is not None and group.mean(float(there)) not in (0.0, 1.0):
        raise ValueError(
            f"fit: process {group.rank} finds {'a' if there else 'no'} {CHECKPOINT} in {folder}, and others find it "
            "otherwise; all processes want the same folder, on a file system that they share"
        )


def _tensors(saved: Mapping[str, Any]) -> list[Tensor]:
    """Every tensor that a checkpoint keeps, once."""
    held = [m.state_dict(keep_vars=True) if isinstance(m, nn.Module) else m for m in saved.values()]
    return [t.detach() for t in dict.fromkeys(t for each in held for t in each.values())]
