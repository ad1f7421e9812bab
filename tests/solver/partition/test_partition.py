"""The whole solver against brute force, on odd input, and when it is stopped."""

import itertools
import time
from threading import Event, Timer

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.partition.partition import Partition, partition
from solver.placement.exact import Deadline
from tests.solver.partition.helpers import equal_counts, ints, optimum
from tests.solver.problems import soon

INSTANCES = st.tuples(
    st.lists(st.integers(0, 60), min_size=1, max_size=7), st.integers(1, 4), st.booleans()
)


def solve(
    jobs: list[int], machines: int, counts: list[int] | None = None, **how: object
) -> Partition:
    deadline = how.pop("deadline", None) or soon()
    return partition(ints(jobs), machines, deadline, counts=ints(counts), **how)  # type: ignore[arg-type]


def loads(jobs: list[int], machines: int, found: Partition) -> list[int]:
    assert len(found.machine_of) == len(jobs)
    return [
        sum(j for j, d in zip(jobs, found.machine_of, strict=True) if d == m)
        for m in range(machines)
    ]


@settings(deadline=None, max_examples=40)
@given(INSTANCES)
def test_small_instances_are_solved_and_proved(instance: tuple[list[int], int, bool]) -> None:
    jobs, machines, counted = instance
    counts = equal_counts(len(jobs), machines) if counted else None
    found = solve(jobs, machines, counts)
    best = optimum(jobs, machines, counts)
    assert (found.makespan, found.lower_bound) == (best, best)
    assert max(loads(jobs, machines, found)) == best
    if counts is not None:
        assert np.bincount(found.machine_of, minlength=machines).tolist() == counts


@settings(deadline=None, max_examples=20)
@given(INSTANCES, st.integers(1, 10**9))
def test_scaling_all_jobs_scales_the_optimum(
    instance: tuple[list[int], int, bool], scale: int
) -> None:
    jobs, machines, _ = instance
    found = solve([job * scale for job in jobs], machines)
    assert found.makespan == found.lower_bound == scale * optimum(jobs, machines)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_any_time_bound_and_makespan_enclose_and_hold(seed: int, counted: bool) -> None:
    random = np.random.default_rng(seed)
    jobs = random.integers(1, 10**6, 40).tolist()
    counts = equal_counts(40, 6) if counted else None
    heard: list[tuple[int, int]] = []
    found = solve(jobs, 6, counts, deadline=soon(0.1), on_improve=lambda m, b: heard.append((m, b)))
    assert found.lower_bound <= found.makespan == max(loads(jobs, 6, found))
    assert heard[-1] == (found.makespan, found.lower_bound)
    assert all(m2 <= m1 and b2 >= b1 for (m1, b1), (m2, b2) in itertools.pairwise(heard))
    if counts is not None:
        assert np.bincount(found.machine_of).tolist() == counts


@pytest.mark.parametrize(
    ("jobs", "machines", "makespan"),
    [
        ([], 3, 0),
        ([0, 0, 0], 2, 0),
        ([5], 1, 5),
        ([3, 4, 5], 1, 12),
        ([7, 2], 5, 7),
        ([4] * 13, 4, 16),
        ([10**15, 10**15 - 1, 3, 1], 2, 10**15 + 2),
    ],
)
def test_degenerate_instances(jobs: list[int], machines: int, makespan: int) -> None:
    found = solve(jobs, machines)
    assert (found.makespan, found.lower_bound) == (makespan, makespan)


def test_two_valued_costs_with_counts_are_proved_by_cardinality() -> None:
    """9 heavy jobs among 32 on 8 machines: one machine has two heavy, and its count of light."""
    jobs = [1200] * 9 + [100] * 23
    found = solve(jobs, 8, [4] * 8)
    assert found.makespan == found.lower_bound == 2 * 1200 + 2 * 100


def test_unequal_counts_are_obeyed() -> None:
    found = solve([9, 8, 7, 6, 5, 4, 3], 3, [3, 2, 2])
    assert np.bincount(found.machine_of).tolist() == [3, 2, 2]
    assert found.makespan == found.lower_bound == optimum([9, 8, 7, 6, 5, 4, 3], 3, [3, 2, 2])


def test_a_start_is_never_made_worse() -> None:
    jobs = [3, 3, 2, 2, 2]
    start = np.array([0, 0, 1, 1, 1])
    found = solve(jobs, 2, start=start, deadline=soon(0.0))
    assert found.makespan == 6


def test_within_the_gap_the_search_ends() -> None:
    jobs = np.random.default_rng(1).integers(1, 50_000, 64).tolist()
    found = solve(jobs, 8, gap=0.01)
    assert found.lower_bound >= found.makespan * 0.99


def test_one_worker_and_a_seed_repeat_the_answer() -> None:
    jobs = np.random.default_rng(2).integers(1, 3000, 40).tolist()
    first, second = (solve(jobs, 8, seed=3) for _ in range(2))
    assert first.makespan == first.lower_bound
    assert (first.machine_of == second.machine_of).all()


def test_cancelling_keeps_the_best_so_far() -> None:
    """Slack of no unit over 40 machines: nothing that ends by itself within the time."""
    random = np.random.default_rng(0)
    jobs = random.integers(10**8, 10**9, 160)
    cancelled = Event()
    timer = Timer(0.2, cancelled.set)
    timer.start()
    found = partition(jobs, 40, Deadline(time.monotonic() + 600, cancelled))
    assert cancelled.is_set()
    assert found.makespan == max(loads(jobs.tolist(), 40, found))
    assert found.lower_bound < found.makespan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"machines": 0}, "machines is 0"),
        ({"jobs": [1, -1]}, "negative"),
        ({"counts": [1, 2]}, "add up to 3"),
        ({"counts": [2]}, "every machine"),
        ({"start": np.array([0])}, "every job"),
        ({"start": np.array([0, 2])}, "outside 0 to 1"),
        ({"counts": [1, 1], "start": np.array([0, 0])}, "obey the counts"),
        ({"gap": 1.0}, "gap is 1.0"),
        ({"jobs": [2**61, 2**61]}, "too large"),
    ],
)
def test_bad_input_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve(**({"jobs": [1, 2], "machines": 2} | change))  # type: ignore[arg-type]
