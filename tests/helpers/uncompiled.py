"""`AsItIs`: a captured graph run operation by operation, in place of a compiled one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule


class AsItIs:
    """See `ppl_models.inference.pyro.engine.compilers.Compiler`."""

    name, room = "inductor", 0  # which writes where its inputs lie, as this does

    def __init__(self, graph: GraphModule) -> None:
        self.run = torch.no_grad()(graph)

    def __call__(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        return self.run(*inputs)

    def settled(self) -> dict[int, Tensor]:
        return {}

    def forget(self) -> None:
        pass


def as_it_is(see: Callable[[GraphModule], object] = lambda graph: None) -> Callable[..., AsItIs]:
    """In place of `compilers.compiled`; `see` is given each graph."""

    def compiled(graph: GraphModule, *others: object) -> AsItIs:
        see(graph)
        return AsItIs(graph)

    return compiled
