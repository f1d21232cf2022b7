"""`Batches`: every row once an epoch, in the order of a seed, and exactly on from any step."""

import copy
import os
import random
import signal
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from ppl_models.data import Binarize, Data, Identity
from ppl_models.inference.pyro.feeding.batches import Batches
from ppl_models.inference.pyro.feeding.columns import Columns, moved
from tests.helpers.cases import few

# as many workers as a test wants, on a machine of any size
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def images(n: int = 12, size: int = 30) -> Data:
    """Grey images, binarized anew at each access; row i is known by nothing."""
    values = torch.randint(256, (n, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))
    return Data(values, (size,), 256, Binarize(256), "images")


def numbered(n: int = 12) -> tuple[Tensor, Data]:
    """Rows that say which they are, and noisy ones beside them."""
    return torch.arange(n).float(), images(n)


def batches_of(data: Any, *args: Any, **options: Any) -> Batches:
    return Batches(Columns(data, "data"), *args, **options)


def reference(columns, batch_size: int, device=None):
    """The shuffled batches of ppl_models 0.1, word for word: seeds in papers and tests mean these."""
    size = len(columns[0])
    while True:
        order = torch.randperm(size) if batch_size < size else torch.arange(size)
        for i in range(0, size - batch_size + 1, batch_size):
            yield tuple(moved(column[order[i : i + batch_size]], device) for column in columns)


def take(batches, count: int) -> list[tuple[Tensor, ...]]:
    # copies: what workers send holds a file descriptor
    return [tuple(rows.clone() for rows in batch) for batch in islice(batches, count)]


def same(one, other) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for p, q in zip(one, other, strict=True) for a, b in zip(p, q, strict=True)
    )


def paused(batches: Batches) -> tuple[dict[str, Tensor], Tensor]:
    return {name: value.clone() for name, value in batches.state().items()}, torch.get_rng_state()


def resumed(batches: Batches, pause: tuple[dict[str, Tensor], Tensor]) -> Batches:
    torch.manual_seed(99)  # whatever else went on
    torch.rand(5)
    batches.restore(pause[0])
    torch.set_rng_state(pause[1])
    return batches


class Written:
    """A column of a class of one's own: known to nobody, read by tensors, noisy in three ways."""

    def __init__(self, n: int = 12, bad: int | None = None, deadly: int | None = None) -> None:
        self.n, self.bad, self.deadly = n, bad, deadly

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Tensor) -> Tensor:
        if self.bad in index.tolist():
            raise KeyError(f"row {self.bad} cannot be read")
        if self.deadly in index.tolist():
            os.kill(os.getpid(), signal.SIGKILL)
        return index + torch.rand(len(index)) + np.random.rand() + random.random()


# In one process


