"""`Batches`: shuffled rows of data without end, on the device of the parameters."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from .columns import Columns, moved
from .distributed import Group
from .items import parted
from .loading import Loader

_CPU = torch.device("cpu")


class Batches:
    """Shuffled batches without end: an iterator over tuples of rows, one an argument, that can be continued exactly.

    An epoch is a permutation of the rows, drawn from torch's global generator of the CPU when its first batch is asked
    for; what fills no batch at its end is left for the next one. If a batch is all the data their order is kept and
    nothing drawn. Of `group.world` processes that of `rank` r takes, as batch i of an epoch,

        order[(i * world + r) * batch_size : (i * world + r + 1) * batch_size]

    of one order, drawn on rank 0.

    Tensors and `Data` are moved to `device` once if they fit (on CUDA: into half of the memory that is free); then
    batches are taken there, a transform's noise is drawn there, and nothing waits for the device. Others are taken
    where they are and moved through pinned memory. With workers, rows are taken ahead by that many processes, a
    batch's noise under a seed derived from one drawn with the order; so equal for any number of workers but 0.

    Args:
        data: the rows.
        batch_size: rows a step and process.
        device: where the rows go; None leaves them where they lie.
        workers: processes that take rows; 0 takes them in this one, when they are asked for.
        group: the processes of a training started by torchrun, which all make and advance theirs together.

    Attributes:
        per_epoch: steps an epoch, len(data) // (batch_size * world).

    Raises:
        ValueError: fewer rows than a batch of all processes, a batch or workers below 0, workers for data on a device.
    """

    def __init__(
        self,
        data: Columns,
        batch_size: int,
        device: torch.device | None = None,
        *,
        workers: int = 0,
        group: Group | None = None,
    ) -> None:
        size, world = data.size, 1 if group is None else group.world
        if batch_size < 1 or workers < 0:
            raise ValueError(f"batches: found batch_size={batch_size} and workers={workers}, want at least 1 and 0")
        if batch_size * world > size:
            raise ValueError(
                f"batches: found {size} rows, want at least {batch_size * world} for {world} processes of "
                f"batch_size={batch_size}; try batch_size={max(size // world, 1)}"
            )
        self.per_epoch = size // (batch_size * world)
        self._size, self._batch_size, self._device, self._group = size, batch_size, device, group
        self._data, self._loader = data, None
        if workers:
            if away := [place for place in data.places if place.type != "cpu"]:
                raise ValueError(
                    f"batches: found data on {away[0]} and workers={workers}, which take rows on the CPU; "
                    "try workers=0, or data.to('cpu')"
                )
            self._loader = Loader(data.columns, workers, pin=device is not None and device.type == "cuda")
        elif device is not None and data.fits(device):
            self._data = data.to(device)
        # an epoch that is over: the first begins when its first batch is asked for
        self._position, self._seed = self.per_epoch, 0
        self._orders = {_CPU: torch.arange(size)}  # one order, on every device where rows are taken
        self._started = False  # whether the workers are at this position
        self._ahead: tuple[Any, ...] | None = None  # a batch that was looked at

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Any, ...]:
        """The rows of the next batch, one entry a column; what a column raises leaves the position as it was."""
        if self._ahead is not None:
            batch, self._ahead = self._ahead, None
            return batch
        if self._position == self.per_epoch:
            self._begin()
        if self._loader is None:
            taken = [
                c[self._index(self._position, place)]
                for c, place in zip(self._data.columns, self._data.places, strict=True)
            ]
        else:
            taken = self._from_workers()
        batch = tuple(moved(rows, self._device) for rows in parted(taken))
        self._position += 1
        return batch

    def peek(self) -> tuple[Any, ...]:
        """The batch that is next, which stays the next one; no `state` is to be taken before it has been."""
        if self._ahead is None:
            self._ahead = next(self)
        return self._ahead

    def state(self) -> dict[str, Tensor]:
        """Position from which the batches go on exactly, with the states of the generators at this moment.

        Returns:
            order: (len(data),) int64, the permutation of this epoch, not to be written to.
            position: () int64, batches of it that were taken.
            seed: () int64, of the noise of this epoch; only with workers.
        """
        state = {"order": self._orders[_CPU], "position": torch.tensor(self._position)}
        return state if self._loader is None else {**state, "seed": torch.tensor(self._seed)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue where `state` was taken, on the same data in batches of the same size; the generators are yours.

        Raises:
            ValueError: a state of other data, of another size of batch, or of workers where there are none (or the
                other way round), which draw the noise of a batch in another way.
        """
        order, position = state["order"].to(_CPU, torch.int64), int(state["position"])
        if order.shape != (self._size,):
            raise ValueError(f"batches: found the order of {len(order)} rows, want {self._size}; are the data others?")
        if not torch.equal(order.sort().values, torch.arange(self._size)):
            raise ValueError(f"batches: found an order that is no permutation of {self._size} rows; is it damaged?")
        if not 0 <= position <= self.per_epoch:
            raise ValueError(
                f"batches: found position {position}, want 0 to {self.per_epoch}, the batches of an epoch; continue "
                "with the batch_size and the number of processes that you began with"
            )
        if ("seed" in state) != (self._loader is not None):
            was, now = ("with", "workers=0") if "seed" in state else ("without", "workers")
            raise ValueError(
                f"batches: found the state of a run {was} workers, and {now} now, where the noise of a batch is "
                "drawn otherwise; continue as you began (any number of workers above 0 is the same)"
            )
        self._orders, self._position, self._seed = {_CPU: order}, position, int(state.get("seed", 0))
        self._started, self._ahead = False, None

    def close(self) -> None:
        """End the workers, if there are any; a batch that is asked for later starts new ones."""
        self._started = False
        if self._loader is not None:
            self._loader.close()

    def _begin(self) -> None:
        """Draw the order of an epoch, and with workers the seed of its noise, which is another on every rank."""
        group = self._group
        whole = self._batch_size * (1 if group is None else group.world) == self._size
        drawn = not whole and (group is None or group.is_main)
        order = torch.randperm(self._size) if drawn else torch.arange(self._size)
        if group is not None and not whole:
            group.broadcast_([order])
        if self._loader is not None:
            self._seed = int(torch.randint(2**63 - 1, ()))
        self._orders, self._position, self._started = {_CPU: order}, 0, False

    def _index(self, position: int, place: torch.device) -> Tensor:
        """The rows of a batch of this epoch, on the device where they are taken."""
        if place not in self._orders:
            self._orders[place] = moved(self._orders[_CPU], place)
        rank, world = (0, 1) if self._group is None else (self._group.rank, self._group.world)
        first = (position * world + rank) * self._batch_size
        return self._orders[place][first : first + self._batch_size]

    def _from_workers(self) -> tuple[Any, ...]:
        if not self._started:
            generator = torch.Generator().manual_seed(self._seed)
            seeds = torch.randint(2**63 - 1, (self.per_epoch,), generator=generator).tolist()
            todo = range(self._position, self.per_epoch)
            self._loader.start((self._index(i, _CPU).numpy(), seeds[i]) for i in todo)
        self._started = False  # should this fail, the workers begin at this batch again
        batch = self._loader.take()
        self._started = True
        return batch
