"""Every row of the table of operations says what torch says, of shapes, dtypes, and what is empty or no number."""

import warnings
from collections.abc import Iterable

import pytest
import torch

from ppl_models.inference.pyro.engine.xla.aten import CONTIGUOUS, TABLE
from tests.inference.aten.by_hand import by_hand, everyday
from tests.inference.aten.comparison import Compared
from tests.inference.aten.samples import Sample, of_torch, with_extremes

FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.complex64]
INTEGERS = [torch.int64, torch.int32, torch.uint8, torch.bool]


def compared(samples: Iterable[Sample], most: int | None = None, mode: Compared | None = None) -> Compared:
    """What the rows say of samples; those that torch refuses are passed over."""
    mode = mode or Compared(most)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for mode.where, call in samples:
            try:
                with mode:
                    call()
            except Exception:  # noqa: BLE001, S112 (what torch refuses)
                continue
        mode.settle()
    return mode


def test_everyday():
    """What is asked of the table all the time, and what torch has no samples of; no samples of torch are needed."""
    torch.manual_seed(0)
    mode = compared([*everyday(), *by_hand()])
    assert not mode.wrong, "\n".join(mode.wrong[:20])
    assert len(mode.seen) > 250


def test_names():
    """All are names of operations, whose tensors are not written to."""
    for name in {*TABLE, *CONTIGUOUS}:
        _, packet, overload = name.split(".")
        operation = getattr(getattr(torch.ops.aten, packet), overload)
        assert not operation._schema.is_mutable
    assert set(TABLE) > CONTIGUOUS


@pytest.mark.slow
def test_samples():
    """Of all rows: none is left out."""
    torch.manual_seed(0)
    mode = compared(of_torch(torch.float64, 60), 25)
    by_samples, mode.most = mode.wrong, None
    compared(by_hand(), mode=mode)
    assert not by_samples, "\n".join(mode.wrong[:20])
    left_out = set(TABLE) - {name for name, count in mode.seen.items() if count}
    assert not left_out, left_out


@pytest.mark.slow
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=str)
def test_dtypes(dtype: torch.dtype):
    mode = compared(of_torch(dtype, 6), 3)
    assert not mode.wrong, "\n".join(mode.wrong[:20])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_extremes(dtype: torch.dtype):
    """Infinite entries and those that are no number come out where torch has them."""
    mode = compared(with_extremes(dtype))
    assert not mode.wrong, "\n".join(mode.wrong[:20])
