"""The independent verifier: what a plan claims, checked again from its JSON alone.

Shapes, coverage, rules, loads, makespans, figures and the content's id are recomputed from the
costs the plan carries; a bound with an analytic proof is recomputed too. What it cannot check: a
bound proved by search (`cp_sat`, `ilp`), that the costs follow from the budgets by some rates, and
the words in `reason`, `stock_reason` and `warnings`.

Shares no code with the solvers, and uses plain Python where they use arrays, so that a mistake in
one is not repeated in the other.
"""

import hashlib
import json
import math
from collections import Counter
from typing import Any

RELATIVE = 1e-9
"""Two sums of the same floats in another order may differ by this much."""

Json = dict[str, Any]


def verify(plan: Json) -> list[str]:
    """Every violation found, in words; an empty list means the plan keeps its promises."""
    faults = _identity(plan)
    misshapen = _shapes(plan)
    if misshapen:
        return faults + misshapen
    shape = plan["architecture"]
    types = [plan["device_types"].index(name) for name in plan["devices"]]
    total = bound_total = busy = mean = 0.0
    held = [0] * len(types)
    stock = True
    for index, layer in enumerate(plan["layers"]):
        where = f"layer {index}: "
        covered = _cover(layer, len(types))
        if covered:
            return [*faults, *(where + fault for fault in covered)]
        loads = _loads(plan, index, types)
        pairs = _pairs(layer, shape)
        found = _layer(plan, index, loads) + _rules(plan, index, pairs)
        if plan["kv_copies"][index] != len(pairs) - shape["kv_heads"]:
            found.append(f"kv_copies {plan['kv_copies'][index]}, counted {len(pairs)} pairs")
        faults += [where + fault for fault in found]
        here = Counter(device for _, device in pairs)
        whole = len(pairs) == shape["kv_heads"]
        stock &= whole and len({here[device] for device in range(len(types))}) == 1
        held = [before + here[device] for device, before in enumerate(held)]
        total += max(loads)
        bound_total += layer["lower_bound_s"]
        busy += math.fsum(loads)
        mean += math.fsum(loads) / len(loads)
    faults += _totals(plan, total, bound_total, busy, mean, len(set(types)) == 1)
    if plan["stock_compatible"] != stock:
        faults.append(f"stock_compatible {plan['stock_compatible']}, found {stock}")
    return faults + _bytes(plan, held)


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=1e-15)


def _identity(plan: Json) -> list[str]:
    content = {k: v for k, v in plan.items() if k not in ("id", "solve_s", "created_at")}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return [] if digest == plan["id"] else [f"id is not the SHA-256 of the content ({digest})"]


def _shapes(plan: Json) -> list[str]:
    """Every array as long as the architecture and the devices say."""
    shape, devices, kinds = plan["architecture"], plan["devices"], plan["device_types"]
    layers, heads, groups = shape["layers"], shape["query_heads"], shape["kv_heads"]
    costs = plan["costs"]
    wanted: list[tuple[str, Any, tuple[int, ...]]] = [
        ("layers", plan["layers"], (layers,)),
        ("budgets", plan["budgets"], (layers, heads)),
        ("kv_copies", plan["kv_copies"], (layers,)),
        ("kv_bytes", plan["kv_bytes"], (len(devices),)),
        ("costs.head_s", costs["head_s"], (layers, heads, len(kinds))),
        ("costs.group_s", costs["group_s"], (layers, groups, len(kinds))),
        ("costs.launch_s", costs["launch_s"], (len(kinds),)),
    ]
    for index, layer in enumerate(plan["layers"]):
        wanted.append((f"layers.{index}.loads_s", layer["loads_s"], (len(devices),)))
        wanted.append((f"layers.{index}.heads", layer["heads"], (heads,)))
    faults = [
        f"{name}: not of shape {lengths}" for name, a, lengths in wanted if not _is(a, lengths)
    ]
    if not devices or set(devices) != set(kinds) or len(set(kinds)) != len(kinds):
        faults.append("device_types are not the distinct types of devices")
    if not 0 <= plan["tolerance"] < 1:
        faults.append(f"tolerance {plan['tolerance']} is not from 0 to 1")
    return faults


def _is(array: Any, lengths: tuple[int, ...]) -> bool:
    rest = lengths[1:]
    return len(array) == lengths[0] and (not rest or all(_is(part, rest) for part in array))


def _cover(layer: Json, devices: int) -> list[str]:
    """Every head wholly computed, once, on devices there are."""
    faults = []
    for head, entries in enumerate(layer["heads"]):
        if not _close(math.fsum(entry["share"] for entry in entries), 1.0):
            faults.append(f"head {head}: shares do not add up to 1")
        if any(entry["share"] <= 0 for entry in entries):
            faults.append(f"head {head}: a share is not positive")
        used = [entry["device"] for entry in entries]
        if len(set(used)) != len(used):
            faults.append(f"head {head}: a device twice")
        if any(not 0 <= device < devices for device in used):
            faults.append(f"head {head}: a device that is not among the {devices}")
    return faults


