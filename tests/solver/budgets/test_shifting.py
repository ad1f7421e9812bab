"""The paper's greedy shifting, against a literal retelling of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.cost.work import Workload
from profiles.sizes import causal_pieces
from solver.budgets.curves import MeasuredCurves, RecoveryCurves
from solver.budgets.errors import BudgetError
from solver.budgets.shifting import shift
from tests.solver.budgets.builders import by_block, random_curves, small_curves


def retold(curves: RecoveryCurves, each: int, floor: int) -> list[int]:
    """One layer, scanning all heads at every step."""
    table = curves.table()[0]
    blocks = [each] * len(table)
    while True:
        recovery = [float(table[head, k - 1]) for head, k in enumerate(blocks)]
        donors = [head for head, k in enumerate(blocks) if k > floor]
        if not donors:
            return blocks
        donor = max(donors, key=lambda head: (recovery[head], -head))
        receiver = recovery.index(min(recovery))
        if table[donor, blocks[donor] - 2] <= recovery[receiver]:
            return blocks
        blocks[donor] -= 1
        blocks[receiver] += 1


@settings(deadline=None)
@given(small_curves(), st.data())
def test_moves_what_the_paper_moves(curves: RecoveryCurves, data: st.DataObject) -> None:
    each = data.draw(st.integers(1, curves.context_pieces))
    floor = data.draw(st.integers(1, each))
    assert shift(curves, each, floor)[0].tolist() == retold(curves, each, floor)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 128), st.sampled_from([8192, 8000]))
def test_conserves_tokens_never_adds_tiles_and_never_hurts_the_minimum(
    seed: int, each: int, context: int
) -> None:
    curves = MeasuredCurves.of(random_curves(seed)).at(Workload(context))
    each = min(each, curves.context_pieces)
    blocks = shift(curves, each, floor=2)
    uniform = np.full_like(blocks, each)
    assert (blocks.sum(axis=1) == uniform.sum(axis=1)).all()
    assert (blocks >= 2).all()
    assert (blocks <= curves.context_pieces).all()
    n = curves.context_pieces
    for own in (1, 2):  # pieces to a query block
        spent, allowed = (causal_pieces(b, -(-n // own), own) for b in (blocks, uniform))
        assert (spent.sum(axis=1) <= allowed.sum(axis=1)).all()
    assert (curves.at(blocks).min(axis=1) >= curves.at(uniform).min(axis=1)).all()


def test_shifts_from_sparse_to_hungry() -> None:
    curves = by_block([[[0.9, 0.95, 0.97, 0.98], [0.1, 0.2, 0.4, 0.6]]])
    assert shift(curves, 3, 1).tolist() == [[1, 5]]
    assert shift(curves, 3, 2).tolist() == [[2, 4]]


def test_equal_heads_keep_equal_budgets() -> None:
    curves = by_block(np.tile([0.2, 0.5, 0.7], (2, 3, 1)))
    assert (shift(curves, 2, 1) == 2).all()


def test_refuses_what_would_take_forever_and_names_the_way_out() -> None:
    curves = MeasuredCurves.of(random_curves(0)).at(Workload(16 * 2**20, block_tokens=1))
    with pytest.raises(BudgetError, match=r"268435456 head-pieces.*use policy 'max_min'"):
        shift(curves, 1000, 128)
