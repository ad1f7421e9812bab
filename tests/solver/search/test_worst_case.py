import time
from itertools import pairwise, product
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.deadline import Deadline
from solver.heuristics.contiguous import contiguous
from solver.problem import LayerProblem, PlacementProblem
from solver.search.worst_case import worst_case
from solver.shares import Floats, Shares
from solver.solution import Bound, LayerSolution, Progress, Solution
from tests.solver.problems import soon

TOLERANCE = 1e-3


def make_problem(
    workloads: int, layers: int, items: int, devices: int, *, seed: int = 0, equal: bool = False
) -> PlacementProblem:
    """Heads alike in size over the workloads, so that none of them is the worst whatever is done.

    Each is a KV group of its own; weights are far from even, which `worst` must not mind.
    """
    rng = np.random.default_rng(seed)
    head_s = rng.lognormal(0, 0.7, (workloads, layers, items, 1))
    head_s /= head_s.mean(axis=(1, 2), keepdims=True)
    weights = np.arange(workloads) + 1.0
    return PlacementProblem(
        head_s=head_s,
        part_s=np.zeros_like(head_s),
        group_s=np.full((workloads, layers, items, 1), 0.1),
        launch_s=np.full((workloads, 1), 0.05),
        weights=weights / weights.sum(),
        type_of=np.zeros(devices, dtype=np.int64),
        equal_counts=equal,
    )


problems = st.builds(
    make_problem,
    st.integers(2, 3),
    st.just(2),
    st.just(4),
    st.just(2),
    seed=st.integers(0, 10_000),
    equal=st.booleans(),
)


def placements(layer: LayerProblem) -> list[Shares]:
    every = (np.array(p) for p in product(range(layer.devices), repeat=layer.items))
    return [layer.whole(assignment) for assignment in every if layer.allows(assignment)]


def solve_mean(problem: PlacementProblem, _: Deadline) -> list[LayerSolution]:
    """Every layer proved, by trying everything."""
    solutions = []
    for index in range(problem.layers):
        layer = problem.layer(index)
        made = placements(layer)
        times = [layer.objective(layer.loads_of_shares(shares)) for shares in made]
        best = int(np.argmin(times))
        bound = Bound(times[best] * (1 - 1e-9), "enumeration")
        solutions.append(LayerSolution(made[best], times[best], bound, searched=True))
    return solutions


def worst_of(problem: PlacementProblem, shares: list[Shares]) -> float:
    return float(totals(problem, shares).max())


def totals(problem: PlacementProblem, shares: list[Shares]) -> Floats:
    layers = [problem.layer(index) for index in range(problem.layers)]
    spans = [
        layer.loads_of_shares(one).max(axis=1) for layer, one in zip(layers, shares, strict=True)
    ]
    return np.asarray(np.sum(spans, axis=0))


def brute_force(problem: PlacementProblem) -> float:
    """The least worst case of two layers, by trying every pair of placements."""
    spans = []
    for index in range(2):
        layer = problem.layer(index)
        spans.append(np.stack([layer.loads_of_shares(s).max(axis=1) for s in placements(layer)]))
    return float((spans[0][:, None] + spans[1][None, :]).max(axis=-1).min())


def solved(problem: PlacementProblem, deadline: Deadline | None = None) -> Solution:
    return worst_case(problem, solve_mean, TOLERANCE, deadline or soon(), None)


def check(problem: PlacementProblem, solution: Solution) -> float:
    """That a solution is what it says under its multipliers; its worst case."""
    assert solution.multipliers.min() >= 0
    assert solution.multipliers.sum() == pytest.approx(1)
    for index, found in enumerate(solution.layers):
        layer = problem.weighing(solution.multipliers).layer(index)
        assert layer.allows(found.assignment)
        makespan_s = layer.objective(layer.loads_of_shares(found.shares))
        assert found.makespan_s == pytest.approx(makespan_s)
        assert found.bound.seconds <= found.makespan_s
    bound_s = sum(found.bound.seconds for found in solution.layers)
    assert solution.lower_bound_s == pytest.approx(bound_s)
    return worst_of(problem, [found.shares for found in solution.layers])


@settings(max_examples=20, deadline=None)
@given(problems)
def test_the_bound_is_at_most_the_optimum_and_the_plan_at_least(problem: PlacementProblem) -> None:
    solution = solved(problem)
    optimum = brute_force(problem)
    found = check(problem, solution)
    assert solution.lower_bound_s <= optimum * (1 + 1e-12)
    assert optimum <= found * (1 + 1e-12)
    assert found <= optimum * 1.02


