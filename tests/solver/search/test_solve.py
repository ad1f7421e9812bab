"""The driver: never worse than its starts, bounded, anytime, and honest about why it stopped."""

import time
from dataclasses import replace
from threading import Event, Timer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.problem import PlacementProblem
from solver.search.solve import Search, solve
from solver.search.starts import HEURISTICS
from solver.solution import Progress, Solution
from tests.solver.problems import make_problem

problems = st.builds(
    make_problem,
    layer_count=st.integers(1, 3),
    heads=st.just(8),
    kv_heads=st.sampled_from([2, 4, 8]),
    devices=st.integers(1, 5),
    seed=st.integers(0, 1000),
    charge=st.sampled_from([0.0, 0.1, 2.0]),
    unit=st.sampled_from(["head", "kv_group"]),
    equal_counts=st.booleans(),
)


def makespan(solution: Solution) -> float:
    return sum(layer.makespan_s for layer in solution.layers)


@settings(max_examples=25, deadline=None)
@given(problems)
def test_auto_is_never_worse_than_any_heuristic_that_obeys_the_rules(
    problem: PlacementProblem,
) -> None:
    best = solve(problem, Search("auto", 1e-3, 5))
    for index, found in enumerate(best.layers):
        layer = problem.layer(index)
        assert layer.allows(found.assignment)
        assert found.bound.seconds <= found.makespan_s * (1 + 1e-12)
        for heuristic in HEURISTICS.values():
            other = heuristic(layer)
            if layer.allows(other):
                assert found.makespan_s <= layer.makespan(other) * (1 + 1e-12)


@settings(max_examples=10, deadline=None)
@given(problems)
def test_exact_methods_agree_within_their_tolerances(problem: PlacementProblem) -> None:
    by_cp_sat = solve(problem, Search("cp_sat", 1e-3, 5))
    by_ilp = solve(problem, Search("ilp", 1e-3, 5))
    for a, b in zip(by_cp_sat.layers, by_ilp.layers, strict=True):
        assert max(a.bound.seconds, b.bound.seconds) <= min(a.makespan_s, b.makespan_s) * (1 + 1e-9)


def test_relabelling_heads_leaves_the_proved_optimum() -> None:
    problem = make_problem(1, 8, 8, 3, seed=5, charge=0.0)
    turned = replace(problem, head_s=problem.head_s[:, :, ::-1])
    a, b = (solve(p, Search("cp_sat", 1e-4, 5)) for p in (problem, turned))
    assert makespan(a) == pytest.approx(makespan(b), rel=2e-4)


def test_alike_layers_are_solved_once_and_get_the_same_answer() -> None:
    one = make_problem(1, 16, 4, 4)
    many = replace(
        one,
        head_s=one.head_s.repeat(50, axis=1),
        part_s=one.part_s.repeat(50, axis=1),
        group_s=one.group_s.repeat(50, axis=1),
    )
    seen: list[Progress] = []
    solution = solve(many, Search("cp_sat", on_progress=seen.append))
    assert len(seen) >= 1
    assert seen[-1].layers == 50
    assert len({layer.makespan_s for layer in solution.layers}) == 1


def test_a_deadline_that_has_passed_still_gives_greedy_with_the_reason() -> None:
    problem = make_problem(4, 32, 8, 8)
    solution = solve(problem, Search("cp_sat", 1e-6, 1e-9))
    greedy = solve(problem, Search("greedy", 1e-6, 1))
    assert makespan(solution) == makespan(greedy)
    assert solution.reason is not None
    assert "cp_sat found nothing better" in solution.reason


def test_a_deadline_is_held() -> None:
    problem = make_problem(16, 64, 8, 8, seed=2)
    started = time.monotonic()
    solve(problem, Search("cp_sat", 0.0, 1.0))
    assert time.monotonic() - started < 5  # a second, and room for a loaded machine


def test_cancelling_keeps_the_best_so_far() -> None:
    problem = make_problem(8, 64, 8, 8, seed=2)
    cancelled = Event()
    Timer(0.3, cancelled.set).start()
    started = time.monotonic()
    solution = solve(problem, Search("cp_sat", 0.0, 60, cancelled=cancelled))
    assert time.monotonic() - started < 30  # half of what it was given
    assert makespan(solution) <= makespan(solve(problem, Search("greedy", 0.0, 1)))


def test_heuristics_come_without_a_reason() -> None:
    assert solve(make_problem(1, 8, 8, 2), Search("snake", 1e-3, 1)).reason is None
