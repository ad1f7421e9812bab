"""Bounds whose proof is plain, computed again from the costs; no claim about any other proof.

Every workload's makespan is at least its own bound, so that with several workloads the weighted
sum of their bounds is one too.
"""

import math
from dataclasses import dataclass

from solver.verify.fields import Json
from solver.verify.loads import claims

JOINED = "weighted sum of "


def proved_s(plan: Json, index: int) -> float | None:
    """What the proof that a layer's bound names gives; None where it is not a plain one."""
    names = plan["layers"][index]["bound"].removeprefix(JOINED).split(", ")
    each = [(claim["weight"], _plain(_items(plan, claim, index))) for _, claim in claims(plan)]
    if any(name not in proofs for name in names for _, proofs in each):
        return None
    return math.fsum(weight * max(proofs[name] for name in names) for weight, proofs in each)


@dataclass(frozen=True)
class Items:
    """A layer's items under one workload: `whole_s`, `part_s`, `charge_s` [items][types].

    `group_s` [groups][types] and `launch_s` [types]; at most `copies` devices share an item.
    """

    whole_s: list[list[float]]
    part_s: list[list[float]]
    charge_s: list[list[float]]
    group_s: list[list[float]]
    launch_s: list[float]
    devices: int
    copies: int


def _items(plan: Json, claim: Json, index: int) -> Items:
    shape, rules, costs = plan["architecture"], plan["rules"], claim["costs"]
    size, devices = shape["query_heads"] // shape["kv_heads"], len(plan["devices"])
    heads, groups = costs["head_s"][index], costs["group_s"][index]
    parts = costs["part_s"][index] if costs["part_s"] else [[0.0] * len(head) for head in heads]
    if rules["unit"] == "kv_group":
        members = [heads[g * size : (g + 1) * size] for g in range(len(groups))]
        heads = [[math.fsum(of_type) for of_type in zip(*group, strict=True)] for group in members]
        parts, size = [[0.0] * len(head) for head in heads], 1
    copies = min(rules["max_copies"] or devices, devices) if rules["divisible"] else 1
    charges = [groups[item // size] for item in range(len(heads))]
    return Items(heads, parts, charges, groups, costs["launch_s"], devices, copies)


def _plain(items: Items) -> dict[str, float]:
    proofs = {"mean of fastest devices": _mean(items)}
    if len(items.launch_s) == 1:
        proofs["mean load"] = _mean(items)
        proofs[f"largest item on {items.copies} devices"] = _largest(items)
    if len(items.launch_s) == 1 or items.copies == 1:
        proofs["largest item"] = _largest(items)
    return proofs


def _mean(items: Items) -> float:
    """Every item and one charge a group where they take least, spread evenly."""
    work = math.fsum(min(seconds) for seconds in (*items.whole_s, *items.group_s))
    return min(items.launch_s) + work / items.devices


def _largest(items: Items) -> float:
    """Some device does the largest item, or where items are divided, the largest part of one."""
    return max(
        min(
            launch + charge + part + (whole - part) / items.copies
            for whole, part, charge, launch in zip(*of_types, items.launch_s, strict=True)
        )
        for of_types in zip(items.whole_s, items.part_s, items.charge_s, strict=True)
    )
