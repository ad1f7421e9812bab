"""The restricted master: multipliers at which none of the fillings found so far is worth much."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from solver.deadline import Deadline
from solver.shares import Floats, Ints

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
        self.needs = np.zeros(0, dtype=np.int64)
        self.known: set[bytes] = set()

    def add(self, kind: int, columns: Floats, needs: Ints) -> NDArray[np.bool_]:
        """Take those of these [columns, classes] that are new; which, `[columns]`.

        `needs` [columns]: the capacity that each takes.
        """
        new = np.zeros(len(columns), dtype=bool)
        for place, column in enumerate(columns):
            key = _key(kind, column)
            new[place] = key not in self.known
            self.known.add(key)
        self.columns = np.vstack([self.columns, columns[new]])
        self.kinds = np.concatenate([self.kinds, np.full(int(new.sum()), kind)])
        self.needs = np.concatenate([self.needs, needs[new]])
        return new

    def multipliers(self, capacity: int, deadline: Deadline) -> tuple[Floats, float] | None:
        """Multipliers of the classes, and what all devices are worth by them; None if out of time.

        By the columns within `capacity`. With a worth of 1 or more they cover everything: a
        fractional placement exists.
        """
        usable = np.flatnonzero(self.needs <= capacity)
        classes, kinds = len(self.items_of_class), len(self.devices_of_kind)
        of_kind = np.zeros((len(usable), kinds))
        of_kind[np.arange(len(usable)), self.kinds[usable]] = -1.0
        solved = linprog(
            np.concatenate([np.zeros(classes), self.devices_of_kind]),
            A_ub=np.hstack([self.columns[usable], of_kind]),
            b_ub=np.zeros(len(usable)),
            A_eq=np.concatenate([self.items_of_class, np.zeros(kinds)])[None],
            b_eq=[float(self.items_of_class.sum())],
            method="highs",
            options={"time_limit": max(deadline.left_s, 1e-3)},
        )
        if solved.status != 0 or solved.x is None or solved.fun is None:
            return None
        self._forget(usable, np.asarray(solved.slack, dtype=np.float64))
        total = float(self.items_of_class.sum())
        return np.maximum(solved.x[:classes], 0.0) / total, float(solved.fun) / total

    def _forget(self, usable: Ints, slack: Floats) -> None:
        """Drop the columns that are worth least by the latest multipliers."""
        most = KEPT_PER_ROW * (len(self.items_of_class) + len(self.devices_of_kind))
        if len(usable) <= 2 * most:
            return
        dropped = usable[np.argsort(slack, kind="stable")[most:]]
        for place in dropped:
            self.known.discard(_key(int(self.kinds[place]), self.columns[place]))
        self.columns = np.delete(self.columns, dropped, axis=0)
        self.kinds, self.needs = np.delete(self.kinds, dropped), np.delete(self.needs, dropped)


def _key(kind: int, column: Floats) -> bytes:
    return bytes([kind]) + np.round(column, 9).tobytes()
