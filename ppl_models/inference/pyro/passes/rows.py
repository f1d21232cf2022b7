"""`fewer`: a trial of whether a pair takes other numbers of rows; `made_for`, `check_rows`: the number it takes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine import Trace
from torch import Tensor, nn

from ppl_models.programs.noise import structure_of
from ppl_models.programs.pairs import Pair, check_whole, refuse_unsized
from ppl_models.programs.plates import subsampled
from ppl_models.programs.pyro import UNSIZED, frame_of, kind_of, nodes_of, read, run
from ppl_models.programs.rows import fits, refuse_rows, rows_taken

from .messengers import Substitute
from .particles import difference
from .terms import collect, run_pair, traces

FEW, SMALL = 5, 100  # rows of a trial, and rows that are few enough to try all of them


class Few(NamedTuple):
    """The last rows of a batch, and model and guide on them with the draws that they had among all.

    Attributes:
        args: the rows.
        traces: of model and guide.
    """

    args: tuple[Any, ...]
    traces: tuple[Trace, Trace]


def fewer(
    model: Callable, guide: Callable, args: Sequence[Any], pair: Pair, whole: tuple[Trace, Trace], sums: bool = False
) -> tuple[Few | None, str | None]:
    """(a few rows by themselves, None) if they have the densities that they have among all, else (None, the reason).

    A plate of a fixed size or a parameter for each datum takes no other rows; a table that is cut to the length of the
    data, or a mean over the rows, takes them and gives other numbers. So the last rows are tried, at the draws that
    were made for them.

    Args:
        model, guide: the pair, all of whose sites are in the plate of the data.
        args: a batch of which the traces were taken, two rows at least.
        pair: their record.
        whole: traces of model and guide on the batch.
        sums: see `terms`.
    """
    n = len(args[0])
    count = min(FEW, n - 1)
    if (base := structure_of(guide)) is not guide:  # whose runs are all that those of a refined guide are made of
        guide, whole = base, traces(model, base, args, {}, sums)[:2]
    few, drawn = tuple(arg[-count:] for arg in args), {}
    try:
        for name, node in nodes_of(whole[1], "latent").items():
            dim = frame_of(node, pair.plate).dim - node["fn"].event_dim
            drawn[name] = node["value"].narrow(dim, n - count, count)
        with Substitute(drawn):
            alone = traces(model, guide, few, {}, sums)[:2]
        together, apart = (collect(*each, None, False, pair.plate) for each in (whole, alone))
        site = difference(together, apart, lambda t: t[0, -count:])
    except Exception as error:  # noqa: BLE001 (whatever a program does with rows that it does not expect)
        return None, f"they do not take other numbers of rows ({str(error).splitlines()[0][:120]})"
    if site is not None:
        return None, f"site {site!r} has another density when some of the rows are left out"
    return Few(few, alone), None


def made_for(model: Callable, guide: Callable, args: Sequence[Any]) -> tuple[str, int] | None:
    """(the program, "model" or "guide", and the rows that it takes) for a pair that takes others than these alone.

    None where the number of rows is not what is wrong: then the pair does not run on any other one, either.
    """
    if not args or not all(isinstance(arg, Tensor) and arg.dim() and len(arg) == len(args[0]) > 0 for arg in args):
        return None

    def runs(count: int, of: int, alone: bool) -> bool:
        index = torch.arange(count) % min(of, len(args[0]))
        rows = [arg[index.to(arg.device)] for arg in args]
        try:
            with torch.no_grad(), poutine.block():
                found = (poutine.trace(model).get_trace(*rows),) if alone else run_pair(model, guide, rows, {})
                for trace in found:
                    trace.compute_log_prob()
                return fits(map(read, found), count)
        except Exception:  # noqa: BLE001 (it is asked whether there is one)
            return False

    return rows_taken(len(args[0]), _sizes(model, guide, args), runs)


def refuse_others(asks: str, model: Callable, guide: Callable, args: Sequence[Any]) -> None:
    """Raise ValueError if it is their number for which these rows do not fit a pair; asked where something failed."""
    taken = made_for(model, guide, args)
    if taken is not None:
        refuse_rows(asks, len(args[0]), *taken)


def refuse_unsized_plates(asks: str, guide: Callable) -> None:
    """Raise ValueError for an autoguide of a model with a plate of no size; asked where something failed."""
    bare = poutine.unwrap(guide)
    frames = bare._prototype_frames.values() if isinstance(bare, AutoGuide) and bare.prototype_trace else ()
    for frame in frames:
        if frame.size == UNSIZED:
            refuse_unsized(asks, bare, frame.name)


def check_rows(asks: str, model: Callable, guide: Callable, args: Sequence[Any], pair: Pair) -> None:
    """Raise ValueError for a pair that saw some of its data only, as its model subsamples or was made for other rows.

    Args:
        asks: the function that asks, "evaluate".
        model, guide, args: the pair and what it was run on.
        pair: the record.
    """
    if not subsampled(pair.model):
        return
    try:
        alone = subsampled(run(model, args))
    except Exception:  # noqa: BLE001 (so it is the guide's draws with which it runs)
        alone = []
    if not alone:
        refuse_others(asks, model, guide, args)
    check_whole(asks, pair.model)


def _sizes(model: Callable, guide: Callable, args: Sequence[Any]) -> list[int]:
    """The sizes of plates, as far as a pair runs, and those of its parameters."""
    sizes: list[int] = []
    for program in (guide, model):
        with torch.no_grad(), poutine.block(), poutine.trace() as capture:
            try:
                program(*args)
            except Exception:  # noqa: BLE001 (it was seen already)
                pass
        for node in capture.trace.nodes.values():
            sizes += [node["fn"].size] if kind_of(node) == "subsample" else []
            sizes += [f.full_size or f.size for f in node.get("cond_indep_stack", ())]
    shapes = [p.shape for program in (model, guide) if isinstance(program, nn.Module) for p in program.parameters()]
    shapes += [value.shape for value in pyro.get_param_store().values()]
    return sizes + sorted({size for shape in shapes for size in shape}, reverse=True)
