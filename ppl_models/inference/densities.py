"""log q(z | x) of codes at data that they were not drawn for: the table from which all that is said of q(z) is made."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pyro
import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor, nn

from ppl_models.parts.plates import PARTICLES, data_plate, latents

from .checks import CHUNK, check_pair, check_whole, evaluating, forked
from .divergences import divergence, log_density, per_datum
from .messengers import UntilDrawn
from .particles import vectorizes
from .single_pass import plate_nesting

BLOCK, DATA = 200_000, 64  # (code, datum) pairs in a pass, and data among them
FEW = 5


class Densities:
    """Codes of data, and log q(z_i | x_j) of every code at every datum, in blocks.

    Args:
        model, guide: any Pyro programs that may be vectorized over particles, whose latents are all in the data plate.
        columns: the data, one tensor an argument.
        called: the function that asks, for messages.

    Raises:
        ValueError: a latent outside the data plate, a model that subsamples its data, programs that are wrong with a
            particle dimension; see `check_pair`.
    """

    def __init__(self, model: Callable, guide: Callable, columns: Sequence[Tensor], called: str) -> None:
        self.model, self.guide, self.columns = model, guide, tuple(columns)
        few = self._rows(slice(0, FEW))
        trace = check_pair(called, model, guide, few)
        check_whole(trace)
        self.names, plate = latents(trace), data_plate(trace, few[0])
        self.nesting, self.dim = plate_nesting(model, guide, few, {}), plate and plate.dim
        self.events = {name: trace.nodes[name]["fn"].event_dim for name in self.names}
        for name in self.names:
            if plate is None or plate.name not in [f.name for f in trace.nodes[name]["cond_indep_stack"]]:
                raise ValueError(
                    f"{called}: the latent {name!r} is outside the plate of the data, want a value for each datum; a "
                    "global latent has one posterior, and no aggregate of many"
                )
        with forked(few), torch.no_grad():
            reason = vectorizes(model, guide, few, self.nesting)
        if reason is not None:
            raise ValueError(f"{called}: {reason}; want programs that are right with many particles in one pass")

    def __len__(self) -> int:
        return len(self.columns[0])

    def _rows(self, index: slice) -> tuple[Tensor, ...]:
        return tuple(column[index] for column in self.columns)

    def draw(self) -> tuple[dict[str, Tensor], Tensor]:
        """(one code a datum, by latent, data first; log q - log p of each, (n,), in closed form where there is one)."""
        parts, rates = [], []
        for start in range(0, len(self), CHUNK):
            rows = self._rows(slice(start, start + CHUNK))
            of_q = UntilDrawn(self.names).run(self.guide, rows)
            values = {name: node["value"] for name, node in of_q.items()}
            of_p = UntilDrawn(self.names, values).run(self.model, rows)
            rate = torch.zeros(())
            for name, q in of_q.items():
                closed = divergence(q, of_p[name]) if list(of_q) == list(of_p) else None
                if closed is None:
                    rate = rate + self._density(q, None) - self._density(of_p[name], None)
                else:
                    rate = rate + per_datum(scale_and_mask(closed, q["scale"], q["mask"]), self.dim, None)
            rates.append(rate.expand(1, len(rows[0]))[0])
            parts.append({name: value.movedim(self.dim - self.events[name], 0) for name, value in values.items()})
        return {name: torch.cat([part[name] for part in parts]) for name in self.names}, torch.cat(rates)

    def blocks(self, codes: Mapping[str, Tensor]) -> Iterator[tuple[slice, slice, Tensor]]:
        """(codes i, data j, log q(z_i | x_j), (i, j), in nats) until every code has met every datum.

        Few data meet many codes at a time: a guide reads the data again for each block.

        Args:
            codes: latent -> values, codes first.
        """
        count = len(next(iter(codes.values())))
        size = min(len(self), DATA)
        at_once = max(1, BLOCK // size)
        for j in range(0, len(self), size):
            data = slice(j, min(j + size, len(self)))
            rows = self._rows(data)
            for i in range(0, count, at_once):
                index = slice(i, min(i + at_once, count))
                shape = index.stop - index.start, data.stop - data.start
                values = {name: self._spread(name, code[index], shape[1]) for name, code in codes.items()}
                plate = pyro.plate(PARTICLES, shape[0], dim=-1 - self.nesting)
                nodes = UntilDrawn(self.names, values).run(self.guide, rows, plate=plate)
                table = sum(self._density(node, -1 - self.nesting) for node in nodes.values())
                yield index, data, table.expand(shape)

    def _spread(self, name: str, code: Tensor, n: int) -> Tensor:
        """Codes (m, *other plates, *event) as particles at all of n data, (m, *plates, *event)."""
        event = self.events[name]
        code = code.unsqueeze(self.dim - event)
        missing = self.nesting + 1 + event - code.dim()
        code = code.reshape(len(code), *[1] * missing, *code.shape[1:])
        shape = list(code.shape)
        shape[self.dim - event] = n
        return code.expand(shape)

    def _density(self, node: Mapping[str, Any], particle_dim: int | None) -> Tensor:
        """log density of a site at its value, (particles, n)."""
        value = scale_and_mask(log_density(node["fn"], node["value"]), node["scale"], node["mask"])
        return per_datum(value, self.dim, particle_dim)


def device_of(*programs: Any) -> torch.device | None:
    """Where the parameters of the modules among programs lie, None where there are none."""
    modules = [program for program in programs if isinstance(program, nn.Module)]
    return next((p.device for module in modules for p in module.parameters()), None)


@contextmanager
def looking(model: Callable, guide: Callable, seed: int | None) -> Iterator[None]:
    """Inside, a pair is in evaluation mode, without gradients and validation.

    With a seed the generators start from it and are as before afterwards; None continues them.
    """
    device = device_of(model, guide)
    with torch.no_grad(), evaluating(model, guide), pyro.validation_enabled(False):
        with nullcontext() if seed is None else forked([device]):
            if seed is not None:
                torch.manual_seed(seed)
            yield
