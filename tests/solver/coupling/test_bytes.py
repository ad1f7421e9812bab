"""Weights and K/V are counted per (head, device) and (group, device) pair."""

from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from profiles.catalogue import device_profile
from profiles.cost.work import Workload, kv_group_bytes
from solver.coupling.footprint import device_limits, fetched_bytes, fetched_pairs
from solver.shares import Shares
from tests.solver.coupling.cases import footprints, held, make_footprint, make_problem, problems

# Heads 0, 1 are group 0, heads 2, 3 group 1: group 0 is split, head 3 is divided.
SPLIT = Shares.of(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5]]))
BUDGETS = np.array([[4, 9, 32, 12]])


def test_full_retention_counts_the_context_once_a_group_and_device() -> None:
    problem = make_problem(1)
    footprint = make_footprint(problem, budgets=BUDGETS, batch_size=3)
    assert footprint.kv_bytes(0, SPLIT).tolist() == [2 * 32 * 4 * 3, 2 * 32 * 4 * 3]
    workload = Workload(context_tokens=32, batch_size=3)
    group = kv_group_bytes(footprint.architecture, workload)[0]
    assert footprint.kv_bytes(0, SPLIT)[0] == 2 * group


def test_a_layer_with_a_window_keeps_that_window() -> None:
    shape = make_footprint(make_problem(1)).architecture
    hybrid = shape.model_copy(update={"windows": (8,)})
    for fields, expected in (
        ({}, [(8 + 8) * 4, (8 + 8) * 4]),
        ({"retention": "budget"}, [(4 + 8) * 4, (8 + 8) * 4]),
        ({"slots": 2}, [2 * 8 * 4, 2 * 8 * 4]),
    ):
        footprint = replace(
            make_footprint(make_problem(1), budgets=BUDGETS, **fields), architecture=hybrid
        )
        assert footprint.kv_bytes(0, SPLIT).tolist() == expected
        assert footprint.held_bytes(0, SPLIT).tolist() == expected


def test_budget_retention_counts_the_hungriest_head_there_in_whole_blocks() -> None:
    footprint = make_footprint(make_problem(1), budgets=BUDGETS, retention="budget")
    assert footprint.kv_bytes(0, SPLIT).tolist() == [(4 + 32) * 4, (12 + 12) * 4]


def test_no_budget_keeps_more_than_the_context() -> None:
    footprint = make_footprint(
        make_problem(1), budgets=BUDGETS, retention="budget", context_tokens=10
    )
    assert footprint.kept_tokens.ravel().tolist() == [4, 10, 10, 10]


def test_weights_follow_heads_and_groups_under_tensor_parallelism_only() -> None:
    problem = make_problem(1)
    whole = make_footprint(problem, deployment="tensor_parallel")
    kv = whole.kv_bytes(0, SPLIT)
    assert (whole.held_bytes(0, SPLIT) - kv).tolist() == [(3 + 2) * 8, (2 + 2) * 8]
    none = make_footprint(problem, deployment="disaggregated")
    assert none.held_bytes(0, SPLIT).tolist() == kv.tolist()


@given(st.data())
def test_bytes_are_those_counted_head_by_head(data: st.DataObject) -> None:
    problem = data.draw(problems())
    footprint = data.draw(footprints(problem))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    shape = (problem.heads, problem.devices)
    shares = Shares.of(rng.random(shape) * rng.integers(0, 2, shape))
    by_head = make_problem(problem.layers, 4, problem.kv_heads, tuple(problem.type_of))
    for layer in range(problem.layers):
        counted = held(by_head, footprint, layer, shares)
        assert footprint.held_bytes(layer, shares).tolist() == counted.tolist()


@given(st.data())
def test_a_group_together_takes_its_group_bytes(data: st.DataObject) -> None:
    problem = data.draw(problems())
    footprint = data.draw(footprints(problem))
    together = np.zeros((problem.heads, problem.devices))
    together[problem.group_of_head == 0, 0] = 1
    for layer in range(problem.layers):
        assert (
            footprint.held_bytes(layer, Shares.of(together))[0] == footprint.group_bytes[layer, 0]
        )


def test_only_what_is_not_there_is_fetched() -> None:
    footprint = make_footprint(
        make_problem(1), budgets=BUDGETS, retention="budget", deployment="tensor_parallel"
    )
    now = Shares.whole(np.array([0, 0, 1, 1]), 2)
    wanted, there = footprint.holdings(0, SPLIT), footprint.holdings(0, now)
    # Device 0 lacks group 1 (32 tokens, its projections, those of heads 2 and 3), device 1 group
    # 0 for head 1 (12 tokens).
    assert fetched_bytes(wanted, there).tolist() == [32 * 4 + 3 * 8, 12 * 4 + 2 * 8]
    assert fetched_bytes(there, there).tolist() == [0, 0]


def test_a_larger_budget_fetches_the_difference() -> None:
    footprint = make_footprint(make_problem(1), budgets=BUDGETS, retention="budget")
    small = Shares.whole(np.array([0, 1, 0, 0]), 2)
    large = Shares.whole(np.array([0, 0, 0, 0]), 2)
    lacking = fetched_bytes(footprint.holdings(0, large), footprint.holdings(0, small))
    assert lacking.tolist() == [(12 - 4) * 4, 0]


@given(st.integers(0, 1000))
def test_pairs_are_what_each_device_lacks_of_each_column(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted, there = rng.integers(0, 2**40, (2, 3, 5)).astype(float)
    pairs = fetched_pairs(wanted, there)
    for column, device in product(range(3), repeat=2):
        assert pairs[column, device] == np.maximum(wanted[column] - there[device], 0).sum()


def test_limits_are_the_types_memory_less_what_is_reserved() -> None:
    limits = device_limits(["h200", "a100"], 0.1, None)
    assert limits.tolist() == [
        int(device_profile(name).memory_bytes * 0.9) for name in ("h200", "a100")
    ]
    assert device_limits(["h200", "a100"], 0.1, 5).tolist() == [5, 5]
