"""Sharing out over nodes first, then inside each: few KV groups cross from node to node.

A node is a bin that holds whole groups: longest first, each topped up by the best one or two that
still fit (the minimum bin slack heuristic: Gupta & Ho 1999). What fits nowhere is wrapped around
the room that is left, and inside every node its items are wrapped around its devices. What that
takes depends on which groups meet: nodes that need more than others swap groups with them.
"""

from dataclasses import dataclass
from math import inf
from typing import Self

import numpy as np

from solver.deadline import Deadline
from solver.divide.seconds import Piece, Seconds
from solver.divide.wrap_around import as_shares, best_pieces, blend
from solver.problem import LayerProblem
from solver.shares import LEAST_SHARE, Floats, Shares

SLACK = 0.008
"""Makespan given up so that fewer groups cross, relatively."""

ROUNDS = 12
NEAR = 0.01
"""Groups are sized anew by what their nodes turned out to need, until the makespan is this near."""

MOST_SWAPS = 8
"""Tried of one node before it is left as it is."""

FULL = 1e-9
"""A group with less than this share of a node left to place is placed."""

Amounts = Floats
"""Share of every group's work that every node does, `[groups, nodes]`."""


def over_nodes(
    layer: LayerProblem, node_size: int, deadline: Deadline, least_s: float
) -> Shares | None:
    """Shares, nodes of `node_size` devices by index; None without time for it.

    `least_s` bounds the makespan. Several workloads are shared out by their weighted
    seconds. An item goes to at most
    `max_copies` devices of a node; over all nodes that is the caller's to check.
    """
    blended = blend(layer)
    sizes = _sizes(blended, least_s)
    best: _Nodes | None = None
    for _ in range(ROUNDS):
        nodes = _Nodes.of(blended, sizes, node_size, least_s, deadline)
        if nodes is None:
            break
        nodes.even_out(deadline)
        if best is None or nodes.makespan_s < best.makespan_s:
            best = nodes
        if best.makespan_s <= least_s * (1 + NEAR):
            break
        sizes = sizes * (nodes.amounts @ nodes.levels) / nodes.levels.mean()
    return None if best is None else as_shares(layer, best.pieces())