def _pairs(layer: Json, shape: Json) -> set[tuple[int, int]]:
    """(KV group, device) pairs present."""
    size = shape["query_heads"] // shape["kv_heads"]
    return {
        (head // size, entry["device"])
        for head, entries in enumerate(layer["heads"])
        for entry in entries
    }


def _loads(plan: Json, index: int, types: list[int]) -> list[float]:
    """Launch + shares of heads + one charge for every group present; 0 with nothing to do."""
    costs, layer = plan["costs"], plan["layers"][index]
    parts: list[list[float]] = [[] for _ in types]
    for head, entries in enumerate(layer["heads"]):
        for entry in entries:
            device = entry["device"]
            seconds = costs["head_s"][index][head][types[device]]
            parts[device].append(entry["share"] * seconds)
    for group, device in _pairs(layer, plan["architecture"]):
        parts[device].append(costs["group_s"][index][group][types[device]])
    return [
        math.fsum([*part, costs["launch_s"][types[device]]]) if part else 0.0
        for device, part in enumerate(parts)
    ]


def _layer(plan: Json, index: int, loads: list[float]) -> list[str]:
    layer = plan["layers"][index]
    faults = [
        f"device {device}: load {claimed} s, recomputed {true} s"
        for device, (claimed, true) in enumerate(zip(layer["loads_s"], loads, strict=True))
        if not _close(claimed, true)
    ]
    if not _close(layer["makespan_s"], max(loads)):
        faults.append(f"makespan {layer['makespan_s']} s, recomputed {max(loads)} s")
    if layer["lower_bound_s"] > layer["makespan_s"] * (1 + RELATIVE):
        faults.append(f"bound {layer['lower_bound_s']} s is above the makespan")
    provable = _provable(plan, index).get(layer["bound"])
    if provable is not None and layer["lower_bound_s"] > provable * (1 + RELATIVE):
        faults.append(
            f"bound {layer['lower_bound_s']} s by {layer['bound']}, which gives {provable} s"
        )
    tokens, context = plan["budgets"][index], plan["workload"]["context_tokens"]
    block = plan["workload"]["block_tokens"]
    for head, budget in enumerate(tokens):
        if not 1 <= budget <= context or (budget % block and budget != context):
            faults.append(f"head {head}: budget {budget} is not whole blocks within {context}")
    return faults


def _provable(plan: Json, index: int) -> dict[str, float]:
    """What the two plainest proofs give, for one type of device; no claim about other proofs."""
    costs, shape = plan["costs"], plan["architecture"]
    if len(plan["device_types"]) > 1:
        return {}
    heads = [seconds[0] for seconds in costs["head_s"][index]]
    groups = [seconds[0] for seconds in costs["group_s"][index]]
    launch, size = costs["launch_s"][0], shape["query_heads"] // shape["kv_heads"]
    mean = launch + (math.fsum(heads) + math.fsum(groups)) / len(plan["devices"])
    if plan["rules"]["unit"] == "kv_group":
        heads = [math.fsum(heads[g * size : (g + 1) * size]) for g in range(len(groups))]
        size = 1
    largest = launch + max(item + groups[i // size] for i, item in enumerate(heads))
    return {"mean load": mean, "largest item": largest}


def _rules(plan: Json, index: int, pairs: set[tuple[int, int]]) -> list[str]:
    """The unit stays whole, and counts are equal where asked for."""
    shape, layer, rules = plan["architecture"], plan["layers"][index], plan["rules"]
    faults = []
    if rules["unit"] == "kv_group" and len(pairs) != shape["kv_heads"]:
        faults.append("unit kv_group, but a group is on several devices")
    if rules["equal_counts"]:
        if rules["unit"] == "head":
            counts = Counter(entries[0]["device"] for entries in layer["heads"])
        else:
            counts = Counter(device for _, device in pairs)
        every = [counts[device] for device in range(len(plan["devices"]))]
        if every != sorted(every, reverse=True) or every[0] - every[-1] > 1:
            faults.append(f"equal_counts, but devices have {every}")
    return faults


def _totals(
    plan: Json, total: float, bound: float, busy: float, mean: float, identical: bool
) -> list[str]:
    gap = 1 - plan["lower_bound_s"] / total
    claims = {
        "makespan_s": total,
        "bubble_ratio": 1 - busy / (len(plan["devices"]) * total),
        "gap": gap,
    }
    faults = [
        f"{name} {plan[name]}, recomputed {true}"
        for name, true in claims.items()
        if not math.isclose(plan[name], true, rel_tol=1e-6, abs_tol=1e-9)
    ]
    if plan["lower_bound_s"] > bound * (1 + RELATIVE):
        faults.append("lower_bound_s is above the sum of the layers' bounds")
    if plan["status"] == "optimal" and gap > plan["tolerance"] + 1e-12:
        faults.append(f"status optimal with a gap of {gap}")
    wanted = total / mean if identical else None
    if (plan["imbalance"] is None) != (wanted is None) or (
        wanted is not None and not math.isclose(plan["imbalance"], wanted, rel_tol=1e-6)
    ):
        faults.append(f"imbalance {plan['imbalance']}, recomputed {wanted}")
    return faults


def _bytes(plan: Json, held: list[int]) -> list[str]:
    shape, step = plan["architecture"], plan["workload"]
    item = {"bfloat16": 2, "float16": 2, "float32": 4}[shape["dtype"]]
    group = 2 * shape["head_dim"] * item * step["context_tokens"] * step["batch_size"]
    return [
        f"device {device}: kv_bytes {claimed}, recomputed {count * group}"
        for device, (claimed, count) in enumerate(zip(plan["kv_bytes"], held, strict=True))
        if claimed != count * group
    ]
