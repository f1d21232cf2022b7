"""Around a compilation by XLA: the CPU with as many threads as torch has, and what was compiled before, on disk."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import pooch
import torch
from jax.experimental.compilation_cache import compilation_cache


def cpu() -> jax.Device:
    """JAX's CPU. It gets as many threads as torch has, unless somebody has asked JAX for it before.

    XLA sizes its pool once a process, by the variable NPROC or the cores that the process may use.
    """
    before = os.environ.get("NPROC")
    os.environ["NPROC"] = before or str(torch.get_num_threads())
    try:
        return jax.devices("cpu")[0]
    finally:
        if before is None:
            del os.environ["NPROC"]


@contextmanager
def cached() -> Iterator[None]:
    """Inside, XLA finds what it compiled in an earlier process, in the user's cache, or where JAX was told to look.

    It is found by all that decides on the code: the operations, the versions, the processor, the options and the number
    of threads; so what is found is what would be compiled.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        yield
        return
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update(
        "jax_compilation_cache_dir", str(Path(pooch.os_cache("ppl-models"), f"xla-{torch.get_num_threads()}"))
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    compilation_cache.reset_cache()  # which has settled that there is none
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*persistent compilation cache.*")  # a folder that cannot be written
            yield
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least)
        compilation_cache.reset_cache()
