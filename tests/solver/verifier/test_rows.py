"""Boundaries of divided heads are those the executors run."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.verifier.loads import Rows, rows_of
from tests.solver.verifier.placing import Served

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


def test_pieces_of_a_prefill_and_of_a_decode_step() -> None:
    pieces = {**STEP, "piece_tokens": 16}
    assert rows_of(200, pieces) == Rows(13, 16, 4)
    assert rows_of(16, pieces) == Rows(4, 16, 4)  # a query block's own
    assert rows_of(1000, pieces) == Rows(63, 16, 4)
    assert rows_of(16, {**pieces, "context_tokens": 40}) == Rows(3, 1, 4)
    assert rows_of(16, {**pieces, "phase": "decode"}) == Rows(1, 3)


def test_causal_work_is_a_triangle() -> None:
    assert Rows(100, 100).nearest(0.5) == 71
    assert Rows(1, 100).nearest(0.5) == 50
    assert Rows(1, 3).nearest(0.5) == 2  # up on a tie


@given(
    budget=st.integers(1, 2000),
    context=st.integers(1, 3000),
    piece=st.sampled_from([16, 32, 64]),
    data=st.data(),
)
def test_rows_are_counted_as_one_by_one(
    budget: int, context: int, piece: int, data: st.DataObject
) -> None:
    step = {**STEP, "context_tokens": context, "piece_tokens": piece}
    rows, served = rows_of(budget, step), Served(context_tokens=context, piece_tokens=piece)
    pieces = served.row_pieces(budget)
    assert [rows.pieces(r) for r in range(rows.count + 1)] == [
        sum(pieces[:r]) for r in range(rows.count + 1)
    ]
    weights = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    shares = [weight / sum(weights) for weight in weights]
    parts = served.realised(list(enumerate(shares)), budget)
    assert rows.realised(shares) == [share for _, share in parts]


@settings(deadline=None)  # the first import of torch takes seconds
@given(
    share=st.floats(0, 1),
    budget=st.integers(1, 5000),
    count=st.integers(1, 5000),
    own=st.sampled_from([1, 2, 4, 8]),
)
def test_boundaries_are_the_executors(share: float, budget: int, count: int, own: int) -> None:
    pytest.importorskip("torch")
    from executor.attention.query_rows import block_boundaries

    rows = Rows(min(budget, count * own), count, own)
    columns = (np.array([x]) for x in (share, rows.budget, count, 0))
    assert [rows.nearest(share)] == block_boundaries(*columns, block_pieces=own).tolist()