@given(size=st.integers(1, 20), batch=st.integers(1, 20), seed=st.integers(0, 2**31))
@settings(max_examples=50)
def test_batches_are_those_of_always(size: int, batch: int, seed: int):
    columns, batch = numbered(size), min(batch, size)
    count = 3 * (size // batch) + 1
    torch.manual_seed(seed)
    want, after = take(reference(columns, batch), count), torch.rand(())
    for device in (None, torch.device("cpu")):
        torch.manual_seed(seed)
        batches = batches_of(columns, batch, device)
        assert same(take(batches, count), want) and torch.equal(torch.rand(()), after)
        assert batches.per_epoch == size // batch


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("size", "batch"), [(12, 4), (13, 4), (12, 12), (5, 1)])
def test_every_row_once_an_epoch(size: int, batch: int, workers: int):
    batches = batches_of((torch.arange(size),), batch, workers=workers)
    orders = []
    for _ in range(3):
        rows = torch.cat([b for (b,) in islice(batches, size // batch)])
        assert len(rows) == size // batch * batch == len(set(rows.tolist()))
        orders.append(rows.tolist())
    whole = size == batch
    assert (orders[0] == orders[1] == orders[2] == list(range(size))) == whole
    batches.close()


@given(stop=st.integers(0, 11), size=st.integers(8, 13), batch=st.integers(2, 8), between=st.booleans())
@settings(max_examples=60)
def test_exactly_on_from_any_step(stop: int, size: int, batch: int, between: bool):
    columns = numbered(size)
    torch.manual_seed(stop)
    one = batches_of(columns, batch)
    take(one, stop)
    if between:
        torch.rand(3)  # the training draws from the same generator
    pause = paused(one)
    want, after = take(one, 9), torch.rand(())
    for other in (batches_of(columns, batch), one):
        assert same(take(resumed(other, pause), 9), want) and torch.equal(torch.rand(()), after)


def test_a_state_is_an_order_and_a_position():
    batches = batches_of(numbered(), 4)
    assert batches.state()["position"] == 3  # the epoch before the first is over
    rows = next(batches)[0]
    state = batches.state()
    assert list(state) == ["order", "position"] and state["position"].dtype == state["order"].dtype == torch.int64
    assert state["position"].shape == () and state["position"] == 1
    assert torch.equal(state["order"][:4].float(), rows)
    kept = copy.deepcopy(state)
    take(batches, 7)
    assert torch.equal(state["order"], kept["order"])  # nobody writes to it later


def test_an_error_of_the_data_leaves_the_position():
    column = Written(bad=7)
    batches = batches_of((column,), 12)
    with pytest.raises(KeyError, match="row 7 cannot be read"):
        next(batches)
    assert batches.state()["position"] == 0
    column.bad = None
    assert len(next(batches)[0]) == 12


# With workers


def test_any_number_of_workers_gives_the_same():
    found = []
    for workers in (1, 2):
        torch.manual_seed(3)
        batches = batches_of((*numbered(), Written()), 4, workers=workers)
        found.append((take(batches, 8), torch.rand(())))
        batches.close()
    (one, after), (two, after_two) = found
    assert same(one, two) and torch.equal(after, after_two)
    torch.manual_seed(3)
    order = [rows[0] for rows in take(batches_of(numbered(), 4), 3)]
    assert all(torch.equal(a[0], b) for a, b in zip(one, order, strict=False))  # the first epoch, without workers too
    # noise is drawn anew for each batch and each epoch, and is that of a grey image
    by_row = [dict(zip(*(c.tolist() for c in (x, y)), strict=True)) for x, _, y in one]
    noise = [(value - row) % 1 for rows in by_row for row, value in rows.items()]
    assert len({round(value, 6) for value in noise}) == len(noise)
    assert all(set(x.unique().tolist()) == {0.0, 1.0} for _, x, _ in one)


@pytest.mark.parametrize("workers", few([1, 2], lambda workers: workers == 2))
def test_exactly_on_from_any_step_although_workers_ran_ahead(workers: int):
    columns = (*numbered(13), Written(13))
    torch.manual_seed(1)
    one, other = (batches_of(columns, 4, workers=workers) for _ in range(2))
    pauses, taken = [], []
    for _ in range(7):
        pauses.append(paused(one))
        taken += take(one, 1)
        torch.rand(2)
    after = paused(one)
    for stop in (0, 1, 2, 3, 4, 6):
        resumed(other, pauses[stop])
        for step in range(stop, 7):
            assert same(take(other, 1), [taken[step]])
            torch.rand(2)
        state, generator = paused(other)
        assert torch.equal(generator, after[1]) and all(torch.equal(state[k], v) for k, v in after[0].items())
    one.close()
    assert same(take(resumed(one, pauses[5]), 2)[:1], [taken[5]])  # new workers
    one.close()
    other.close()


def test_workers_end_at_close():
    batches = batches_of(numbered(), 4, workers=2)
    next(batches)
    processes = list(batches._loader._running._workers)
    assert all(process.is_alive() for process in processes)
    batches.close()
    assert not any(process.is_alive() for process in processes)
    batches.close()
    batches_of(numbered(), 4).close()


def test_an_error_in_a_worker_is_the_error_of_the_data():
    batches = batches_of((Written(bad=7),), 4, workers=2)
    with pytest.raises(KeyError, match="row 7 cannot be read(.|\n)*data: the rows of a batch .*; workers=0 takes"):
        take(batches, 4)
    state = batches.state()
    row = state["position"] * 4
    assert 7 in state["order"][row : row + 4]
    with pytest.raises(KeyError, match="row 7 cannot be read"):
        next(batches)  # and it is not stepped over
    batches.close()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_the_death_of_a_worker_is_an_error():
    batches = batches_of((Written(deadly=7),), 12, workers=1)
    with pytest.raises(RuntimeError, match="exited unexpectedly(.|\n)*data: the rows of a batch"):
        next(batches)
    batches.close()


def test_data_that_cannot_be_sent_to_workers():
    class Local(Written):
        pass

    batches = batches_of((Local(),), 4, workers=1)
    with pytest.raises(Exception, match="(.|\n)*class at the top level of a module, or try workers=0"):
        next(batches)
    batches.close()


def test_training_threads_and_workers_do_not_wait_for_each_other():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        weight = torch.randn(300, 300, requires_grad=True)
        batches = batches_of((torch.randn(400, 300), Written(400)), 40, workers=2)
        for x, _ in islice(batches, 25):
            (x @ weight).square().mean().backward()  # OpenMP's and autograd's threads run when workers start
        batches.close()
    finally:
        torch.set_num_threads(before)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch_size": 13}, "found 12 rows, want at least 13 for 1 processes of batch_size=13; try batch_size=12"),
        ({"batch_size": 0}, "found batch_size=0"),
        ({"batch_size": 4, "workers": -1}, "workers=-1"),
    ],
)
def test_sizes_that_cannot_be(arguments, words):
    with pytest.raises(ValueError, match=f"batches: .*{words}"):
        batches_of(numbered(), **arguments)


def test_workers_do_not_take_rows_on_a_device():
    with pytest.raises(ValueError, match=r"found data on meta and workers=1.*try workers=0, or data.to\('cpu'\)"):
        Batches(Columns(torch.zeros(12, 3), "data").to(torch.device("meta")), 4, workers=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"order": torch.arange(11)}, "the order of 11 rows, want 12; are the data others"),
        ({"order": torch.zeros(12, dtype=torch.int64)}, "no permutation of 12 rows; is it damaged"),
        ({"position": torch.tensor(4)}, "found position 4, want 0 to 3.*continue with the batch_size"),
        ({"seed": torch.tensor(4)}, "a run with workers, and workers=0 now"),
    ],
)
def test_states_of_other_runs(change, words):
    batches = batches_of(numbered(), 4)
    next(batches)
    before = batches.state()
    with pytest.raises(ValueError, match=f"batches: .*{words}"):
        batches.restore({**before, **change})
    assert batches.state()["position"] == 1 and torch.equal(batches.state()["order"], before["order"])
    with pytest.raises(ValueError, match="a run without workers, and workers now"):
        batches_of(numbered(), 4, workers=1).restore(before)


