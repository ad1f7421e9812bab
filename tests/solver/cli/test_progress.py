"""How far searches are, and how long they may still take."""

import pytest

from solver.cli import progress
from solver.cli.progress import Searches
from solver.solution import Progress


class Clock:
    """Moved by the test alone."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def far(settled: int) -> Progress:
    return Progress(makespan_s=1.0, lower_bound_s=0.99, settled=settled, layers=4)


def test_one_search_counts_its_layers_and_the_time_runs_while_it_is_silent(clock: Clock) -> None:
    told: list[tuple[float, float, str]] = []
    searches = Searches(lambda *what: told.append(what), 10.0)
    searches.tick()
    assert told == []
    searches.begin("planning, auto", 1)
    searches.tick()
    searches.report(far(3))
    clock.now += 3.5
    searches.tick()
    searches.report(far(4))
    clock.now += 10.0
    searches.tick()
    assert told == [
        (0, 1, "planning, auto, at most 0:00:10 left"),
        (3, 4, "layers settled, gap 1.00 %; planning, auto, at most 0:00:07 left"),
        (4, 4, "layers settled, gap 1.00 %"),
    ]


def test_of_several_searches_those_that_wait_count_too(clock: Clock) -> None:
    told: list[tuple[float, float, str]] = []
    searches = Searches(lambda *what: told.append(what), 10.0)
    searches.begin("greedy", 3)
    clock.now += 4.0
    searches.begin("auto", 3)
    searches.report(far(1))
    searches.tick()
    words = "auto, at most 0:00:20 left: 1/4 layers settled, gap 1.00 %"
    assert told == [(1, 3, words)]
