"""What is tried on one layer in turn, cheapest first: what `auto` and the exact methods do.

Each step returns a solution at least as good: the placement re-evaluated on the true costs, and the
bound whichever proof is better.
"""

import sys
from collections.abc import Sequence

import numpy as np

from solver.bounds import lifted, lower_bound
from solver.deadline import Deadline, Effort
from solver.exact.enumeration import enumerate_placements
from solver.filling.configuration_program import PROOF, ConfigurationProgram
from solver.filling.cover import PROOF as COVERED
from solver.heuristics.contiguous import contiguous
from solver.heuristics.descent import descend
from solver.heuristics.exchange import exchange
from solver.heuristics.greedy import greedy
from solver.heuristics.resplit import resplit_pairs
from solver.heuristics.subset_sums import subset_sums
from solver.problem import Assignment, LayerProblem
from solver.request import Method
from solver.search.driver import LAST_SHARES, Refinement, Stage, Tell
from solver.search.starts import other_starts, seeded, start, tighter
from solver.solution import LayerSolution

DESCENTS = 3
"""How many starts are descended from, the best first."""

QUESTIONS = 12
"""Makespans asked for in one step, at most; a seeded search divides its work by as many."""

FILLED = 16
"""Placements filled by subset sums at a time, and descended from together."""

RESPLIT_S = 0.05
"""Seconds of dividing pairs of devices anew: what it does not find then, others find sooner."""

IMPORT_S = 0.5
"""OR-tools is imported where first needed, for quick plans do without; it takes that long."""


def steps_of(method: Method, tolerance: float, effort: Effort) -> list[Stage]:
    """What to try on a layer in turn; none for the heuristics, which are what they are."""
    fillings = Fillings(tolerance, effort)

    def exact(
        layer: LayerProblem, known: LayerSolution, deadline: Deadline, tell: Tell
    ) -> LayerSolution:
        if method == "ilp":
            from solver.exact.ilp import ilp

            return ilp(layer, known, tolerance, deadline)
        if too_late(deadline):
            return known
        from solver.exact.cp_sat import cp_sat

        if method == "auto":
            known = fillings.cover(layer, known, effort.half(deadline), tell)
            if known.gap <= tolerance:
                return known
        return cp_sat(layer, known, tolerance, deadline, effort, tell)

    match method:
        case "auto":
            return [
                Stage(enumerate_small),
                Stage(descend_from_starts),
                Stage(fillings.prove_and_resplit),
                Stage(fillings.cover_tighter, 0.5),
                Stage(fillings.cover, LAST_SHARES),
                Stage(exact, LAST_SHARES, alone=True),
            ]
        case "cp_sat" | "ilp":
            return [Stage(exact, LAST_SHARES, alone=True)]
    return []


def too_late(deadline: Deadline) -> bool:
    """Whether there is no time left to import OR-tools in."""
    return "ortools" not in sys.modules and deadline.left_s < IMPORT_S


def enumerate_small(
    layer: LayerProblem, known: LayerSolution, deadline: Deadline, _: Tell
) -> LayerSolution:
    """The optimum of a small layer of several workloads, whose own bounds prove little together."""
    return known if layer.workloads == 1 else enumerate_placements(layer, known, deadline)


def descend_from_starts(
    layer: LayerProblem, known: LayerSolution, deadline: Deadline, _: Tell
) -> LayerSolution:
    """Descents from several starts, under tighter rules too.

    By exchanges, which see charges that items share, where there are any.
    """
    bound = lower_bound(layer)
    best = known.prove(bound.seconds, bound.proof)
    best = _from_tighter(layer, best, descend_from_starts, deadline)
    starts = [contiguous(layer), greedy(layer), *other_starts(layer)]
    obeying = sorted((s for s in starts if layer.allows(s)), key=layer.makespan)
    if layer.additive and layer.workloads == 1:
        return best.place(layer, _descended(layer, [best.assignment, *obeying], deadline))
    for first in [best.assignment, *obeying[:DESCENTS]]:
        best = best.place(layer, exchange(layer, first, deadline))
    return best


def _from_tighter(
    layer: LayerProblem,
    known: LayerSolution,
    refine: Refinement,
    deadline: Deadline,
) -> LayerSolution:
    """With what a step finds under tighter rules, where a search may be further in its time."""
    for tight in tighter(layer):
        if deadline.left_s <= 0:
            break
        [quick] = start([tight], "auto", 0.0, deadline)
        own = refine(tight, quick, deadline, lambda _: None)
        known = seeded(layer, known, tight, own)
    return known