@settings(max_examples=12, deadline=None)
@given(problems)
def test_never_worse_than_the_mean_nor_than_contiguous(problem: PlacementProblem) -> None:
    found = check(problem, solved(problem))
    layers = [problem.layer(index) for index in range(problem.layers)]
    stock = worst_of(problem, [layer.whole(contiguous(layer)) for layer in layers])
    even = problem.weighing(np.full(problem.workloads, 1 / problem.workloads))
    mean = worst_of(problem, [layer.shares for layer in solve_mean(even, soon())])
    assert found <= min(stock, mean) * (1 + 1e-12)


def test_over_many_layers_the_bound_is_near_and_the_mean_is_beaten() -> None:
    problem = make_problem(4, 24, 5, 2, seed=3)
    solution = solved(problem)
    found = check(problem, solution)
    even = problem.weighing(np.full(4, 1 / 4))
    mean = worst_of(problem, [layer.shares for layer in solve_mean(even, soon())])
    assert solution.lower_bound_s >= found * (1 - 4e-3)
    assert found < 0.995 * mean


def test_identical_workloads_are_one() -> None:
    one = make_problem(1, 3, 4, 2)
    three = PlacementProblem(
        head_s=one.head_s.repeat(3, axis=0),
        part_s=one.part_s.repeat(3, axis=0),
        group_s=one.group_s.repeat(3, axis=0),
        launch_s=one.launch_s.repeat(3, axis=0),
        weights=np.array([0.2, 0.3, 0.5]),
        type_of=one.type_of,
    )
    single = sum(layer.makespan_s for layer in solve_mean(one, soon()))
    for problem in (one, three):
        solution = solved(problem)
        assert check(problem, solution) == pytest.approx(single)
        assert solution.lower_bound_s == pytest.approx(single, rel=1e-6)


def test_a_workload_that_always_takes_longest_gets_all_the_weight() -> None:
    problem = make_problem(2, 3, 4, 2)
    problem.head_s[1] *= 1000
    solution = solved(problem)
    long_alone = solve_mean(problem.weighing(np.array([0.0, 1.0])), soon())
    assert check(problem, solution) == pytest.approx(sum(s.makespan_s for s in long_alone))
    assert solution.multipliers[1] > 0.99


def test_divided_items_are_taken_as_they_come() -> None:
    problem = make_problem(2, 2, 2, 2)

    def in_halves(weighed: PlacementProblem, _: Deadline) -> list[LayerSolution]:
        shares = Shares.of(np.full((2, 2), 0.5))
        layers = [weighed.layer(index) for index in range(2)]
        times = [layer.objective(layer.loads_of_shares(shares)) for layer in layers]
        return [LayerSolution(shares, time_s, Bound(0.0, "none")) for time_s in times]

    solution = worst_case(problem, in_halves, TOLERANCE, soon(2), None)
    check(problem, solution)
    assert solution.lower_bound_s == 0.0


def test_a_deadline_that_has_come_leaves_a_plan_with_a_bound() -> None:
    problem = make_problem(3, 2, 4, 2, seed=1)
    solution = solved(problem, soon(-1.0))
    found = check(problem, solution)
    assert 0 < solution.lower_bound_s <= brute_force(problem) <= found * (1 + 1e-12)


def test_cancelling_ends_the_rounds_and_keeps_the_best() -> None:
    problem = make_problem(3, 2, 4, 2, seed=1)
    cancelled = Event()
    rounds = []

    def solve_then_cancel(weighed: PlacementProblem, deadline: Deadline) -> list[LayerSolution]:
        rounds.append(weighed.weights)
        if len(rounds) == 2:
            cancelled.set()
        return solve_mean(weighed, deadline)

    deadline = Deadline(time.monotonic() + 60, cancelled)
    solution = worst_case(problem, solve_then_cancel, 0.0, deadline, None)
    assert len(rounds) == 2
    assert check(problem, solution) >= brute_force(problem) * (1 - 1e-12)


def test_progress_only_gets_better() -> None:
    seen: list[Progress] = []
    problem = make_problem(3, 8, 5, 2, seed=5)
    solution = worst_case(problem, solve_mean, TOLERANCE, soon(), seen.append)
    assert len(seen) > 1
    for before, after in pairwise(seen):
        assert after.makespan_s <= before.makespan_s
        assert after.lower_bound_s >= before.lower_bound_s * (1 - 1e-9)
    assert seen[-1].makespan_s >= check(problem, solution) * (1 - 1e-9)
    assert seen[-1].layers == 8
