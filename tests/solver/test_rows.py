"""Rounding to rows: the executor's own rule, no row lost, nothing changed by doing it twice."""

from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.cost.work import Workload
from solver.rows import RowGrid, boundaries, polish_rows, realise, realise_each, weight_before
from solver.shares import Shares
from tests.solver.divide.problems import make_divisible
from tests.solver.problems import soon


def causal_pieces(budget: int, rows: int, own: int) -> int:
    return sum(min(budget, (row + 1) * own) for row in range(rows))


def nearest_row(cumulative: float, budget: int, rows: int, own: int) -> int:
    """`executor.attention.query_rows.block_boundaries`, written out."""
    wanted = cumulative * causal_pieces(budget, rows, own)
    above = bisect_left(range(rows), wanted, key=lambda row: causal_pieces(budget, row, own))
    if above > 0:
        down = wanted - causal_pieces(budget, above - 1, own)
        if down < causal_pieces(budget, above, own) - wanted:
            return above - 1
    return above


@st.composite
def cases(draw: st.DrawFn) -> tuple[Shares, RowGrid]:
    heads, devices = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    shares = rng.dirichlet(np.full(devices, 0.5), heads)
    shares[rng.random(shares.shape) < 0.3] = 0
    shares[shares.sum(axis=1) == 0, 0] = 1
    shares /= shares.sum(axis=1, keepdims=True)
    grid = RowGrid(
        rng.integers(1, draw(st.sampled_from([10, 50, 300])), (1, heads)),
        draw(st.sampled_from([1, 2, 3, 17, 64])),
        draw(st.integers(1, 4)),
        draw(st.sampled_from(["prefill", "decode"])),
        draw(st.sampled_from([1, 1, 2, 4, 8])),
    )
    return Shares.of(shares), grid


@given(cases())
def test_boundaries_are_the_executors(case: tuple[Shares, RowGrid]) -> None:
    shares, grid = case
    found = boundaries(shares, grid, 0)
    for head, row in enumerate(shares.dense):
        budget = int(grid.budget_pieces[0, head])
        if grid.phase == "decode":
            budget, rows, own = 1, budget * grid.batch_size, 1
        else:
            rows, own = grid.query_blocks, grid.block_pieces
        placed = np.flatnonzero(row)
        ends = [*np.cumsum(row[placed])[:-1].tolist(), 1.0]
        wanted = [nearest_row(end, budget, rows, own) for end in ends]
        assert found[head, placed].tolist() == wanted
        assert wanted[-1] == rows


@given(cases())
def test_realising_loses_nothing_and_is_idempotent(case: tuple[Shares, RowGrid]) -> None:
    shares, grid = case
    real = realise(shares, grid, 0)
    assert (real.share > 0).all()
    assert not real.dense[shares.dense == 0].any()
    np.testing.assert_allclose(real.dense.sum(axis=1), 1, rtol=1e-12)
    assert realise(real, grid, 0).equals(real)


@given(cases())
def test_rows_weigh_the_pieces_of_their_lists(case: tuple[Shares, RowGrid]) -> None:
    _, grid = case
    height, rows, growth = grid.of_layer(0)
    for head in range(len(height)):
        every = np.arange(rows[head] + 1)
        counted = [causal_pieces(int(height[head]), row, growth) for row in every.tolist()]
        assert weight_before(height[head], every, growth).tolist() == counted


def test_a_grid_is_a_workloads() -> None:
    budgets = np.array([[1, 100, 1000]])
    prefill = RowGrid.of(budgets, Workload(1000, block_tokens=64, piece_tokens=16))
    assert prefill.budget_pieces.tolist() == [[4, 7, 63]]
    assert (prefill.query_blocks, prefill.block_pieces) == (16, 4)
    step = Workload(1000, "decode", 3, block_tokens=64, piece_tokens=16)
    decode = RowGrid.of(budgets, step)
    assert decode.budget_pieces.tolist() == [[1, 7, 63]]
    assert decode.of_layer(0)[1].tolist() == [3, 21, 189]


@pytest.mark.slow  # imports torch
@pytest.mark.parametrize("own", [1, 4, 8])
def test_the_executor_cuts_where_we_say(own: int) -> None:
    cut = pytest.importorskip("executor.attention.query_rows")
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(8), 32)
    budgets = rng.integers(1, 2500 * own, (1, 32))
    found = boundaries(Shares.of(shares), RowGrid(budgets, 2048, 1, "prefill", own), 0)
    for head, row in enumerate(shares):
        ends = [*np.cumsum(row)[:-1].tolist(), 1.0]
        budget = min(int(budgets[0, head]), 2048 * own)
        columns = (np.full(len(ends), x) for x in (budget, 2048, 0))
        cuts = cut.block_boundaries(np.array(ends), *columns, block_pieces=own)
        assert cuts.tolist() == found[head].tolist()


@pytest.mark.parametrize("query_blocks", [1, 2, 5, 64, 2048])
@pytest.mark.parametrize("workloads", [1, 2])
@pytest.mark.parametrize("own", [1, 4])
def test_polishing_never_loses_and_keeps_a_plan(
    query_blocks: int, workloads: int, own: int
) -> None:
    layer = make_divisible(16, 4, 4, workloads=workloads, charge=0.02, part=0.01)
    rng = np.random.default_rng(1)
    shares = Shares.of(rng.dirichlet(np.full(4, 0.2), 16))
    grids = [
        RowGrid(rng.integers(1, 100, (1, 16)), query_blocks + w, 1, "prefill", own)
        for w in range(workloads)
    ]
    polished = polish_rows(layer, shares, grids, 0, soon())
    np.testing.assert_allclose(polished.dense.sum(axis=1), 1, rtol=1e-12)
    assert (polished.share > 0).all()
    assert not polished.dense[shares.dense == 0].any()

    def rounded_s(of: Shares) -> float:
        return layer.objective(layer.loads_of_each(realise_each(of, grids, 0)))

    assert rounded_s(polished) <= rounded_s(shares)


def test_polishing_hands_over_a_row_and_a_part() -> None:
    """One head, four equal rows: 3 + 1 becomes 2 + 2, and a dear part is given up."""
    layer = make_divisible(1, 1, 2, charge=0.0, launch=0.0)
    grid = RowGrid(np.array([[1]]), 4, 1, "prefill")
    shares = Shares.of(np.array([[0.75, 0.25]]))
    assert polish_rows(layer, shares, [grid], 0, soon()).dense.tolist() == [[0.5, 0.5]]
    dear = make_divisible(2, 1, 2, charge=50.0, launch=0.0)
    shares = Shares.of(np.array([[0.75, 0.25], [0.0, 1.0]]))
    polished = polish_rows(dear, shares, [grid_of_two(grid)], 0, soon())
    assert polished.dense.tolist() == [[1, 0], [0, 1]]


def grid_of_two(grid: RowGrid) -> RowGrid:
    return RowGrid(np.repeat(grid.budget_pieces, 2, axis=1), grid.query_blocks, 1, "prefill")
