"""Double precision for the tests of the ports."""

from collections.abc import Iterator

import pytest


@pytest.fixture
def x64() -> Iterator[None]:
    """In JAX."""
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture
def wide(double: None, x64: None) -> None:
    """In both languages: their numbers are compared."""
