"""`Late`: a dict whose arrays are computed at their first access and kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from jax import Array


class Late(Mapping):
    """Arrays by name, all of them computed when the first is asked for, in the transformation of JAX that asks.

    Args:
        names: of them.
        made: computes them.
    """

    def __init__(self, names: Sequence[str], made: Callable[[], dict[str, Array]]) -> None:
        self._names, self._made = tuple(names), made
        self._known: dict[str, Array] | None = None

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise KeyError(name)
        if self._known is None:
            self._known = self._made()
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names  # where a Mapping would ask for the array

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
