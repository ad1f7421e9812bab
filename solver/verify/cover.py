"""Every head wholly computed, once, on devices there are, in parts that whole rows can have."""

import math
from itertools import accumulate, pairwise

from solver.verify.fields import Json
from solver.verify.rows import Rows, rows_of

EXACT = 1e-12
"""A sum of a few hundred shares is as good as exact within this."""


def cover(plan: Json) -> list[str]:
    """What is wrong with the entries of every head, and with the count of divisions."""
    faults = []
    for index, layer in enumerate(plan["layers"]):
        for head, entries in enumerate(layer["heads"]):
            found = _whole(entries, len(plan["devices"]))
            if len(entries) > 1 and not found:
                rows = rows_of(plan["budgets"][index][head], plan["workload"])
                found = _divided(entries, plan["rules"]) + _realisable(entries, rows)
            faults += [f"layer {index}: head {head}: {fault}" for fault in found]
    return faults


def divisions(plan: Json) -> list[str]:
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
