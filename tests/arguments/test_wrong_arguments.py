"""Wrong calls: every argument of the public API, by its declaration, with values of every wrong kind."""

import inspect
import warnings

import matplotlib.pyplot as plt
import pytest

from ppl_models.parts.arguments.kinds import WRONG
from tests.helpers.doors import ANY, JAX, TORCH, TRAINS, doors, fault, kinds, parameters, wrong
from tests.helpers.right_arguments import right

ROOMS = [pytest.param(TORCH, id="pyro"), pytest.param(JAX, id="numpyro")]


@pytest.mark.parametrize("rooms", ROOMS)
def test_every_public_argument_is_declared(rooms):
    for name, function in doors(rooms):
        left = set(parameters(function)) - kinds(function).keys() - ANY
        assert not left, f"{name}: nothing says what {left} may be"
        called = function.__init__ if inspect.isclass(function) else function
        assert hasattr(called, "asks") or set(parameters(function)) <= ANY, f"{name} looks at none of its arguments"


@pytest.mark.parametrize("rooms", ROOMS)
def test_a_value_of_a_wrong_kind_is_refused_in_one_line_that_names_its_argument(rooms):
    count, values = 0, wrong()
    for name, function in doors(rooms):
        for argument, kind in kinds(function).items():
            if argument in getattr(function.__init__ if inspect.isclass(function) else function, "but", ()):
                continue
            for what, value in values.items():
                if kind.read(value) is not WRONG:
                    continue
                count += 1
                others = dict.fromkeys(TRAINS.get(name.rpartition(".")[2], ()), print)
                with pytest.raises((ValueError, TypeError)) as caught:
                    function(**{**others, argument: value})
                told = f"{name}({argument}={what}): {caught.value}"
                assert not fault(caught.value), f"{told}: {fault(caught.value)}"
                assert f"found {argument}=" in str(caught.value) and ", want " in str(caught.value), told
    assert count > 2000


# what no call needs to be told of: these end the process, wait for others, or train for long
ACCEPTED = {"epochs", "folder", "workers"}
# what a program or a callback of the user's own raises is its own
THEIRS = "model", "guide", "callbacks", "program", "schedule", "beta"


@pytest.mark.slow
@pytest.mark.parametrize("rooms", ROOMS)
def test_what_a_declaration_lets_through_is_taken_or_refused_in_one_line(rooms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    faults = []
    for name, function in doors(rooms):
        if right(name) is None:
            continue
        positional, named = right(name)
        known = [*inspect.signature(function).parameters][: len(positional)]
        for argument in dict.fromkeys([*known, *parameters(function)]):
            kind = kinds(function).get(argument)
            for what, value in wrong().items():
                if argument in ACCEPTED or (kind is not None and kind.read(value) is WRONG):
                    continue
                positional, named = right(name)
                args = tuple(value if known[i : i + 1] == [argument] else each for i, each in enumerate(positional))
                more = {**named} if argument in known else {**named, argument: value}
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        function(*args, **more)
                except Exception as error:  # noqa: BLE001 (whose it is, is the question)
                    if (found := fault(error)) and not (argument in THEIRS and what == "a module"):
                        faults.append(
                            f"{name}({argument}={what}): {found}: {type(error).__name__}: {str(error)[:150]!r}"
                        )
                finally:
                    plt.close("all")
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults)
