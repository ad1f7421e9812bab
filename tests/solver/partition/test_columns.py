"""The bounds, each on its own, never above the optimum; the dynamic program against all subsets."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.partition import levels as levels_module
from solver.partition.bounds import lower_bounds
from solver.partition.columns import ColumnGeneration
from solver.partition.greedy import longest_processing_time
from solver.partition.knapsack import knapsack
from solver.partition.problem import PartitionProblem
from solver.partition.reachable import ReachableLoads
from solver.partition.record import Record
from tests.solver.partition.helpers import equal_counts, ints, optimum
from tests.solver.problems import soon

INSTANCES = st.tuples(
    st.lists(st.integers(0, 90), min_size=1, max_size=7), st.integers(1, 4), st.booleans()
)


def problem_of(instance: tuple[list[int], int, bool]) -> tuple[PartitionProblem, int]:
    jobs, machines, counted = instance
    counts = equal_counts(len(jobs), machines) if counted else None
    best = optimum(jobs, machines, counts)
    return PartitionProblem(np.array(jobs, dtype=np.int64), machines, ints(counts)), best


@settings(deadline=None)
@given(INSTANCES)
def test_simple_bounds_are_bounds(instance: tuple[list[int], int, bool]) -> None:
    problem, best = problem_of(instance)
    for bound, proof in lower_bounds(problem):
        assert bound <= best, proof


def by_columns(problem: PartitionProblem) -> int:
    record = Record(problem, longest_processing_time(problem), 0.0, None)
    for bound, proof in lower_bounds(problem):
        record.raise_bound(bound, proof)
    columns = ColumnGeneration(record)
    for _ in range(1000):
        if columns.finished:
            return record.lower_bound
        columns.step(soon())
    raise AssertionError("column generation does not end")


@settings(deadline=None, max_examples=40)
@given(INSTANCES)
def test_column_generation_ends_at_a_bound(instance: tuple[list[int], int, bool]) -> None:
    problem, best = problem_of(instance)
    assert by_columns(problem) <= best


@pytest.mark.parametrize("counted", [False, True])
def test_flooring_to_few_levels_keeps_it_a_bound(
    counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels_module, "MOST_CELLS", 300)
    random = np.random.default_rng(4)
    for _ in range(6):
        jobs = random.integers(1000, 3000, 7).tolist()
        problem, best = problem_of((jobs, 3, counted))
        assert by_columns(problem) <= best


def test_column_generation_proves_what_the_mean_cannot() -> None:
    """A small job among near-equal ones leaves its machine underfull."""
    jobs = [13, *range(90, 100), *range(91, 100)]
    problem = PartitionProblem(np.array(jobs), 4)
    assert by_columns(problem) > lower_bounds(problem)[-1][0]


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(1, 2), st.integers(0, 20)),
        min_size=1,
        max_size=4,
        unique_by=lambda kind: kind[0],
    ),
    st.integers(0, 30),
    st.sampled_from([None, 1, 2, 3]),
)
def test_knapsack_finds_the_best_filling(
    kinds: list[tuple[int, int, int]], capacity: int, most: int | None
) -> None:
    sizes, copies, values = (np.array(column) for column in zip(*kinds, strict=True))
    table = knapsack(sizes, copies, values, capacity, most, soon())
    assert table is not None
    row = most or 0
    taken = table.filling(row, capacity)
    assert (taken <= copies).all()
    assert taken @ sizes <= capacity
    assert most is None or taken.sum() <= most
    fillings = (np.array(f) for f in itertools.product(*(range(c + 1) for c in copies)))
    best = max(
        f @ values for f in fillings if f @ sizes <= capacity and (most is None or f.sum() <= most)
    )
    assert table.best[row, capacity] == taken @ values == best


@given(INSTANCES, st.integers(0, 200))
def test_lifting_goes_to_the_next_sum(instance: tuple[list[int], int, bool], load: int) -> None:
    problem, _ = problem_of(instance)
    jobs = problem.jobs.tolist()
    allowed = range(len(jobs) + 1) if problem.counts is None else set(problem.counts.tolist())
    loads = [sum(c) for n in allowed for c in itertools.combinations(jobs, n)]
    expected = min((s for s in loads if s >= load), default=None)
    found = ReachableLoads(problem, sum(jobs)).at_least(load)
    assert found == expected if expected is not None else found >= load
