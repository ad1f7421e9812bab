"""The restricted master: multipliers at which none of the fillings found so far is worth much."""

import numpy as np
from scipy.optimize import linprog

from solver.placement.exact import Deadline
from solver.problem import Floats, Ints

KEPT_PER_ROW = 3
"""Columns kept a class of items: those the multipliers come closest to using."""


class Master:
    """Columns (fillings) by kind of device, in shares of every class of items.

    Its linear program covers every class with fillings, at most as many of a kind as there are
    devices; this is its dual (Gilmore & Gomory 1961): multipliers of sum 1 for which the best
    fillings of all devices are worth least in total.
    """

    def __init__(self, items_of_class: Ints, devices_of_kind: Ints) -> None:
        self.items_of_class = items_of_class
        self.devices_of_kind = devices_of_kind
        self.columns = np.zeros((0, len(items_of_class)))
        self.kinds = np.zeros(0, dtype=np.int64)
        self.known: set[bytes] = set()

    def add(self, kind: int, columns: Floats) -> int:
        """Take those of these [columns, classes] that are new; how many."""
        fresh = []
        for column in columns:
            key = bytes([kind]) + np.round(column, 9).tobytes()
            if key not in self.known:
                self.known.add(key)
                fresh.append(column)
        if fresh:
            self.columns = np.vstack([self.columns, fresh])
            self.kinds = np.concatenate([self.kinds, np.full(len(fresh), kind)])
        return len(fresh)

    def multipliers(self, deadline: Deadline) -> tuple[Floats, float] | None:
        """Multipliers of the classes, and what all devices are worth by them; None if out of time.

        With a worth of 1 or more, the columns cover everything: a fractional placement exists.
        """
        classes, kinds = len(self.items_of_class), len(self.devices_of_kind)
        of_kind = np.zeros((len(self.kinds), kinds))
        of_kind[np.arange(len(self.kinds)), self.kinds] = -1.0
        solved = linprog(
            np.concatenate([np.zeros(classes), self.devices_of_kind]),
            A_ub=np.hstack([self.columns, of_kind]),
            b_ub=np.zeros(len(self.kinds)),
            A_eq=np.concatenate([self.items_of_class, np.zeros(kinds)])[None],
            b_eq=[float(self.items_of_class.sum())],
            method="highs",
            options={"time_limit": max(deadline.left_s, 1e-3)},
        )
        if solved.status != 0 or solved.x is None or solved.fun is None:
            return None
        self._forget(np.asarray(solved.slack, dtype=np.float64))
        total = float(self.items_of_class.sum())
        return np.maximum(solved.x[:classes], 0.0) / total, float(solved.fun) / total

    def _forget(self, slack: Floats) -> None:
        """Drop the columns that are worth least by the latest multipliers."""
        most = KEPT_PER_ROW * (len(self.items_of_class) + len(self.devices_of_kind))
        if len(slack) <= 2 * most:
            return
        kept = np.sort(np.argsort(slack, kind="stable")[:most])
        for kind, column in zip(
            np.delete(self.kinds, kept), np.delete(self.columns, kept, axis=0), strict=True
        ):
            self.known.discard(bytes([int(kind)]) + np.round(column, 9).tobytes())
        self.columns, self.kinds = self.columns[kept], self.kinds[kept]
