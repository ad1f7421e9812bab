"""Placements that fit in memory, where the quickest of every layer do not fit together.

A pool of candidates per layer: the quickest, whole KV groups, file order, what the devices hold
now, placements made with memory priced (Lagrangian relaxation, Everett 1963), and all these
thinned copy by copy. From the pool one candidate a layer is chosen, devices are relabelled, and
quicker candidates are put back wherever they still fit. Whole groups packed into what memory there
is stand by from the first milliseconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from solver.coupling.choose import choose
from solver.coupling.pack import pack
from solver.coupling.price import Bracket, priced
from solver.coupling.relabel import Columns, deal
from solver.coupling.room import Room, with_grace
from solver.coupling.shortage import MemoryNotMetError
from solver.coupling.thin import thinned
from solver.deadline import Deadline
from solver.heuristics.contiguous import contiguous
from solver.heuristics.greedy import greedy
from solver.heuristics.greedy_equal import greedy_equal
from solver.problem import Floats, Ints, LayerProblem, PlacementProblem, Shares
from solver.solution import LayerSolution

SolveAgain = Callable[[PlacementProblem], Sequence[LayerSolution]]

FIRST_PRICE = 0.03
"""Of a mean layer's makespan for a mean group's copy."""

PRICE_ROUNDS = 8
TIGHTENINGS = 7
GOOD_ENOUGH = 1e-3
"""Share of the plan's makespan that memory may cost without a further search."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A layer's placement and the bytes it takes, `[devices]`."""

    solution: LayerSolution
    held: Floats


class Pool:
    """Every layer's candidates, and the best choice among them."""

    def __init__(self, room: Room, quickest: Sequence[LayerSolution], limits: Floats) -> None:
        self.room = room
        self.quickest = quickest
        self.limits = limits
        self.layers = [
            [Candidate(solution, room.held_bytes(index, solution.shares))]
            for index, solution in enumerate(quickest)
        ]

    def add(self, shares: Sequence[Shares | None]) -> list[LayerSolution]:
        """One more candidate for every layer that has one, at its true makespan."""
        added = []
        for index, (own, quickest) in enumerate(zip(shares, self.quickest, strict=True)):
            if own is not None:
                makespan_s = _makespan_s(self.room.problem.layer(index), own)
                found = replace(quickest, shares=own, makespan_s=makespan_s, searched=False)
                self.layers[index].append(Candidate(found, self.room.held_bytes(index, own)))
                added.append(found)
        return added

    def thin(self, solutions: Sequence[LayerSolution], deadline: Deadline) -> None:
        """Ever smaller candidates from `solutions`, where their devices are too full."""
        problem = self.room.problem
        full = problem.type_of[self.room.overruns(solutions) > 0]
        scarce = np.isin(problem.type_of, full).astype(np.float64)
        paths = [
            thinned(problem, self.room.footprint, index, s.shares, scarce, deadline)
            for index, s in enumerate(solutions)
        ]
        for row in zip_longest(*paths):
            if deadline.left_s > 0:
                self.add(row)

    def best(self, deadline: Deadline) -> list[LayerSolution]:
        """A choice that fits if one is found, else the one nearest to it."""
        makespans, held, capacity = self._table()
        tried = []
        for attempt in range(TIGHTENINGS):
            picks = choose(makespans, held, capacity)
            chosen = [self.layers[i][pick].solution for i, pick in enumerate(picks)]
            tried.append(self.room.relabelled(chosen, deadline))
            overruns = self._by_class(self.room.overruns(tried[-1]))
            if not overruns.any() or deadline.left_s <= 0:
                break
            # Bytes come in lumps that do not fill the devices: leave more and more of them free.
            taken = held[np.arange(len(picks)), picks].sum(axis=0)
            capacity = np.where(overruns > 0, taken - 2**attempt * overruns, capacity)
        return self.quicker(min(tried, key=self.room.rank), deadline)

    def quicker(
        self, solutions: Sequence[LayerSolution], deadline: Deadline
    ) -> list[LayerSolution]:
        """Quicker candidates put back, the largest gain first, where the limits still hold."""
        result, held = list(solutions), self.room.held(solutions)
        gains = [
            (result[index].makespan_s - candidate.solution.makespan_s, index, candidate)
            for index, candidates in enumerate(self.layers)
            for candidate in candidates
        ]
        for _, index, candidate in sorted(gains, key=lambda gain: -gain[0]):
            if deadline.left_s <= 0:
                break
            if candidate.solution.makespan_s >= result[index].makespan_s:
                continue
            others = held.sum(axis=0) - held[index]
            columns = Columns(self.room.classes, candidate.held[None], None, self.limits)
            order = deal(columns, 0, others)
            if (others + candidate.held[order] <= self.limits).all():
                solution = candidate.solution
                result[index] = replace(solution, shares=solution.shares[:, order])
                held[index] = candidate.held[order]
        return result

    def _table(self) -> tuple[Floats, Floats, Floats]:
        """Makespans [layers, candidates], bytes [layers, candidates, classes], limits [classes]."""
        widest = max(len(candidates) for candidates in self.layers)
        makespans = np.full((len(self.layers), widest), np.inf)
        held = np.zeros((len(self.layers), widest, len(self.room.classes)))
        for index, candidates in enumerate(self.layers):
            for pick, candidate in enumerate(candidates):
                makespans[index, pick] = candidate.solution.makespan_s
                held[index, pick] = self._by_class(candidate.held)
        return makespans, held, self._by_class(self.limits)

    def _by_class(self, by_device: Floats) -> Floats:
        return np.array([by_device[devices].sum() for devices in self.room.classes])


