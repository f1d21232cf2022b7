"""`few`: cases of a test, of which some run every time and the others with the slow ones."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def few(cases: Iterable[Any], often: Callable[..., bool]) -> list[Any]:
    """The cases as pytest takes them, those for which `often(*case)` is false marked slow.

    >>> [bool(case.marks) for case in few([("a", 1), ("b", 2)], lambda name, size: size < 2)]
    [False, True]
    """
    tuples = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=() if often(*case) else pytest.mark.slow) for case in tuples]
