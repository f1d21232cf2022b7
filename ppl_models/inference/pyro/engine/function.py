"""`Function`: a captured and compiled function of tensors, most of which stay where they are from call to call."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from .capture import capture
from .compilers import Compiler
from .flat_parameters import Buffers

Compile = Callable[[GraphModule, Sequence[Tensor], int, Sequence[int]], Compiler]


class Function:
    """A compiled function of tensors, most of which stay where they are: only what is `given` changes between calls.

    Args:
        function: to tensors in any nested structure.
        inputs: a structure of tensors that it is captured with: `lists` of `buffers` first, `given` last.
        buffers: the parameters among it, with their moments and averages.
        compile: makes a compiled graph of (graph, inputs, how many of the first are the lists, which are given).
        whole: whether it is a whole step, of which many may be taken together.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        inputs: Any,
        buffers: Buffers,
        compile: Compile,
        whole: bool,
    ) -> None:
        flat, structure = tree_flatten(inputs)

        def of_flat(*flat: Tensor) -> list[Tensor]:
            found, self.structure = tree_flatten(function(tree_unflatten(list(flat), structure)))
            return found

        self.buffers, self.static = buffers, tree_leaves(inputs.given)
        graph, held = capture(of_flat, flat)
        held = _parameters_as_views(graph, held, buffers)
        self.held = _on_device(graph, held, buffers.slots.parameters[0].device)
        own = len(buffers.flat())
        self.state, self.replayed, self.outputs = flat[own : len(flat) - len(self.static)], None, ()
        given = range(len(flat) - len(self.static), len(flat))
        self.run = compile(graph, [*flat, *self.held], own, given if whole else ())

    @property
    def fixed(self) -> list[Tensor]:
        """All that it reads and may write, but for what is given."""
        return [*self.buffers.flat(), *self.state, *self.held]

    def inputs(self, given: Sequence[Tensor]) -> list[Tensor]:
        """All inputs of the compiled graph."""
        return [*self.buffers.flat(), *self.state, *given, *self.held]

    def __call__(self, given: Sequence[Tensor]) -> Sequence[Tensor]:
        """Its outputs, flat as what is given; on CUDA they are overwritten by the next call."""
        if self.replayed is None:
            return self.run(self.inputs(given))
        for place, x in zip(self.static, given, strict=True):
            place.copy_(x, non_blocking=True)
        self.replayed.replay()
        return self.outputs

    def settle(self) -> None:
        """Let parameters, moments and averages be what the calls have made of them."""
        for i, tensor in self.run.settled().items():
            self.buffers.put(i, tensor)

    def named(self, outputs: Sequence[Tensor]) -> Any:
        """Outputs in the structure that the function gave them."""
        return tree_unflatten(list(outputs), self.structure)

    def record(self, device: torch.device) -> None:
        """Record the kernels of a call as a CUDA graph. All that it reads and writes must stay where it is.

        It has run before, on the stream of the caller, so that nothing is compiled or tuned inside the recording; and
        the state of the default generator is the graph's own business.
        """
        with torch.cuda.device(device):  # a stream of another device would record nothing, and take the step
            torch.cuda.synchronize()
            graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
            # other threads (of NCCL, of loaders that pin memory) may go on meanwhile
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self.outputs = self.run(self.inputs(self.static))
        self.replayed = graph


def _on_device(graph: GraphModule, held: list[Tensor], device: torch.device) -> list[Tensor]:
    """Constants that programs make of numbers at every run (`torch.tensor(0.5, device=...)`), copied there once."""
    nodes = [node for node in graph.graph.nodes if node.op == "placeholder"]
    fresh = torch.ops.aten.lift_fresh_copy.default
    made = [node.users and all(user.target is fresh for user in node.users) for node in nodes[len(nodes) - len(held) :]]
    return [t.to(device) if each else t for t, each in zip(held, made, strict=True)]


def _parameters_as_views(graph: GraphModule, held: list[Tensor], buffers: Buffers) -> list[Tensor]:
    """Let a graph read parameters out of their buffers, its first inputs; returns what else it holds."""
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    parameters = buffers.slots.parameters
    place = {id(parameters[i]): (k, i) for k, group in enumerate(buffers.groups) for i in group}
    kept = []
    for node, tensor in zip(inputs[-len(held) :] if held else (), held, strict=True):
        if id(tensor) not in place:
            kept.append(tensor)
            continue
        k, i = place[id(tensor)]
        source = inputs[k]
        if len(buffers.groups[k]) > 1:
            start, size = buffers.starts[i], tensor.numel()
            with graph.graph.inserting_after(inputs[-1]):
                part = graph.graph.call_function(torch.ops.aten.slice.Tensor, (source, 0, start, start + size))
            with graph.graph.inserting_after(part):
                source = graph.graph.call_function(torch.ops.aten.view.default, (part, list(tensor.shape)))
            part.meta["val"], source.meta["val"] = tensor.detach().view(-1), tensor.detach()
        node.replace_all_uses_with(source)
    for node, tensor in zip(inputs[-len(held) :] if held else (), held, strict=True):
        if id(tensor) in place:
            graph.graph.erase_node(node)
    graph.recompile()
    return kept
