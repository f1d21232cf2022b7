"""Which element of an argument a value is: told by numbers of which no two are alike, or else by binary digits."""

import numpy as np
import pytest

from ppl_models.factorization.probing.arguments.spelling import spelled

SIZE = 60
PLAIN = {
    "as it is": lambda x: x,
    "reversed": lambda x: x[::-1],
    "cut": lambda x: x[5:9],
    "in single precision": lambda x: x.astype(np.float32),
    "beside a constant": lambda x: np.append(x[:3], 1.0),
}
FUNCTIONS = {"halved": lambda x: x / 2, "flipped": lambda x: 1 - x, "whole": lambda x: x.astype(int)}
JOINT = {
    "the largest": lambda x: x.max(keepdims=True),
    "sorted": np.sort,
    "summed": lambda x: x.reshape(-1, 2).sum(1),
    "chosen by another": lambda x: np.where(np.roll(x, 1) > 0.5, x, x[::-1]),
}


def told(make, low=0.0, high=1.0, x=None):
    runs, x = [], np.arange(SIZE) % 2.0 if x is None else x

    def run(numbers):
        runs.append(numbers)
        return {"made": make(numbers)}

    return spelled(run, x, low, high)["made"], len(runs)


@pytest.mark.parametrize("name", PLAIN)
def test_elements_as_they_are_take_two_runs_and_beside_others_four(name):
    found, runs = told(PLAIN[name])
    places, beside = PLAIN[name](np.arange(SIZE)), name == "beside a constant"
    count = 3 if beside else len(places)
    assert runs == (4 if beside else 2) and found.one.sum() == count and not found.many.any()
    np.testing.assert_array_equal(found.places[:count], places[:count])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_elements_are_told_by_their_digits(name):
    found, runs = told(FUNCTIONS[name])
    assert runs > 4 and found.one.all()
    np.testing.assert_array_equal(found.places, np.arange(SIZE))


@pytest.mark.parametrize("name", JOINT)
def test_what_hangs_on_several_elements_is_no_element(name):
    found, _ = told(JOINT[name])
    assert found.many.mean() > 0.4, found


def test_whole_numbers_are_no_others():
    seen = []
    found, _ = told(lambda x: seen.append(np.unique(x)) or x, 2, 5, np.arange(SIZE) % 2 * 3 + 2)
    np.testing.assert_array_equal(found.places, np.arange(SIZE))
    assert all(set(values) <= {2, 5} for values in seen)


def test_a_program_that_takes_no_other_values():
    def strict(numbers):
        return {"made": numbers} if np.isin(numbers, (0, 1)).all() else None

    found = spelled(strict, np.arange(SIZE) % 2.0, 0.0, 1.0)["made"]
    np.testing.assert_array_equal(found.places, np.arange(SIZE))
    assert spelled(lambda numbers: None, np.zeros(3), 0.0, 1.0) is None
    assert spelled(lambda numbers: {"made": np.zeros(2)}, np.zeros(3), 0.0, 1.0) == {}
