"""What every test starts from: one seed, an empty param store, checks on, one thread per worker, no display."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import pyro
import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Seed everything and forget the parameters of the test before."""
    torch.manual_seed(0)
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()
    if "numpyro" in sys.modules:  # its checks are of the process: a benchmark turns them off
        sys.modules["numpyro"].enable_validation(True)


@pytest.fixture
def data_root(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the data sets: $PPL_MODELS_DATA, or beside the checkout; else the test is skipped."""
    beside = pytestconfig.rootpath.parent / "shared" / "data"
    root = Path(os.environ.get("PPL_MODELS_DATA") or beside).expanduser().resolve()
    if not root.is_dir():
        pytest.skip(f"no data sets at {root}: set PPL_MODELS_DATA")
    monkeypatch.setenv("PPL_MODELS_DATA", str(root))
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `cuda` where there is no CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def double() -> Iterator[None]:
    """Double precision where nothing else is said: equality is claimed."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.double)
    yield
    torch.set_default_dtype(before)
