"""What the rows say: losses over dense attention, paired by document, with 95 % intervals."""

from collections import defaultdict
from typing import Any

import numpy as np

from benchmarks.pieces import half_interval
from benchmarks.real_model.rows import Row

SHARES = {"0.2": (0.15, 0.22), "0.3": (0.25, 0.35), "0.5": (0.42, 0.55)}
"""Names of the points that are compared, and the shares of dense attention's pairs they cover."""
BASE = "uniform"
Point = tuple[int, str, str]


def summarise(rows: list[Row]) -> dict[str, Any]:
    """`summary` as others read it, `lines` with intervals, and every row.

    Of a policy whose budgets changed since, its profile measured anew, only the newest count.
    """
    dense = {(row.context, row.document): row.nats for row in rows if row.policy == "dense"}
    over: dict[Point, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    pairs: dict[tuple[Point, str], list[float]] = defaultdict(list)
    newest = {(row.context, row.size, row.share, row.policy): row.setup for row in rows}
    for row in rows:
        if row.policy == "dense" or (row.context, row.document) not in dense:
            continue
        if row.setup != newest[row.context, row.size, row.share, row.policy]:
            continue
        point = row.context, row.size, _named(row.share)
        over[point][row.policy][row.document] = row.nats - dense[row.context, row.document]
        pairs[point, row.policy].append(row.pairs)
    lines = [
        _line(point, policy, by_document, policies.get(BASE, {}), pairs[point, policy])
        for point, policies in sorted(over.items())
        for policy, by_document in policies.items()
    ]
    loss: dict[str, Any] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for line in lines:
        loss[line["size"]][str(line["context"])][line["share"]][line["policy"]] = line["loss"]
    documents = {row.document for row in rows if row.policy == "dense"}
    return {
        "summary": {"documents": len(documents), "loss": loss["64x16"], "by_size": loss},
        "lines": lines,
        "rows": [[getattr(row, field) for field in Row.__slots__] for row in rows],
        "columns": list(Row.__slots__),
    }


def _named(share: float) -> str:
    for name, (low, high) in SHARES.items():
        if low <= share <= high:
            return name
    raise ValueError(f"share {share}: none of {SHARES}")


def _line(
    point: Point,
    policy: str,
    over: dict[str, float],
    base: dict[str, float],
    pairs: list[float],
) -> dict[str, Any]:
    """One policy: its loss, and what it loses more than uniform budgets on the same documents."""
    context, size, share = point
    values = np.array(list(over.values()))
    common = [name for name in over if name in base]
    more = np.array([over[name] - base[name] for name in common])
    paired = {}
    if policy != BASE and len(common) > 1:
        uniform = np.array([base[name] for name in common])
        paired = {"over_uniform": float(more.mean()), "over_uniform_half": half_interval(more)}
        # A ratio to what may be nothing says nothing.
        if uniform.mean() > half_interval(uniform):
            mean = np.mean([over[name] for name in common])
            paired["of_uniform"] = float(mean / uniform.mean())
    return {
        "context": context,
        "size": size,
        "share": share,
        "policy": policy,
        "documents": len(values),
        "pairs": float(np.mean(pairs)),
        "loss": float(values.mean()),
        "half_interval": half_interval(values) if len(values) > 1 else None,
        **paired,
    }
