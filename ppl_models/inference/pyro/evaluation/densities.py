"""Matrix log q(z_j | x_i) for all pairs of latents and data, from which all that is said of q(z) is computed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pyro
import torch
from torch import Tensor

from ppl_models.parts.flows.autoregressive import Autoregressive
from ppl_models.programs.pairs import DENSE
from ppl_models.programs.plates import check_local
from ppl_models.programs.pyro import PARTICLES, layers
from ppl_models.programs.state.torch import modules_of

from ...display.progress import Bar
from ..passes.checks import CHUNK, evaluating
from ..passes.messengers import UntilDrawn
from ..passes.pair_info import first_look
from ..passes.rows import FEW, check_rows, fewer
from ..sites.divergences import divergence, log_density, per_datum

BLOCK, DATA = 200_000, 64  # (code, datum) pairs in a pass, and data among them
WIDE = 16  # entries of a code from which on fewer pairs are in a pass


class Densities:
    """Codes of data, and log q(z_i | x_j) of every code at every datum, in blocks.

    Scales of the programs do not count: a density is one whatever it weighs in a loss.

    Args:
        model, guide: any Pyro programs, whose latents are all in the data plate and without masks, and the guide right
            with many particles in one pass. A pair that takes one number of rows alone is given all of them.
        columns: the data, one tensor an argument.
        called: the function that asks, for messages.

    Attributes:
        slow: latent -> calls of its flow's networks for the density of a value that it did not draw, where one takes
            several.

    Raises:
        ValueError: a latent outside the data plate, masked, or only the guide's (auxiliary latents, factors: what is
            left when they are integrated out is not known); a model that subsamples its data; a guide that is wrong
            with a particle dimension; see `pair_info`.
    """

    def __init__(self, model: Callable, guide: Callable, columns: Sequence[Tensor], called: str) -> None:
        self.model, self.guide, self.columns = model, guide, tuple(columns)
        info, batch = first_look(called, model, guide, lambda k: self._rows(slice(0, k)), len(self), DATA)
        pair = info.pair
        check_rows(called, model, guide, batch, pair)
        latents = pair.model.latents
        self.names, self.nesting, self.dim = [*latents], pair.nesting, pair.data and pair.data.dim
        self.events = {name: site.event_dim for name, site in latents.items()}
        self.shapes = {name: site.event_shape for name, site in latents.items()}
        self.slow: dict[str, int] = {}
        for name in self.names:
            steps = [t for t in layers(pair.guide[name].fn).transforms if isinstance(t, Autoregressive)]
            if steps:
                self.slow[name] = sum(step.net.passes for step in steps)
        check_local(called, latents.values(), pair.data, "a global latent has one posterior, and no aggregate of many")
        for name, site in pair.guide.of(*DENSE).items():
            if name not in self.names:
                raise ValueError(
                    f"{called}: the guide has the site {name!r}, which the model does not draw, want q(z | x) itself; "
                    "an auxiliary latent or a factor leaves it unknown"
                )
            if site.mask is not None or latents[name].mask is not None:
                raise ValueError(f"{called}: the latent {name!r} has a mask; drop the rows that are masked out")
        # a pair that is not right with fewer rows is given all of them in every pass
        self.whole = len(self) > 1 and fewer(model, guide, batch, pair, info.traces)[0] is None
        del info, pair
        self._try(called)

    def _try(self, called: str) -> None:
        """Raise ValueError unless a block has the densities of one code at a time."""
        codes, _ = self.draw(FEW)
        count, n = len(next(iter(codes.values()))), len(self) if self.whole else min(FEW, len(self))
        try:
            table = torch.zeros(())
            for i, j, block in self.blocks(codes, few=True):
                table = block.new_zeros(count, n) if table.dim() == 0 else table
                table[i, j] = block
            for i in range(count):
                values = {name: self._spread(name, code[i : i + 1], n)[0] for name, code in codes.items()}
                nodes = UntilDrawn(self.names, values).run(self.guide, self._rows(slice(0, n)))
                alone = sum(self._density(node, None) for node in nodes.values())[0]
                if not torch.allclose(table[i], alone.expand(n), rtol=1e-3, atol=1e-3, equal_nan=True):
                    raise ValueError("it gives other densities")
        except (RuntimeError, ValueError, IndexError) as error:
            reason = str(error).splitlines()[0][:120]
            raise ValueError(f"{called}: the guide is not right with many particles in one pass ({reason})") from None

    def __len__(self) -> int:
        return len(self.columns[0])

    def _rows(self, index: slice) -> tuple[Tensor, ...]:
        return tuple(column[index] for column in self.columns)

    def draw(self, count: int | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """(one code a datum, by latent, data first; log q - log p of each, (n,), in closed form where there is one)."""
        parts, rates = [], []
        total = len(self) if count is None or self.whole else min(count, len(self))
        for start in range(0, total, len(self) if self.whole else CHUNK):
            rows = self._rows(slice(start, total if self.whole else min(total, start + CHUNK)))
            of_q = UntilDrawn(self.names).run(self.guide, rows)
            values = {name: node["value"] for name, node in of_q.items()}
            of_p = UntilDrawn(self.names, values).run(self.model, rows)
            rate = torch.zeros(())
            for name, q in of_q.items():
                plain = [{**node, "scale": 1.0} for node in (q, of_p[name])]
                closed = divergence(*plain) if list(of_q) == list(of_p) else None
                if closed is None:
                    rate = rate + self._density(q, None) - self._density(of_p[name], None)
                else:
                    rate = rate + per_datum(closed, self.dim, None)
            rates.append(rate.expand(1, len(rows[0]))[0])
            parts.append({name: value.movedim(self.dim - self.events[name], 0) for name, value in values.items()})
        codes = {name: torch.cat([part[name] for part in parts])[:count] for name in self.names}
        return codes, torch.cat(rates)[:count]

    def infinite(self, codes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """log q and log p of each latent -> whether it is not finite for the code of each datum, (n,)."""
        found: dict[str, list[Tensor]] = {}
        for start in range(0, len(self), len(self) if self.whole else CHUNK):
            rows = self._rows(slice(start, len(self) if self.whole else start + CHUNK))
            values = {
                n: c[start : start + len(rows[0])].movedim(0, self.dim - self.events[n]) for n, c in codes.items()
            }
            for kind, program in (("q", self.guide), ("p", self.model)):
                for name, node in UntilDrawn(self.names, values).run(program, rows).items():
                    good = torch.isfinite(self._density(node, None)).expand(1, len(rows[0]))[0]
                    found.setdefault(f"log {kind} of the site {name!r}", []).append(~good)
        return {name: torch.cat(masks) for name, masks in found.items()}

    def blocks(
        self, codes: Mapping[str, Tensor], bar: Bar | None = None, few: bool = False
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """(codes i, data j, log q(z_i | x_j), (i, j), in nats) until every code has met every datum.

        Few data meet many codes at a time: a guide reads the data again for each block.

        Args:
            codes: latent -> values, codes first.
            bar: is told how many of all pairs are done.
            few: look at the first few data alone, where the pair takes few.
        """
        count = len(next(iter(codes.values())))
        total = min(FEW, len(self)) if few and not self.whole else len(self)
        size = total if self.whole else min(total, DATA)
        width = max(sum(code[0].numel() for code in codes.values()) // WIDE, 1)
        at_once = max(1, BLOCK // (size * width))
        for j in range(0, total, size):
            data = slice(j, min(j + size, total))
            rows = self._rows(data)
            for i in range(0, count, at_once):
                index = slice(i, min(i + at_once, count))
                shape = index.stop - index.start, data.stop - data.start
                values = {name: self._spread(name, code[index], shape[1]) for name, code in codes.items()}
                plate = pyro.plate(PARTICLES, shape[0], dim=-1 - self.nesting)
                nodes = UntilDrawn(self.names, values).run(self.guide, rows, plate=plate)
                table = sum(self._density(node, -1 - self.nesting) for node in nodes.values())
                yield index, data, table.expand(shape)
                if bar is not None:
                    bar.advance((j * count + index.stop * shape[1]) / (total * count))

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
        return per_datum(log_density(node["fn"], node["value"]), self.dim, particle_dim)


def device_of(*programs: Any) -> torch.device | None:
    """Device of the parameters of the modules that programs are or hold, None where there are none."""
    return next((p.device for module in modules_of(*programs) for p in module.parameters()), None)


@contextmanager
def looking(model: Callable, guide: Callable, seed: int | None, *places: Any) -> Iterator[None]:
    """Inside, a pair is in evaluation mode, without gradients and validation.

    With a seed the generators of the CPU, and of the devices of the pair and of `places` (tensors or devices), start
    from it and are as before afterwards; None continues them.
    """
    found = {device_of(model, guide), *(getattr(place, "device", place) for place in places)}
    devices = {place for place in found if isinstance(place, torch.device) and place.type == "cuda"}
    with torch.no_grad(), evaluating(model, guide), pyro.validation_enabled(False):
        with nullcontext() if seed is None else torch.random.fork_rng(devices):
            if seed is not None:
                torch.default_generator.manual_seed(seed)
                for place in devices:
                    with torch.cuda.device(place):
                        torch.cuda.manual_seed(seed)
            yield