def test_columns():
    x = torch.zeros(3, 2)
    assert Columns(x, "data").columns == (x,)
    with pytest.raises(TypeError, match=r"data: found list, .*try torch.stack\(rows\)"):
        Columns([x], "data")


# On a device


@pytest.fixture
def spent(monkeypatch) -> None:
    """A device on which nothing fits."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 100))


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
def test_data_that_fit_stay_on_the_device():
    device = torch.device("cuda")
    labels, noisy = numbered(1000)
    batches = batches_of((labels, noisy, Written(1000)), 100, device)
    assert batches._data.columns[0].is_cuda and batches._data.columns[1].values.is_cuda
    next(batches)  # the order is moved here
    on_host = torch.get_rng_state()
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = batches_of(batches._data.columns[:2], 100, device)
        found = [next(batches) for _ in range(25)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(rows.is_cuda for batch in found for rows in batch)
    torch.set_rng_state(on_host)
    want = take(batches_of((labels,), 100), 25)
    assert all(torch.equal(a[0].cpu(), b[0]) for a, b in zip(found, want, strict=True))
    assert not noisy.values.is_cuda


@pytest.mark.cuda
@pytest.mark.parametrize("workers", [0, 2])
def test_data_that_do_not_fit_are_moved_batch_by_batch(spent, workers: int):
    columns = numbered(100)  # the noise too is then that of the host
    torch.manual_seed(0)
    batches = batches_of(columns, 10, torch.device("cuda"), workers=workers)
    found = [next(batches) for _ in range(25)]
    assert all(rows.is_cuda for batch in found for rows in batch) and not batches._data.columns[0].is_cuda
    torch.manual_seed(0)
    on_host = batches_of(columns, 10, workers=workers)
    assert same([tuple(rows.cpu() for rows in batch) for batch in found], take(on_host, 25))
    batches.close()
    on_host.close()


@pytest.mark.cuda
def test_exactly_on_on_a_device():
    columns, device = numbered(30), torch.device("cuda")
    one = batches_of(columns, 10, device)
    take(one, 4)
    pause, generator = paused(one), torch.cuda.get_rng_state()
    want = take(one, 7)
    other = batches_of(columns, 10, device)
    resumed(other, pause)
    torch.cuda.set_rng_state(generator)
    assert same(take(other, 7), want)


def test_what_fits_is_half_of_the_memory_that_is_free(monkeypatch):
    device = torch.device("cuda")
    values = torch.zeros(10, 100, dtype=torch.uint8)
    data = Data(values, (100,), 256, Binarize(256), "data", labels=torch.zeros(10, dtype=torch.int64))
    for free, fits in ((2 * 1080, False), (2 * 1080 + 2, True)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**9))
        assert Columns((data, Written(10)), "data").fits(device) is fits
    real = Data(torch.zeros(2, 1), (1,), None, Identity(), "real")
    assert Columns(real, "data").fits(torch.device("cpu"))
