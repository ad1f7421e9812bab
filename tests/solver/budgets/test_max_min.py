"""Exact max-min: against trying everything, and its invariants."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.cost.work import Workload
from profiles.sizes import causal_pieces
from solver.budgets.curves import Ints, MeasuredCurves, RecoveryCurves
from solver.budgets.max_min import Cost, max_min
from solver.budgets.shifting import shift
from tests.solver.budgets.builders import by_block, random_curves, small_curves

TOTALS = st.sampled_from(["tiles", "tiles of pieces", "tokens"])


def cost_of(curves: RecoveryCurves, total: str) -> Cost:
    """In tokens, or in tiles: of blocks, or of pieces with two to a query block."""
    if total == "tokens":
        return np.asarray
    own = 2 if total == "tiles of pieces" else 1

    def tiles(pieces: Ints) -> Ints:
        return causal_pieces(pieces, -(-curves.context_pieces // own), own)

    return tiles


def best_vector(curves: RecoveryCurves, each: int, floor: int, cost: Cost) -> list[float]:
    """The lexicographically greatest sorted recoveries of one layer, by trying everything."""
    heads, table = curves.recovery.shape[1], curves.table()[0]
    total = int(cost(np.full(heads, each)).sum())
    choices = product(range(floor, curves.context_pieces + 1), repeat=heads)
    return max(
        sorted(float(table[head, k - 1]) for head, k in enumerate(blocks))
        for blocks in choices
        if int(cost(np.array(blocks)).sum()) <= total
    )


@settings(deadline=None)
@given(small_curves(), st.data(), TOTALS)
def test_no_choice_has_a_better_minimum(
    curves: RecoveryCurves, data: st.DataObject, total: str
) -> None:
    each = data.draw(st.integers(1, curves.context_pieces))
    floor = data.draw(st.integers(1, each))
    cost = cost_of(curves, total)
    found = curves.at(max_min(curves, each, floor, cost))
    assert found.min() == best_vector(curves, each, floor, cost)[0]


@settings(deadline=None)
@given(small_curves(ties=False), st.data())
def test_no_choice_is_lexicographically_better_where_nothing_ties(
    curves: RecoveryCurves, data: st.DataObject
) -> None:
    each = data.draw(st.integers(1, curves.context_pieces))
    floor = data.draw(st.integers(1, each))
    cost = cost_of(curves, "tokens")
    found = curves.at(max_min(curves, each, floor, cost))
    assert sorted(found[0].tolist()) == best_vector(curves, each, floor, cost)


@settings(deadline=None)
@given(small_curves(layers=2), st.data(), TOTALS)
def test_total_floor_and_context_are_kept(
    curves: RecoveryCurves, data: st.DataObject, total: str
) -> None:
    each = data.draw(st.integers(1, curves.context_pieces))
    floor = data.draw(st.integers(1, each))
    cost = cost_of(curves, total)
    blocks = max_min(curves, each, floor, cost)
    assert (cost(blocks).sum(axis=1) <= cost(np.full_like(blocks, each)).sum(axis=1)).all()
    assert (blocks >= floor).all()
    assert (blocks <= curves.context_pieces).all()


@settings(deadline=None)
@given(small_curves(layers=2), st.data(), TOTALS)
def test_what_is_left_raises_nobody(
    curves: RecoveryCurves, data: st.DataObject, total: str
) -> None:
    each = data.draw(st.integers(1, curves.context_pieces))
    cost, table = cost_of(curves, total), curves.table()
    blocks = max_min(curves, each, 1, cost)
    left = cost(np.full_like(blocks, each)).sum(axis=1) - cost(blocks).sum(axis=1)
    for layer, head in np.ndindex(*blocks.shape):
        now = blocks[layer, head]
        for more in range(now + 1, curves.context_pieces + 1):
            extra = cost(np.array(more)) - cost(np.array(now))
            gain = table[layer, head, more - 1] - table[layer, head, now - 1]
            assert extra > left[layer] or gain == 0


@settings(max_examples=25, deadline=None)
@given(small_curves(), TOTALS)
def test_a_larger_total_never_lowers_the_minimum(curves: RecoveryCurves, total: str) -> None:
    cost = cost_of(curves, total)
    minima = [
        curves.at(max_min(curves, each, 1, cost)).min()
        for each in range(1, curves.context_pieces + 1)
    ]
    assert minima == sorted(minima)
    assert minima[-1] == 1.0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 100), st.booleans(), st.sampled_from([8192, 5000]))
def test_never_below_the_papers_shifting(seed: int, each: int, pool: bool, context: int) -> None:
    curves = MeasuredCurves.of(random_curves(seed)).at(Workload(context))
    curves = curves.pooled() if pool else curves
    each = min(each, curves.context_pieces)
    shifted = curves.at(shift(curves, each, floor=2)).min(axis=1)
    for total in ("tiles", "tiles of pieces", "tokens"):
        exact = curves.at(max_min(curves, each, 2, cost_of(curves, total))).min(axis=1)
        assert (exact >= shifted).all()


@settings(max_examples=40, deadline=None)
@given(small_curves(layers=2), st.data())
def test_never_below_the_papers_shifting_on_ragged_curves(
    curves: RecoveryCurves, data: st.DataObject
) -> None:
    each = data.draw(st.integers(1, curves.context_pieces))
    floor = data.draw(st.integers(1, each))
    shifted = curves.at(shift(curves, each, floor)).min(axis=1)
    for total in ("tiles", "tiles of pieces", "tokens"):
        exact = curves.at(max_min(curves, each, floor, cost_of(curves, total))).min(axis=1)
        assert (exact >= shifted).all()


def test_beats_shifting_where_one_step_is_too_coarse() -> None:
    """The most recovered head cannot give, and the paper's rule never asks the next."""
    curves = by_block([[[0.0, 0.0, 0.99, 0.99], [0.3, 0.6, 0.9, 0.95], [0.1, 0.15, 0.2, 0.5]]])
    shifted = shift(curves, 3, 1)
    exact = max_min(curves, 3, 1, np.asarray)
    assert curves.at(shifted).min() == 0.2
    assert curves.at(exact).min() == 0.5
    assert exact.tolist() == [[3, 2, 4]]


def test_equal_heads_get_equal_budgets() -> None:
    curves = by_block(np.tile([0.2, 0.5, 0.7, 0.8, 0.9], (2, 6, 1)))
    assert (max_min(curves, 3, 1, np.asarray) == 3).all()


def test_plateaus_are_crossed_or_left_alone() -> None:
    """No block is spent on a plateau unless its far side is reached."""
    curves = by_block([[[0.4, 0.4, 0.4, 0.8], [0.6, 0.7, 0.9, 0.95]]])
    assert max_min(curves, 2, 1, np.asarray).tolist() == [[1, 3]]
    assert max_min(curves, 3, 1, np.asarray).tolist() == [[4, 2]]


def test_a_head_out_of_reach_does_not_hold_the_others_back() -> None:
    """One head recovers nothing below the whole context: the rest share what it cannot use."""
    steps = np.linspace(0, 1, 101)[1:-1]
    curves = by_block([[np.zeros(99), steps, steps, steps]])
    assert max_min(curves, 20, 2, np.asarray).tolist() == [[2, 26, 26, 26]]


@pytest.mark.parametrize("heads", [1, 3])
def test_the_whole_context_for_all_recovers_all(heads: int) -> None:
    curves = by_block(np.zeros((1, heads, 4)))
    assert max_min(curves, 5, 1, np.asarray).tolist() == [[5] * heads]
