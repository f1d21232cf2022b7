"""A function of tensors that runs Pyro programs, captured as one graph of tensor operations."""

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor
from torch.fx import GraphModule

from .python_state import generators_kept
from .recorder import NotCapturable, Recorder, Values, writes

MACHINERY = ("ppl_models.inference.", "ppl_models.programs.", "torch.")  # modules that no user wrote


def capture(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> tuple[GraphModule, list[Tensor]]:
    """The graph of `function(*inputs)` for inputs of these shapes, and the tensors beside the inputs that it reads.

    The function runs once, with its numbers, through all of Pyro's effect handlers; the graph is what it did to
    tensors. Those that it met elsewhere, in modules, Pyro's store or closures, become inputs of the graph after the
    given ones, so that it reads (and writes) them where they lie. All that it wrote is put back, generators too.

    Raises:
        NotCapturable: the function reads the value of a tensor, makes a shape from one, draws from Python's or NumPy's
            generator (a draw that the graph would repeat), or does what has no graph.
    """
    # each its own: one tensor given as two arguments is two inputs
    inputs = [x.detach().requires_grad_(x.requires_grad) for x in inputs]
    recorder = Recorder(inputs)
    try:
        devices = {x.device for x in inputs if x.is_cuda}
        with generators_kept() as moved, torch.random.fork_rng(devices), recorder, Values():
            recorder.graph.output(recorder.node_of(list(function(*inputs))))
            if moved():
                raise NotCapturable("the programs draw from Python's or NumPy's generator, which a graph cannot repeat")
        recorder.graph.eliminate_dead_code(lambda n: n.is_impure() or "val" not in n.meta or writes(n))
        return GraphModule({}, recorder.graph), recorder.held
    except Exception as error:  # noqa: BLE001 (whatever a program does that cannot be captured: eager steps will tell)
        raise NotCapturable(reason(error)) from error
    finally:
        recorder.restore()


def first_line(error: BaseException) -> str:
    """The first line of what an error says, the name of its class where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def reason(error: BaseException) -> str:
    """The obstacle to a capture, in one line: the operation and where the program asked for it."""
    if isinstance(error, NotCapturable):
        return str(error) + _place(error)
    return f"{type(error).__name__}: {first_line(error)[:160]}" + _place(error)


def _place(error: BaseException) -> str:
    """The line at which a program, or a library that it uses, asked for what failed."""
    outside = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if not _is_ours(frame)]
    if not outside:
        return ""
    (place,) = traceback.StackSummary.extract(outside[-1:])
    path = Path(place.filename)
    return f", at {path.parent.name}/{path.name}:{place.lineno}: {place.line}"


def _is_ours(frame: FrameType) -> bool:
    """Whether a frame is of torch, or of the machinery around the programs, which no user wrote."""
    module = f"{frame.f_globals.get('__name__', '')}."
    return module.startswith(MACHINERY) or frame.f_code.co_filename.startswith("<")
