"""The rules a placement obeys, kept: heads covered, units, counts, copies, budgets, bytes."""

import math
from collections import Counter
from itertools import accumulate, pairwise

from solver.verifier.form import Json
from solver.verifier.loads import RELATIVE, Rows, claims, rows_of

Pairs = set[tuple[int, int]]
"""(KV group, device) pairs present in a layer."""
ITEM_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
EXACT = 1e-12
"""A sum of a few hundred shares is as good as exact within this."""


def uncovered(plan: Json) -> list[str]:
    """What is wrong with the entries of every head."""
    faults = []
    for index, layer in enumerate(plan["layers"]):
        for head, entries in enumerate(layer["heads"]):
            found = _whole(entries, len(plan["devices"]))
            if len(entries) > 1 and not found:
                rows = rows_of(plan["budgets"][index][head], plan["workload"])
                found = _divided(entries, plan["rules"]) + _realisable(entries, rows)
            faults += [f"layer {index}: head {head}: {fault}" for fault in found]
    return faults


def _divisions(plan: Json) -> list[str]:
    """Per layer, the entries beyond one a head; none where the plan does not say."""
    faults = []
    for index, layer in enumerate(plan["layers"]):
        counted = sum(len(entries) - 1 for entries in layer["heads"])
        claimed = plan["divisions"][index] if plan["divisions"] else 0
        if claimed != counted:
            faults.append(f"layer {index}: divisions {claimed}, counted {counted}")
    return faults


def _whole(entries: list[Json], devices: int) -> list[str]:
    faults = []
    if abs(math.fsum(entry["share"] for entry in entries) - 1) > EXACT:
        faults.append("shares do not add up to 1")
    if any(entry["share"] <= 0 for entry in entries):
        faults.append("a share is not positive")
    used = [entry["device"] for entry in entries]
    if len(set(used)) != len(used):
        faults.append("a device twice")
    if any(device >= devices for device in used):
        faults.append(f"a device that is not among the {devices}")
    return faults


def _divided(entries: list[Json], rules: Json) -> list[str]:
    if not rules["divisible"]:
        return [f"divided over {len(entries)} devices, but heads are not divisible"]
    if rules["max_copies"] is not None and len(entries) > rules["max_copies"]:
        return [f"divided over {len(entries)} devices, but max_copies is {rules['max_copies']}"]
    return []


def _realisable(entries: list[Json], rows: Rows) -> list[str]:
    """The first workload does exactly the shares: they end where whole rows end."""
    shares = [entry["share"] for entry in entries]
    edges = rows.edges(shares)
    faults = [
        f"the first {share} of its work does not end with a row; {rows.share(edge)} does"
        for share, edge in zip(accumulate(shares), edges[1:], strict=True)
        if abs(share - rows.share(edge)) > EXACT
    ]
    if not faults and any(end <= start for start, end in pairwise(edges)):
        faults.append("a part without a row")
    return faults


def broken_rules(plan: Json, pairs: list[Pairs]) -> list[str]:
    """Every rule, for every layer and every workload, and what is counted by them.

    `pairs` by layer.
    """
    faults = _divisions(plan) + _copies(plan, pairs) + _memory(plan, pairs) + _slots(plan, pairs)
    for index, present in enumerate(pairs):
        faults += [f"layer {index}: {fault}" for fault in _placement(plan, index, present)]
    for where, claim in claims(plan):
        found = _budgets(claim) + _beyond_windows(plan, claim)
        found += _square(claim) + _parts(claim["costs"])
        if plan["rules"]["copies"] == "free":
            found += _free(claim["costs"])
        faults += [where + fault for fault in found]
    total = math.fsum(claim["weight"] for _, claim in claims(plan))
    if not math.isclose(total, 1.0, rel_tol=RELATIVE):
        faults.append(f"weights of the workloads add up to {total}, not to 1")
    return faults