@dataclass
class _Nodes:
    """What every node does: `amounts` of groups, which are `parts` of items; the pieces that its
    `size` devices take, of the parts' numbers, and the level they need, at least `least_s`.

    `sizes` of groups are seconds.
    """

    seconds: Seconds
    sizes: Floats
    size: int
    least_s: float
    amounts: Amounts
    parts: list[dict[int, float]]
    placed: list[list[Piece]]
    levels: Floats

    @classmethod
    def of(
        cls, layer: LayerProblem, sizes: Floats, size: int, least_s: float, deadline: Deadline
    ) -> Self | None:
        """Groups of such sizes packed, and every node wrapped around; None without time for it."""
        amounts = _pack(sizes, layer.devices // size)
        parts, none = _parts_of_nodes(layer, amounts), np.empty(0)
        nodes = cls(Seconds.of(layer), sizes, size, least_s, amounts, parts, [], none)
        levels = []
        for own in parts:
            placed, level = nodes._wrapped(own, deadline)
            if placed is None:
                return None
            nodes.placed.append(placed)
            levels.append(level)
        nodes.levels = np.array(levels)
        return nodes

    @property
    def makespan_s(self) -> float:
        return float(self.levels.max())

    def pieces(self) -> list[Piece]:
        """The pieces of all devices, of the layer's items."""
        found = []
        for node, (parts, placed) in enumerate(zip(self.parts, self.placed, strict=True)):
            items, first = list(parts), node * self.size
            found += [(items[i], first + d, share * parts[items[i]]) for i, d, share in placed]
        return found

    def even_out(self, deadline: Deadline) -> None:
        """The node that needs most swaps a whole group for a smaller one of another node's, as long
        as that brings both below what it needs."""
        while self.makespan_s > self.least_s * (1 + NEAR):
            if not any(self._swap(*each, deadline) for each in self._swaps()):
                break

    def _swaps(self) -> list[tuple[int, int, int, int]]:
        """The highest node and one of its groups, a lower one and one of its: what should even them
        out best comes first."""
        high = int(self.levels.argmax())
        whole = [np.flatnonzero(own == 1.0) for own in self.amounts.T]
        found: list[tuple[float, int, int, int]] = []
        for low, own in enumerate(whole):
            wanted = (self.levels[high] - self.levels[low]) * self.size / 2
            gain = self.sizes[whole[high]][:, None] - self.sizes[own]
            for gives, takes in np.argwhere((gain > 0) & (gain < 2 * wanted)):
                off = abs(float(gain[gives, takes]) - wanted)
                found.append((off, int(whole[high][gives]), low, int(own[takes])))
        return [(high, gives, low, takes) for _, gives, low, takes in sorted(found)[:MOST_SWAPS]]

    def _swap(self, high: int, gives: int, low: int, takes: int, deadline: Deadline) -> bool:
        """Swap two nodes' groups if that brings both below the higher one's level."""
        below_s = self.makespan_s
        found = []
        for node, leaves, comes in ((high, gives, takes), (low, takes, gives)):
            group = self.seconds.group
            parts = {i: x for i, x in self.parts[node].items() if group[i] != leaves}
            parts |= {i: 1.0 for i, own in enumerate(group) if own == comes}
            placed, level = self._wrapped(parts, deadline, below_s)
            if placed is None:
                return False
            found.append((node, parts, placed, level))
        for node, parts, placed, level in found:
            self.parts[node], self.placed[node], self.levels[node] = parts, placed, level
        self.amounts[[gives, takes]] = self.amounts[[takes, gives]]
        return True

    def _wrapped(
        self, parts: dict[int, float], deadline: Deadline, below_s: float = inf
    ) -> tuple[list[Piece] | None, float]:
        """A node's parts wrapped around its devices, and the level that takes."""
        inside = self.seconds.some(parts, self.size)
        return best_pieces(inside, max(inside.mean(), self.least_s), deadline, below_s)


def _sizes(layer: LayerProblem, level: float) -> Floats:
    """Seconds of every group with what it will repeat, `[groups]`.

    Devices end every `level` seconds, and what is cut there pays its charges once more.
    """
    item_s, part_s, charge = layer.item_s[0, :, 0], layer.part_s[0, :, 0], layer.group_s[0, :, 0]
    work, repeated = (
        np.bincount(layer.group_of, each, layer.groups) for each in (item_s, item_s * part_s)
    )
    room = level - float(layer.launch_s[0, 0])
    return np.asarray(work + charge + (repeated + work * charge) / room, dtype=np.float64)


def _pack(sizes: Floats, nodes: int) -> Amounts:
    """How much of every group each node does, as few groups as possible on several nodes."""
    capacity = float(sizes.sum()) / nodes * (1 + SLACK)
    amounts = np.zeros((len(sizes), nodes))
    room = np.full(nodes, capacity)
    left = sizes.copy()
    filled = 0
    for group in np.argsort(-sizes):
        while left[group] > capacity:
            amounts[group, filled] = capacity
            left[group] -= capacity
            room[filled] = 0.0
            filled += 1
    waiting = [int(group) for group in np.argsort(-left) if left[group] > FULL * capacity]
    for node in range(filled, nodes):
        for group in _best_filling(waiting, left, room[node]):
            amounts[group, node] = left[group]
            room[node] -= left[group]
            waiting.remove(group)
    for group in waiting:
        _spread(amounts[group], room, float(left[group]))
    return np.asarray(amounts / amounts.sum(axis=1, keepdims=True))


def _best_filling(waiting: list[int], size: Floats, room: float) -> list[int]:
    """The largest group that fits, topped up by the one or two that leave the least room."""
    groups = np.array([group for group in waiting if size[group] <= room], dtype=np.int64)
    if not len(groups):
        return []
    first, others = groups[0], groups[1:]
    pairs = size[others][:, None] + size[others][None, :]
    np.fill_diagonal(pairs, size[others])
    pairs[pairs > room - size[first]] = 0.0
    if not pairs.any():
        return [int(first)]
    one, other = np.unravel_index(int(pairs.argmax()), pairs.shape)
    return [int(first), *{int(others[one]), int(others[other])}]


def _spread(amounts: Floats, room: Floats, left: float) -> None:
    """Put a group on the node it fills best, or around those with most room, in place."""
    fits = np.flatnonzero(room >= left)
    nodes = fits[[room[fits].argmin()]] if len(fits) else np.argsort(-room)
    for node in nodes:
        takes = min(left, float(room[node]))
        amounts[node] += takes
        room[node] -= takes
        left -= takes
        if left <= 0:
            break


def _parts_of_nodes(layer: LayerProblem, amounts: Amounts) -> list[dict[int, float]]:
    """The share of every item that each node does: a group's items in order of index."""
    parts: list[dict[int, float]] = [{} for _ in range(amounts.shape[1])]
    work = layer.item_s[0, :, 0]
    for group in range(layer.groups):
        items = np.flatnonzero(layer.group_of == group)
        ends = np.cumsum(work[items]) / work[items].sum()
        starts = np.concatenate([[0.0], ends[:-1]])
        last = 0.0
        for node in np.flatnonzero(amounts[group]):
            first, last = last, last + float(amounts[group, node])
            shares = (np.minimum(ends, last) - np.maximum(starts, first)) / (ends - starts)
            for item, share in zip(items.tolist(), shares.tolist(), strict=True):
                if share > LEAST_SHARE:
                    parts[node][item] = share
    return parts
