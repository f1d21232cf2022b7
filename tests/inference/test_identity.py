"""Another function of the same name, other rows, other sites, threads or versions: refused, or told."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from ppl_models.inference import Linear, elbo
from ppl_models.inference.config import FitConfig
from ppl_models.inference.resuming import fingerprint, identity
from ppl_models.inference.resuming.code import Traits, sources, traits
from ppl_models.inference.resuming.fingerprint import Fingerprint, spaced
from ppl_models.inference.resuming.identity import Identity, factorization_of
from ppl_models.programs.pairs import Pair
from ppl_models.programs.record import Plate, Run, Site

FACTOR = 1.0


def closed(n: Any) -> Callable:
    return lambda step: n


def counted() -> Callable:
    n = 0

    def beta(step: int) -> float:
        nonlocal n
        n += 1
        return 1.0

    return beta


def one(step: int) -> float:
    return 1.0


def helped(step: int) -> float:
    """A docstring."""
    return one(step) * FACTOR


class Schedule:
    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class Frozen:
    value: float

    def __call__(self, step: int) -> float:
        return self.value


class Other:
    def __call__(self, step: int) -> float:
        return -self.value


Other.__qualname__ = "Schedule"
SAME = {
    "a function": lambda: helped,
    "a closure": lambda: closed(2.0),
    "a partial": lambda: partial(one, step=3),
    "an object": lambda: Schedule(1.0),
    "a method": lambda: Schedule(1.0).__call__,
    "a schedule": lambda: Linear(4),
    "an objective": lambda: elbo,
    "a frozen object": lambda: Frozen(1.0),
    "an array": lambda: closed(np.arange(3.0)),
    "a lambda": lambda: lambda step: 1.0,
    "in a closure": lambda: closed(closed(1.0)),
}
FIRM = {
    "another value in a closure": (closed(1.0), closed(-1.0)),
    "another code": (lambda step: 1.0, lambda step: 0.0),
    "another code in a closure": (closed(one), closed(helped)),
    "another function in a partial": (partial(one), partial(helped)),
    "another argument of a partial": (partial(one, step=1), partial(one, step=2)),
    "another default": (lambda step, n=1: n, lambda step, n=2: n),
    "another number in a closure of a closure": (closed(closed(1.0)), closed(closed(2.0))),
    "another frozen object": (Frozen(1.0), Frozen(2.0)),
    "another tuple": (closed((1, 2)), closed((1, 3))),
    "another name": (Schedule(1.0), Frozen(1.0)),
}
LOOSE = {
    "another list": (closed([1, 2]), closed([1, 3])),
    "another array": (closed(np.zeros(3)), closed(np.ones(3))),
    "another attribute": (Schedule(1.0), Schedule(2.0)),
}


def differing(a: Any, b: Any) -> tuple[list[str], list[str]]:
    kept = json.loads(json.dumps(asdict(traits(a, "beta"))))
    return traits(b, "beta").differing(Traits(**kept))


@pytest.mark.parametrize("name", SAME)
def test_the_same_function_is_known_again(name):
    found = traits(SAME[name](), "beta")
    assert differing(SAME[name](), SAME[name]()) == ([], []) and not found.unknown


@pytest.mark.parametrize("name", FIRM)
def test_another_function_is_told_by_what_differs(name):
    firm, loose = differing(*FIRM[name])
    assert firm, loose


@pytest.mark.parametrize("name", LOOSE)
def test_what_may_change_as_it_is_used_is_told_apart(name):
    firm, loose = differing(*LOOSE[name])
    assert loose and not firm, (firm, loose)


def test_a_number_that_the_function_itself_counts_is_no_other_function():
    beta = counted()
    before = traits(beta, "beta")
    beta(0)
    assert traits(beta, "beta").differing(before) == ([], ["n of beta"])


def test_globals_that_a_function_reads_are_read(monkeypatch):
    before = traits(helped, "beta")
    monkeypatch.setitem(globals(), "FACTOR", 2.0)
    assert traits(helped, "beta").differing(before) == ([], ["FACTOR of beta"])
    monkeypatch.setitem(globals(), "one", lambda step: -1.0)
    assert traits(helped, "beta").differing(before)[0] == ["code of one of beta"]


def test_what_cannot_be_compared_is_named():
    assert traits(closed(object()), "beta").unknown == ["n of beta"]


def test_the_code_of_a_program_is_that_of_its_classes_and_functions():
    class Model:
        net = None

        def __call__(self, x: Any) -> Any:
            return helped(x)

    found = sources(Model())
    assert {name.rpartition(".")[2] for name in found} == {"__call__", "helped", "one"}
    assert {name.rpartition(".")[2] for name in sources(helped)} == {"helped", "one"}
    assert sources(elbo) == {}


def test_rows_are_read_up_to_a_size_and_evenly_beyond(monkeypatch):
    x = np.arange(5000.0)

    def print_of(x: np.ndarray) -> Fingerprint:
        return Fingerprint(len(x), 8, lambda count: str(hash(x[spaced(len(x), count)].tobytes())))

    changed = x.copy()
    changed[1234] += 1
    assert print_of(x).text.startswith("5000 of 5000 rows ") and print_of(x).note("data", print_of(x).text) == []
    assert print_of(x).matches(print_of(x.copy()).text) and not print_of(x).matches(print_of(changed).text)
    monkeypatch.setattr(fingerprint, "MOST", 16_000)
    assert print_of(x).text.startswith("2000 of 5000 rows ")
    assert print_of(x).note("data", print_of(x).text) == ["the data were compared by 2000 of 5000 rows, evenly spaced"]
    # an older file says no number: it has read a thousand
    old = print_of(x)._digest(1000)
    assert print_of(x).matches(old) and "by 1000 of 5000 rows" in print_of(x).note("data", old)[0]
    assert not print_of(x).matches(None)
    unknown = Fingerprint(5, 0, lambda count: "type and length")
    assert "by their type and length alone" in unknown.note("data", unknown.text)[0]


DATA = Plate("data", -1, 4, 10)
PAIR = Pair(
    Run([Site(name="z", kind="latent", shape=(4, 2), event_dim=1, plates=(DATA,), family="Normal")]),
    Run([Site(name="z", kind="latent", shape=(4, 2), event_dim=1, plates=(DATA,), family="Normal")]),
    DATA,
)


def with_site(**changes: Any) -> Pair:
    return replace(PAIR, model=Run([replace(PAIR.model["z"], **changes)]))


def an_identity(pair: Pair = PAIR, threads: int | None = 2, programs: Any = (one, one), **options: Any) -> Identity:
    data = {"data": Fingerprint(4, 8, lambda count: "digest"), "validation": None}
    config = FitConfig(steps=3, **options)
    return Identity(config, factorization_of(pair), programs, data, ("ppl-models", "torch"), threads)


def kept(found: Identity) -> dict[str, Any]:
    return json.loads(json.dumps(found.told))


def test_a_run_with_all_as_it_was_has_nothing_to_tell(tmp_path):
    for options in ({}, {"beta": closed(0.5)}, {"schedule": Schedule(1.0), "objective": partial(elbo)}):
        assert an_identity(**options).compared(kept(an_identity(**options)), tmp_path) == []


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        ({"beta": closed(1.0)}, {"beta": closed(2.0)}, "another beta than .* of the same name: n of beta is not what"),
        ({"schedule": lambda t: 1.0}, {"schedule": lambda t: 0.0}, "another schedule than .*code of schedule is not"),
        ({}, {"pair": with_site(family="Laplace")}, "model is not that .*'z' was latent Normal .*is latent Laplace"),
        ({}, {"pair": with_site(shape=(4, 3))}, r"of shape \(2,\) in data, and is .* of shape \(3,\)"),
        ({}, {"pair": replace(PAIR, guide=Run([]))}, "the guide is not that .*'z' was latent .*, and is not there"),
        ({}, {"lr": 0.5}, "found lr=0.5, but the run in this folder was started with 0.001"),
    ],
)  # fmt: skip
def test_another_run_is_refused(then, now, words, tmp_path):
    with pytest.raises(ValueError, match=words) as caught:
        an_identity(**now).compared(kept(an_identity(**then)), tmp_path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        ({"beta": closed([1])}, {"beta": closed([2])}, r"the beta of the run: not what it was.*: \[0\] of n of beta"),
        ({"beta": closed(object())}, {"beta": closed(object())}, "the beta of the run: not compared: n of beta"),
        ({"threads": 4}, {"threads": 1}, "started on 4 CPU threads and goes on with 1: .* bit for bit; set 4 for that"),
        ({}, {"programs": (one, helped)}, "the code of the guide is not that of then: .*helped"),
    ],
)  # fmt: skip
def test_what_may_be_another_run_is_told(then, now, words, tmp_path):
    notes = an_identity(**now).compared(kept(an_identity(**then)), tmp_path)
    assert len(notes) == 1
    assert re.search(words, notes[0]), notes


def test_versions_are_told(tmp_path, monkeypatch):
    before = kept(an_identity())
    monkeypatch.setattr(identity, "version", lambda name: "99.0")
    (note,) = an_identity().compared(before, tmp_path)
    assert note.startswith("the run was started with ppl-models ") and ", now 99.0; torch " in note


def test_an_older_checkpoint_says_less(tmp_path):
    now = an_identity(beta=closed(1.0))
    older = {name: kept(now)[name] for name in ("settings", "data", "validation")}
    assert now.compared(older, tmp_path) == ["the beta was compared by its name alone: it was written down otherwise"]
