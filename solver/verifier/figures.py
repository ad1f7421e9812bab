"""The figures a plan states, recomputed: of its layers, of the whole, and what it reports beside.

Layers are summed, a barrier after each. With the objective `worst` the makespan is the largest of
the workloads', while the layers are stated under the weights that prove the bound.
"""

import math
from itertools import accumulate, pairwise

from solver.verifier.form import Json
from solver.verifier.loads import RELATIVE, Served, blend, blended_makespans, close, whole_pieces
from solver.verifier.rules import Pairs

RATIO = 1e-9


def wrong_figures(plan: Json, served: list[Served], pairs: list[Pairs]) -> list[str]:
    """Every figure that does not follow from the placement; bounds are judged by the certificate.

    `pairs` by layer.
    """
    faults = [*_layers(plan, served), *_totals(plan, served), *_reports(plan, pairs)]
    if plan["whole_step"] is not None:
        faults += [f"whole_step: {fault}" for fault in _whole_step(plan, served)]
    return faults


def _layers(plan: Json, served: list[Served]) -> list[str]:
    """Loads and makespan of every layer."""
    faults = []
    figures = zip(plan["layers"], blend(served), blended_makespans(served), strict=True)
    for index, (layer, loads, makespan_s) in enumerate(figures):
        found = _differing(layer["loads_s"], loads)
        if not close(layer["makespan_s"], makespan_s):
            found.append(f"makespan {layer['makespan_s']} s, recomputed {makespan_s} s")
        faults += [f"layer {index}: {fault}" for fault in found]
    return faults


def _differing(claimed: list[float], true: list[float]) -> list[str]:
    """Devices whose load is not what the costs give."""
    return [
        f"device {device}: load {said} s, recomputed {seconds} s"
        for device, (said, seconds) in enumerate(zip(claimed, true, strict=True))
        if not close(said, seconds)
    ]


def _totals(plan: Json, served: list[Served]) -> list[str]:
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
            faults += [f"{other.where}layer {index}: {fault}" for fault in _differing(said, true)]
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


def _reports(plan: Json, pairs: list[Pairs]) -> list[str]:
    """Every report that the plan has, as far as it follows from the plan."""
    faults = []
    if plan["nodes"] is not None:
        faults += [f"nodes: {fault}" for fault in _nodes(plan, pairs)]
    if plan["moving"] is not None:
        faults += [f"moving: {fault}" for fault in _moving(plan)]
    if plan["recovery"] is not None:
        faults += [f"recovery: {fault}" for fault in _recovered(plan)]
    if plan["loss"] is not None:
        faults += [f"loss: {fault}" for fault in _promised(plan["loss"])]
    if plan["filled"] is not None:
        faults += [f"filled: {fault}" for fault in _filled(plan["filled"])]
    if plan["elastic"] is not None:
        faults += [f"elastic: {fault}" for fault in _elastic(plan)]
    if plan["elsewhere"] is not None:
        faults += [f"elsewhere: {fault}" for fault in _elsewhere(plan)]
    return faults


