"""Boundaries of divided heads are those the executors run."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.verify.rows import Rows, rows_of
from tests.solver.verify.placing import Served

STEP = {
    "context_tokens": 1000,
    "block_tokens": 64,
    "piece_tokens": 64,
    "batch_size": 3,
    "phase": "prefill",
}


def test_rows_of_a_prefill_and_of_a_decode_step() -> None:
    assert rows_of(200, STEP) == Rows(4, 16)
    assert rows_of(1000, STEP) == Rows(16, 16)
    assert rows_of(200, {**STEP, "phase": "decode"}) == Rows(1, 12)


def test_causal_work_is_a_triangle() -> None:
    assert Rows(100, 100).nearest(0.5) == 71
    assert Rows(1, 100).nearest(0.5) == 50
    assert Rows(1, 3).nearest(0.5) == 2  # up on a tie


@given(budget=st.integers(1, 30), extra=st.integers(0, 30), data=st.data())
def test_rows_are_counted_as_one_by_one(budget: int, extra: int, data: st.DataObject) -> None:
    rows = Rows(budget, budget + extra)
    tiles = Served(context_tokens=64 * rows.count).row_tiles(64 * budget)
    assert [rows.pieces(r) for r in range(rows.count + 1)] == [
        sum(tiles[:r]) for r in range(rows.count + 1)
    ]
    weights = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    shares = [weight / sum(weights) for weight in weights]
    parts = Served(context_tokens=64 * rows.count).realised(list(enumerate(shares)), 64 * budget)
    assert rows.realised(shares) == [share for _, share in parts]


@settings(deadline=None)  # the first import of torch takes seconds
@given(share=st.floats(0, 1), budget=st.integers(1, 5000), extra=st.integers(0, 5000))
def test_boundaries_are_the_executors(share: float, budget: int, extra: int) -> None:
    pytest.importorskip("torch")
    from executor.shares import row_boundary

    rows = Rows(budget, budget + extra)
    assert rows.nearest(share) == row_boundary(share, budget, budget + extra)
