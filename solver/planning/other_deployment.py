"""What the other deployment would make of a plan, and what a plan made for it would reach.

Under tensor parallelism a head brings its projections with it and a K/V copy costs a projection;
disaggregated, it does not, and a copy costs a transfer. A placement that is best under one can be
poor under the other.
"""

from collections.abc import Sequence
from dataclasses import replace

from profiles.cost.work import Deployment
from solver.deadline import Deadline
from solver.planning.costs import CostError, placement_problem
from solver.planning.figures import objective_s
from solver.planning.scenarios import Scenario
from solver.plans import Elsewhere
from solver.request import PlanRequest
from solver.search.starts import HEURISTICS, start
from solver.shares import Shares

OTHER: dict[Deployment, Deployment] = {
    "disaggregated": "tensor_parallel",
    "tensor_parallel": "disaggregated",
}
QUICK_S = 0.5
MOST_PAIRS = 2**20
"""Pairs of head and device, of all layers and workloads, that are placed a second time."""


def elsewhere(
    request: PlanRequest,
    steps: Sequence[Scenario],
    shares: Sequence[Sequence[Shares]],
    deadline: Deadline,
) -> Elsewhere | None:
    """This placement's makespan there, and what a quick plan made for it reaches, with its bound.

    By the request's own method where that does not search: who asks for that has no time for more.
    `shares` [workloads][layers]. Workloads are weighed as the request says. None
    where the rates cannot cost it, where there is no time left, of more than MOST_PAIRS, or where
    devices have slots, which is tensor parallelism.
    """
    pairs = sum(own.items * own.devices for of_workload in shares for own in of_workload)
    if deadline.left_s <= 0 or pairs > MOST_PAIRS or request.placement.slots is not None:
        return None
    deployment = OTHER[request.deployment]
    demands = [
        replace(step.demand, workload=replace(step.workload, deployment=deployment))
        for step in steps
    ]
    architecture = steps[0].known.profile.architecture
    try:
        problem = placement_problem(demands, architecture, request.device_types, request.placement)
    except CostError:
        return None
    here_s = objective_s(request, problem, problem.by_head().loads_of_each(shares))
    layers = [problem.layer(index) for index in range(problem.layers)]
    method = request.method if request.method in HEURISTICS else "auto"
    soon = deadline.within(QUICK_S)
    quick = start(layers, method, request.tolerance, soon, by_clock=True)
    there = problem.loads_of_each([[own.shares for own in quick]] * problem.workloads)
    return Elsewhere(
        deployment=deployment,
        makespan_s=here_s,
        replanned_s=min(here_s, objective_s(request, problem, there)),
        lower_bound_s=float(sum(solution.bound.seconds for solution in quick)),
    )