def _slots(plan: Json, pairs: list[Pairs]) -> list[str]:
    """What a plan with slots says of them, and what does not go with them."""
    report, slots = plan["padding"], plan["slots"]
    if slots is None:
        return []
    groups, devices = plan["architecture"]["kv_heads"], len(plan["devices"])
    least = -(-groups // devices)
    faults = []
    if plan["workload"]["deployment"] != "tensor_parallel":
        faults.append("slots, but projections are computed elsewhere")
    if plan["rules"]["equal_counts"] or plan["rules"]["copies"] == "free":
        faults.append("slots, with rules that do not know of them")
    padded = devices * slots * len(pairs) - sum(map(len, pairs))
    for name, value in {"least_slots": least, "padded": padded}.items():
        if report[name] != value:
            faults.append(f"padding: {name} {report[name]}, counted {value}")
    if not math.isclose(report["kv_share"], least / slots, rel_tol=RELATIVE):
        faults.append(f"padding: kv_share {report['kv_share']}, recomputed {least / slots}")
    if report["padding_s"] > plan["makespan_s"] * (1 + RELATIVE):
        faults.append("padding: padding_s is above makespan_s")
    return faults


def _placement(plan: Json, index: int, pairs: Pairs) -> list[str]:
    """The unit stays whole, slots suffice, and counts are equal where asked for."""
    shape, layer, asked = plan["architecture"], plan["layers"][index], plan["rules"]
    faults = []
    if plan["slots"] is not None:
        held = Counter(device for _, device in pairs)
        faults += [
            f"device {device} has {number} KV groups in {plan['slots']} slots"
            for device, number in sorted(held.items())
            if number > plan["slots"]
        ]
    if asked["unit"] == "kv_group" and copies_of(plan) > 1:
        if not evenly_copied(plan, index, pairs):
            faults.append("unit kv_group, but groups are not copied to equal numbers of devices")
        return faults
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


def copies_of(plan: Json) -> int:
    """Devices of each KV group where engines copy it: they are a multiple, and heads suffice.

    1 where no group has a copy: plans made before engines' copies were counted leave devices
    without work there.
    """
    shape, devices = plan["architecture"], len(plan["devices"])
    if devices % shape["kv_heads"] or shape["query_heads"] % devices:
        return 1
    if all(len(here) == shape["kv_heads"] for here in present(plan)):
        return 1
    return int(devices // shape["kv_heads"])


def evenly_copied(plan: Json, index: int, pairs: Pairs) -> bool:
    """Whether every device has one KV group, whole heads, and as many of them as any other."""
    heads, devices = plan["layers"][index]["heads"], len(plan["devices"])
    counts = Counter(entry["device"] for entries in heads for entry in entries)
    even = all(counts[device] == len(heads) // devices for device in range(devices))
    return even and len(pairs) == devices and all(len(entries) == 1 for entries in heads)


def _budgets(claim: Json) -> list[str]:
    context, piece = claim["workload"]["context_tokens"], claim["workload"]["piece_tokens"]
    return [
        f"layer {index}: head {head}: budget {budget} is not whole pieces within {context}"
        for index, budgets in enumerate(claim["budgets"])
        for head, budget in enumerate(budgets)
        if budget > context or (budget % piece and budget != context)
    ]


def _beyond_windows(plan: Json, claim: Json) -> list[str]:
    """Budgets above what a row of a layer with a window can see, rounded up to its least list."""
    step, faults = claim["workload"], []
    piece = step["piece_tokens"]
    least = step["block_tokens"] if step["phase"] == "prefill" else piece
    for index, window in enumerate(plan["architecture"]["windows"]):
        most = math.inf if window is None else max(-(-window // piece) * piece, least)
        faults += [
            f"layer {index}: head {head}: budget {budget} is beyond the window of {window}"
            for head, budget in enumerate(claim["budgets"][index])
            if budget > most
        ]
    return faults


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


def _copies(plan: Json, pairs: list[Pairs]) -> list[str]:
    """K/V copies and bytes, and whether a stock engine could run the placement."""
    groups, step = plan["architecture"]["kv_heads"], plan["workload"]
    faults = [
        f"layer {index}: kv_copies {claimed}, counted {len(here)} pairs of {groups} groups"
        for index, (claimed, here) in enumerate(zip(plan["kv_copies"], pairs, strict=True))
        if claimed != len(here) - groups
    ]
    counts = [Counter(device for _, device in here) for here in pairs]
    devices = range(len(plan["devices"]))
    row_bytes, reaches = _row_bytes(plan) * step["batch_size"], _reaches(plan, step)
    slots = plan["slots"]
    held = [
        row_bytes
        * sum(
            reach * (count[device] if slots is None else slots)
            for reach, count in zip(reaches, counts, strict=True)
        )
        for device in devices
    ]
    faults += _wrong("kv_bytes", plan["kv_bytes"], held)
    whole = [
        len(here) == groups and len({count[device] for device in devices}) == 1
        for here, count in zip(pairs, counts, strict=True)
    ]
    # Plans made before engines' copies were counted say no where those are what makes it stock.
    counted = slots is not None or all(whole)
    stock = counted or all(
        equal or (copies_of(plan) > 1 and evenly_copied(plan, index, here))
        for index, (here, equal) in enumerate(zip(pairs, whole, strict=True))
    )
    if plan["stock_compatible"] not in (counted, stock):
        faults.append(f"stock_compatible {plan['stock_compatible']}, found {stock}")
    return faults


def _memory(plan: Json, pairs: list[Pairs]) -> list[str]:
    """Weights and K/V on every device, and whether they fit."""
    report = plan["memory"]
    if report is None:
        return []
    if plan["slots"] is not None and report["kv_retention"] != "full":
        return ["memory: slots keep all keys, not a budget's"]
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
    if plan["slots"] is not None:
        each = plan["slots"] * (shape["query_heads"] // shape["kv_heads"] + 1) * len(pairs)
        return [matrices * each] * len(plan["devices"])
    counts: Counter[int] = Counter()
    for layer, here in zip(plan["layers"], pairs, strict=True):
        counts.update(entry["device"] for entries in layer["heads"] for entry in entries)
        counts.update(device for _, device in here)
    return [matrices * counts[device] for device in range(len(plan["devices"]))]


def _kept(plan: Json, pairs: list[Pairs]) -> list[int]:
    """K/V bytes at the report's context and batch: all keys, or the largest budget's."""
    report = plan["memory"]
    if plan["slots"] is not None:
        each = _row_bytes(plan) * report["batch_size"] * sum(_reaches(plan, report))
        return [each * plan["slots"]] * len(plan["devices"])
    tokens: Counter[int] = Counter()
    for index, (reach, here) in enumerate(zip(_reaches(plan, report), pairs, strict=True)):
        for group, device in here:
            tokens[device] += (
                reach if report["kv_retention"] == "full" else _retained(plan, index, group, device)
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
    reach = _reaches(plan, plan["memory"])[index]
    return int(min(-(-largest // piece) * piece, reach))


def _reaches(plan: Json, step: Json) -> list[int]:
    """Tokens of the step's context that a row of each layer sees."""
    context = int(step["context_tokens"])
    windows = plan["architecture"]["windows"] or [None] * len(plan["layers"])
    return [context if window is None else min(window, context) for window in windows]


def _row_bytes(plan: Json) -> int:
    """Bytes of one token's K and V in one group."""
    return int(2 * plan["architecture"]["head_dim"] * ITEM_BYTES[plan["architecture"]["dtype"]])


def _wrong(name: str, claimed: list[int], true: list[int]) -> list[str]:
    return [
        f"{name} of device {device}: {said}, recomputed {counted}"
        for device, (said, counted) in enumerate(zip(claimed, true, strict=True))
        if said != counted
    ]
