"""Whole-piece budgets that lose least: against trying everything, and their invariants."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from profiles.cost.work import Workload
from profiles.sizes import causal_pieces
from solver.budgets.curves import Floats, Ints
from solver.budgets.least_error import error_table
from solver.budgets.least_loss import LeastLoss, least_loss
from solver.budgets.max_min import Cost
from solver.budgets.multiple_choice import MultipleChoice, along_the_hulls, one_rule
from solver.deadline import Deadline
from tests.solver.budgets.builders import curved
from tests.solver.problems import soon

TOTALS = st.sampled_from(["tiles", "tiles of pieces", "tokens"])


def cost_of(pieces: int, total: str) -> Cost:
    """In tokens, or in tiles: of blocks, or of pieces with two to a query block."""
    if total == "tokens":
        return np.asarray
    own = 2 if total == "tiles of pieces" else 1
    return lambda budgets: causal_pieces(budgets, -(-pieces // own), own)


def chosen(
    lost: Any,
    each: int,
    floor: int,
    total: str = "tokens",
    deadline: Deadline | None = None,
    tolerance: float = 0.0,
) -> LeastLoss:
    table = np.array(lost, dtype=np.float64)
    cost = cost_of(table.shape[-1], total)
    total = table.shape[1] * int(cost(np.array([each]))[0])
    return least_loss(table, total, floor, cost, tolerance, deadline or soon(60))


def loss_of(lost: Floats, pieces: Ints) -> float:
    return float(np.take_along_axis(lost, pieces[..., None] - 1, axis=-1).sum())


@st.composite
def tables(draw: st.DrawFn, pools: int = 1) -> Floats:
    """Up to 3 heads and 6 pieces, falling or not, of few different figures or of any."""
    heads, pieces = draw(st.integers(1, 3)), draw(st.integers(2, 6))
    count = pools * heads * pieces
    figures = draw(
        st.sampled_from([st.integers(0, 10), st.one_of(st.just(0), st.floats(1e-6, 1e6))])
    )
    values = draw(st.lists(figures, min_size=count, max_size=count))
    table = np.array(values, dtype=np.float64).reshape(pools, heads, pieces)
    return -np.sort(-table) if draw(st.booleans()) else table


@settings(max_examples=60, deadline=None)
@given(tables(), st.data(), TOTALS)
def test_no_choice_loses_less(lost: Floats, data: st.DataObject, total: str) -> None:
    _, heads, pieces = lost.shape
    each = data.draw(st.integers(1, pieces))
    floor = data.draw(st.integers(1, each))
    found = chosen(lost, each, floor, total)
    drawn = cost_of(pieces, total)(np.arange(1, pieces + 1))
    least = min(
        sum(lost[0, head, rule] for head, rule in enumerate(choice))
        for choice in product(range(floor - 1, pieces), repeat=heads)
        if sum(drawn[rule] for rule in choice) <= heads * drawn[each - 1]
    )
    assert found.loss == pytest.approx(least, rel=1e-5, abs=1e-9)
    assert found.lower_bound <= least * (1 + 1e-9) + 1e-9
    assert found.loss == pytest.approx(loss_of(lost, found.pieces), rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(tables(pools=2), st.data(), TOTALS, st.sampled_from([0.0, 60.0]))
def test_total_floor_and_context_are_kept_and_nobody_does_worse(
    lost: Floats, data: st.DataObject, total: str, seconds: float
) -> None:
    pieces = lost.shape[-1]
    each = data.draw(st.integers(1, pieces))
    floor = data.draw(st.integers(1, each))
    cost = cost_of(pieces, total)
    found = chosen(lost, each, floor, total, soon(seconds))
    alike = np.full_like(found.pieces, each)
    assert (cost(found.pieces).sum(axis=1) <= cost(alike).sum(axis=1)).all()
    assert ((found.pieces >= floor) & (found.pieces <= pieces)).all()
    assert found.loss <= loss_of(lost, alike) * (1 + 1e-12)
    assert found.lower_bound <= found.loss * (1 + 1e-12)


@settings(max_examples=12, deadline=None)
@given(st.integers(2, 60), TOTALS, st.booleans(), st.booleans())
def test_measured_like_errors(each: int, total: str, pool: bool, search: bool) -> None:
    lost = error_table(curved(), "output", Workload(4096))
    if pool:
        lost = lost.reshape(1, -1, lost.shape[-1])
    found = chosen(lost, each, 2, total, soon(60.0 if search else 0.0), 1e-3)
    cost = cost_of(lost.shape[-1], total)
    alike = np.full_like(found.pieces, each)
    assert found.loss <= loss_of(lost, alike) * (1 + 1e-12)
    assert found.gap <= (1e-3 if search else 1)
    left = cost(alike).sum(axis=1) - cost(found.pieces).sum(axis=1)
    assert (left >= 0).all()
    for layer, head in np.argwhere(found.pieces < lost.shape[-1]):
        now = found.pieces[layer, head]
        if cost(now + 1) - cost(now) <= left[layer]:
            assert lost[layer, head, now] == lost[layer, head, now - 1]


@settings(max_examples=12, deadline=None)
@given(tables(pools=2), st.data(), TOTALS, st.integers(-300, 300))
def test_the_unit_of_what_is_lost_does_not_matter(
    lost: Floats, data: st.DataObject, total: str, power: int
) -> None:
    each = data.draw(st.integers(1, lost.shape[-1]))
    found, scaled = chosen(lost, each, 1, total), chosen(lost * 2.0**power, each, 1, total)
    assert scaled.loss == pytest.approx(found.loss * 2.0**power, rel=1e-5)


def test_heads_that_lose_nothing_keep_the_floor() -> None:
    falling = np.linspace(1, 0, 128)
    found = chosen([[0 * falling, falling, 0 * falling, 2 * falling]], 16, 2, "tiles")
    assert found.pieces[0, [0, 2]].tolist() == [2, 2]
    assert found.pieces[0, [1, 3]].max() > 16


def test_a_plateau_is_not_paid_for() -> None:
    cliff, slope = [0.6, 0.6, 0.6, 0.2, 0.0], [0.4, 0.3, 0.1, 0.05, 0.0]
    assert chosen([[cliff, slope]], 2, 1).pieces.tolist() == [[1, 3]]
    assert chosen([[cliff, slope]], 3, 1).pieces.tolist() == [[5, 1]]
    assert chosen([[cliff, [9 * s for s in slope]]], 3, 1).pieces.tolist() == [[1, 5]]


def test_when_cancelled_the_same_for_all_with_no_proof() -> None:
    cancelled = soon()
    cancelled.cancelled.set()
    lost = error_table(curved(), "output", Workload(8192))
    found = chosen(lost, 16, 2, "tiles", cancelled)
    assert found.lower_bound == 0
    assert found.gap == 1
    assert (found.pieces == 16).all()


def test_the_whole_context_for_all_loses_nothing() -> None:
    lost = [[[0.9, 0.8, 0.0], [0.7, 0.6, 0.0]]]
    assert chosen(lost, 3, 1, "tiles").pieces.tolist() == [[3, 3]]
    assert chosen(lost, 3, 3, "tiles").gap == 0


def test_where_all_are_at_the_floor_there_is_nothing_to_prove() -> None:
    lost = error_table(curved(), "output", Workload(8192))
    found = chosen(lost, 7, 7, "tiles", soon(0))
    assert (found.pieces == 7).all()
    assert found.gap == 0
    assert found.loss == pytest.approx(loss_of(lost, found.pieces))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_of_one_capacity_the_bound_is_the_linear_relaxation(seed: int, spare: int) -> None:
    rng = np.random.default_rng(seed)
    heads, rules = 5, 7
    loss = -np.sort(-rng.lognormal(size=(heads, rules)))
    cost = np.cumsum(rng.integers(1, 9, rules))
    program = MultipleChoice(loss, cost[:, None], np.array([heads * cost[0] + 4 * spare]))
    found = along_the_hulls(program, one_rule(program))
    relaxed = linprog(
        loss.ravel(),
        A_ub=np.tile(cost, heads)[None] / program.capacity,
        b_ub=[1.0],
        A_eq=np.repeat(np.eye(heads), rules, axis=1),
        b_eq=np.ones(heads),
        bounds=(0, 1),
    )
    assert found.bound == pytest.approx(relaxed.fun, rel=1e-4)
    assert found.bound <= relaxed.fun * (1 + 1e-7)
