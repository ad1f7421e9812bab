"""Exchange descent: move one item or swap two while a sharpening sum of powers of loads falls.

The interchange neighbourhood of makespan local search (Finn & Horowitz 1979), with one addition: a
group's charge leaves a device with its last item there and arrives with its first, so that descent
gathers scattered groups.

Minimising max(loads) directly stalls on plateaus; the sum of loads ** p has none, and for growing
p it tends to the maximum. Several workloads add up by weight.
"""

import numpy as np

from solver.deadline import Deadline
from solver.problem import Assignment, LayerProblem
from solver.shares import Floats

POWERS = (4, 12, 48)
MOST_STEPS = 400
"""Per power; a descent of 64 heads takes some tens."""


def exchange(layer: LayerProblem, start: Assignment, deadline: Deadline) -> Assignment:
    """The best assignment met on the way down from `start`, never worse than it.

    With equal counts only swaps are made, so that a start that obeys them keeps obeying.
    """
    best, current = start, start.copy()
    for power in POWERS:
        for _ in range(MOST_STEPS):
            if deadline.left_s <= 0 or not _step(layer, current, power):
                break
        if layer.makespan(current) < layer.makespan(best):
            best = current.copy()
    return best


def _step(layer: LayerProblem, assignment: Assignment, power: int) -> bool:
    """Apply the best move or swap in place; False when none lowers the sum."""
    items = np.arange(layer.items)
    group = layer.group_of
    loads = layer.loads(assignment)
    held = np.zeros((layer.groups, layer.devices), dtype=np.int64)
    np.add.at(held, (group, assignment), 1)
    own_s = layer.item_s[:, items, assignment]
    # What a device is rid of with an item, and what another takes on, charges included.
    charge_s = layer.group_s[:, group]
    own_charge_s = charge_s[:, items, assignment]
    last, enters = held[group, assignment] == 1, held[group] == 0
    leaves = own_s + np.where(last, own_charge_s, 0.0)
    arrives = layer.item_s + np.where(enters, charge_s, 0.0)
    groups_here = (held > 0).sum(axis=0)

    peak = loads.max(axis=1)
    before = (loads / peak[:, None]) ** power

    def change(new_here: Floats, new_there: Floats, there: Floats) -> Floats:
        """Of the weighted sum of powers, `[items, ...]`, for loads `[workloads, items, ...]`."""
        scale = peak[:, None, None]
        after = (np.maximum(new_here, 0) / scale) ** power + (new_there / scale) ** power
        less = before[:, assignment][:, :, None] + there
        return np.asarray(np.tensordot(layer.weights * peak, after - less, 1) / peak.max())

    here = loads[:, assignment][:, :, None]
    swap_in = arrives[:, :, assignment].transpose(0, 2, 1)  # [w, i, j]: j arrives where i is
    alike = group[:, None] == group[None, :]
    swap_in = np.where(alike, layer.item_s[:, :, assignment].transpose(0, 2, 1), swap_in)
    swap_out = np.where(alike, own_s[:, :, None], leaves[:, :, None])
    new_here = here - swap_out + swap_in
    swaps = change(new_here, new_here.transpose(0, 2, 1), before[:, assignment][:, None, :])
    swaps[assignment[:, None] == assignment[None, :]] = np.inf
    if layer.slots is not None:
        after = (groups_here[assignment] - last)[:, None] + enters[:, assignment].T
        swaps[(after > layer.slots) | (layer.slots < after.T)] = np.inf
    i, j = np.unravel_index(int(swaps.argmin()), swaps.shape)
    best = swaps[i, j]

    if not layer.equal_counts:
        count = np.bincount(assignment, minlength=layer.devices)
        launch_s = layer.launch_s if layer.slots is None else np.zeros_like(layer.launch_s)
        emptied = np.where(count == 1, launch_s, 0.0)[:, assignment][:, :, None]
        opened = np.where(count == 0, launch_s, 0.0)[:, None, :]
        lighter = here - leaves[:, :, None] - emptied
        moves = change(lighter, loads[:, None, :] + arrives + opened, before[:, None, :])
        moves[items, assignment] = np.inf
        if layer.slots is not None:
            moves[enters & (groups_here >= layer.slots)] = np.inf
        item, device = np.unravel_index(int(moves.argmin()), moves.shape)
        if moves[item, device] < min(best, -1e-12):
            assignment[item] = device
            return True
    if best >= -1e-12:
        return False
    assignment[i], assignment[j] = assignment[j], assignment[i]
    return True
