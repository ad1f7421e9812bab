"""What binds each layer of a plan: which proof, which device and item, and what copies cost."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from solver.planning.predict import planned_problem
from solver.plans import Plan
from solver.problem import LayerProblem
from solver.shares import Shares

LITTLE = 0.005
"""A share of the makespan below which idle time or copies are not worth naming."""


@dataclass(frozen=True)
class Explanation:
    """One layer: its figures, and in words what keeps it from being faster.

    `least_recovery` and `mean_recovery` over its heads, where the plan's profile has curves.
    """

    layer: int
    makespan_s: float
    lower_bound_s: float
    gap: float
    proof: str
    busiest_device: int
    divisions: int
    kv_copies: int
    binds: str
    least_recovery: float | None
    mean_recovery: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def explain(plan: Plan) -> list[Explanation]:
    """Every layer of a plan, from its JSON alone."""
    problem = planned_problem(plan)
    found = []
    for index, (layer_plan, shares) in enumerate(zip(plan.layers, plan.placed, strict=True)):
        layer = problem.layer(index) if plan.rules.unit == "head" else _by_head(plan, index)
        bound_s, makespan_s = layer_plan.lower_bound_s, layer_plan.makespan_s
        gap = max(0.0, 1 - bound_s / makespan_s)
        found.append(
            Explanation(
                layer=index,
                makespan_s=makespan_s,
                lower_bound_s=bound_s,
                gap=gap,
                proof=layer_plan.bound,
                busiest_device=int(np.argmax(layer_plan.loads_s)),
                divisions=plan.divisions[index] if plan.divisions else 0,
                kv_copies=plan.kv_copies[index],
                binds="; ".join(_binds(plan, index, layer, shares, gap)),
                least_recovery=None if plan.recovery is None else plan.recovery.least[index],
                mean_recovery=None if plan.recovery is None else plan.recovery.mean[index],
            )
        )
    return found


def _by_head(plan: Plan, index: int) -> LayerProblem:
    rules = plan.rules.model_copy(update={"unit": "head"})
    return planned_problem(plan.model_copy(update={"rules": rules})).layer(index)


def _binds(plan: Plan, index: int, layer: LayerProblem, shares: Shares, gap: float) -> list[str]:
    made = plan.layers[index]
    words = []
    if gap > plan.tolerance:
        words.append(f"open: {100 * gap:.2f} % between the placement and the proof")
    busiest = int(np.argmax(made.loads_s))
    there = shares.device == busiest
    if there.sum() == 1 and shares.share[there] >= 1:
        words.append(f"head {shares.item[there][0]} alone fills device {busiest}")
    elif made.bound.startswith("largest item"):
        head = int(layer.blended_s.min(axis=1).argmax())
        words.append(f"head {head} is the largest, on device {busiest} with what must be beside it")
    elif made.bound == "mean load":
        words.append("every device is busy: only less work or more devices would help")
    elif made.bound == "pigeonhole":
        words.append("too few devices for so many large heads: some device takes one more of them")
    idle = 1 - sum(made.loads_s) / (len(made.loads_s) * made.makespan_s)
    if idle > LITTLE:
        words.append(f"{100 * idle:.1f} % of device time idles")
    copies = _copies_share(layer, shares)
    if copies > LITTLE:
        words.append(f"K/V copies take {100 * copies:.1f} % of the busy time")
    return words or ["nothing: no idle time and no copies"]


def _copies_share(layer: LayerProblem, shares: Shares) -> float:
    """Charges beyond the cheapest one of each group, over all busy time."""
    group, device = shares.of_groups(layer.group_of)
    charge_s = np.tensordot(layer.weights, layer.group_s[:, group, device], 1)
    paid = charge_s.sum()
    first = np.flatnonzero(np.diff(group, prepend=-1))
    least = np.minimum.reduceat(charge_s, first).sum()
    busy = layer.weights @ layer.loads_of_shares(shares).sum(axis=1)
    return float((paid - least) / busy)