def fit_memory(
    room: Room,
    limits: Floats,
    quickest: Sequence[LayerSolution],
    solve_again: SolveAgain,
    deadline: Deadline,
    now: Sequence[Shares | None],
) -> list[LayerSolution]:
    """Solutions within `limits` [devices], as quick as found; MemoryNotMetError without any.

    `now` is what each layer may keep of the current plan, shares of the problem's items or None.
    """
    pool = Pool(room, quickest, limits)
    soon = with_grace(deadline)
    best = list(quickest)
    packed = pack(room.problem, room.footprint, limits)
    if packed is not None:
        best = min(best, pool.add(_whole_groups(room.problem, packed)), key=room.rank)
    stays = pool.add(now)
    if len(stays) == len(best):
        best = min(best, stays, key=room.rank)
    for shares in _quick(room.problem, soon):
        pool.add(shares)
    best = min(pool.best(soon), pool.quicker(best, soon), key=room.rank)
    pool.thin(quickest, soon)
    best = min(best, pool.best(soon), key=room.rank)
    best = _with_prices(pool, solve_again, best, deadline)
    overruns = room.overruns(best)
    if overruns.any():
        raise MemoryNotMetError(int(overruns.max()), int(overruns.argmax()))
    return best


def _with_prices(
    pool: Pool, solve_again: SolveAgain, best: list[LayerSolution], deadline: Deadline
) -> list[LayerSolution]:
    """The best that the pool gives when placements with memory priced join it."""
    room, problem, quickest = pool.room, pool.room.problem, list(pool.quickest)
    quickest_s = sum(s.makespan_s for s in quickest)
    first = FIRST_PRICE * quickest_s / problem.layers / float(room.footprint.group_bytes.mean())
    bracket = Bracket(first, problem.head_s.shape[-1])
    latest = quickest
    for _ in range(PRICE_ROUNDS):
        good_enough = room.rank(best) <= (0.0, quickest_s * (1 + GOOD_ENOUGH))
        if deadline.left_s <= 0 or good_enough:
            break
        price = bracket.after(np.unique(problem.type_of[room.overruns(latest) > 0]))
        again = solve_again(priced(problem, room.footprint, price))
        latest = room.relabelled(pool.add([s.shares for s in again]), deadline)
        pool.thin(latest, deadline)
        best = min(best, latest, pool.best(deadline), key=room.rank)
    return best


def _makespan_s(layer: LayerProblem, shares: Shares) -> float:
    """The makespan of shares, the quick way where nothing is divided."""
    if ((shares > 0).sum(axis=1) == 1).all():
        return layer.makespan(np.asarray(shares.argmax(axis=1), dtype=np.int64))
    return layer.objective(layer.loads_of_shares(shares))


def _quick(problem: PlacementProblem, deadline: Deadline) -> list[list[Shares | None]]:
    """Placements with few copies that need no search: file order, and whole groups."""
    rows: list[list[Shares | None]] = [[None] * problem.layers for _ in range(3)]
    for index in range(problem.layers):
        if deadline.left_s <= 0:
            break
        layer = problem.layer(index)
        by_group = layer.by_group()
        tried = (
            contiguous(layer),
            greedy(by_group)[layer.group_of],
            greedy_equal(by_group)[layer.group_of],
        )
        for row, assignment in zip(rows, tried, strict=True):
            row[index] = layer.whole(assignment) if layer.allows(assignment) else None
    return rows


def _whole_groups(problem: PlacementProblem, devices: Ints) -> list[Shares]:
    """Shares of the problem's items, for the device of every group `[layers, kv_heads]`."""
    layers = [problem.layer(index) for index in range(problem.layers)]
    return [layer.whole(own[layer.group_of]) for layer, own in zip(layers, devices, strict=True)]
