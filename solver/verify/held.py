"""Bytes: copies of K/V, what every device holds, and what its memory allows."""

from collections import Counter

from solver.verify.fields import Json
from solver.verify.loads import claims
from solver.verify.rules import Pairs

ITEM_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


def present(plan: Json) -> list[Pairs]:
    """(KV group, device) pairs of every layer, as the first workload computes it."""
    shape = plan["architecture"]
    size = shape["query_heads"] // shape["kv_heads"]
    return [
        {
            (head // size, entry["device"])
            for head, entries in enumerate(layer["heads"])
            for entry in entries
        }
        for layer in plan["layers"]
    ]


def copies(plan: Json, pairs: list[Pairs]) -> list[str]:
    """K/V copies and bytes, and whether a stock engine could run the placement."""
    groups, step = plan["architecture"]["kv_heads"], plan["workload"]
    faults = [
        f"layer {index}: kv_copies {claimed}, counted {len(here)} pairs of {groups} groups"
        for index, (claimed, here) in enumerate(zip(plan["kv_copies"], pairs, strict=True))
        if claimed != len(here) - groups
    ]
    counts = [Counter(device for _, device in here) for here in pairs]
    devices = range(len(plan["devices"]))
    group_bytes = _row_bytes(plan) * step["context_tokens"] * step["batch_size"]
    held = [group_bytes * sum(count[device] for count in counts) for device in devices]
    faults += _wrong("kv_bytes", plan["kv_bytes"], held)
    stock = all(
        len(here) == groups and len({count[device] for device in devices}) == 1
        for here, count in zip(pairs, counts, strict=True)
    )
    if plan["stock_compatible"] != stock:
        faults.append(f"stock_compatible {plan['stock_compatible']}, found {stock}")
    return faults


def memory(plan: Json, pairs: list[Pairs]) -> list[str]:
    """Weights and K/V on every device, and whether they fit."""
    report = plan["memory"]
    if report is None:
        return []
    faults = _wrong("memory: weight_bytes", report["weight_bytes"], _weights(plan, pairs))
    faults += _wrong("memory: kv_bytes", report["kv_bytes"], _kept(plan, pairs))
    for device, limit in enumerate(report["limit_bytes"]):
        needed = report["weight_bytes"][device] + report["kv_bytes"][device]
        if needed > limit:
            faults.append(f"memory: device {device}: {needed} bytes, the limit is {limit}")
    return faults


def _weights(plan: Json, pairs: list[Pairs]) -> list[int]:
    """q and o of every head, k and v of every group present; none where others project."""
    shape = plan["architecture"]
    if plan["workload"]["deployment"] == "disaggregated":
        return [0] * len(plan["devices"])
    matrices = 2 * shape["hidden_size"] * shape["head_dim"] * ITEM_BYTES[shape["dtype"]]
    counts: Counter[int] = Counter()
    for layer, here in zip(plan["layers"], pairs, strict=True):
        counts.update(entry["device"] for entries in layer["heads"] for entry in entries)
        counts.update(device for _, device in here)
    return [matrices * counts[device] for device in range(len(plan["devices"]))]


def _kept(plan: Json, pairs: list[Pairs]) -> list[int]:
    """K/V bytes at the report's context and batch: all keys, or the largest budget's."""
    report = plan["memory"]
    tokens: Counter[int] = Counter()
    for index, here in enumerate(pairs):
        for group, device in here:
            tokens[device] += (
                report["context_tokens"]
                if report["kv_retention"] == "full"
                else _retained(plan, index, group, device)
            )
    every = _row_bytes(plan) * report["batch_size"]
    return [every * tokens[device] for device in range(len(plan["devices"]))]


def _retained(plan: Json, index: int, group: int, device: int) -> int:
    """The largest budget of the group's heads on a device, in whole pieces within the context.

    A head keeps the most that it may attend to in any of the workloads.
    """
    shape, piece = plan["architecture"], plan["workload"]["piece_tokens"]
    size = shape["query_heads"] // shape["kv_heads"]
    largest = max(
        claim["budgets"][index][head]
        for _, claim in claims(plan)
        for head in range(group * size, (group + 1) * size)
        if any(entry["device"] == device for entry in plan["layers"][index]["heads"][head])
    )
    return int(min(-(-largest // piece) * piece, plan["memory"]["context_tokens"]))


def _row_bytes(plan: Json) -> int:
    """Bytes of one token's K and V in one group."""
    return int(2 * plan["architecture"]["head_dim"] * ITEM_BYTES[plan["architecture"]["dtype"]])


def _wrong(name: str, claimed: list[int], true: list[int]) -> list[str]:
    return [
        f"{name} of device {device}: {said}, recomputed {counted}"
        for device, (said, counted) in enumerate(zip(claimed, true, strict=True))
        if said != counted
    ]
