"""A plan over nodes, beside the alternative: a node's own plan, once on every node."""

from dataclasses import replace

import numpy as np

from solver.deadline import Deadline
from solver.plans import Nodes
from solver.problem import Floats, PlacementProblem
from solver.request import PlanRequest

REPLICA_SHARE = 0.1
"""Of the time limit for the plan of one node: it is shown for comparison, not deployed."""


def nodes_report(
    request: PlanRequest, problem: PlacementProblem, shares: Floats, deadline: Deadline
) -> Nodes | None:
    """Copies that cross nodes, and what replicas would reach; None where no nodes were given.

    `shares` [layers, heads, devices] of the heads; `problem` is by head, all devices identical.
    """
    size = request.placement.node_size
    if size is None:
        return None
    count = problem.devices // size
    layers = len(shares)
    on_node = (shares > 0).reshape(layers, problem.kv_heads, -1, count, size).any(axis=(2, 4))
    bound_s, makespan_s = _replica(
        problem, size, deadline.within(REPLICA_SHARE * request.time_limit_s)
    )
    return Nodes(
        size=size,
        cross_node_copies=[int(n) - problem.kv_heads for n in on_node.sum(axis=(1, 2))],
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
