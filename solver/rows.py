"""Shares become rows: cumulative shares rounded to query blocks, as the executor rounds them.

A head's entries are ordered by device and take consecutive rows, cut where the causal work before
the cut is nearest to the cumulative share (`executor.attention.query_rows.block_boundaries`). Query
blocks are rows; the i-th weighs the key pieces of its list, min(height, (i + 1) m) where a block
has m pieces. In decode a head is cut between (sequence, key piece) units instead, which all weigh
the same: a triangle of height 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import numpy as np

from profiles.cost.work import Phase, Workload, budget_pieces
from solver.deadline import Deadline
from solver.problem import LayerProblem
from solver.shares import Floats, Ints, Shares

MOST_MOVES = 64
"""Boundaries moved one after another; at thousands of rows a handful is all there is to gain."""


@dataclass(frozen=True, eq=False)
class RowGrid:
    """Where the heads of a step may be cut; `budget_pieces` [layers, heads] key pieces.

    `block_pieces` key pieces make a query block.
    """

    budget_pieces: Ints
    query_blocks: int
    batch_size: int
    phase: Phase
    block_pieces: int = 1

    @classmethod
    def of(cls, budgets: Floats | Ints, workload: Workload) -> Self:
        """Of a workload's budgets [layers, heads] in tokens."""
        return cls(
            budget_pieces(np.asarray(budgets, dtype=np.float64), workload),
            workload.context_blocks,
            workload.batch_size,
            workload.phase,
            workload.block_pieces,
        )

    def of_layer(self, layer: int) -> tuple[Ints, Ints, int]:
        """The height of every head's triangle, its rows, `[heads]` each, and a row's growth."""
        pieces = np.asarray(self.budget_pieces[layer], dtype=np.int64)
        if self.phase == "decode":
            return np.ones_like(pieces), pieces * self.batch_size, 1
        rows = np.full_like(pieces, self.query_blocks)
        return np.minimum(pieces, rows * self.block_pieces), rows, self.block_pieces


