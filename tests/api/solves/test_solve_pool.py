"""Whose turn it is: how many run, who waits, who is turned away, who is taken back."""

from collections.abc import Iterator
from queue import Queue
from threading import Semaphore

import pytest

from api.problems import Problem
from api.solves.job import SolveJob
from api.solves.prefer import BACKGROUND
from api.solves.solve_pool import SolvePool, Turn
from api.solves.solver_process import Solver
from tests.api.in_process import InProcess


class Held:
    """Solves that run until they are let go, and tell when they begin."""

    def __init__(self, workers: int, queue: int, per_client: int) -> None:
        self.pool = SolvePool(InProcess, workers, queue, per_client)
        self.began = Queue[str]()
        self._go = Semaphore(0)
        self.pool.start()

    def ask(self, client: str, number: int = 0, urgency: int = 3, quick: bool = False) -> SolveJob:
        solve = SolveJob(f"{client}{number}", client, urgency)

        def work(_: Solver) -> None:
            self.began.put(solve.id)
            assert self._go.acquire(timeout=60)

        self.pool.submit(Turn(solve, work, quick))
        return solve

    def next_begun(self) -> str:
        return self.began.get(timeout=60)

    def finish(self, solves: int = 1) -> None:
        self._go.release(solves)

    def end_one(self) -> str:
        """Let one go; the one that begins in its place."""
        self.finish()
        return self.next_begun()


@pytest.fixture
def pools() -> Iterator[list[Held]]:
    made: list[Held] = []
    yield made
    for held in made:
        held.pool.stop()
        held.finish(1000)
        held.pool.join(20)


def _held(pools: list[Held], workers: int = 1, queue: int = 99, per_client: int = 99) -> Held:
    pools.append(Held(workers, queue, per_client))
    return pools[-1]


def test_so_many_run_so_many_wait_the_rest_is_turned_away(pools: list[Held]) -> None:
    held = _held(pools, workers=1, queue=2)
    first, second, _ = [held.ask(client) for client in "abc"]
    with pytest.raises(Problem) as refused:
        held.ask("d")
    assert (refused.value.status_code, bool(refused.value.headers)) == (503, True)
    assert held.next_begun() == "a0"
    assert not held.pool.withdraw(first)
    assert held.pool.withdraw(second)
    assert not held.pool.withdraw(second)
    assert [sample.value for family in held.pool.gauges() for sample in family.samples] == [1, 1]
    assert held.end_one() == "c0"
    assert held.began.empty()


def test_what_is_done_makes_room(pools: list[Held]) -> None:
    held = _held(pools, workers=1, queue=0, per_client=1)
    held.finish(50)
    for number in range(50):
        while True:
            try:
                held.ask("a", number)
                break
            except Problem:
                continue
    assert [held.next_begun() for _ in range(50)] == [f"a{number}" for number in range(50)]


def test_a_client_has_its_share_and_no_more(pools: list[Held]) -> None:
    held = _held(pools, per_client=3)
    for number in range(3):
        held.ask("a", number)
    with pytest.raises(Problem) as refused:
        held.ask("a", 3)
    assert (refused.value.status_code, bool(refused.value.headers)) == (429, True)
    held.ask("b")


def test_one_who_asks_much_waits_for_those_who_ask_little(pools: list[Held]) -> None:
    held = _held(pools)
    for number in range(5):
        held.ask("a", number)
    assert held.next_begun() == "a0"
    held.ask("b", 0)
    held.ask("b", 1)
    held.ask("c", 0)
    order = [held.end_one() for _ in range(7)]
    assert order == ["b0", "c0", "a1", "b1", "a2", "a3", "a4"]


def test_one_who_comes_again_and_again_does_not_starve_the_others(pools: list[Held]) -> None:
    held = _held(pools)
    for number in range(3):
        held.ask("a", number)
    assert held.next_begun() == "a0"
    order = []
    for number in range(4):
        held.ask("b", number)
        order.append(held.end_one())
    assert order == ["b0", "a1", "b1", "a2"]


def test_a_quick_one_does_not_wait_for_searches(pools: list[Held]) -> None:
    held = _held(pools, workers=2)
    for number in range(18):
        held.ask("a", number)
    assert {held.next_begun(), held.next_begun()} == {"a0", "a1"}
    held.ask("b", quick=True)
    assert held.next_begun() == "b0"


def test_a_client_says_which_of_its_own_comes_first(pools: list[Held]) -> None:
    held = _held(pools)
    held.ask("a")
    assert held.next_begun() == "a0"
    for number, urgency in ((1, 3), (2, 6), (3, 0)):
        held.ask("a", number, urgency)
    held.ask("b", 0, urgency=6)
    assert [held.end_one() for _ in range(4)] == ["b0", "a3", "a1", "a2"]


def test_what_is_in_the_background_comes_after_everybodys_and_leaves_a_worker(
    pools: list[Held],
) -> None:
    held = _held(pools, workers=2, queue=1, per_client=1)
    for number in range(5):
        held.ask("loop", number, BACKGROUND, quick=True)
    assert held.next_begun() == "loop0"
    held.ask("a")
    assert held.next_begun() == "a0"
    held.ask("b")
    assert held.end_one() in ("b0", "loop1")
    assert held.end_one() in ("b0", "loop1")


def test_once_it_stops_nothing_begins(pools: list[Held]) -> None:
    held = _held(pools)
    held.ask("a")
    assert held.next_begun() == "a0"
    held.ask("b")
    held.pool.stop()
    with pytest.raises(Problem):
        held.ask("c")
    held.finish(10)
    held.pool.join(20)
    assert held.began.empty()
