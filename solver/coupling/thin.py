"""A layer's placement made to take less memory, one KV group's part at a time.

What a device does of a group goes over to another device, best one that holds the group already,
so that a copy less is needed: always the step that costs the fewest seconds per byte (a greedy
descent; the steps together are the layer's exchange rate of seconds against bytes).
"""

import numpy as np

from solver.coupling.footprint import Footprint
from solver.deadline import Deadline
from solver.problem import LayerProblem, PlacementProblem
from solver.shares import Floats, Ints, Shares

CROWDING = 0.01
"""Of the receiving device's load: of steps that cost the makespan nothing, the emptiest wins."""


def thinned(
    problem: PlacementProblem,
    footprint: Footprint,
    index: int,
    shares: Shares,
    scarce: Floats,
    deadline: Deadline,
) -> list[Shares]:
    """Ever smaller placements of layer `index`, shares of the problem's items.

    `scarce` [devices] is 1 where a byte counts, 0 where it does not.
    """
    if problem.equal_counts or problem.slots is not None or problem.replicas > 1:
        return []
    layer = problem.by_head().layer(index)
    heads, path = problem.shares_of_heads(shares).dense.copy(), []
    stride = problem.heads // problem.kv_heads if problem.whole_groups else 1
    while deadline.left_s > 0:
        groups, givers = np.nonzero(layer.members @ heads > 0)
        part = heads.T[givers] * layer.members[groups]
        saved = _saved_bytes(footprint, index, heads, part, groups, givers, scarce)
        cost_s = _cost_s(layer, heads, part, groups, givers)
        rate = np.where(saved > 0, cost_s / np.where(saved > 0, saved, 1), np.inf)
        pair, taker = np.unravel_index(rate.argmin(), rate.shape)
        if not np.isfinite(rate[pair, taker]):
            break
        heads[:, taker] += part[pair]
        heads[:, givers[pair]] -= part[pair]
        path.append(Shares.of(heads[::stride]))
    return path


def _saved_bytes(
    footprint: Footprint,
    index: int,
    heads: Floats,
    part: Floats,
    groups: Ints,
    givers: Ints,
    scarce: Floats,
) -> Floats:
    """Scarce bytes that are fewer when a part [pairs, heads] goes over, `[pairs, devices]`."""
    kept = footprint.holdings(index, Shares.of(heads)).T[: footprint.architecture.kv_heads]
    own = kept[groups, givers]
    projections = (part > 0).sum(axis=1) + 1
    new = (part > 0).astype(np.int64) @ (heads <= 0) + (kept[groups] <= 0)
    freed = own + projections * footprint.projection_bytes
    taken = np.maximum(own[:, None] - kept[groups], 0) + new * footprint.projection_bytes
    saved = (scarce[givers] * freed)[:, None] - scarce * taken
    saved[np.arange(len(givers)), givers] = 0
    return np.asarray(saved)


def _cost_s(layer: LayerProblem, heads: Floats, part: Floats, groups: Ints, givers: Ints) -> Floats:
    """Seconds that the makespan grows when a part goes over, `[pairs, devices]`."""
    loads, has = layer.loads_of_shares(Shares.of(heads)), heads > 0
    held = layer.members @ has > 0
    linear_s = layer.item_s - layer.part_s
    pairs = np.arange(len(givers))
    whole = part @ linear_s + (part > 0) @ layer.part_s + layer.group_s[:, groups]
    left_alone = (held.sum(axis=0) == 1)[givers]
    given = loads[:, givers] - whole[:, pairs, givers]
    given = np.where(left_alone, given - layer.launch_s[:, givers], given)
    already = (part > 0) @ (layer.part_s * has) + np.where(
        held[groups], layer.group_s[:, groups], 0
    )
    started = np.where(has.any(axis=0), 0, layer.launch_s)
    taken = loads[:, None] + whole - already + started[:, None]
    after = np.maximum(np.maximum(taken, given[:, :, None]), _others(loads, givers))
    grown = np.tensordot(layer.weights, after, 1) - layer.objective(loads)
    return np.asarray(np.maximum(grown, 0) + CROWDING * np.tensordot(layer.weights, taken, 1))


def _others(loads: Floats, givers: Ints) -> Floats:
    """The largest load beside two devices, `[workloads, pairs, devices]`."""
    padded = np.concatenate([loads, np.zeros((len(loads), 2))], axis=1)
    largest = np.argsort(-padded, axis=1)[:, :3]
    takers = np.arange(loads.shape[1])
    result = np.zeros((len(loads), len(givers), len(takers)))
    for w, ranked in enumerate(largest):
        for device in ranked[::-1]:
            free = (givers != device)[:, None] & (takers != device)
            result[w][free] = padded[w, device]
    return result
