"""Rows taken by processes of their own, ahead of the training, as if it had taken them itself.

The workers are forked from a server that runs nothing else ("forkserver"), not from the training: a fork of a process
with running threads (of OpenMP, autograd, gloo or CUDA) copies their locks but not the threads, and may wait for one of
them forever. The price is that the columns are sent, once: their class must be importable, tensors move to shared
memory, and a script has to start its work under `if __name__ == "__main__":`.
"""

import multiprocessing
import random
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .items import parted

Order = tuple[np.ndarray, int]  # rows of a batch, and the seed of its noise: an array, as a tensor costs a descriptor


class Loader:
    """Batches of columns in a given order, made by worker processes that live until `close`.

    Args:
        columns: anything that tensors index and that can be sent to another process.
        workers: how many processes, at least 1. What they give does not depend on it.
        pin: whether batches come in pinned memory, from which a CUDA device copies while it computes.
    """

    def __init__(self, columns: Sequence[Any], workers: int, pin: bool) -> None:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([__name__])  # imported once, not by each worker; no effect once it runs
        self._plan = _Plan()
        self._loader = DataLoader(
            _Batches(tuple(columns)),
            batch_size=None,  # an item is a batch
            sampler=self._plan,
            num_workers=workers,
            collate_fn=_as_it_is,
            worker_init_fn=_deaf,
            pin_memory=pin,
            multiprocessing_context=context,
            generator=torch.Generator(),  # the global one, which it would draw from at every start, is not touched
            persistent_workers=True,
        )
        self._running: Iterator[tuple[Any, ...]] | None = None

    def start(self, orders: Iterable[Order]) -> None:
        """Let the workers begin with these batches; what they had made and `take` had not taken is dropped."""
        self._plan.orders = orders
        try:
            self._running = iter(self._loader)
        except Exception as error:
            error.add_note(
                "found data that cannot be sent to worker processes; define their class at the top level of a module, "
                "or try workers=0"
            )
            raise

    def take(self) -> tuple[Any, ...]:
        """The rows of the next batch; after an error the workers are gone, and a later `start` begins with new ones.

        Raises:
            Exception: what a column raised in a worker, with the worker's traceback in its message.
            RuntimeError: a worker that died.
        """
        try:
            return next(self._running)
        except Exception as error:
            error.add_note(
                "data: the rows of a batch could not be taken in a worker process; workers=0 takes them in this one. "
                "If workers do not start: their script needs `if __name__ == '__main__':`, the data a class of a "
                "module (not of a notebook), and /dev/shm room for their tensors"
            )
            self.close()
            raise

    def close(self) -> None:
        """End the workers; a later `start` begins with new ones."""
        running, self._running, self._loader._iterator = self._loader._iterator, None, None
        if running is not None:
            running._shutdown_workers()  # not left to the end of its last reference: a traceback may hold one


class _Plan:
    """The orders of the epoch to come; a DataLoader reads its sampler anew at every start."""

    orders: Iterable[Order] = ()

    def __iter__(self) -> Iterator[Order]:
        return iter(self.orders)


class _Batches(Dataset):
    """Whole batches as items, taken under seeds that come with the order: no matter which worker takes them."""

    def __init__(self, columns: tuple[Any, ...]) -> None:
        self.columns = columns

    def __getitem__(self, order: Order) -> tuple[Any, ...]:
        index, seed = torch.from_numpy(order[0]), order[1]
        torch.default_generator.manual_seed(seed)  # that of the CPU alone: a worker has no business with devices
        np.random.seed(seed % 2**32)
        random.seed(seed)
        return tuple(parted(column[index] for column in self.columns))


def _as_it_is(batch: tuple[Any, ...]) -> tuple[Any, ...]:
    return batch


def _deaf(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal: the training ends its workers itself, once it has saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
