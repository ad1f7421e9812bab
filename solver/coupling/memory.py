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

from solver.coupling.footprint import Footprint
from solver.coupling.relabel import Columns, Shared, deal, with_grace
from solver.coupling.shortage import MemoryNotMetError
from solver.coupling.thin import thinned
from solver.deadline import Deadline
from solver.heuristics.contiguous import contiguous
from solver.heuristics.greedy import greedy
from solver.heuristics.greedy_equal import greedy_equal
from solver.problem import PlacementProblem
from solver.shares import Floats, Ints, Shares
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


class Candidates:
    """Every layer's candidates, and the best choice among them."""

    def __init__(self, shared: Shared, quickest: Sequence[LayerSolution], limits: Floats) -> None:
        self.shared = shared
        self.quickest = quickest
        self.limits = limits
        self.layers = [
            [Candidate(solution, shared.held_bytes(index, solution.shares))]
            for index, solution in enumerate(quickest)
        ]

    def add(self, shares: Sequence[Shares | None]) -> list[LayerSolution]:
        """One more candidate for every layer that has one, at its true makespan."""
        added = []
        for index, (own, quickest) in enumerate(zip(shares, self.quickest, strict=True)):
            if own is not None:
                layer = self.shared.problem.layer(index)
                makespan_s = layer.objective(layer.loads_of_shares(own))
                found = replace(quickest, shares=own, makespan_s=makespan_s, searched=False)
                self.layers[index].append(Candidate(found, self.shared.held_bytes(index, own)))
                added.append(found)
        return added

    def thin(self, solutions: Sequence[LayerSolution], deadline: Deadline) -> None:
        """Ever smaller candidates from `solutions`, where their devices are too full."""
        problem = self.shared.problem
        full = problem.type_of[self.shared.overruns(solutions) > 0]
        scarce = np.isin(problem.type_of, full).astype(np.float64)
        paths = [
            thinned(problem, self.shared.footprint, index, s.shares, scarce, deadline)
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
            tried.append(self.shared.relabelled(chosen, deadline))
            overruns = self._by_class(self.shared.overruns(tried[-1]))
            if not overruns.any() or deadline.left_s <= 0:
                break
            # Bytes come in lumps that do not fill the devices: leave more and more of them free.
            taken = held[np.arange(len(picks)), picks].sum(axis=0)
            capacity = np.where(overruns > 0, taken - 2**attempt * overruns, capacity)
        return self.quicker(min(tried, key=self.shared.rank), deadline)

    def quicker(
        self, solutions: Sequence[LayerSolution], deadline: Deadline
    ) -> list[LayerSolution]:
        """Quicker candidates put back, the largest gain first, where the limits still hold."""
        result, held = list(solutions), self.shared.held(solutions)
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
            columns = Columns(self.shared.classes, candidate.held[None], None, self.limits)
            order = deal(columns, 0, others)
            if (others + candidate.held[order] <= self.limits).all():
                solution = candidate.solution
                result[index] = replace(solution, shares=solution.shares.dealt(order))
                held[index] = candidate.held[order]
        return result

    def _table(self) -> tuple[Floats, Floats, Floats]:
        """Makespans [layers, candidates], bytes [layers, candidates, classes], limits [classes]."""
        widest = max(len(candidates) for candidates in self.layers)
        makespans = np.full((len(self.layers), widest), np.inf)
        held = np.zeros((len(self.layers), widest, len(self.shared.classes)))
        for index, candidates in enumerate(self.layers):
            for pick, candidate in enumerate(candidates):
                makespans[index, pick] = candidate.solution.makespan_s
                held[index, pick] = self._by_class(candidate.held)
        return makespans, held, self._by_class(self.limits)

    def _by_class(self, by_device: Floats) -> Floats:
        return np.array([by_device[devices].sum() for devices in self.shared.classes])


def fit_memory(
    shared: Shared,
    limits: Floats,
    quickest: Sequence[LayerSolution],
    solve_again: SolveAgain,
    deadline: Deadline,
    now: Sequence[Shares | None],
) -> list[LayerSolution]:
    """Solutions within `limits` [devices], as quick as found; MemoryNotMetError without any.

    `now` is what each layer may keep of the current plan, shares of the problem's items or None.
    """
    candidates = Candidates(shared, quickest, limits)
    soon = with_grace(deadline)
    best = list(quickest)
    packed = pack(shared.problem, shared.footprint, limits)
    whole = [now] if packed is None else [_whole_groups(shared.problem, packed), now]
    for shares in whole:
        added = candidates.add(shares)
        if len(added) == len(best):
            best = min(best, added, key=shared.rank)
    for shares in _quick(shared.problem, soon):
        candidates.add(shares)
    best = min(candidates.best(soon), candidates.quicker(best, soon), key=shared.rank)
    candidates.thin(quickest, soon)
    best = min(best, candidates.best(soon), key=shared.rank)
    best = _with_prices(candidates, solve_again, best, deadline)
    overruns = shared.overruns(best)
    if overruns.any():
        raise MemoryNotMetError(int(overruns.max()), int(overruns.argmax()))
    return best


def _with_prices(
    candidates: Candidates, solve_again: SolveAgain, best: list[LayerSolution], deadline: Deadline
) -> list[LayerSolution]:
    """The best that the pool gives when placements with memory priced join it."""
    shared, problem = candidates.shared, candidates.shared.problem
    quickest = list(candidates.quickest)
    quickest_s = sum(s.makespan_s for s in quickest)
    first = FIRST_PRICE * quickest_s / problem.layers / float(shared.footprint.group_bytes.mean())
    bracket = Bracket(first, problem.head_s.shape[-1])
    latest = quickest
    for _ in range(PRICE_ROUNDS):
        good_enough = shared.rank(best) <= (0.0, quickest_s * (1 + GOOD_ENOUGH))
        if deadline.left_s <= 0 or good_enough:
            break
        price = bracket.after(np.unique(problem.type_of[shared.overruns(latest) > 0]))
        again = solve_again(priced(problem, shared.footprint, price))
        latest = shared.relabelled(candidates.add([s.shares for s in again]), deadline)
        candidates.thin(latest, deadline)
        best = min(best, latest, candidates.best(deadline), key=shared.rank)
    return best


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


def _whole_groups(problem: PlacementProblem, devices: Ints) -> list[Shares | None]:
    """Shares of the problem's items, for the device of every group `[layers, kv_heads]`.

    None for a layer whose rules do not allow it: replicas of a group are on several devices.
    """
    layers = [problem.layer(index) for index in range(problem.layers)]
    tried = [(layer, own[layer.group_of]) for layer, own in zip(layers, devices, strict=True)]
    return [layer.whole(each) if layer.allows(each) else None for layer, each in tried]


def choose(makespan_s: Floats, held: Floats, capacity: Floats) -> Ints:
    """The candidate of every layer, `[layers]`; the least excess found where nothing fits.

    Toyoda's effective gradient (Management Science 21(12), 1975) for the multiple-choice knapsack:
    from every layer's quickest candidate, switch the layer that pays the fewest seconds per byte of
    excess removed until the capacities hold, then take back every switch that has become needless.

    `makespan_s` [layers, candidates], infinite where a layer has fewer; `held` [layers,
    candidates, classes] bytes; `capacity` [classes] bytes.
    """
    every = np.arange(len(makespan_s))
    picks = np.asarray(makespan_s.argmin(axis=1), dtype=np.int64)
    while True:
        excess, excess_if = _excesses(picks, held, capacity)
        dearer_s = np.maximum(makespan_s - makespan_s[every, picks][:, None], 0)
        removed = excess - excess_if
        usable = (removed > 0) & np.isfinite(makespan_s)
        if excess == 0 or not usable.any():
            return _taken_back(picks, makespan_s, held, capacity)
        per_byte = np.where(usable, dearer_s / np.where(usable, removed, 1), np.inf)
        # Of equally cheap switches (free ones, say) the one that removes most.
        cheapest = np.where(per_byte <= per_byte.min(), removed, -np.inf)
        layer, candidate = np.unravel_index(cheapest.argmax(), cheapest.shape)
        picks[layer] = candidate


def _taken_back(picks: Ints, makespan_s: Floats, held: Floats, capacity: Floats) -> Ints:
    """Quicker candidates wherever the excess does not grow, the largest gain first."""
    every = np.arange(len(picks))
    while True:
        excess, excess_if = _excesses(picks, held, capacity)
        gain_s = np.where(excess_if <= excess, makespan_s[every, picks][:, None] - makespan_s, 0)
        layer, candidate = np.unravel_index(gain_s.argmax(), gain_s.shape)
        if gain_s[layer, candidate] <= 0:
            return picks
        picks[layer] = candidate


def _excesses(picks: Ints, held: Floats, capacity: Floats) -> tuple[float, Floats]:
    """Bytes above the capacities now, and after each possible switch `[layers, candidates]`."""
    taken = held[np.arange(len(picks)), picks]
    totals = taken.sum(axis=0)
    after = totals - taken[:, None] + held
    return float(_above(totals, capacity)), np.asarray(_above(after, capacity))


def _above(totals: Floats, capacity: Floats) -> Floats:
    return np.asarray(np.maximum(totals - capacity, 0).sum(axis=-1))


def pack(problem: PlacementProblem, footprint: Footprint, limits: Floats) -> Ints | None:
    """The device of every KV group, `[layers, kv_heads]`, or None where the last find no room.

    The placement that needs least memory keeps every group together. Largest first (first-fit
    decreasing, Johnson 1973), on the device with room that would finish the group's layer first:
    where all groups take the same bytes, it finds room for all whenever there is room.
    """
    if problem.equal_counts:
        return None
    seconds = _group_seconds(problem)
    sizes = footprint.group_bytes
    left, loads = limits.copy(), np.zeros((problem.layers, problem.devices))
    devices = np.empty(sizes.shape, dtype=np.int64)
    order = np.lexsort((-seconds.mean(axis=-1).ravel(), -sizes.ravel()))
    for unit in order:
        layer, group = np.unravel_index(unit, sizes.shape)
        finish = loads[layer] + seconds[layer, group]
        finish[left < sizes[layer, group]] = np.inf
        device = int(finish.argmin())
        if not np.isfinite(finish[device]):
            return None
        devices[layer, group] = device
        left[device] -= sizes[layer, group]
        loads[layer, device] = finish[device]
    return devices


def _group_seconds(problem: PlacementProblem) -> Floats:
    """A whole group with its charge, mean over workloads, `[layers, kv_heads, devices]`."""
    heads_s = np.tensordot(problem.weights, problem.head_s, 1)
    charges_s = np.tensordot(problem.weights, problem.group_s, 1)
    grouped_s = heads_s.reshape(problem.layers, problem.kv_heads, -1, heads_s.shape[-1])
    return np.asarray((grouped_s.sum(axis=2) + charges_s)[..., problem.type_of])


PRICE_STEP = 3.0


class Bracket:
    """Prices [types] that rise where devices are too full, then close in on the least enough.

    Between the last ones too low and the last ones enough by bisection, in powers.
    """

    def __init__(self, first: float, types: int) -> None:
        self.first = first
        self.price = np.zeros(types)
        self.too_low = self.price
        self.enough: Floats | None = None

    def after(self, full: Ints) -> Floats:
        """The next prices, when at the last ones the types `full` were too full, perhaps none."""
        if not len(full):
            self.enough = self.price
        else:
            self.too_low = self.price
        if self.enough is None:
            self.price = self.too_low.copy()
            self.price[full] = np.maximum(PRICE_STEP * self.price[full], self.first)
        else:
            least = np.maximum(self.too_low, self.enough / PRICE_STEP**2)
            self.price = np.sqrt(least * self.enough)
        return self.price


def priced(problem: PlacementProblem, footprint: Footprint, price: Floats) -> PlacementProblem:
    """The problem with `price` [types] seconds a byte on K/V and weights.

    A group is charged for what its hungriest head keeps, wherever it is; a part of a head for all
    of the head's weights. Makespans of the priced problem mean nothing outside the search.
    """
    per_head = footprint.projection_bytes * price
    per_group = footprint.kept_tokens.max(axis=-1) * footprint.token_bytes
    per_group = per_group + footprint.projection_bytes
    return replace(
        problem,
        head_s=problem.head_s + per_head,
        part_s=problem.part_s + per_head,
        group_s=problem.group_s + per_group[..., None] * price,
    )