def weight_before(height: Ints, rows: Ints, growth: int) -> Ints:
    """Pieces in the lists of a head's first `rows` rows: the sum of min(height, growth * (i + 1)).

    `height` is at most `growth` times all rows of the head.
    """
    ramp = np.minimum(height // growth, rows)
    return np.asarray(growth * ramp * (ramp + 1) // 2 + (rows - ramp) * height, dtype=np.int64)


def boundaries(shares: Shares, grid: RowGrid, layer: int) -> Ints:
    """The row at which every device's part of a head ends, `[heads, devices]`."""
    ends = np.zeros((shares.items, shares.devices), dtype=np.int64)
    ends[shares.item, shares.device] = rows_of_parts(shares, grid, layer)[1]
    # A device without a part ends where the one before it does.
    return np.asarray(np.maximum.accumulate(ends, axis=1))


def rows_of_parts(shares: Shares, grid: RowGrid, layer: int) -> tuple[Ints, Ints]:
    """The row at which every part of a head begins, and the one before which it ends, `[parts]`."""
    parts = _Parts.of(shares)
    ends = _ends(parts, grid, layer)
    begins = np.concatenate([np.zeros_like(ends[:, :1]), ends[:, :-1]], axis=1)
    return begins[shares.item, parts.place], ends[shares.item, parts.place]


def realise(shares: Shares, grid: RowGrid, layer: int) -> Shares:
    """The shares that whole rows come to; a part without rows vanishes."""
    parts = _Parts.of(shares)
    height, rows, growth = grid.of_layer(layer)
    height, rows = height[:, None], rows[:, None]
    done = weight_before(height, _ends(parts, grid, layer), growth)
    of_rows = np.diff(done, axis=1, prepend=0) / weight_before(height, rows, growth)
    share = of_rows[shares.item, parts.place]
    there = share > 0
    return replace(shares, item=shares.item[there], device=shares.device[there], share=share[there])


@dataclass(frozen=True, eq=False)
class _Parts:
    """The parts of heads side by side: of thousands of devices a head is on a few.

    `place` [parts] is which of its head's parts each is; `share` [heads, most parts] is 0 beyond
    the last.
    """

    place: Ints
    share: Floats

    @classmethod
    def of(cls, shares: Shares) -> Self:
        first = np.cumsum(shares.parts) - shares.parts
        place = np.arange(len(shares.item)) - first[shares.item]
        share = np.zeros((shares.items, shares.parts.max()))
        share[shares.item, place] = shares.share
        return cls(place, share)


def _ends(parts: _Parts, grid: RowGrid, layer: int) -> Ints:
    """The row at which each part ends, `[heads, most parts]`; a head's last ends with its rows."""
    height, rows, growth = grid.of_layer(layer)
    height, rows = height[:, None], rows[:, None]
    more = np.zeros(parts.share.shape, dtype=bool)
    more[:, :-1] = parts.share[:, 1:] > 0
    ends = np.where(more, np.cumsum(parts.share, axis=1), 1.0)
    wanted = ends * weight_before(height, rows, growth)
    # Lists grow over the first rows of a head, and are all as high as the budget behind them.
    growing = height // growth
    ramp = growth * growing * (growing + 1) // 2
    in_ramp = np.ceil((np.sqrt(8 * wanted / growth + 1) - 1) / 2)
    beyond = growing + np.ceil((wanted - ramp) / height)
    above = np.where(wanted <= ramp, in_ramp, beyond).astype(np.int64)
    # The closed form may be a row off where the square root was rounded.
    above += weight_before(height, above, growth) < wanted
    one_less = weight_before(height, np.maximum(above - 1, 0), growth)
    above -= (above > 0) & (one_less >= wanted)
    above = np.minimum(above, rows)
    below = np.maximum(above - 1, 0)
    missing = wanted - weight_before(height, below, growth)
    nearer_below = missing < weight_before(height, above, growth) - wanted
    return np.where((above > 0) & nearer_below, below, above)


def realise_each(shares: Shares, grids: Sequence[RowGrid], layer: int) -> list[Shares]:
    """The same shares in the rows of every workload."""
    return [realise(shares, grid, layer) for grid in grids]


def polish_rows(
    layer: LayerProblem, shares: Shares, grids: Sequence[RowGrid], index: int, deadline: Deadline
) -> Shares:
    """Shares whose rows come nearest to the makespan.

    `grids` has one grid a workload; `index` is the layer's. The busiest devices shift a boundary
    by a row of the first workload, or hand a part to its neighbour, while that helps.
    """

    def makespan(candidate: Shares) -> float:
        return layer.objective(layer.loads_of_each(realise_each(candidate, grids, index)))

    best = min((shares, realise(shares, grids[0], index)), key=makespan)
    best_s = makespan(best)
    for _ in range(MOST_MOVES):
        if deadline.left_s <= 0:
            return best
        loads = layer.loads_of_each(realise_each(best, grids, index))
        moves = list(_shifted(best, set(loads.argmax(axis=1).tolist()), grids[0], index))
        if not moves:
            return best
        shifted = min(moves, key=makespan)
        shifted_s = makespan(shifted)
        if shifted_s >= best_s * (1 - 1e-12):
            return best
        best, best_s = shifted, shifted_s
    return best


def _shifted(shares: Shares, busiest: set[int], grid: RowGrid, layer: int) -> Iterator[Shares]:
    """The shares after one boundary of a busiest device has given way to its neighbour."""
    height, rows, growth = grid.of_layer(layer)
    ends = boundaries(shares, grid, layer)
    dense = shares.dense
    for head in np.flatnonzero(shares.parts > 1):
        devices = np.flatnonzero(dense[head])
        total = weight_before(height[head], rows[head], growth)
        for left, right in pairwise(devices.tolist()):
            giver, taker = (left, right) if left in busiest else (right, left)
            if giver not in busiest:
                continue
            at = int(ends[head, left])
            step = -1 if giver == left else 1
            moved_to = np.array([at, min(max(at + step, 0), rows[head])])
            done = weight_before(height[head], moved_to, growth)
            one_row = float(abs(done[1] - done[0]) / total)
            for part in {min(one_row, float(dense[head, giver])), float(dense[head, giver])}:
                moved = dense.copy()
                moved[head, giver] -= part
                moved[head, taker] += part
                yield Shares.of(moved)
