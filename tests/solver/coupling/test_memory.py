"""Placements within memory limits, against trying everything."""

from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.coupling.couple import couple
from solver.coupling.memory import PRICE_STEP, Bracket, pack, priced
from solver.coupling.shortage import MemoryNotMetError, MemoryShortageError, shortage
from solver.deadline import Deadline
from solver.problem import PlacementProblem
from solver.shares import Shares
from solver.solution import LayerSolution
from tests.solver.coupling.cases import (
    best_within,
    footprints,
    held,
    kv_bytes,
    make_footprint,
    make_problem,
    problems,
    quickest,
    solution,
    some_totals,
)
from tests.solver.problems import soon


def total_s(layers: list[LayerSolution]) -> float:
    return sum(layer.makespan_s for layer in layers)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_what_comes_back_fits_and_obeys_the_rules(data: st.DataObject) -> None:
    problem = data.draw(problems())
    footprint = data.draw(footprints(problem))
    totals = some_totals(problem, footprint, data.draw(st.integers(0, 1000)))
    limits = np.maximum(totals, 1).astype(np.int64)
    best_s = best_within(problem, footprint, limits.astype(float))
    assert best_s is not None
    solved = quickest(problem)
    try:
        coupled = couple(problem, solved, quickest, footprint, limits, None, soon())
    except MemoryNotMetError:
        return
    by_layer = [
        held(problem, footprint, index, layer.shares) for index, layer in enumerate(coupled.layers)
    ]
    assert (np.sum(by_layer, axis=0) <= limits).all()
    assert total_s(coupled.layers) >= best_s * (1 - 1e-9)
    for index, layer in enumerate(coupled.layers):
        own = problem.layer(index)
        assert own.allows(layer.assignment)
        assert layer.makespan_s == pytest.approx(own.makespan(layer.assignment))
        assert layer.bound == solved[index].bound


def test_groups_that_must_be_on_several_devices_are_not_packed_onto_one() -> None:
    """One KV group on two devices is replicated: each has two of its heads."""
    found = 0
    for seed in range(8):
        problem = make_problem(1, 4, 1, (0, 1), seed=seed, unit="kv_group")
        footprint = make_footprint(problem, seed=seed, retention="budget")
        layer = problem.layer(0)
        totals = held(problem, footprint, 0, layer.whole(np.zeros(4, dtype=np.int64)))
        limits = np.maximum(totals, 80 + 20 * (seed % 2)).astype(np.int64)
        try:
            coupled = couple(problem, quickest(problem), quickest, footprint, limits, None, soon())
        except MemoryNotMetError:
            continue
        assert layer.allows(coupled.layers[0].assignment)
        found += 1
    assert found


def test_it_is_near_the_best_there_is() -> None:
    found, missed, ratios = 0, 0, []
    for seed in range(12):
        types = [(0, 0), (0, 0, 0), (0, 0, 1)][seed % 3]
        problem = make_problem(2, 4, 2, types, seed=seed)
        footprint = make_footprint(problem, seed=seed, retention=["full", "budget"][seed % 2])
        least = footprint.group_bytes.sum() / len(types)
        limits = np.full(len(types), int(max(1.5 * least, 128)))
        best_s = best_within(problem, footprint, limits.astype(float))
        if best_s is None:
            continue
        try:
            coupled = couple(problem, quickest(problem), quickest, footprint, limits, None, soon())
        except MemoryNotMetError:
            missed += 1
            continue
        found += 1
        ratios.append(total_s(coupled.layers) / best_s)
    assert found >= 7
    assert missed <= 1
    assert np.mean(ratios) < 1.05


def test_only_fewer_copies_fit() -> None:
    problem = make_problem(3, 8, 2, (0, 0), seed=3)
    footprint = make_footprint(problem)
    solved = quickest(problem)
    copies = sum((held(problem, footprint, i, s.shares) > 0).sum() for i, s in enumerate(solved))
    assert copies > 0
    unit = 32 * footprint.token_bytes
    limits = np.full(2, 4 * unit)  # 6 groups in 8 places: two layers may split one group
    assert any(sum(held(problem, footprint, i, s.shares) for i, s in enumerate(solved)) > limits)
    coupled = couple(problem, solved, quickest, footprint, limits, None, soon())
    assert kv_bytes(problem, footprint, coupled.layers).max() <= 4 * unit
    assert total_s(coupled.layers) == pytest.approx(
        best_within(problem, footprint, limits.astype(float)), rel=0.05
    )


def test_unlike_devices_hold_what_each_can() -> None:
    problem = make_problem(4, 8, 8, (0, 0, 1, 1), seed=1, unit="kv_group")
    footprint = make_footprint(problem)
    unit = 32 * footprint.token_bytes
    limits = np.array([14, 14, 2, 2]) * unit
    solved = [solution(problem, i, problem.layer(i).whole(np.arange(8) % 4)) for i in range(4)]
    coupled = couple(problem, solved, lambda _: solved, footprint, limits, None, soon())
    assert (kv_bytes(problem, footprint, coupled.layers) == limits).all()


def test_exactly_enough_room_for_whole_groups_is_enough() -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        problem = make_problem(5, 8, 4, (0, 0, 1), seed=seed)
        footprint = make_footprint(problem, deployment="tensor_parallel")
        unit = int(footprint.group_bytes[0, 0])
        cuts = np.sort(rng.integers(0, 21, 2))
        limits = np.maximum(np.diff([0, *cuts, 20]) * unit, 1)
        start = [solution(problem, i, problem.layer(i).whole(np.arange(8) % 3)) for i in range(5)]
        coupled = couple(problem, start, lambda _, s=start: s, footprint, limits, None, soon())
        by_layer = [held(problem, footprint, i, s.shares) for i, s in enumerate(coupled.layers)]
        assert (np.sum(by_layer, axis=0) <= limits).all()


