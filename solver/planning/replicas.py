"""A plan over nodes, beside the alternative: a node's own plan, once on every node."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from solver.deadline import Deadline
from solver.plans import Nodes
from solver.problem import PlacementProblem
from solver.request import PlanRequest
from solver.shares import Shares

REPLICA_SHARE = 0.1
"""Of the time limit for the plan of one node: it is shown for comparison, not deployed."""


def nodes_report(
    request: PlanRequest,
    problem: PlacementProblem,
    shares: Sequence[Shares],
    deadline: Deadline,
) -> Nodes | None:
    """Copies that cross nodes, and what replicas would reach; None where no nodes were given.

    `shares` [layers] of the heads; `problem` is by head, all devices identical.
    """
    size = request.placement.node_size
    if size is None:
        return None
    count = problem.devices // size
    group_of = problem.group_of_head
    crossing = []
    for own in shares:
        group, device = own.of_groups(group_of)
        crossing.append(len(np.unique(group * count + device // size)) - problem.kv_heads)
    bound_s, makespan_s = _replica(
        problem, size, deadline.within(REPLICA_SHARE * request.time_limit_s)
    )
    return Nodes(
        size=size,
        cross_node_copies=crossing,
        replicas=count,
        replica_makespan_s=makespan_s,
        replica_lower_bound_s=bound_s,
    )


def _replica(problem: PlacementProblem, size: int, deadline: Deadline) -> tuple[float, float]:
    """Bound and makespan of the same step on one node's devices, divided as the rules allow."""
    from solver.search.solve import Search, solve_layers

    node = replace(problem, type_of=problem.type_of[:size])
    how = Search(cancelled=deadline.cancelled)
    layers = solve_layers(node, how, deadline)
    bound_s = float(np.sum([layer.bound.seconds for layer in layers]))
    return bound_s, float(np.sum([layer.makespan_s for layer in layers]))
