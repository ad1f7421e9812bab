"""The rules a plan names, kept: units, counts, copies, budgets, weights."""

import math
from collections import Counter

from solver.verify.fields import Json
from solver.verify.loads import RELATIVE, claims

Pairs = set[tuple[int, int]]
"""(KV group, device) pairs present in a layer."""


def rules(plan: Json, pairs: list[Pairs]) -> list[str]:
    """Every rule, for every layer and every workload; `pairs` by layer."""
    faults = []
    for index, present in enumerate(pairs):
        faults += [f"layer {index}: {fault}" for fault in _placement(plan, index, present)]
    for where, claim in claims(plan):
        found = _budgets(claim) + _square(claim) + _parts(claim["costs"])
        if plan["rules"]["copies"] == "free":
            found += _free(claim["costs"])
        faults += [where + fault for fault in found]
    total = math.fsum(claim["weight"] for _, claim in claims(plan))
    if not math.isclose(total, 1.0, rel_tol=RELATIVE):
        faults.append(f"weights of the workloads add up to {total}, not to 1")
    return faults


def _placement(plan: Json, index: int, pairs: Pairs) -> list[str]:
    """The unit stays whole, and counts are equal where asked for."""
    shape, layer, asked = plan["architecture"], plan["layers"][index], plan["rules"]
    faults = []
    if asked["unit"] == "kv_group" and len(pairs) != shape["kv_heads"]:
        faults.append("unit kv_group, but a group is on several devices")
    if asked["equal_counts"]:
        if asked["unit"] == "head":
            counts = Counter(entry["device"] for entries in layer["heads"] for entry in entries)
        else:
            counts = Counter(device for _, device in pairs)
        every = [counts[device] for device in range(len(plan["devices"]))]
        if max(every) - min(every) > 1:
            faults.append(f"equal_counts, but devices have {every}")
        if any(len(entries) > 1 for entries in layer["heads"]):
            faults.append("equal_counts, but a head is divided")
    return faults


def _budgets(claim: Json) -> list[str]:
    context, piece = claim["workload"]["context_tokens"], claim["workload"]["piece_tokens"]
    return [
        f"layer {index}: head {head}: budget {budget} is not whole pieces within {context}"
        for index, budgets in enumerate(claim["budgets"])
        for head, budget in enumerate(budgets)
        if budget > context or (budget % piece and budget != context)
    ]


def _square(claim: Json) -> list[str]:
    step, kind = claim["workload"], claim["selection"]["kind"]
    if kind == "strided" and step["piece_tokens"] != step["block_tokens"]:
        return ["selection strided, whose blocks are square, in pieces that are no blocks"]
    return []


def _parts(costs: Json) -> list[str]:
    """What a part repeats is part of the whole."""
    return [
        f"layer {index}: head {head}: part_s is above head_s"
        for index, layer in enumerate(costs["part_s"])
        for head, repeated in enumerate(layer)
        if any(
            part > whole * (1 + RELATIVE)
            for part, whole in zip(repeated, costs["head_s"][index][head], strict=True)
        )
    ]


def _free(costs: Json) -> list[str]:
    return [
        f"copies are free, but {name} charges for them"
        for name in ("group_s", "part_s")
        if any(seconds for layer in costs[name] for item in layer for seconds in item)
    ]
