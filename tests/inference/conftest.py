"""What two processes that torchrun starts have left: one start of them serves several files of tests."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which each process has left what it was told, and what it has trained."""
    from test_data_parallel import all_of_it, by_two, script

    folder = tmp_path_factory.mktemp("parallel")
    told = by_two(folder, [script(folder, all_of_it)])
    assert "Warning" not in told.stderr and "Traceback" not in told.stderr, told.stderr
    return folder
