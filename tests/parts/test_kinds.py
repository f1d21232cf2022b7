"""Kinds of arguments: what each takes, what it makes of it, and the line that refuses the rest."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch

from ppl_models.parts.arguments.checked import check, checked, declared, told
from ppl_models.parts.arguments.kinds import LARGEST, WRONG, Count, Either, Number, Seed, Sizes, kind_of

INF = float("inf")


@pytest.mark.parametrize(
    ("kind", "taken", "refused"),
    [
        (
            Number(above=0),
            [1e-3, 1, 2**70, Fraction(1, 2)],
            [0, -1, float("inf"), float("nan"), 10**400, True, "1", 1j],
        ),
        (Number(least=0, below=1), [0, 0.999], [1, -1e-9, None, [0.5]]),
        (Number(above=0, most=INF), [1.0, INF], [float("nan"), -INF, 0]),
        (Number(whole=True, least=1), [1, LARGEST], [0, 1.0, 2**31, 2**70, True, np.True_, "3", None]),
        (Number(whole=True, least=0, most=2**32 - 1), [0, 2**32 - 1], [2**32, -1, 0.5]),
        (
            Sizes(),
            [3, (2, 4), [1], range(1, 3)],
            [0, (), [1, 0], [1.5], "12", b"12", {1: 2}, {1, 2}, np.ones((2, 2), int)],
        ),
        (kind_of(bool), [True, False], [0, 1, "no", "false", None]),
        (kind_of(Literal["mlp", "conv"]), ["mlp"], ["MLP", 1, None, ["mlp"]]),
        (kind_of(float | None), [None, 0.5], ["None", [], True]),
        (kind_of(Callable[[int], float]), [abs], [int, "abs", 3]),
        (kind_of(Sequence[str]), [["a"], ("a",)], ["a", b"a", {"a"}]),
        (kind_of(Mapping[str, int]), [{}, {"a": 1}], [[("a", 1)], None]),
        (kind_of(Literal["auto"] | bool), ["auto", True], ["yes", 1]),
    ],
)
def test_a_kind_takes_what_it_says_and_nothing_else(kind, taken, refused):
    for value in taken:
        assert kind.read(value) is not WRONG, value
    for value in refused:
        assert kind.read(value) is WRONG, value


def test_numbers_of_other_libraries_become_pythons():
    for value in (np.float32(0.5), np.array(0.5), torch.tensor(0.5), jnp_half()):
        found = Number(above=0).read(value)
        assert type(found) is float and found == 0.5
    for value in (np.int64(3), np.array(3), torch.tensor(3)):
        found = Number(whole=True).read(value)
        assert type(found) is int and found == 3
    assert kind_of(bool).read(np.True_) is True
    assert Sizes(always=True).read(np.array([2, 3])) == (2, 3) and Sizes(always=True).read(torch.tensor(4)) == (4,)
    assert type(Number().read(2**70)) is float  # an integer that is none for a tensor


def jnp_half():
    return pytest.importorskip("jax.numpy").float32(0.5)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (Number(above=0), "1e-3", "found a='1e-3', want a number of more than 0; try a=0.001"),
        (Number(least=0), -1, "found a=-1, want at least 0; try a=7"),
        (Number(whole=True, least=1), 2**70, f"want an integer, 1 <= a <= {LARGEST}"),
        (Number(least=0, below=1), float("nan"), "found a=nan, want a finite number, 0 <= a < 1"),
        (kind_of(bool), "off", "found a='off', want True or False; try a=False"),
        (kind_of(bool), "TRUE", "want True or False; try a=True"),
        (kind_of(Literal["x", "y", "z"]), "w", "found a='w', want one of 'x', 'y', 'z'"),
        (
            kind_of(Sequence[int]),
            torch.zeros(100, 4),
            "found a=a Tensor of shape (100, 4) and type torch.float32, want",
        ),
        (
            kind_of(np.random.Generator),
            np.random.Generator,
            "found a=Generator, a class, want a Generator; try Generator()",
        ),
        (Sizes(), "x" * 1000, "found a=a str of length 1000, want an integer of at least 1, or several"),
    ],
)
def test_what_is_refused_is_told_in_one_line(kind, value, text):
    with pytest.raises((ValueError, TypeError)) as caught:
        check("here", "a", value, kind, 7)
    assert text in str(caught.value) and str(caught.value).startswith("here: ") and "\n" not in str(caught.value)


def test_an_object_is_a_type_error_and_a_number_a_value_error():
    with pytest.raises(TypeError):
        check("here", "a", 3, kind_of(Callable[..., Any]))
    with pytest.raises(TypeError):
        check("here", "a", 3, kind_of(np.ndarray | None))
    with pytest.raises(ValueError):
        check("here", "a", None, kind_of(str))
    with pytest.raises(ValueError):
        check("here", "a", None, kind_of(float | Callable[..., Any]))


def test_a_checked_function_passes_on_what_it_read():
    @checked
    def area(side: Count, scale: Annotated[float, Number(above=0)] = 1.0, *rest: Any, seed: Seed | None = None) -> Any:
        return side, scale, rest, seed

    assert area(np.int64(3), torch.tensor(2.0), "a", seed=np.int32(1)) == (3, 2.0, ("a",), 1)
    assert [type(each) for each in area(np.int64(3), 2)[:2]] == [int, int]
    with pytest.raises(ValueError, match="area: found side=0, want an integer of at least 1"):
        area(0)
    with pytest.raises(TypeError, match="area: found the argument 'seeds', want one that it takes; try seed="):
        area(1, seeds=3)
    assert isinstance(declared(area)["seed"], Either) and area.__name__ == "area"


def test_no_message_shows_a_value_by_the_page():
    for value in (
        list(range(10_000)),
        "x" * 10_000,
        bytes(10_000),
        {i: i for i in range(999)},
        torch.zeros(9, 9),
        10**999,
    ):
        assert len(told(value)) < 100
