"""Every array as long as the architecture, the devices and their types say."""

from collections.abc import Iterator
from typing import Any

from solver.verify.fields import Json


def shapes(plan: Json) -> list[str]:
    """Arrays of a wrong shape, and types, groups and recoveries that do not fit each other."""
    shape, devices, kinds = plan["architecture"], plan["devices"], plan["device_types"]
    faults = [
        f"{name}: not of shape {lengths}"
        for name, array, lengths in _wanted(plan)
        if not _is(array, lengths)
    ]
    if not devices or set(devices) != set(kinds) or len(set(kinds)) != len(kinds):
        faults.append("device_types are not the distinct types of devices")
    if shape["query_heads"] % shape["kv_heads"]:
        faults.append("architecture: query_heads is not a multiple of kv_heads")
    faults += [
        f"other_workloads.{index}: its deployment is not the first workload's"
        for index, other in enumerate(plan["other_workloads"])
        if other["workload"]["deployment"] != plan["workload"]["deployment"]
    ]
    return faults


Wanted = Iterator[tuple[str, Any, tuple[int, ...]]]


def _wanted(plan: Json) -> Wanted:
    layers, heads = plan["architecture"]["layers"], plan["architecture"]["query_heads"]
    devices = len(plan["devices"])
    yield "layers", plan["layers"], (layers,)
    for index, layer in enumerate(plan["layers"]):
        yield f"layers.{index}.loads_s", layer["loads_s"], (devices,)
        yield f"layers.{index}.heads", layer["heads"], (heads,)
    yield "kv_copies", plan["kv_copies"], (layers,)
    if plan["divisions"]:
        yield "divisions", plan["divisions"], (layers,)
    yield "kv_bytes", plan["kv_bytes"], (devices,)
    yield from _of_workload(plan, "", plan)
    for index, other in enumerate(plan["other_workloads"]):
        yield from _of_workload(plan, f"other_workloads.{index}.", other)
        yield f"other_workloads.{index}.loads_s", other["loads_s"], (layers, devices)
    if plan["memory"] is not None:
        for name in ("limit_bytes", "weight_bytes", "kv_bytes"):
            yield f"memory.{name}", plan["memory"][name], (devices,)
    if plan["recovery"] is not None:
        for name in ("mean", "least"):
            yield f"recovery.{name}", plan["recovery"][name], (layers,)
    if plan["filled"] is not None:
        for name in ("recovery_mean", "recovery_min"):
            yield f"filled.{name}", plan["filled"][name], (2,)
    if plan["nodes"] is not None:
        yield "nodes.cross_node_copies", plan["nodes"]["cross_node_copies"], (layers,)


def _of_workload(plan: Json, where: str, workload: Json) -> Wanted:
    """Budgets and costs of the first workload (the plan itself) or of another."""
    shape, types, costs = plan["architecture"], len(plan["device_types"]), workload["costs"]
    layers, heads = shape["layers"], shape["query_heads"]
    yield f"{where}budgets", workload["budgets"], (layers, heads)
    yield f"{where}costs.head_s", costs["head_s"], (layers, heads, types)
    if costs["part_s"]:
        yield f"{where}costs.part_s", costs["part_s"], (layers, heads, types)
    yield f"{where}costs.group_s", costs["group_s"], (layers, shape["kv_heads"], types)
    yield f"{where}costs.launch_s", costs["launch_s"], (types,)


def _is(array: Any, lengths: tuple[int, ...]) -> bool:
    rest = lengths[1:]
    return len(array) == lengths[0] and (not rest or all(_is(part, rest) for part in array))
