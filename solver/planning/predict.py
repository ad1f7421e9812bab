"""A plan's problem and its loads again: as planned, or under rates learned since."""

from collections.abc import Mapping

import numpy as np

from profiles.cost.rates import Rates
from profiles.cost.work import FEATURES, INDEX, Workload, group_work, head_work, pair_flops
from profiles.selection import of_layer
from solver.planning.costs import Demand, placement_problem
from solver.planning.decode_work import decode_work
from solver.plans import Costs, Plan
from solver.problem import Floats, Ints, PlacementProblem, Shares
from solver.request import PlacementOptions
from solver.rows import RowGrid, boundaries, weight_before


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
    )


def predicted_loads(plan: Plan, rates: Mapping[str, Rates]) -> Floats:
    """Seconds of every device under `rates` (by device type), [layers, devices].

    Of the plan's first workload, for which `rates` must be.
    """
    rules = plan.rules
    problem = placement_problem(
        [
            Demand(
                plan.workload.workload,
                np.array(plan.budgets),
                rates,
                selection=plan.selection,
            )
        ],
        plan.architecture,
        plan.devices,
        PlacementOptions(divisible=rules.divisible, copies=rules.copies),
    )
    pairs = zip(map(problem.layer, range(problem.layers)), plan.shares, strict=True)
    return np.array([layer.loads_of_shares(shares)[0] for layer, shares in pairs])


def shard_work(plan: Plan, layer: int) -> Floats:
    """Work of every device's shard of a layer as executors count it, [devices, FEATURES].

    0 with nothing to do.
    """
    budgets, step = np.array(plan.budgets, dtype=np.float64), plan.workload.workload
    grid = RowGrid.of(budgets, step)
    shares = plan.shares[layer]
    ends = boundaries(shares, grid, layer)
    grouped = (shares > 0).reshape(plan.architecture.kv_heads, -1, len(plan.devices))
    present = np.asarray(grouped.any(axis=1))
    selection = of_layer(plan.selection, plan.architecture, layer)
    if step.phase == "decode":
        scores = selection.scores
        pieces = grid.budget_pieces[layer]
        work = decode_work(ends, pieces, present, plan.architecture, step, scores)
    else:
        by_head = head_work(budgets[layer], plan.architecture, step, selection)
        by_group = group_work(budgets[[layer]], plan.architecture, step)[0]
        parts = _parts_of_work(ends, shares, step)
        flops, scored = INDEX["tile_flops"], INDEX["scored_blocks"]
        # A share is one of attended pairs; what rows take to choose goes by the pairs they score.
        by_pair = pair_flops(selection, plan.architecture, step)
        by_head[:, flops] -= by_pair * by_head[:, scored]
        work = np.einsum("hdf,hf->df", parts, by_head) + present.T @ by_group
        work[:, flops] += by_pair * work[:, scored]
    work[work.any(axis=1), INDEX["launches"]] = 1
    return np.asarray(work)


def _parts_of_work(ends: Ints, shares: Shares, step: Workload) -> Floats:
    """The fraction of each kind of a head's work in a device's rows, [heads, devices, FEATURES].

    A share is a fraction of attended pairs. Late rows of a prompt are longer: their part of the
    scored pairs is larger than that, and their part of what goes by the row smaller.
    """
    rows, every = step.context_blocks, np.array(step.context_pieces)
    last = ends / rows
    parts = np.repeat(np.diff(last, axis=1, prepend=0)[..., None], len(FEATURES), axis=2)
    for flops in ("tile_flops", "sparse_tile_flops"):
        parts[..., INDEX[flops]] = shares
    scored = weight_before(every, ends, step.block_pieces)
    of_all = scored / weight_before(every, np.array(rows), step.block_pieces)
    parts[..., INDEX["scored_blocks"]] = np.diff(of_all, axis=1, prepend=0)
    return parts


def _parts(costs: Costs) -> Floats:
    """Seconds that parts repeat; none are stated where no head may be divided."""
    return np.array(costs.part_s) if costs.part_s else np.zeros_like(np.array(costs.head_s))
