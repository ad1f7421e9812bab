"""A plan's problem and its loads again: as planned, or under rates learned since."""

from collections.abc import Mapping

import numpy as np

from profiles.cost.rates import Rates
from profiles.cost.work import FEATURES, INDEX, Workload, group_work, head_work
from profiles.selection import of_layer
from profiles.sizes import gathered_pieces
from solver.planning.costs import Demand, placement_problem
from solver.planning.decode_work import decode_work
from solver.plans import Costs, Plan
from solver.problem import PlacementProblem
from solver.request import PlacementOptions
from solver.rows import RowGrid, boundaries, rows_of_parts, weight_before
from solver.shares import Floats, Ints


def planned_problem(plan: Plan) -> PlacementProblem:
    """The problem a plan was made for, from the costs it carries."""
    costs = [plan.costs, *(other.costs for other in plan.other_workloads)]
    return PlacementProblem(
        head_s=np.array([cost.head_s for cost in costs]),
        part_s=np.array([_parts(cost) for cost in costs]),
        group_s=np.array([cost.group_s for cost in costs]),
        launch_s=np.array([cost.launch_s for cost in costs]),
        weights=np.array([plan.weight, *(other.weight for other in plan.other_workloads)]),
        type_of=np.array([plan.device_types.index(name) for name in plan.devices]),
        unit=plan.rules.unit,
        equal_counts=plan.rules.equal_counts,
        divisible=plan.rules.divisible,
        max_copies=plan.rules.max_copies,
        slots=plan.slots,
    )


def predicted_loads(
    plan: Plan, rates: Mapping[str, Rates], workload: Workload | None = None
) -> Floats:
    """Seconds of every device under `rates` (by device type), [layers, devices].

    Of the plan's first workload, or with its budgets of another one; `rates` must be for that.
    """
    rules = plan.rules
    problem = placement_problem(
        [
            Demand(
                workload or plan.workload.workload,
                np.array(plan.budgets),
                rates,
                selection=plan.selection,
            )
        ],
        plan.architecture,
        plan.devices,
        PlacementOptions(divisible=rules.divisible, copies=rules.copies, slots=plan.slots),
    )
    return np.asarray(problem.loads_of_each([plan.placed])[0])


def shard_work(plan: Plan, layer: int) -> Floats:
    """Work of every device's shard of a layer as executors count it, [devices, FEATURES].

    0 with nothing to do.
    """
    budgets, step = np.array(plan.budgets, dtype=np.float64), plan.workload.workload
    grid = RowGrid.of(budgets, step)
    shares, shape = plan.placed[layer], plan.architecture
    selection = of_layer(plan.selection, shape, layer)
    pieces = grid.budget_pieces[layer]
    if step.phase == "decode":
        ends = boundaries(shares, grid, layer)
        grouped = (shares.dense > 0).reshape(shape.kv_heads, shape.group_size, -1)
        present = np.asarray(grouped.any(axis=1))
        work = decode_work(ends, pieces, present, shape, step, selection.scores)
    else:
        by_head = head_work(budgets[layer], shape, step, selection)
        by_group = group_work(budgets[[layer]], shape, step)[0]
        done = _parts_of_work(rows_of_parts(shares, grid, layer), pieces[shares.item], step)
        group, at = shares.of_groups(np.arange(shares.items) // shape.group_size)
        each = np.concatenate([done * by_head[shares.item], by_group[group]])
        device = np.concatenate([shares.device, at])
        work = np.stack([np.bincount(device, own, shares.devices) for own in each.T], axis=1)
    work[work.any(axis=1), INDEX["launches"]] = 1
    return np.asarray(work)


def _parts_of_work(rows: tuple[Ints, Ints], pieces: Ints, step: Workload) -> Floats:
    """The fraction of each kind of a head's work in the rows of a part, `[parts, FEATURES]`.

    `rows` are where each part begins and ends, `pieces` [parts] its head's budget. Rows of a prompt
    are not alike: the first ones see few pieces and leave none out, the last ones score the most.
    """
    own, every = step.block_pieces, step.context_pieces
    # The last row is the whole head.
    edges = np.stack([*rows, np.full_like(pieces, step.context_blocks)])
    gathered = gathered_pieces(pieces, edges, every, own)
    scored = weight_before(np.array(every), edges, own)
    before = dict.fromkeys(FEATURES, edges) | {
        "dense_tile_flops": weight_before(pieces, edges, own) - gathered,
        "gathered_tile_flops": gathered,
        "sampled_flops": scored,
        "scored_blocks": scored,
    }
    begins, ends, whole = np.stack([before[name] for name in FEATURES], axis=-1)
    return np.asarray((ends - begins) / np.maximum(whole, 1))


def _parts(costs: Costs) -> Floats:
    """Seconds that parts repeat; none are stated where no head may be divided."""
    return np.array(costs.part_s) if costs.part_s else np.zeros_like(np.array(costs.head_s))
