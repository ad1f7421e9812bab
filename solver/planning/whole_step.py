"""What a placement gains of the whole step, and from which context it is worth having.

Attention is only a part of a step: MLP, projections and all-reduces take the rest of it, whatever
the placement. Compared is with the stock layout, heads in the order of the file on the same
devices, with the same budgets. Under attention-FFN disaggregation the rest is taken to be computed
on as many devices of the same types, in turn with attention.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from profiles.cost.rest_of_step import RestOfStep, rest_of_step
from profiles.cost.work import INDEX, Workload
from profiles.heads import CurvesForm
from solver.bounds import quick_bounds
from solver.budgets.errors import BudgetError
from solver.deadline import Deadline
from solver.heuristics.contiguous import contiguous
from solver.planning import figures
from solver.planning.advice import LITTLE
from solver.planning.costs import slots_of
from solver.planning.scenarios import Known, Scenario, problem_of, scenarios
from solver.plans import WholeStep
from solver.request import PlacementOptions, PlanRequest
from solver.search.divided import quick_makespan_s
from solver.shares import Floats, Shares

MOST_TOKENS = 2**20
"""Contexts up to which it is looked for where a placement is worth having."""

MOST_PAIRS = 2**20
"""Pairs of head and device, of all layers, that are placed again at other contexts."""


def whole_step(
    request: PlanRequest,
    steps: Sequence[Scenario],
    weights: Floats,
    shares: Sequence[Sequence[Shares]],
    loads: Floats,
    deadline: Deadline,
) -> WholeStep | None:
    """The step with this placement and with the stock layout; None where a model's MLP is unknown.

    `shares` [workloads][layers], their `loads` [workloads, layers, devices];
    seconds are sums over the workloads by `weights`. Where the gain is small, longer contexts are
    tried until the deadline.
    """
    by_order = _stock_request(request, steps[0])
    stock = problem_of(by_order, steps)
    layers = [stock.layer(index) for index in range(stock.layers)]
    in_order = [layer.whole(contiguous(layer)) for layer in layers]
    stock_loads = stock.loads_of_each([in_order] * len(steps))
    kinds = []
    for index, step in enumerate(steps):
        rest = _rest(request, step)
        if rest is None:
            return None
        own = _attention(request, step, shares[index], loads[index])
        in_stock = _attention(by_order, step, in_order, stock_loads[index])
        kinds.append([*own, *in_stock, _projections_s(step, rest), rest.mlp_s, rest.all_reduce_s])
    own_s, placed_s, stock_s, stock_placed_s, apart_s, mlp_s, reduced_s = weights @ np.array(kinds)
    around_s = apart_s + mlp_s + reduced_s
    step_s, stock_step_s = own_s + placed_s + around_s, stock_s + stock_placed_s + around_s
    gain = float(stock_step_s / step_s - 1)
    found = WholeStep(
        step_s=float(step_s),
        attention_s=float(own_s),
        projections_s=float(placed_s + apart_s),
        mlp_s=float(mlp_s),
        all_reduce_s=float(reduced_s),
        contiguous_step_s=float(stock_step_s),
        contiguous_attention_s=float(stock_s),
        contiguous_projections_s=float(stock_placed_s + apart_s),
        attention_share=float(stock_s / stock_step_s),
        gain=gain,
    )
    if gain >= LITTLE or request.workloads is not None or request.method == "contiguous":
        return found
    if sum(own.items * own.devices for of_step in shares for own in of_step) > MOST_PAIRS:
        return found
    pays, tried = _pays_from(request, steps[0].known, deadline)
    return found.model_copy(update={"pays_from_tokens": pays, "tried_to_tokens": tried})


def _rest(request: PlanRequest, step: Scenario) -> RestOfStep | None:
    architecture = step.known.profile.architecture
    return rest_of_step(architecture, step.workload, request.device_types, step.known.rates)


def _stock_request(request: PlanRequest, step: Scenario) -> PlanRequest:
    """The same without its rules, but for the least slots where it has slots."""
    groups = step.known.profile.architecture.kv_heads
    slots = None if request.placement.slots is None else -(-groups // len(request.device_types))
    rules = PlacementOptions(copies=request.placement.copies, slots=slots)
    return request.model_copy(update={"placement": rules})


def _attention(
    request: PlanRequest, step: Scenario, shares: Sequence[Shares], loads: Floats
) -> tuple[float, float]:
    """Attention and projections of every layer's busiest device, summed, for one workload.

    `shares` [layers], `loads` [layers, devices]. Only under tensor parallelism are
    projections part of a load; with slots, those of all slots whatever they hold.
    """
    busiest = loads.argmax(axis=1)
    load_s = float(loads.max(axis=1).sum())
    if step.workload.deployment != "tensor_parallel":
        return load_s, 0.0
    architecture = step.known.profile.architecture
    kv_heads = architecture.kv_heads
    done = np.stack([own.amounts() for own in shares])
    slots = slots_of(request.placement)
    if slots is not None:
        projected = np.full(done.shape, float(slots * (architecture.group_size + 1)))
    elif request.placement.copies == "free":
        projected = done * (1 + kv_heads / architecture.query_heads)
    else:
        held = [figures.Present.of(own, kv_heads).held() for own in shares]
        projected = done + np.stack(held)
    each_s = [
        step.known.rates[name].vector[INDEX["projection_flops"]] for name in request.device_types
    ]
    flops = _projected_flops(step.workload, architecture.hidden_size * architecture.head_dim)
    seconds = projected * flops * np.array(each_s)
    of_busiest = float(seconds[np.arange(len(busiest)), busiest].sum())
    return max(load_s - of_busiest, 0.0), of_busiest


def _projected_flops(workload: Workload, parameters: int) -> int:
    """Of a head's query and output, or of a group's key and value (`profiles.cost.work`)."""
    return 2 * 2 * workload.new_tokens * workload.batch_size * parameters


def _projections_s(step: Scenario, rest: RestOfStep) -> float:
    """What projections take that is in no load: all of them, or of a decode reading the weights."""
    if step.workload.deployment != "tensor_parallel":
        return rest.projections_s
    return rest.weights_s if step.workload.phase == "decode" else 0.0


def _pays_from(
    request: PlanRequest, known: Known, deadline: Deadline
) -> tuple[int | None, int | None]:
    """The first longer context at which a quick placement is worthwhile, and the longest tried."""
    tried = None
    for context in _longer(request, known):
        if deadline.left_s <= 0:
            break
        alike = {"current_plan": None, "memory": None, "node_size": None}
        there = request.model_copy(
            update={
                "context_tokens": context,
                "placement": request.placement.model_copy(update=alike),
            }
        )
        try:
            steps = scenarios(there, [known], deadline)
        except BudgetError:
            break
        if _gain(there, steps, deadline) >= LITTLE:
            return context, context
        tried = context
    return None, tried


def _longer(request: PlanRequest, known: Known) -> Iterator[int]:
    """Powers of two above the context, as far as the profile's curves are known."""
    heads, context = known.profile.heads, request.steps[0].context_tokens
    most = MOST_TOKENS
    if isinstance(heads, CurvesForm) and request.budget.policy not in ("dense", "uniform"):
        most = min(most, heads.context_tokens[-1])
    tokens = 1 << context.bit_length()
    while tokens <= most:
        yield tokens
        tokens *= 2


def _gain(request: PlanRequest, steps: Sequence[Scenario], deadline: Deadline) -> float:
    """What a quick placement gains of the step; what the bound allows where that is little."""
    stock = problem_of(_stock_request(request, steps[0]), steps)
    layers = [stock.layer(index) for index in range(stock.layers)]
    stock_s = sum(layer.makespan(contiguous(layer)) for layer in layers)
    rest = _rest(request, steps[0])
    assert rest is not None  # the MLP is known, or nothing would be asked
    around_s = _projections_s(steps[0], rest) + rest.mlp_s + rest.all_reduce_s
    problem = problem_of(request, steps)
    placed = [problem.layer(index) for index in range(problem.layers)]
    bound_s = sum(bound.seconds for bound in quick_bounds(placed))
    possible = (stock_s + around_s) / (bound_s + around_s) - 1
    if possible < LITTLE:
        return possible
    reached_s = quick_makespan_s(placed, request.method, request.tolerance, deadline)
    return (stock_s + around_s) / (reached_s + around_s) - 1
