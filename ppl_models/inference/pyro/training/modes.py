"""`set_to`: modules in training or evaluation mode, and afterwards in their own again; those of a pair."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from ppl_models.programs.state.torch import modules_of


@contextmanager
def set_to(programs: Sequence[nn.Module], training: bool) -> Iterator[None]:
    """Inside, programs are in this mode (a wholly frozen one never trains); outside, every module in its own again."""
    before = {module: module.training for program in programs for module in program.modules()}
    for program in programs:
        program.train(training and any(p.requires_grad for p in program.parameters()))
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def trained(model: Callable, guide: Callable, parameters: Sequence[Tensor]) -> list[nn.Module]:
    """The modules that the programs of a pair are, and those that they hold which have some of these parameters."""
    own, wanted = {p for p in (model, guide) if isinstance(p, nn.Module)}, set(parameters)
    return [m for m in modules_of(model, guide) if m in own or not wanted.isdisjoint(m.parameters())]


def untrained(called: Iterable[nn.Module], parameters: Sequence[Tensor]) -> list[str]:
    """A note on modules that a run has called, with parameters that want gradients and are not trained; or none."""
    known = set(parameters)
    loose = [m for m in called if any(p.requires_grad and p not in known for p in m.parameters(recurse=False))]
    if not loose:
        return []
    kinds = ", ".join(dict.fromkeys(type(m).__name__ for m in loose))
    return [
        f"modules that are called, but not trained: {kinds}; as for pyro.infer.SVI, a network that a function calls "
        "must be handed to pyro.module, or frozen by requires_grad_(False) to be kept as it is"
    ]