def _nodes(plan: Json, pairs: list[Pairs]) -> list[str]:
    """Nodes are runs of `size` devices; a group is copied to every node that has any of it."""
    report, devices = plan["nodes"], len(plan["devices"])
    size, groups = report["size"], plan["architecture"]["kv_heads"]
    if devices % size:
        return [f"size {size} does not divide the {devices} devices"]
    faults = []
    if report["replicas"] != devices // size:
        faults.append(f"replicas {report['replicas']}, but there are {devices // size} nodes")
    for index, (claimed, here) in enumerate(zip(report["cross_node_copies"], pairs, strict=True)):
        counted = len({(group, device // size) for group, device in here}) - groups
        if claimed != counted:
            faults.append(f"layer {index}: cross_node_copies {claimed}, counted {counted}")
    if report["replica_lower_bound_s"] > report["replica_makespan_s"] * (1 + RELATIVE):
        faults.append("replica_lower_bound_s is above replica_makespan_s")
    return faults


def _moving(plan: Json) -> list[str]:
    report = plan["moving"]
    gain_s = report["current_makespan_s"] - plan["makespan_s"]
    slack_s = RELATIVE * max(report["current_makespan_s"], plan["makespan_s"])
    faults = []
    if not math.isclose(report["gain_s"], gain_s, rel_tol=1e-6, abs_tol=slack_s):
        faults.append(f"gain_s {report['gain_s']}, recomputed {gain_s}")
    if report["kept"] and (report["bytes"] or report["seconds"]):
        faults.append(f"kept, but {report['bytes']} bytes are moved")
    return faults


def _recovered(plan: Json) -> list[str]:
    """The least head is not above the mean one; filled budgets are the ones that recover."""
    report, filled = plan["recovery"], plan["filled"]
    faults = [
        f"layer {index}: least {least} is above mean {mean}"
        for index, (least, mean) in enumerate(zip(report["least"], report["mean"], strict=True))
        if least > mean + RELATIVE
    ]
    if filled is not None:
        found = {
            "recovery_mean": sum(report["mean"]) / len(report["mean"]),
            "recovery_min": min(report["least"]),
        }
        faults += [
            f"{value} in all, but filled.{name} ends at {filled[name][1]}"
            for name, value in found.items()
            if abs(value - filled[name][1]) > RELATIVE
        ]
    return faults


def _promised(report: Json) -> list[str]:
    names = ("low", "nats", "high", "bound")
    return [
        f"{smaller} {report[smaller]} is above {larger} {report[larger]}"
        for smaller, larger in pairwise(names)
        if report[smaller] > report[larger]
    ]


def _filled(report: Json) -> list[str]:
    return [
        f"{name} falls from {report[name][0]} to {report[name][1]}"
        for name in ("recovery_mean", "recovery_min")
        if report[name][1] < report[name][0] - RELATIVE
    ]


def _elastic(plan: Json) -> list[str]:
    """The rules give the budgets, unless idle time has raised them since."""
    report, step = plan["elastic"], plan["workload"]
    context, piece = step["context_tokens"], step["piece_tokens"]
    shape = [len(layer) for layer in plan["budgets"]]
    for name in ("alpha", "beta"):
        if [len(layer) for layer in report[name]] != shape:
            return [f"{name}: not of the budgets' shape"]
    if report["lower_bound"] > report["loss"] * (1 + RELATIVE):
        return ["lower_bound is above loss"]
    if plan["filled"] is not None:
        return []
    faults = []
    for index, tokens in enumerate(plan["budgets"]):
        rules = zip(report["alpha"][index], report["beta"][index], strict=True)
        for head, (alpha, beta) in enumerate(rules):
            pieces = whole_pieces(alpha + beta * context, step)
            if tokens[head] != min(pieces * piece, context):
                faults.append(f"layer {index}, head {head}: the rule does not give its budget")
    return faults


def _whole_step(plan: Json, served: list[Served]) -> list[str]:
    """Sums and ratios hold, and attention with its projections is what the loads come to."""
    report, kinds = plan["whole_step"], ("attention_s", "projections_s")
    around_s = report["mlp_s"] + report["all_reduce_s"]
    wanted = {
        f"{where}step_s": math.fsum([*(report[where + kind] for kind in kinds), around_s])
        for where in ("", "contiguous_")
    }
    faults = [
        f"{name} {report[name]}, but a step takes time" for name in wanted if not report[name]
    ]
    if faults:
        return faults
    wanted["gain"] = report["contiguous_step_s"] / report["step_s"] - 1
    wanted["attention_share"] = report["contiguous_attention_s"] / report["contiguous_step_s"]
    faults = [
        f"{name} {report[name]}, recomputed {value}"
        for name, value in wanted.items()
        if not math.isclose(report[name], value, rel_tol=1e-6, abs_tol=RATIO)
    ]
    placed = {"": math.fsum(blended_makespans(served))}
    if plan["slots"] is None:
        # With slots the plan's costs are not the stock layout's.
        placed["contiguous_"] = _in_order_s(plan, served)
    for where, load_s in placed.items():
        attention_s, projections_s = (report[where + kind] for kind in kinds)
        if plan["workload"]["deployment"] == "disaggregated":
            same = math.isclose(attention_s, load_s, rel_tol=1e-6)
        else:
            slack_s = 1e-6 * load_s
            same = attention_s <= load_s + slack_s <= attention_s + projections_s + 2 * slack_s
        if not same:
            faults.append(f"{where}attention_s {attention_s}, but the loads make {load_s}")
    return faults


def _in_order_s(plan: Json, served: list[Served]) -> float:
    """Makespan of whole heads in order, counts at most one apart and larger first."""
    heads, devices = plan["architecture"]["query_heads"], len(plan["devices"])
    size = heads // plan["architecture"]["kv_heads"]
    kinds = [plan["device_types"].index(name) for name in plan["devices"]]
    small, larger = divmod(heads, devices)
    ends = list(accumulate(small + (device < larger) for device in range(devices)))
    total_s = 0.0
    for each in served:
        costs = each.claim["costs"]
        for head_s, group_s in zip(costs["head_s"], costs["group_s"], strict=True):
            loads = [0.0]
            for first, end, kind in zip([0, *ends], ends, kinds, strict=False):
                groups = {head // size for head in range(first, end)}
                if groups:
                    own = [head_s[head][kind] for head in range(first, end)]
                    charged = [group_s[group][kind] for group in groups]
                    loads.append(math.fsum([*own, *charged, costs["launch_s"][kind]]))
            total_s += each.weight * max(loads)
    return total_s


def _elsewhere(plan: Json) -> list[str]:
    report = plan["elsewhere"]
    faults = []
    if report["deployment"] == plan["workload"]["deployment"]:
        faults.append(f"{report['deployment']} is the plan's own deployment")
    if report["lower_bound_s"] > report["replanned_s"] * (1 + RELATIVE):
        faults.append("lower_bound_s is above replanned_s")
    return faults
