"""`auto` against the least makespan there is, by an integer program that shares no code with it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from solver.problem import PlacementProblem
from solver.search.solve import Search, solve
from solver.solution import Solution
from tests.solver.optimum import ACCURACY, optimum

TOLERANCE = 1e-3
PATIENCE_S = 60.0
"""A limit that none of these problems comes near on the busiest machine."""

RULES: dict[str, dict[str, Any]] = {
    "whole": {},
    "equal counts": {"equal_counts": True},
    "kv groups": {"unit": "kv_group"},
    "kv groups in equal counts": {"unit": "kv_group", "equal_counts": True},
    "slots": {"slots": 2},
    "as few slots as can be": {"slots": -1},
    "kv groups in slots": {"unit": "kv_group", "slots": -1},
}


def make(
    seed: int,
    *,
    heads: int = 6,
    group_size: int = 2,
    devices: int = 3,
    types: int = 1,
    workloads: int = 1,
    layers: int = 1,
    charge: float = 0.3,
    part: float = 0.0,
    **rules: Any,
) -> PlacementProblem:
    """Log-normal heads; types and workloads differ head by head, not by a factor alone."""
    rng = np.random.default_rng(seed)
    cost = rng.lognormal(0, 1, (1, layers, heads, 1))
    head_s = cost * rng.uniform(0.5, 2.0, (workloads, layers, heads, types))
    weights = rng.uniform(0.5, 1.5, workloads)
    return PlacementProblem(
        head_s=head_s,
        part_s=part * head_s,
        group_s=charge * rng.uniform(0.5, 1.5, (workloads, layers, heads // group_size, types)),
        launch_s=rng.uniform(0.0, 0.2, (workloads, types)),
        weights=weights / weights.sum(),
        type_of=np.arange(devices) * types // devices,
        **rules,
    )


problems = st.builds(
    make,
    st.integers(0, 100_000),
    heads=st.sampled_from([4, 6]),
    group_size=st.sampled_from([1, 2]),
    devices=st.integers(2, 3),
    types=st.sampled_from([1, 1, 2]),
    workloads=st.sampled_from([1, 1, 2, 3]),
    charge=st.sampled_from([0.0, 0.05, 0.5, 2.0]),
)


def worst_s(problem: PlacementProblem, solution: Solution) -> float:
    """The largest workload's plan makespan."""
    loads = [
        problem.layer(index).loads_of_shares(layer.shares)
        for index, layer in enumerate(solution.layers)
    ]
    return float(sum(of_layer.max(axis=1) for of_layer in loads).max())


def makespan_s(solution: Solution) -> float:
    return sum(layer.makespan_s for layer in solution.layers)


def settled(problem: PlacementProblem, **rules: Any) -> PlacementProblem:
    """The problem under rules, of which -1 slots are as few as hold every KV group, at least."""
    least = -(-problem.kv_heads // problem.devices)
    if "slots" in rules:
        rules["slots"] = max(rules["slots"], least)
    return replace(problem, **rules)


def check(problem: PlacementProblem, **changes: Any) -> tuple[float, float, float]:
    """Optimum, makespan and bound of `auto`, none of them impossible."""
    how = Search(tolerance=TOLERANCE, time_limit_s=PATIENCE_S, **changes)
    solution = solve(problem, how)
    worst = how.objective == "worst"
    least = optimum(problem, worst=worst)
    reached = worst_s(problem, solution) if worst else makespan_s(solution)
    assert solution.lower_bound_s <= least * (1 + ACCURACY)
    assert reached >= least * (1 - ACCURACY)
    return least, reached, solution.lower_bound_s


@pytest.mark.parametrize("rules", RULES.values(), ids=list(RULES))
@examples(max_examples=12)
@given(problem=problems)
def test_whole_heads_are_placed_as_well_as_can_be(
    problem: PlacementProblem, rules: dict[str, Any]
) -> None:
    least, reached, bound = check(settled(problem, **rules))
    assert reached <= least * (1 + TOLERANCE + ACCURACY)
    assert bound >= reached * (1 - TOLERANCE - ACCURACY)


@pytest.mark.parametrize("seed", range(6))
def test_heads_of_copied_groups_are_placed_as_well_as_can_be(seed: int) -> None:
    """Two KV groups of four heads on four devices: two heads of one group each."""
    problem = make(
        seed, heads=8, group_size=4, devices=4, types=1 + seed % 2, workloads=1 + seed // 3
    )
    least, reached, _ = check(replace(problem, unit="kv_group", equal_counts=seed % 2 == 0))
    assert reached <= least * (1 + TOLERANCE + ACCURACY)


@pytest.mark.parametrize("seed", range(8))
def test_the_worst_case_is_as_small_as_can_be(seed: int) -> None:
    """Fixed problems: the choice is among placements met, which now and then lack the best one."""
    rules = RULES[list(RULES)[seed % 4]]
    problem = make(seed, heads=4, workloads=2 + seed % 2, types=1 + seed % 2, layers=2, **rules)
    least, reached, _ = check(problem, objective="worst")
    assert reached <= least * (1 + TOLERANCE + ACCURACY)


DIVIDED = st.builds(
    make,
    st.integers(0, 100_000),
    heads=st.sampled_from([2, 4]),
    group_size=st.sampled_from([1, 2]),
    devices=st.integers(2, 3),
    types=st.sampled_from([1, 1, 2]),
    workloads=st.sampled_from([1, 1, 2]),
    charge=st.sampled_from([0.0, 0.05, 0.5]),
    part=st.sampled_from([0.0, 0.1]),
    divisible=st.just(True),
    max_copies=st.sampled_from([None, 2]),
)


@pytest.mark.parametrize("rules", [{}, {"slots": 2}, {"slots": -1}], ids=["free", "2", "least"])
@examples(max_examples=20)
@given(problem=DIVIDED)
def test_heads_are_divided_as_well_as_can_be(
    problem: PlacementProblem, rules: dict[str, Any]
) -> None:
    least, reached, bound = check(settled(problem, **rules))
    assert reached <= least * (1 + TOLERANCE + ACCURACY)
    assert bound >= reached * (1 - TOLERANCE - ACCURACY)
