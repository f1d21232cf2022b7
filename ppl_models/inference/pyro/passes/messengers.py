"""Effect handlers of a pass: values in place of draws, draws in place of data, an end at the last latent, who draws."""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from ppl_models.programs.pairs import Undrawn
from ppl_models.programs.pyro import frame_of, kind_of

from ...training.weighing import Weighing

CALLS = "forward", "__call__", "_call_impl"  # methods by which a module is run itself


class Substitute(Messenger):
    """Give latent sites these values instead of draws; unlike conditioned ones they stay latent.

    with Substitute({"z1": value}):
        guide(x)
    """

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"], msg["done"] = self.values[msg["name"]], True


class Redraw(Messenger):
    """Draw what is observed anew, marked "redrawn" in its infer; factors and what is computed stay.

    Args:
        narrow: the message for a site whose value is wider than its distribution, with places for name and shapes.
    """

    def __init__(self, narrow: str) -> None:
        super().__init__()
        self.narrow = narrow

    def _pyro_sample(self, msg: dict) -> None:
        if kind_of(msg) == "observed":
            msg["infer"] = {**msg["infer"], "redrawn": True}
            msg["fn"] = self._widened(msg["name"], msg["fn"], msg["value"].shape)
            msg["is_observed"], msg["value"], msg["done"] = False, None, False

    def _widened(self, name: str, fn: Any, shape: torch.Size) -> Any:
        """A distribution that draws what is of this shape as its `log_prob` reads it, each entry by itself.

        Raises:
            Undrawn: it has fewer entries, and cannot be expanded to so many.
        """
        wide = torch.broadcast_shapes(own := fn.shape(), shape)
        batch = wide[: len(wide) - fn.event_dim]
        if wide == own:
            return fn
        if fn.event_shape == wide[len(batch) :]:
            return fn.expand(batch)
        if isinstance(fn, torch.distributions.Independent):
            return dist.Independent(self._widened(name, fn.base_dist, shape), fn.reinterpreted_batch_ndims)
        raise Undrawn(self.narrow.format(name, tuple(shape), tuple(own)))


class Weighed(Messenger):
    """Scale what is in the data plate by size / seen, as a plate that subsamples does, or undo what the programs scale.

    It goes around a pass, whose own scales it multiplies (`Weighing.factors`).

    Args:
        weighing: of the pair.
        seen: rows of the pass.
        loss: that of Pyro which is computed; None for one of our objectives.
    """

    def __init__(self, weighing: Weighing, seen: int, loss: Any = None) -> None:
        super().__init__()
        self.weighing, self.loss, self.seen = weighing, loss, seen

    def _pyro_sample(self, msg: Any) -> None:
        frame = frame_of(msg, self.weighing.plate)
        factor = self.weighing.factor(frame, self.seen, self.loss)
        if factor != 1:
            msg["scale"] = msg["scale"] * factor


class Inner(Messenger):
    """Draw every latent in a plate but the one that is drawn first, which all of these draws share.

    So the first latent, and what is computed of it alone, have no dim of particles.

    Args:
        plate: of the draws, left of all others.
    """

    def __init__(self, plate: Any) -> None:
        super().__init__()
        self.plate, self.first = plate, ""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        self.first = self.first or msg["name"]
        if msg["name"] != self.first:
            self.plate._process_message(msg)


class Among(Messenger):
    """Let one particle of every latent site have a given value; the others are drawn. It goes around their plate.

    A latent that is not in the plate has its value.

    Args:
        values: what a run with one draw has drawn, by name.
        index, dim: the place of the particle, and the dim of their plate.
    """

    def __init__(self, values: Mapping[str, Tensor], index: int, dim: int) -> None:
        super().__init__()
        self.values, self.index, self.dim = values, index, dim

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.values and not (msg["done"] or msg["is_observed"]):
            value, given = msg["fn"](*msg["args"], **msg["kwargs"]).clone(), self.values[msg["name"]]
            dim = self.dim - msg["fn"].event_dim
            if value.dim() < -dim:
                value = given
            else:
                value.select(dim, self.index).copy_(given)
            msg["value"], msg["done"] = value, True


class Drawn(BaseException):
    """All latents are drawn: the rest of the run is not needed. Not an Exception, so that no program catches it."""


class UntilDrawn(Messenger):
    """Keep what the latents `names` are drawn from, and end the run as soon as the last one is drawn.

    Args:
        names: the latents.
        values: what they are in place of draws, for those that are named.

    Attributes:
        nodes: latent -> its message, in the order of the run.
    """

    def __init__(self, names: Collection[str], values: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.names, self.substitute = frozenset(names), Substitute(dict(values or {}))
        self.nodes: dict[str, dict[str, Any]] = {}

    def _pyro_sample(self, msg: dict) -> None:
        self.substitute._pyro_sample(msg)

    def _pyro_post_sample(self, msg: dict) -> None:
        if msg["name"] in self.names and not msg["is_observed"]:
            self.nodes[msg["name"]] = dict(msg)
            if len(self.nodes) == len(self.names):
                raise Drawn

    def run(
        self,
        program: Callable,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        plate: AbstractContextManager | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Run a program so far, in a plate, unseen by handlers around; returns `nodes`."""
        try:
            with poutine.block(), plate or nullcontext(), self:
                program(*args, **(kwargs or {}))
        except Drawn:
            pass
        if isinstance(program, GuideMessenger):
            program.trace = Trace()  # else it would keep what it has drawn, and the graph of it, until its next run
        return self.nodes


class Drawing(Messenger):
    """Find the modules in whose methods the sites of a run are drawn or observed, whoever calls them.

    A function, a partial, a handler or a bound method may stand between `fit` and a module, which no `pyro.param` tells
    of then. A module that is run where a handler hides parameters (`poutine.block`) is left out, as SVI leaves it.

    Attributes:
        modules: module -> whether it was run itself, and not only another method of it; outermost first.
        called: every module that was called, with those that only compute.
    """

    def __init__(self) -> None:
        super().__init__()
        self.modules: dict[nn.Module, bool] = {}
        self.called: dict[nn.Module, None] = {}
        self._around: Any = None  # the code that runs the programs: what is further out is none of theirs

    def __enter__(self) -> Any:
        self._around = sys._getframe(1).f_code
        self._hook = register_module_forward_pre_hook(lambda module, args: self.called.setdefault(module))
        return super().__enter__()

    def __exit__(self, *error: Any) -> Any:
        self._hook.remove()
        return super().__exit__(*error)

    def _pyro_sample(self, msg: Any) -> None:
        inside = _PYRO_STACK[_PYRO_STACK.index(self) + 1 :]
        if any(isinstance(handler, BlockMessenger) and handler.hide_fn(_A_PARAM) for handler in inside):
            return
        frame, found = sys._getframe(1), list[tuple[nn.Module, bool]]()
        while frame is not None and frame.f_code is not self._around:
            code = frame.f_code
            owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
            if isinstance(owner, nn.Module) and hasattr(type(owner), code.co_name):
                found.append((owner, code.co_name in CALLS))
            frame = frame.f_back
        for module, itself in reversed(found):
            self.modules[module] = itself or self.modules.get(module, False)


_A_PARAM: Any = {"type": "param", "name": "", "is_observed": False, "infer": {}}
