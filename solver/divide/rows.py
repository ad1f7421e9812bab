"""Shares become rows: cumulative shares rounded to query blocks, as the executor rounds them.

A head's entries are ordered by device and take consecutive rows, cut where the causal work before
the cut is nearest to the cumulative share (`executor.attention.row_boundary`). In decode a head is
cut between (sequence, key block) units instead, which all weigh the same: a triangle of height 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from profiles.cost.work import Phase
from solver.placement.exact import Deadline
from solver.problem import Floats, Ints, LayerProblem, Shares

MOST_MOVES = 64
"""Boundaries moved one after another; at thousands of rows a handful is all there is to gain."""


@dataclass(frozen=True, eq=False)
class RowGrid:
    """Where the heads of a step may be cut; `budget_blocks` [layers, heads] key blocks."""

    budget_blocks: Ints
    query_blocks: int
    batch_size: int
    phase: Phase

    def of_layer(self, layer: int) -> tuple[Ints, Ints]:
        """The height of every head's triangle and its rows, `[heads]` each."""
        blocks = np.asarray(self.budget_blocks[layer], dtype=np.int64)
        if self.phase == "decode":
            return np.ones_like(blocks), blocks * self.batch_size
        rows = np.full_like(blocks, self.query_blocks)
        return np.minimum(blocks, rows), rows


def tiles_before(height: Ints, rows: Ints) -> Ints:
    """Tiles of the first `rows` rows of a head: the sum of min(height, row + 1)."""
    ramp = np.minimum(height, rows)
    return np.asarray(ramp * (ramp + 1) // 2 + (rows - ramp) * ramp, dtype=np.int64)


def boundaries(shares: Shares, grid: RowGrid, layer: int) -> Ints:
    """The row at which every device's part of a head ends, `[heads, devices]`."""
    height, rows = (column[:, None] for column in grid.of_layer(layer))
    placed = shares > 0
    placed_after: Ints = np.cumsum(placed[:, ::-1], axis=1)[:, ::-1] - placed
    ends = np.where(placed_after > 0, np.cumsum(shares, axis=1), 1.0)
    wanted = ends * tiles_before(height, rows)
    ramp_tiles = height * (height + 1) // 2
    in_ramp = np.ceil((np.sqrt(8 * wanted + 1) - 1) / 2)
    beyond = height + np.ceil((wanted - ramp_tiles) / height)
    above = np.where(wanted <= ramp_tiles, in_ramp, beyond).astype(np.int64)
    # The closed form may be a row off where the square root was rounded.
    above += tiles_before(height, above) < wanted
    above -= (above > 0) & (tiles_before(height, np.maximum(above - 1, 0)) >= wanted)
    above = np.minimum(above, rows)
    below = np.maximum(above - 1, 0)
    nearer_below = wanted - tiles_before(height, below) < tiles_before(height, above) - wanted
    return np.where((above > 0) & nearer_below, below, above)


def realise(shares: Shares, grid: RowGrid, layer: int) -> Shares:
    """The shares that whole rows come to, `[heads, devices]`; a part without rows vanishes."""
    height, rows = (column[:, None] for column in grid.of_layer(layer))
    done = tiles_before(height, boundaries(shares, grid, layer))
    return np.asarray(np.diff(done, axis=1, prepend=0) / tiles_before(height, rows))


def realise_each(shares: Shares, grids: Sequence[RowGrid], layer: int) -> Shares:
    """The same shares in the rows of every workload, `[workloads, heads, devices]`."""
    return np.stack([realise(shares, grid, layer) for grid in grids])


def polish_rows(
    layer: LayerProblem, shares: Shares, grids: Sequence[RowGrid], index: int, deadline: Deadline
) -> Shares:
    """Shares whose rows come nearest to the makespan, `[heads, devices]`.

    `grids` has one grid a workload; `index` is the layer's. The busiest devices shift a boundary
    by a row of the first workload, or hand a part to its neighbour, while that helps.
    """

    def makespan(candidate: Shares) -> float:
        return layer.objective(layer.loads_of_shares(realise_each(candidate, grids, index)))

    best = min((shares, realise(shares, grids[0], index)), key=makespan)
    best_s = makespan(best)
    for _ in range(MOST_MOVES):
        if deadline.left_s <= 0:
            return best
        loads = layer.loads_of_shares(realise_each(best, grids, index))
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
    height, rows = grid.of_layer(layer)
    ends = boundaries(shares, grid, layer)
    for head in np.flatnonzero((shares > 0).sum(axis=1) > 1):
        devices = np.flatnonzero(shares[head])
        total = tiles_before(height[head], rows[head])
        for left, right in pairwise(devices.tolist()):
            giver, taker = (left, right) if left in busiest else (right, left)
            if giver not in busiest:
                continue
            at = int(ends[head, left])
            step = -1 if giver == left else 1
            done = tiles_before(height[head], np.array([at, min(max(at + step, 0), rows[head])]))
            one_row = float(abs(done[1] - done[0]) / total)
            for part in {min(one_row, float(shares[head, giver])), float(shares[head, giver])}:
                moved: Floats = shares.copy()
                moved[head, giver] -= part
                moved[head, taker] += part
                yield moved
