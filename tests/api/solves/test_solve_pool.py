"""Threads for solves: how many at once, who waits, who is taken back."""

from collections.abc import Callable
from functools import partial
from queue import Queue
from threading import Event

from api.solves.solve_pool import SolvePool


def _held(release: Event, ran: Queue[str], name: str) -> Callable[[], None]:
    def work() -> None:
        ran.put(name)
        assert release.wait(20)

    return work


def test_so_many_run_so_many_wait_the_rest_is_turned_away() -> None:
    pool, release, ran = SolvePool(1, 2), Event(), Queue[str]()
    taken = [pool.submit(name, _held(release, ran, name)) for name in "abcd"]
    assert taken == [True, True, True, False]
    assert pool.jobs == 3
    assert ran.get(timeout=20) == "a"
    assert not pool.withdraw("a")
    assert pool.withdraw("b")
    assert not pool.withdraw("b")
    assert [sample.value for family in pool.gauges() for sample in family.samples] == [1, 1]
    release.set()
    assert ran.get(timeout=20) == "c"
    assert ran.empty()


def test_what_is_done_makes_room() -> None:
    pool, ran = SolvePool(1, 1), Queue[int]()
    for number in range(50):
        while not pool.submit(number, partial(ran.put, number)):
            pass
    assert [ran.get(timeout=20) for _ in range(50)] == list(range(50))
