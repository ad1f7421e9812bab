"""The linear program over the fillings known so far, with prices interpolated between few sizes.

Prices are free at some sizes only and linear in between, which takes far fewer fillings to settle
(aggregated rows, in the spirit of Benchimol, Desaulniers & Desrosiers 2012, "Stabilized dynamic
constraint aggregation"); the resolution grows where they prove too little.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from solver.partition.levels import Levels
from solver.problem import Floats, Ints

PRICE_SCALE = 2**40
"""Prices are floored to multiples of its inverse."""

SMALLEST = 3
"""Smallest sizes that always have prices of their own: they fill what the others leave."""

KEPT = 4
"""Fillings kept for each row of the program, those nearest to paying first."""


@dataclass(frozen=True, eq=False)
class _Filling:
    """What one machine of a kind may hold: how many of each size `[sizes]`, and their levels."""

    taken: Ints
    load: int
    kind: int


class Master:
    """Fillings, and what they cost: the share of the machines that a makespan needs."""

    def __init__(self, levels: Levels, resolution: int) -> None:
        self.levels = levels
        self.resolution = resolution
        self._fillings: dict[tuple[int, bytes], _Filling] = {}
        self._add_singles()

    def add(self, taken: Ints, kind: int) -> bool:
        """Take a filling; whether it is new."""
        key = (kind, taken.tobytes())
        new = key not in self._fillings
        if new:
            load = int(taken @ self.levels.sizes)
            self._fillings[key] = _Filling(taken, load, kind)
        return new

    def solve(self, makespan: int) -> tuple[float, Ints] | None:
        """The share of the machines needed in fractions, and the prices `[sizes]`.

        None where the program could not be solved.
        """
        kinds = self.levels.kinds
        rooms = [self.levels.capacity(kind, makespan) for kind in kinds]
        usable = [f for f in self._fillings.values() if f.load <= rooms[f.kind]]
        between = interpolation(self.levels.sizes, self.resolution)
        covers = -(np.stack([filling.taken for filling in usable]) @ between).T
        uses = [[filling.kind == kind for filling in usable] for kind in range(len(kinds))]
        share = [0] * len(covers) + [-kind.machines for kind in kinds]
        program = np.column_stack((np.vstack((covers, uses)), share))
        solution = linprog(
            np.append(np.zeros(len(usable)), 1.0),
            A_ub=program,
            b_ub=np.concatenate((-(self.levels.copies @ between), np.zeros(len(kinds)))),
            method="highs",
        )
        if solution.fun is None:
            return None
        duals = -np.asarray(solution.ineqlin.marginals)
        if len(self._fillings) > 2 * KEPT * len(duals) + len(self.levels.sizes):
            paying = np.argsort(duals @ program[:, :-1], kind="stable")[: KEPT * len(duals)]
            self._keep([usable[i] for i in paying])
        prices = np.maximum(between @ duals[: len(covers)], 0.0)
        return float(solution.fun), np.asarray(prices * PRICE_SCALE, dtype=np.int64)

    def _keep(self, fillings: list[_Filling]) -> None:
        self._fillings = {(each.kind, each.taken.tobytes()): each for each in fillings}
        self._add_singles()

    def _add_singles(self) -> None:
        """One job alone, of every size: with these every price has a limit."""
        for kind in range(len(self.levels.kinds)):
            for one in np.eye(len(self.levels.sizes), dtype=np.int64):
                self.add(one, kind)


def interpolation(sizes: Ints, resolution: int) -> Floats:
    """What each free price counts for in every size's price, `[sizes, free prices]`."""
    last = len(sizes) - 1
    even = np.linspace(0, last, min(resolution, len(sizes))).round().astype(np.int64)
    free = np.unique(np.concatenate((even, np.arange(max(last + 1 - SMALLEST, 0), last + 1))))
    # Sizes fall, and np.interp wants them to rise.
    rising = [np.interp(sizes, sizes[free][::-1], one[::-1]) for one in np.eye(len(free))]
    return np.column_stack(rising)
