"""Sharing out over nodes first, then inside each: few KV groups cross from node to node.

A node is a bin that holds whole groups: longest first, each topped up by the best one or two that
still fit (the minimum bin slack heuristic: Gupta & Ho 1999). What fits nowhere is wrapped around
the room that is left, and inside every node its items are wrapped around its devices.
"""

import numpy as np

from solver.deadline import Deadline
from solver.divide.seconds import Piece, Seconds
from solver.divide.wrap_around import as_shares, best_pieces, blend
from solver.problem import LayerProblem
from solver.shares import LEAST_SHARE, Floats, Shares

SLACK = 0.008
"""Makespan given up so that fewer groups cross, relatively."""

ROUNDS = 3
NEAR = 0.015
"""Groups are sized anew by what their nodes turned out to need, until the makespan is this near."""

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
    best: list[Piece] | None = None
    best_s = float(np.inf)
    for _ in range(ROUNDS):
        amounts = _pack(sizes, layer.devices // node_size)
        pieces, levels = _fill_nodes(blended, amounts, node_size, least_s, deadline)
        if pieces is None:
            break
        if levels.max() < best_s:
            best, best_s = pieces, float(levels.max())
        if best_s <= least_s * (1 + NEAR):
            break
        sizes = sizes * (amounts @ levels) / levels.mean()
    return None if best is None else as_shares(layer, best)


def _fill_nodes(
    layer: LayerProblem, amounts: Amounts, node_size: int, least_s: float, deadline: Deadline
) -> tuple[list[Piece] | None, Floats]:
    """Every node's parts wrapped around its devices, and the level each node needs."""
    seconds = Seconds.of(layer)
    placed: list[Piece] = []
    levels = []
    for node, parts in enumerate(_parts_of_nodes(layer, amounts)):
        inside = seconds.some(parts, node_size)
        pieces, level = best_pieces(inside, max(inside.mean(), least_s), deadline)
        if pieces is None:
            return None, np.zeros(0)
        levels.append(level)
        items, first = list(parts), node * node_size
        placed += [(items[i], first + d, share * parts[items[i]]) for i, d, share in pieces]
    return placed, np.array(levels)


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
