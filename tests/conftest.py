"""What every test starts from: one seed, an empty param store, checks on, one thread per worker, no display."""

import ctypes
import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("PPL_MODELS_REPORT", "0")  # a page for each training takes a second: tests of it ask for one
# what XLA compiles here runs a few times: compiling it without much thought takes a third of the time (flags of the
# jaxlib that constraints.txt pins: another one may not know the second)
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false",
)

import hypothesis
import pyro
import pytest
import torch

from ppl_models.inference.display import progress

progress.SILENCE = 1e6  # seconds after which what takes its time is shown: no test looks at a clock

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

# a shell's background jobs ignore Ctrl-C and hand that on
signal.signal(signal.SIGINT, signal.default_int_handler)

GROWN = 0.7e9  # bytes

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
    validated = torch.distributions.Distribution._validate_args
    pyro.enable_validation(True)
    assert validated, "this test has turned the validation of distributions off, for all that come after"
    if "numpyro" in sys.modules:  # its checks are of the process: a benchmark turns them off
        sys.modules["numpyro"].enable_validation(True)


@pytest.fixture(autouse=True, scope="session")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A program that JAX has compiled for one test is read from the disk for the next, by the other workers, too."""
    if "jax" in sys.modules and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        from jax._src.lru_cache import LRUCache
        from jax.experimental.compilation_cache import compilation_cache

        jax, shared = sys.modules["jax"], tmp_path_factory.getbasetemp()
        shared = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "compiled"
        LRUCache.put = written_whole
        jax.config.update("jax_compilation_cache_dir", str(shared))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        compilation_cache.reset_cache()
    yield


def written_whole(cache: Any, key: str, value: bytes) -> None:
    """In place of `LRUCache.put`, under which another worker may read a file before its end."""
    path = Path(f"{cache.path}/{key}-cache")
    if not path.exists():
        aside = path.with_name(f"{key}.{os.getpid()}")
        aside.write_bytes(value)
        aside.replace(path)


held = 1e9  # bytes that a worker may hold after what is compiled has been forgotten


@pytest.fixture(autouse=True)
def small_worker() -> Iterator[None]:
    """What JAX and torch have compiled is forgotten after a test, once the process has grown by `GROWN`."""
    global held
    yield
    if resident() < held + GROWN:
        return
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
    gc.collect()
    if sys.platform == "linux":  # freed memory goes back to the machine
        ctypes.CDLL(None).malloc_trim(0)
    held = max(held, resident())


def resident() -> float:
    """Bytes that this process holds, inf where that cannot be read."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return float("inf")


@pytest.fixture
def data_root(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the data sets: $PPL_MODELS_DATA, or beside the checkout; else the test is skipped."""
    beside = pytestconfig.rootpath.parent / "shared" / "data"
    root = Path(os.environ.get("PPL_MODELS_DATA") or beside).expanduser().resolve()
    if not root.is_dir():
        pytest.skip(f"no data sets at {root}: set PPL_MODELS_DATA")
    monkeypatch.setenv("PPL_MODELS_DATA", str(root))
    return root


def pytest_collection_finish() -> None:
    """What has been imported stays, and is not gone through again and again: JAX makes many objects as it traces."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


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
