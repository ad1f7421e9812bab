"""The plan's figures: makespan, bound, gap, status, idle share and imbalance, and every workload's.

Layers are summed, a barrier after each. With the objective `worst` the makespan is the largest of
the workloads', while the layers are stated under the weights that prove the bound.
"""

import math

from solver.verify.certificate import differing
from solver.verify.fields import Json
from solver.verify.loads import RELATIVE, Served, blend, blended_makespans, close

RATIO = 1e-9


def totals(plan: Json, served: list[Served]) -> list[str]:
    """Every figure of the whole plan that does not follow from its layers."""
    faults = _of_workloads(served[1:])
    blended_s = math.fsum(blended_makespans(served))
    if not blended_s > 0:
        return [*faults, "makespan_s: the costs make every load 0, so that nothing can be said"]
    makespan_s = blended_s
    if plan["rules"]["objective"] == "worst":
        makespan_s = max(math.fsum(workload.makespans) for workload in served)
    if not close(plan["makespan_s"], makespan_s):
        faults.append(f"makespan_s {plan['makespan_s']}, recomputed {makespan_s}")
    return faults + _certified(plan, makespan_s) + _idle(plan, blend(served), blended_s)


def _of_workloads(others: list[Served]) -> list[str]:
    faults = []
    for other in others:
        makespan_s = math.fsum(other.makespans)
        if not close(other.claim["makespan_s"], makespan_s):
            said = other.claim["makespan_s"]
            faults.append(f"{other.where}makespan_s {said}, recomputed {makespan_s}")
        for index, (said, true) in enumerate(zip(other.claim["loads_s"], other.loads, strict=True)):
            faults += [f"{other.where}layer {index}: {fault}" for fault in differing(said, true)]
    return faults


def _certified(plan: Json, makespan_s: float) -> list[str]:
    faults = []
    gap = 1 - plan["lower_bound_s"] / makespan_s
    if not math.isclose(plan["gap"], gap, rel_tol=1e-6, abs_tol=RATIO):
        faults.append(f"gap {plan['gap']}, recomputed {gap}")
    proved_s = math.fsum(layer["lower_bound_s"] for layer in plan["layers"])
    if plan["lower_bound_s"] > proved_s * (1 + RELATIVE):
        faults.append("lower_bound_s is above the sum of the layers' bounds")
    if plan["lower_bound_s"] > makespan_s * (1 + RELATIVE):
        faults.append("lower_bound_s is above the makespan")
    if plan["status"] == "optimal" and gap > plan["tolerance"] + 1e-12:
        faults.append(f"status optimal with a gap of {gap}")
    return faults


def _idle(plan: Json, loads: list[list[float]], blended_s: float) -> list[str]:
    faults = []
    busy = math.fsum(map(math.fsum, loads))
    bubble = 1 - busy / (len(plan["devices"]) * blended_s)
    if not math.isclose(plan["bubble_ratio"], bubble, rel_tol=1e-6, abs_tol=RATIO):
        faults.append(f"bubble_ratio {plan['bubble_ratio']}, recomputed {bubble}")
    said = plan["imbalance"]
    wanted = None
    if len(plan["device_types"]) == 1:
        wanted = blended_s / (busy / len(plan["devices"]))
    if said is None or wanted is None:
        same = said is wanted
    else:
        same = math.isclose(said, wanted, rel_tol=1e-6)
    return faults if same else [*faults, f"imbalance {said}, recomputed {wanted}"]
