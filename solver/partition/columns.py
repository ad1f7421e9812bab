"""The bound of knapsack column generation, which is nearly always the optimum.

Gilmore & Gomory 1961 for the share of the machines that a makespan needs in fractions; as in
Dell'Amico, Iori, Martello & Monaci 2008, "Heuristic and exact algorithms for the identical parallel
machine scheduling problem". Prices of the jobs prove that no makespan up to T is possible as soon
as the best fillings of all machines are together worth less than all jobs (Farley 1990, here with
a term for each count that machines have). One dynamic program gives the best filling for every T,
so that each set of prices raises the bound as far as it can.
"""

import numpy as np

from solver.partition.knapsack import Knapsack, knapsack
from solver.partition.levels import levels
from solver.partition.master import Master
from solver.partition.record import Record
from solver.placement.exact import Deadline
from solver.problem import Ints

PROOF = "knapsack column generation"

FILLINGS = 6
"""Fillings taken from each dynamic program, from 90 % of the capacity up."""

COARSE = 10
"""Free prices to begin with; each refinement has half as many more."""

FINEST = 200
"""Free prices up to which a linear program takes some tens of milliseconds: it is not cut short."""


class ColumnGeneration:
    """Raises a record's bound step by step to the least makespan possible in fractions.

    Tries the makespan below the best first: where that is impossible the best is optimal.
    """

    def __init__(self, record: Record) -> None:
        self.finished = False
        self._record = record
        self._levels = levels(record.problem, record.makespan)
        self._master = Master(self._levels, COARSE)
        self._possible = record.makespan
        self._makespan = self._possible - 1

    def step(self, deadline: Deadline) -> None:
        """Set prices once, raise the bound as far as they do, and take the fillings they value."""
        record = self._record
        if record.makespan < self._possible:
            self._possible = record.makespan
            self._makespan = min(self._makespan, self._possible - 1)
        if record.lower_bound >= self._possible:
            self.finished = True
            return
        self._makespan = max(self._makespan, record.lower_bound)
        solution = self._master.solve(self._makespan)
        if solution is None:
            self.finished = True
            return
        share, prices = solution
        grown = False
        if share > 1:
            table = self._price(prices, deadline)
            if table is None:
                return
            record.raise_bound(self._refuted(table, prices), PROOF)
            grown = self._add_fillings(table)
        if record.lower_bound > self._makespan:
            self._makespan = (record.lower_bound + self._possible - 1) // 2
        elif not grown:
            self._refine()

    def _refine(self) -> None:
        """Finer prices, or a smaller makespan where they are as fine as they get."""
        finest = min(len(self._levels.sizes), FINEST)
        if self._master.resolution < finest:
            self._master.resolution = min(self._master.resolution * 3 // 2, finest)
        else:
            self._possible = self._makespan
            self._makespan = (self._record.lower_bound + self._possible - 1) // 2

    def _price(self, prices: Ints, deadline: Deadline) -> Knapsack | None:
        """The best fillings of every capacity up to the makespan's."""
        levels = self._levels
        capacity = max(levels.capacity(kind, self._makespan) for kind in levels.kinds)
        counts = [kind.count for kind in levels.kinds if kind.count is not None]
        most = max(counts) if counts else None
        return knapsack(levels.sizes, levels.copies, prices, capacity, most, deadline)

    def _refuted(self, table: Knapsack, prices: Ints) -> int:
        """The least makespan that the prices do not prove impossible."""
        levels = self._levels
        worth = int(prices @ levels.copies)

        def impossible(makespan: int) -> bool:
            fillings = (
                kind.machines * int(table.best[kind.row, levels.capacity(kind, makespan)])
                for kind in levels.kinds
            )
            return sum(fillings) < worth

        low, high = self._record.lower_bound, self._makespan + 1
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if impossible(middle) else (low, middle)
        return low

    def _add_fillings(self, table: Knapsack) -> bool:
        """Take the best fillings of several capacities; whether any is new."""
        grown = False
        for index, kind in enumerate(self._levels.kinds):
            capacity = self._levels.capacity(kind, self._makespan)
            for part in np.linspace(0.9 * capacity, capacity, FILLINGS).astype(int):
                grown |= self._master.add(table.filling(kind.row, int(part)), index)
        return grown
