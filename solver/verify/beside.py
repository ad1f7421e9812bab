"""What a plan says beside its placement: nodes, moving, filled budgets, the other deployment."""

import math

from solver.verify.fields import Json
from solver.verify.loads import RELATIVE
from solver.verify.rows import whole_pieces
from solver.verify.rules import Pairs


def beside(plan: Json, pairs: list[Pairs]) -> list[str]:
    """Every report that the plan has, as far as it follows from the plan."""
    faults = []
    if plan["nodes"] is not None:
        faults += [f"nodes: {fault}" for fault in _nodes(plan, pairs)]
    if plan["moving"] is not None:
        faults += [f"moving: {fault}" for fault in _moving(plan)]
    if plan["recovery"] is not None:
        faults += [f"recovery: {fault}" for fault in _recovered(plan)]
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


def _elsewhere(plan: Json) -> list[str]:
    report = plan["elsewhere"]
    faults = []
    if report["deployment"] == plan["workload"]["deployment"]:
        faults.append(f"{report['deployment']} is the plan's own deployment")
    if report["lower_bound_s"] > report["replanned_s"] * (1 + RELATIVE):
        faults.append("lower_bound_s is above replanned_s")
    return faults
