"""Placements put together from fillings of single devices, so many as there are devices.

The cutting-stock program over patterns (Gilmore & Gomory 1961), in whole numbers. Where items
repeat few costs, all fillings within a makespan are listed, so that "none" is a proof (the dual
approximation of Hochbaum & Shmoys 1987, exact here). Where they are too many, those that column
generation met (the restricted master heuristic: Sadykov, Vanderbeck, Pessoa, Tahiri & Uchoa 2019)
and those of other placements are asked of.
"""

from dataclasses import dataclass

import numpy as np

from solver.deadline import Deadline, Effort
from solver.exact.interchangeable import classes_of
from solver.exact.symmetry import device_classes
from solver.filling.listing import WholeCosts, all_fillings
from solver.integers import seconds_of
from solver.problem import Assignment, LayerProblem
from solver.shares import Floats, Ints

LEVELS = 10_000_000
"""Whole numbers of a makespan: what rounding down loses is nothing."""

FEW, MOST = 1_500, 20_000
"""Listed fillings asked of first, and at all; a covering by 1,500 takes some 50 ms."""

MET = 3_000
"""Of fillings met, those asked of."""

PROOF = "covering with fillings"


@dataclass(frozen=True, eq=False)
class Decided:
    """A placement within the makespan asked for, or none; `bound_s` where none is proved."""

    assignment: Assignment | None = None
    bound_s: float = 0.0


class Cover:
    """The fillings met of a layer of one workload, by device type, in items of every class."""

    def __init__(self, layer: LayerProblem, reached_s: float) -> None:
        self.layer = layer
        self.classes = classes_of(layer)
        self.devices = device_classes(layer)
        self.scale = LEVELS / reached_s
        self.launch_s = float(layer.launch_s[0, 0])
        self.whole = WholeCosts.of(layer, self.classes, self.scale) if layer.identical else None
        self.met: dict[int, dict[bytes, None]] = {}

    def add(self, of_type: int, sets: Floats) -> None:
        """Fillings `[fillings, items]` of 0 and 1."""
        counts = np.zeros((len(sets), len(self.classes.quantity)), dtype=np.int16)
        np.add.at(counts.T, self.classes.of_item, np.rint(sets).astype(np.int16).T)
        self.met.setdefault(of_type, {}).update(dict.fromkeys(row.tobytes() for row in counts))

    def add_placement(self, assignment: Assignment) -> None:
        """What every device has of a placement."""
        sets = self.layer.whole(assignment).dense.T
        for of_type in np.unique(self.layer.type_of):
            self.add(int(of_type), sets[self.layer.type_of == of_type])

    def decide(self, within_s: float, deadline: Deadline, effort: Effort) -> Decided:
        """Whether there is a placement within `within_s` seconds."""
        room = int((within_s - self.launch_s) * self.scale * (1 + 1e-12))
        listed = None if self.whole is None else all_fillings(self.whole, room, deadline)
        if listed is None or len(listed) > MOST:
            met = [self._met(within_s, devices) for devices in self.devices]
            return Decided(self._cover(met, deadline, effort)[0])
        if len(listed) > FEW:
            few = self._of_counts(listed[:FEW])
            quick, _ = self._cover(few, effort.half(deadline), effort)
            if quick is not None:
                return Decided(quick)
        found, impossible = self._cover(self._of_counts(listed), deadline, effort)
        above_s = seconds_of(room + 1, self.scale) + self.launch_s
        return Decided(found, above_s if impossible else 0.0)

    def _of_counts(self, listed: Ints) -> list[Ints]:
        """The listed fillings for every class of devices."""
        if not self.layer.equal_counts:
            return [listed]
        held = listed.sum(axis=1)
        return [listed[held == self.layer.counts[devices[0]]] for devices in self.devices]

    def _met(self, within_s: float, devices: Ints) -> Ints:
        """The fillings met `[fillings, classes]` for these devices, the fullest first."""
        layer, device = self.layer, int(devices[0])
        met = self.met.get(int(layer.type_of[device]), {})
        shape = (len(met), len(self.classes.quantity))
        counts = np.frombuffer(b"".join(met), dtype=np.int16).reshape(shape).astype(np.int64)
        if layer.equal_counts:
            counts = counts[counts.sum(axis=1) == layer.counts[device]]
        if layer.slots is not None:
            groups = np.arange(layer.groups)[:, None] == self.classes.group_of
            counts = counts[(counts @ groups.T > 0).sum(axis=1) <= layer.slots]
        loads = self.classes.loads(layer, counts, device)
        fullest = np.argsort(-loads, kind="stable")
        return np.asarray(counts[fullest[loads[fullest] <= within_s][:MET]])

    def _cover(
        self, fillings: list[Ints], deadline: Deadline, effort: Effort
    ) -> tuple[Assignment | None, bool]:
        """All items covered by these fillings of every class of devices; or whether none can."""
        # Imported where first needed: OR-tools takes half a second.
        from ortools.sat.python import cp_model

        from solver.exact.cp_sat import run

        classes, devices = self.classes, self.devices
        model = cp_model.CpModel()
        times = [
            [model.new_int_var(0, len(own), "") for _ in rows]
            for own, rows in zip(devices, fillings, strict=True)
        ]
        for own, chosen in zip(devices, times, strict=True):
            model.add(sum(chosen) <= len(own))
        for number, quantity in enumerate(classes.quantity.tolist()):
            if deadline.left_s <= 0:
                return None, False
            with_it = [
                (chosen[i], int(rows[i, number]))
                for rows, chosen in zip(fillings, times, strict=True)
                for i in np.flatnonzero(rows[:, number])
            ]
            if not with_it:
                return None, True
            model.add(cp_model.LinearExpr.weighted_sum(*zip(*with_it, strict=True)) >= quantity)
        solver = cp_model.CpSolver()
        solver.parameters.cp_model_presolve = False
        status = run(solver, model, deadline, effort)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None, status == cp_model.INFEASIBLE
        counts = np.zeros((len(classes.quantity), self.layer.devices), dtype=np.int64)
        for own, rows, chosen in zip(devices, fillings, times, strict=True):
            used = np.repeat(rows, [solver.value(x) for x in chosen], axis=0)
            counts[:, own[: len(used)]] = used.T
        # Without what is done more than once.
        ends = np.minimum(counts.cumsum(axis=1), classes.quantity[:, None])
        return classes.placed(np.diff(ends, axis=1, prepend=0)), False
