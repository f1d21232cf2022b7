"""`origins`: where observed values come from, by following each element of the arguments through a run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from .looks.evidence import Origin

# operations whose every element is one of what they are given first, be it in its memory or in a copy
MOVES = frozenset(
    "_unsafe_view alias as_strided cat clone detach diagonal expand flip gather index index_select lift_fresh "
    "pixel_shuffle pixel_unshuffle permute repeat reshape roll rot90 select slice split split_with_sizes squeeze stack "
    "t take transpose unbind unfold unsafe_split unsafe_split_with_sizes unsqueeze view _reshape_alias".split()
)
CASTS = "_to_copy", "to"


def origins(observe: Callable[[], Mapping[str, Tensor]], args: Sequence[Any]) -> dict[str, Origin]:
    """The origin of each value that `observe` returns, by name, of those whose elements are all elements of arguments.

    Args:
        observe: runs a program on the arguments.
        args: them; arrays that share no memory.

    >>> x = torch.zeros(2, 4)
    >>> found = origins(lambda: {"a": x.flip(1).clone(), "b": x[:, :2] + 1}, (x,))
    >>> found["a"].places, "b" in found
    (array([[3, 2, 1, 0],
           [7, 6, 5, 4]]), False)
    """
    with _Following(args) as followed:
        values = observe()
    found = {}
    for name, value in values.items():
        codes = followed.known.get(value)
        if codes is not None and codes.numel():
            argument = codes // SPAN
            if bool((argument == argument.flatten()[0]).all()):
                places = (codes % SPAN).cpu().numpy()
                # the port has long known so
                i = int(argument.flatten()[0])
                found[name] = Origin(frozenset({i}), places, frozenset({"numpyro"}), value.dtype != args[i].dtype)
    return found


SPAN = 2**40  # the codes of an argument: its index times this, and the place of the element in it


class _Following(TorchDispatchMode):
    """Inside, tensors whose elements are elements of the arguments are known, with a code for each element.

    Touched is what depends on them: an index that does tells elements of these data alone.
    """

    def __init__(self, args: Sequence[Any]) -> None:
        super().__init__()
        self.known, self.touched = WeakIdKeyDictionary(), WeakIdKeyDictionary()
        for i, arg in enumerate(args):
            if isinstance(arg, Tensor):
                self.known[arg] = SPAN * i + torch.arange(arg.numel(), device=arg.device).reshape(arg.shape)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        result = func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(leaf in self.known or leaf in self.touched for leaf in given):
            return result
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.touched[leaf] = True
        if func._schema.is_mutable:
            self._forget(*given)
            return result
        moved = None
        if name in CASTS and isinstance(args[0], Tensor) and _kept(args[0].dtype, result.dtype):
            moved = self.known.get(args[0])
        elif name in MOVES:
            first = tree_leaves(args[0])
            others = [leaf for leaf in tree_leaves((args[1:], kwargs)) if isinstance(leaf, Tensor)]
            fixed = not any(leaf in self.known or leaf in self.touched for leaf in others)
            if fixed and all(leaf in self.known for leaf in first):
                moved = func(tree_map(lambda leaf: self.known[leaf], args[0]), *args[1:], **kwargs)
        if moved is not None:
            for leaf, codes in zip(tree_leaves(result), tree_leaves(moved), strict=True):
                self.known[leaf] = codes
        return result

    def _forget(self, *changed: Tensor) -> None:
        """What lies in the memory of tensors that were written to is not known any more."""
        memory = {tensor.untyped_storage().data_ptr() for tensor in changed}
        for tensor in [t for t in self.known.keys() if t.untyped_storage().data_ptr() in memory]:
            del self.known[tensor]


def _kept(before: torch.dtype, after: torch.dtype) -> bool:
    """Whether a cast keeps what is in a row, but for its precision."""
    return after.is_floating_point or before == after or before == torch.bool
