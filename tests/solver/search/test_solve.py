"""The driver: never worse than its starts, bounded, anytime, and honest about why it stopped."""

import os
import time
from dataclasses import replace
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.deadline import Deadline
from solver.problem import LayerProblem, PlacementProblem
from solver.request import Method
from solver.search.driver import Stage, Tell
from solver.search.solve import MOST_WORKERS, Search, solve
from solver.search.starts import HEURISTICS
from solver.solution import LayerSolution, Progress, Solution
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


def repeated(problem: PlacementProblem, times: int) -> PlacementProblem:
    """The same layers again and again."""
    arrays = ("head_s", "part_s", "group_s")
    return replace(problem, **{name: getattr(problem, name).repeat(times, 1) for name in arrays})


def counting(monkeypatch: pytest.MonkeyPatch) -> list[LayerProblem]:
    """The layers that the search refines, each by one step that proves it."""
    asked: list[LayerProblem] = []

    def refine(layer: LayerProblem, known: LayerSolution, _: Deadline, __: Tell) -> LayerSolution:
        asked.append(layer)
        return known.prove(known.makespan_s, f"step {len(asked)}")

    monkeypatch.setattr("solver.search.solve.steps_of", lambda *_: [Stage(refine)])
    return asked


def test_alike_layers_are_solved_once_and_get_the_same_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = counting(monkeypatch)
    seen: list[Progress] = []
    many = repeated(make_problem(1, 16, 4, 4), 50)
    solution = solve(many, Search("auto", 0.0, 60, on_progress=seen.append))
    assert len(asked) == 1
    assert [layer.bound.proof for layer in solution.layers] == ["step 1"] * 50
    assert (seen[-1].layers, seen[-1].settled) == (50, 50)
    assert seen[-1].makespan_s == pytest.approx(makespan(solution))


@pytest.mark.parametrize("array", ["head_s", "part_s", "group_s"])
def test_layers_that_differ_in_any_cost_are_solved_apart(
    monkeypatch: pytest.MonkeyPatch, array: str
) -> None:
    asked = counting(monkeypatch)
    problem = repeated(make_problem(1, 16, 4, 4), 3)
    getattr(problem, array)[0, 2, 1] += 1.0
    solution = solve(problem, Search("auto", 0.0, 60))
    assert len(asked) == 2
    proofs = [layer.bound.proof for layer in solution.layers]
    assert proofs[0] == proofs[1] != proofs[2]


def test_a_deadline_that_has_passed_still_gives_greedy_with_the_reason() -> None:
    problem = make_problem(4, 32, 8, 8)
    solution = solve(problem, Search("cp_sat", 1e-6, 1e-9))
    greedy = solve(problem, Search("greedy", 1e-6, 1))
    assert makespan(solution) == makespan(greedy)
    assert solution.reason is not None
    assert "cp_sat found nothing better" in solution.reason


def test_the_clock_ends_a_search_and_says_so() -> None:
    """What is computed after the limit costs processor time, however busy the machine is."""
    limit_s = 1.0
    problem = make_problem(16, 64, 8, 8, seed=2)
    solve(make_problem(1, 8, 8, 2), Search("cp_sat", 0.0, 5))  # imports OR-tools
    began_s = time.process_time()
    solution = solve(problem, Search("cp_sat", 0.0, limit_s))
    workers = min(MOST_WORKERS, os.cpu_count() or 1)
    assert time.process_time() - began_s <= workers * limit_s + 0.5
    assert solution.reason is not None
    assert "not proved within the tolerance when the search ended" in solution.reason
    assert makespan(solution) <= makespan(solve(problem, Search("greedy", 0.0, 1)))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", ["auto", "cp_sat", "ilp"])
def test_cancelling_ends_the_search_long_before_its_limit(method: Method) -> None:
    """Cancelled at the second word of progress, or the first; else it would take an hour."""
    problem = make_problem(8, 64, 8, 8, seed=2)
    cancelled = Event()
    told: list[Progress] = []

    def tell(progress: Progress) -> None:
        told.append(progress)
        if len(told) == 2 or method == "ilp":
            cancelled.set()

    solution = solve(problem, Search(method, 0.0, 3600, on_progress=tell, cancelled=cancelled))
    assert solution.reason is not None
    assert "when the search was cancelled" in solution.reason
    assert makespan(solution) <= min(progress.makespan_s for progress in told) * (1 + 1e-12)


def test_heuristics_come_without_a_reason() -> None:
    assert solve(make_problem(1, 8, 8, 2), Search("snake", 1e-3, 1)).reason is None