def _descended(layer: LayerProblem, starts: Sequence[Assignment], deadline: Deadline) -> Assignment:
    """The best of descents from all these starts at once, where costs add up item by item."""
    cost_s = layer.item_with_charge_s()[0]
    found = descend(
        np.broadcast_to(cost_s, (len(starts), *cost_s.shape)),
        np.stack(starts),
        deadline,
        swaps_only=layer.equal_counts,
    )
    return min(found, key=layer.makespan)


class Fillings:
    """What the devices of each layer can be filled with, kept from step to step."""

    def __init__(self, tolerance: float, effort: Effort) -> None:
        self.tolerance = tolerance
        self.effort = Effort(1, effort.seed, effort.units / QUESTIONS)
        self.programs: dict[LayerProblem, ConfigurationProgram] = {}
        self.random: dict[LayerProblem, np.random.Generator] = {}

    def program(self, layer: LayerProblem, known: LayerSolution) -> ConfigurationProgram:
        if layer not in self.programs:
            self.programs[layer] = ConfigurationProgram(layer, known.makespan_s)
        return self.programs[layer]

    def prove(
        self, layer: LayerProblem, known: LayerSolution, deadline: Deadline, _: Tell
    ) -> LayerSolution:
        """With the bound of the configuration program, where that is better."""
        program = self.program(layer, known)
        proved_s = program.bound_s(known.bound.seconds, known.makespan_s, self.tolerance, deadline)
        return known.prove(lifted(layer, proved_s), PROOF)

    def prove_and_resplit(
        self, layer: LayerProblem, known: LayerSolution, deadline: Deadline, tell: Tell
    ) -> LayerSolution:
        """The bound, and pairs of devices divided anew towards it."""
        known = self.prove(layer, known, deadline.within(deadline.left_s / 2), tell)
        return self.resplit(layer, known, deadline)

    def resplit(
        self, layer: LayerProblem, known: LayerSolution, deadline: Deadline
    ) -> LayerSolution:
        """A whole placement with pairs of devices divided anew towards the bound."""
        if layer.additive or known.gap <= self.tolerance:
            return known
        goal_s = known.bound.seconds / (1 - self.tolerance)
        until = deadline if self.effort.seed is not None else deadline.within(RESPLIT_S)
        return known.place(layer, resplit_pairs(layer, known.assignment, goal_s, until))

    def cover_tighter(
        self, layer: LayerProblem, known: LayerSolution, deadline: Deadline, _: Tell
    ) -> LayerSolution:
        """What is put together under tighter rules, descended to there first."""

        def descended_and_covered(
            tight: LayerProblem, quick: LayerSolution, until: Deadline, told: Tell
        ) -> LayerSolution:
            own = descend_from_starts(tight, quick, until, told)
            return self.cover(tight, own, self.effort.half(until), told)

        return _from_tighter(layer, known, descended_and_covered, deadline)

    def cover(
        self, layer: LayerProblem, known: LayerSolution, deadline: Deadline, tell: Tell
    ) -> LayerSolution:
        """A placement put together from fillings met, within what the bound leaves possible."""
        program = self.program(layer, known)
        if program.cover is None or too_late(deadline):
            return known
        program.cover.add_placement(known.assignment)
        refused_s = known.bound.seconds
        for question in range(QUESTIONS):
            if refused_s >= known.makespan_s * (1 - self.tolerance) or deadline.left_s <= 0:
                break
            aim_s = refused_s / (1 - self.tolerance)
            if question:
                aim_s = max(aim_s, (refused_s + known.makespan_s) / 2)
            if layer.identical and layer.additive:
                known = self._fill(layer, known, aim_s, deadline)
                tell(known)
                if known.makespan_s <= aim_s:
                    continue
            decided = program.cover.decide(aim_s, self.effort.half(deadline), self.effort)
            better = known.prove(lifted(layer, decided.bound_s), COVERED).place(
                layer, decided.assignment, searched=True
            )
            if better.makespan_s == known.makespan_s:
                refused_s = aim_s
            refused_s = max(refused_s, better.bound.seconds)
            known = better
            tell(known)
        return known

    def _fill(
        self,
        layer: LayerProblem,
        known: LayerSolution,
        goal_s: float,
        deadline: Deadline,
    ) -> LayerSolution:
        """The best of placements filled by subset sums; all of them are fillings met."""
        random = self.random.setdefault(layer, np.random.default_rng(0))
        cover = self.program(layer, known).cover
        assert cover is not None  # of one workload and whole items
        filled = [known.assignment]
        for _ in range(FILLED):
            if deadline.left_s <= 0:
                break
            filled.append(subset_sums(layer, goal_s, random))
            cover.add_placement(filled[-1])
        return known.place(layer, _descended(layer, filled, deadline), searched=True)
