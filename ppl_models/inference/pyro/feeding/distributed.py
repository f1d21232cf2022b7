"""One training by several processes that torchrun started: the same parameters, other rows, other noise.

    torchrun --nproc-per-node 2 -m ppl_models train ...

Every process runs the same program; a collective below is called by all of them, in the same order, or it waits.
"""

import atexit
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

# After this a process stops waiting for one that is gone: long enough for a validation on rank 0, and no half an hour.
TIMEOUT = timedelta(minutes=5)
_PARENT = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None  # the agent, where torchrun is it


@dataclass(frozen=True)
class Group:
    """The processes of one training, seen from one of them.

    Tensors of the CPU travel by gloo and those of a CUDA device by nccl, whatever `device` is.

    Attributes:
        rank: which process this is, 0 <= rank < world.
        world: how many processes there are, over all machines.
        device: where this process should compute.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes files and shows progress, rank 0."""
        return self.rank == 0

    @property
    def orphaned(self) -> bool:
        """Whether torchrun is gone, which has started this process and would have ended it."""
        return _PARENT is not None and os.getppid() != _PARENT

    @torch.no_grad()
    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over the processes, t = 1/world sum_r t_r, in one message a dtype.

        A single contiguous tensor is reduced where it lies, without a copy.

        Args:
            tensors: of the same shapes, in the same order, on every rank; floating or complex, of any shapes.

        Raises:
            TypeError: tensors of integers, whose mean is none.
        """
        for t in tensors:
            if not (t.is_floating_point() or t.is_complex()):
                raise TypeError(f"average_: found a tensor of {t.dtype}, want floating numbers; try tensor.double()")
        for bucket in _buckets(tensors):
            flat = _flat(bucket)
            dist.all_reduce(flat)  # a sum: gloo has no mean
            flat.div_(self.world)
            _copy_back(flat, bucket)

    @torch.no_grad()
    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of rank 0, t = t_0, in one message a dtype; of any dtypes and shapes."""
        for bucket in _buckets(tensors):
            flat = _flat(bucket)
            dist.broadcast(flat, src=0)
            if not self.is_main:
                _copy_back(flat, bucket)

    def gather_bytes(self, tensor: Tensor) -> list[Tensor] | None:
        """On rank 0 the small tensor of every rank, in the order of the ranks, on the CPU; None on the others.

        Args:
            tensor: uint8, of shape (n,), where n may differ between ranks: the state of a generator, say.

        Raises:
            TypeError: a tensor of another dtype or of more dimensions.
        """
        if tensor.dtype != torch.uint8 or tensor.dim() != 1:
            raise TypeError(f"gather_bytes: found {tensor.dtype} of shape {tuple(tensor.shape)}, want uint8 of (n,)")
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        dist.all_gather(lengths, torch.tensor([len(tensor)]))
        longest = max(int(length) for length in lengths)
        padded = torch.zeros(longest, dtype=torch.uint8)  # a gather wants equal lengths
        padded[: len(tensor)] = tensor
        gathered = [torch.empty_like(padded) for _ in range(self.world)] if self.is_main else None
        dist.gather(padded, gathered, dst=0)
        if gathered is None:
            return None
        return [g[: int(length)].clone() for g, length in zip(gathered, lengths, strict=True)]

    def barrier(self) -> None:
        """Return once every process has come here; work queued on a CUDA device is not waited for."""
        dist.all_reduce(torch.zeros(1))  # by gloo: nccl's own barrier would take up a device

    def agreed(self, value: bool) -> bool:
        """The value of rank 0, on all ranks."""
        told = torch.tensor([value])
        self.broadcast_([told])
        return bool(told)

    def mean(self, value: float) -> float:
        """The mean of a number over the processes, 1/world sum_r value_r, in double precision."""
        total = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(total)
        return total.item() / self.world


def current(device: torch.device | str | None = None) -> Group | None:
    """The group of this process if torchrun started several, else None; the first call connects them.

    torchrun says so by RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE in the environment. A process on CUDA is given
    the device of its LOCAL_RANK, which is made the current one. The connection ends with the process, or by
    `shut_down`; one that exists already is used as it is. If a process dies, torchrun ends the others, and without
    torchrun they stop waiting after `TIMEOUT`.

    Args:
        device: where the processes should compute, "cpu" or "cuda" (a number is ignored: LOCAL_RANK decides). None:
            CUDA if there is a device for every process of this machine, else the CPU.

    Raises:
        ValueError: more processes on this machine than CUDA devices, where CUDA is asked for; an environment that
            lacks MASTER_ADDR or MASTER_PORT.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    if "RANK" not in os.environ or world == 1:
        return None
    rank = int(os.environ["RANK"])
    local = int(os.environ.get("LOCAL_RANK", rank))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kind = torch.device(device).type if device is not None else "cuda" if here <= devices else "cpu"
    if kind == "cuda" and here > devices:
        raise ValueError(
            f"distributed: found {here} processes and {devices} CUDA devices on this machine, want a device for each; "
            f"try torchrun --nproc-per-node {max(devices, 1)}, or the CPU"
        )
    if kind == "cuda":
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        # Optimizers import it. Imported while there is a group it holds it, whose threads then outlive `shut_down` and
        # may abort the process when the interpreter ends before them.
        importlib.import_module("torch._dynamo")
        backend = "cpu:gloo,cuda:nccl" if here <= devices and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, store=_store(), rank=rank, world_size=world, timeout=TIMEOUT)
        atexit.register(shut_down)
    return Group(rank, world, torch.device(kind, local) if kind == "cuda" else torch.device(kind))


def _store() -> dist.Store:
    """Store in which the processes find each other: torchrun's, with a place of its own for each restart.

    In one place a process may find the address of one that died before the restart, and try to reach that.
    """
    store = next(dist.rendezvous("env://", timeout=TIMEOUT))[0]
    return dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def shut_down() -> None:
    """Disconnect this process from the others; nothing is done where there is no connection."""
    atexit.unregister(shut_down)
    if dist.is_initialized():
        dist.destroy_process_group()


def seed_of(seed: int, rank: int) -> int:
    """The seed of one process: `seed` itself on rank 0, which so starts as one process would, else one mixed from both.

    That of ranks above 0 has 32 bits, as NumPy's seeds do.

    Raises:
        ValueError: a negative seed or rank.
    """
    if seed < 0 or rank < 0:
        raise ValueError(f"seed_of: found seed={seed} and rank={rank}, want neither below 0")
    return seed if rank == 0 else int(np.random.SeedSequence(seed, spawn_key=(rank,)).generate_state(1)[0])


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Tensors that can lie in one, by dtype and device, in an order that is the same on every rank."""
    buckets: dict[tuple[torch.dtype, str], list[Tensor]] = {}
    for t in tensors:
        buckets.setdefault((t.dtype, t.device.type), []).append(t.detach())
    return list(buckets.values())


def _flat(bucket: list[Tensor]) -> Tensor:
    """All of a bucket in one contiguous tensor: the only one itself, or else a copy."""
    if len(bucket) == 1 and bucket[0].is_contiguous():
        return bucket[0]
    return torch.cat([t.reshape(-1) for t in bucket])


def _copy_back(flat: Tensor, bucket: list[Tensor]) -> None:
    if flat is not bucket[0]:
        parts = flat.split([t.numel() for t in bucket])
        torch._foreach_copy_(bucket, [part.view_as(t) for part, t in zip(parts, bucket, strict=True)])
