"""Which solves can be asked about, and for how long."""

from api.solves.job import SolveJob
from api.solves.registry import KEPT_MOST, KEPT_S, SolveRegistry
from tests.api.world import Clock


def _ended(registry: SolveRegistry, digest: str) -> SolveJob:
    solve = SolveJob(digest)
    registry.add(solve)
    registry.note_end(solve)
    return solve


def test_ended_solves_are_forgotten_by_time_and_by_number() -> None:
    clock = Clock()
    registry = SolveRegistry(clock)
    running = SolveJob("running")
    registry.add(running)
    first = _ended(registry, "first")
    assert registry.find("first") is first
    clock.forward(KEPT_S + 1)
    assert registry.find("first") is None
    for number in range(KEPT_MOST + 10):
        _ended(registry, str(number))
    assert registry.find("9") is None
    assert registry.find("10") is not None
    assert registry.find("running") is running
    assert registry.under_way() == [running]


def test_the_newest_of_equal_requests_is_the_one_found() -> None:
    clock = Clock()
    registry = SolveRegistry(clock)
    _ended(registry, "same")
    clock.forward(KEPT_S - 1)
    second = SolveJob("same")
    registry.add(second)
    clock.forward(2)
    assert registry.find("same") is second
