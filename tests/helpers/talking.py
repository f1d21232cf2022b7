"""`talk`: all that processes of one training tell each other, one call after another; each leaves it in a file."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from ppl_models.data import Binarize, Data
from ppl_models.inference.pyro.feeding.batches import Batches
from ppl_models.inference.pyro.feeding.columns import Columns
from ppl_models.inference.pyro.feeding.distributed import current, seed_of


def talk(folder: Path, device: str) -> None:
    """By every process that torchrun has started; talk0.safetensors is what the first one has found."""
    group = current(device)
    assert group == current(device), "connected once"
    rank, found = group.rank, {}
    on = dict(device=group.device)
    found["group"] = torch.tensor([rank, group.world, group.is_main])

    # means: one flat tensor where it lies, many in one message a dtype, those that are not contiguous too
    flat = torch.arange(4.0, **on) + rank
    at = flat.data_ptr()
    group.average_([flat])
    assert flat.data_ptr() == at
    weight = torch.nn.Parameter(torch.full((2, 3), float(rank), **on))
    many = [weight, torch.arange(6.0, **on).view(2, 3).T * rank, torch.full((), 1.0 + rank, dtype=torch.float64, **on)]
    group.average_(many)
    group.average_([])
    found |= {"flat": flat, **{f"many{i}": t.detach().clone().contiguous() for i, t in enumerate(many)}}
    try:
        group.average_([torch.zeros(2, dtype=torch.int64)])
    except TypeError as error:
        assert "want floating numbers" in str(error)

    # from rank 0
    whole = torch.arange(5) * (1 + 10 * rank)
    mixed = [weight, torch.full((2,), rank, dtype=torch.int64, **on), torch.tensor([rank == 0])]
    with torch.no_grad():
        weight.fill_(7.0 + rank)
    group.broadcast_([whole])
    group.broadcast_(mixed)
    found |= {"whole": whole, **{f"mixed{i}": t.detach().clone() for i, t in enumerate(mixed)}}

    # to rank 0
    for name, n in (("equal", 3), ("longer", 2 + rank)):
        gathered = group.gather_bytes(torch.full((n,), rank + 1, dtype=torch.uint8))
        assert (gathered is None) == (rank == 1)
        found |= {f"{name}{i}": t for i, t in enumerate(gathered or ())}
    found["mean"] = torch.tensor(group.mean(0.1 + rank), dtype=torch.float64)
    group.barrier()

    # rows: of 22, batches of 5 by two processes are two an epoch, and two rows are left
    torch.manual_seed(seed_of(0, rank))
    found["noise"] = torch.rand(3)
    torch.manual_seed(seed_of(0, rank))
    rows = torch.arange(22)
    values = torch.full((22, 40), 128, dtype=torch.uint8)
    data = Columns((rows, Data(values, (40,), 256, Binarize(256), "grey")), "data")
    for workers in (0, 1):
        batches = Batches(data, 5, group.device, workers=workers, group=group)
        assert batches.per_epoch == 2
        taken = [tuple(t.clone() for t in next(batches)) for _ in range(3)]
        state, generator = batches.state(), torch.get_rng_state()
        on_device = torch.cuda.get_rng_state() if device == "cuda" else None
        taken += [tuple(t.clone() for t in next(batches)) for _ in range(3)]
        found |= {f"rows{workers}": torch.stack([x for x, _ in taken]), f"binary{workers}": taken[0][1]}
        found[f"order{workers}"] = state["order"]
        batches.close()
        # each process continues from its own state
        torch.rand(5)
        again = Batches(data, 5, group.device, workers=workers, group=group)
        again.restore(state)
        torch.set_rng_state(generator)
        if on_device is not None:
            torch.cuda.set_rng_state(on_device)
        for batch in taken[3:]:
            assert all(torch.equal(a, b) for a, b in zip(batch, next(again), strict=True))
        again.close()
    # all rows at once: in their order, which no one draws
    before = torch.get_rng_state()
    found["all"] = next(Batches(Columns(rows, "data"), 11, group.device, group=group))[0]
    assert torch.equal(before, torch.get_rng_state())
    try:
        Batches(Columns(rows, "data"), 12, group=group)
    except ValueError as error:
        assert "at least 24 for 2 processes of batch_size=12; try batch_size=11" in str(error)
    save_file({name: t.cpu() for name, t in found.items()}, f"{folder}/talk{rank}.safetensors")
