"""What a training says of the time that it will take, by a clock of the test's own."""

import pytest

from ppl_models.inference.display import pace, progress
from ppl_models.inference.display.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(pace, "perf_counter", lambda: now[0])
    monkeypatch.setattr(progress, "perf_counter", lambda: now[0])
    return now


def lines(bar: Progress, clock: list[float], steps: range, each: float) -> None:
    for step in steps:
        clock[0] += each
        if bar.due(step):
            bar.advance(step, 1.0, 2.0)


def test_the_time_left_is_said_once_after_a_few_steps(clock, capsys):
    with Progress(1000) as bar:
        lines(bar, clock, range(1, 11), 0.5)
    # the first step is none that was timed: two seconds are four steps after it
    assert capsys.readouterr().err.splitlines() == [
        "step 5/1000  loss 1.00  negative ELBO 2.00",
        "about 8 min for the 995 steps left",
    ]


def test_what_is_no_step_is_not_counted(clock, capsys):
    with Progress(1000) as bar:
        lines(bar, clock, range(1, 3), 0.5)
        with bar.busy("compiling the step"):
            clock[0] += 600
        lines(bar, clock, range(3, 10), 0.5)
    assert "about 8 min for the 993 steps left" in capsys.readouterr().err


def test_a_short_training_says_nothing_and_one_that_is_not_shown_neither(clock, capsys):
    with Progress(30) as bar:
        lines(bar, clock, range(1, 31), 0.5)
    with Progress(1000, enabled=False) as bar:
        lines(bar, clock, range(1, 31), 0.5)
    assert "left" not in capsys.readouterr().err