def test_budget_retention_fits_where_full_does_not() -> None:
    problem = make_problem(2, 4, 2, (0, 0))
    budgets = np.full((2, 4), 8)
    full = make_footprint(problem, budgets=budgets)
    limits = np.full(2, 128)
    solved = quickest(problem)
    with pytest.raises(MemoryShortageError, match="kv_retention"):
        couple(problem, solved, quickest, full, limits, None, soon())
    evicting = make_footprint(problem, budgets=budgets, retention="budget")
    coupled = couple(problem, solved, quickest, evicting, limits, None, soon())
    assert kv_bytes(problem, evicting, coupled.layers).max() <= 128


def test_not_found_is_not_called_impossible() -> None:
    # Three groups of 20, 12 and 12 tokens in two rooms of 24: 44 of 48, but nothing fits.
    problem = make_problem(1, 3, 3, (0, 0))
    footprint = make_footprint(problem, budgets=np.array([[16, 16, 16]]), retention="budget")
    assert shortage(problem, footprint, np.full(2, 100)) is not None
    budgets = np.array([[20, 16, 8]])
    footprint = make_footprint(problem, budgets=budgets, retention="budget")
    limits = np.full(2, 22 * footprint.token_bytes)
    assert shortage(problem, footprint, limits) is None
    with pytest.raises(MemoryNotMetError, match="not proved impossible") as error:
        couple(problem, quickest(problem), quickest, footprint, limits, None, soon())
    assert error.value.excess_bytes == 2 * footprint.token_bytes


def test_without_limits_nothing_changes() -> None:
    problem = make_problem(2)
    solved = quickest(problem)
    coupled = couple(problem, solved, quickest, make_footprint(problem), None, None, soon())
    assert coupled.layers == solved


def test_with_room_relabelling_alone_keeps_every_makespan() -> None:
    problem = make_problem(3, 6, 6, (0, 0, 0), unit="kv_group")
    solved = [
        solution(problem, i, problem.layer(i).whole(np.array([0, 0, 0, 1, 1, 2]))) for i in range(3)
    ]
    footprint = make_footprint(problem)
    limits = np.full(3, 6 * 32 * footprint.token_bytes)

    def never(_: PlacementProblem) -> list[LayerSolution]:
        raise AssertionError

    coupled = couple(problem, solved, never, footprint, limits, None, soon())
    assert kv_bytes(problem, footprint, coupled.layers).tolist() == limits.tolist()
    assert [layer.makespan_s for layer in coupled.layers] == [s.makespan_s for s in solved]


def test_past_the_deadline_what_fits_quickly_is_still_found() -> None:
    problem = make_problem(3, 8, 2, (0, 0), seed=3)
    footprint = make_footprint(problem)
    limits = np.full(2, 3 * 32 * footprint.token_bytes)

    def never(_: PlacementProblem) -> list[LayerSolution]:
        raise AssertionError

    coupled = couple(
        problem, quickest(problem), never, footprint, limits, None, Deadline(0, Event())
    )
    assert kv_bytes(problem, footprint, coupled.layers).max() <= limits[0]
    cancelled = Event()
    cancelled.set()
    coupled = couple(
        problem, quickest(problem), never, footprint, limits, None, Deadline(0, cancelled)
    )
    assert kv_bytes(problem, footprint, coupled.layers).max() <= limits[0]


def test_packing_finds_room_where_equal_units_have_it() -> None:
    problem = make_problem(3, 4, 2, (0, 1))
    footprint = make_footprint(problem)
    devices = pack(problem, footprint, np.array([5.0, 1.9]) * 128)
    assert devices is not None
    assert np.bincount(devices.ravel()).tolist() == [5, 1]
    assert pack(problem, footprint, np.array([5.0, 0.9]) * 128) is None


def test_prices_are_charged_per_byte() -> None:
    problem = make_problem(1, 4, 2, (0, 1), divisible=True)
    footprint = make_footprint(problem, deployment="tensor_parallel")
    dear = priced(problem, footprint, np.array([0.5, 0.0]))
    assignment = np.array([0, 1, 0, 1])
    added = dear.layer(0).loads(assignment) - problem.layer(0).loads(assignment)
    bytes_held = footprint.held_bytes(0, problem.layer(0).whole(assignment))
    np.testing.assert_allclose(added, [[0.5 * bytes_held[0], 0]])
    halves = Shares.of(np.full((4, 2), 0.5))
    more = dear.layer(0).loads_of_shares(halves) - problem.layer(0).loads_of_shares(halves)
    np.testing.assert_allclose(more, [[0.5 * footprint.held_bytes(0, halves)[0], 0]])


def test_prices_rise_where_it_is_full_and_then_close_in() -> None:
    bracket = Bracket(0.1, 2)
    assert bracket.after(np.array([1])).tolist() == [0, 0.1]
    assert bracket.after(np.array([1])).tolist() == [0, 0.1 * PRICE_STEP]
    between = bracket.after(np.array([], dtype=np.int64))
    assert 0.1 < between[1] < 0.1 * PRICE_STEP
    assert bracket.after(np.array([1]))[1] > between[1]
