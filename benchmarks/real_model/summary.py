"""What the rows say: losses over dense attention, paired by document, with 95 % intervals."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from benchmarks.pieces import half_interval
from benchmarks.real_model.policies import BUDGETS, PROMISED, TRIED_ON, TRIES
from benchmarks.real_model.rows import Row
from solver.plans import PromisedLoss

SHARES = {"0.2": (0.15, 0.22), "0.3": (0.25, 0.35), "0.5": (0.42, 0.55)}
"""Names of the points that are compared, and the shares of dense attention's pairs they cover."""
BASE = "uniform"
Point = tuple[int, str, str]


def equal_work(rows: Iterable[Row]) -> list[Row]:
    """Without those whose budgets compute more pairs than uniform's of the same point: what more
    pairs buy is not the policy's doing. What chooses while it runs has no budgets to keep to."""
    kept = list(rows)
    most = {_at(row): row.pairs for row in kept if row.policy == BASE}
    return [
        row
        for row in kept
        if row.policy not in BUDGETS or row.pairs <= most.get(_at(row), 1.0) * (1 + 1e-9)
    ]


def _at(row: Row) -> tuple[int, str, float]:
    return row.context, row.size, row.share


def summarise(
    rows: Iterable[Row], promises: Mapping[float, PromisedLoss | None] | None = None
) -> dict[str, Any]:
    """`summary` as others read it, `lines` with intervals, and every row of equal work.

    `tries` are lines beside what they are tried on, `promises` those of budgets for a promised
    loss, beside what was promised. Of a policy whose budgets changed since, its profile measured
    anew, only the newest count.
    """
    rows = equal_work(rows)
    dense = {(row.context, row.document): row.nats for row in rows if row.policy == "dense"}
    over: dict[Point, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    pairs: dict[tuple[Point, str], list[float]] = defaultdict(list)
    newest = {(*_at(row), row.policy): row.setup for row in rows}
    for row in rows:
        if row.policy == "dense" or (row.context, row.document) not in dense:
            continue
        if row.setup != newest[*_at(row), row.policy]:
            continue
        share = str(row.share) if row.policy == PROMISED else _named(row.share)
        point = row.context, row.size, share
        over[point][row.policy][row.document] = row.nats - dense[row.context, row.document]
        pairs[point, row.policy].append(row.pairs)
    lines, tries, kept = [], [], []
    for point, policies in sorted(over.items()):
        for policy, by_document in policies.items():
            against = TRIED_ON if policy in TRIES else BASE
            base = policies.get(against, {})
            line = _line(point, policy, by_document, against, base, pairs[point, policy])
            if policy in TRIES:
                line["alone_at_pairs"] = _alone(over, pairs, point, line)
            {PROMISED: kept}.get(policy, tries if policy in TRIES else lines).append(line)
    kinds = {row.document: row.kind for row in rows}
    for line in kept:
        of_kind: dict[str, list[float]] = defaultdict(list)
        for document, nats in over[line["context"], line["size"], line["share"]][PROMISED].items():
            of_kind[kinds[document]].append(nats)
        line["kinds"] = {kind: float(np.mean(nats)) for kind, nats in of_kind.items()}
        promise = (promises or {}).get(float(line.pop("share")))
        line["promise"] = promise and promise.model_dump()
    loss: dict[str, Any] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for line in lines:
        loss[line["size"]][str(line["context"])][line["share"]][line["policy"]] = line["loss"]
    documents = {row.document for row in rows if row.policy == "dense"}
    return {
        "summary": {"documents": len(documents), "loss": loss["64x16"], "by_size": loss},
        "lines": lines,
        "tries": tries,
        "promises": kept,
        "rows": [[getattr(row, field) for field in Row.__slots__] for row in rows],
        "columns": list(Row.__slots__),
    }


def _alone(
    over: Mapping[Point, Mapping[str, Mapping[str, float]]],
    pairs: Mapping[tuple[Point, str], list[float]],
    point: Point,
    tried: dict[str, Any],
) -> float | None:
    """What `TRIED_ON` loses at the pairs of what is tried on it, on the same documents: between its
    points, by the logarithm of the loss; None beyond them."""
    names = over[point][tried["policy"]]
    found = []
    for at, policies in over.items():
        known = policies.get(TRIED_ON, {})
        if at[:2] == point[:2] and all(name in known for name in names):
            mean = float(np.mean([known[name] for name in names]))
            found.append((float(np.mean(pairs[at, TRIED_ON])), mean))
    shares, losses = np.array(sorted(found)).reshape(-1, 2).T
    if not len(shares) or not shares[0] <= tried["pairs"] <= shares[-1] or losses.min() <= 0:
        return None
    return float(np.exp(np.interp(tried["pairs"], shares, np.log(losses))))


def _named(share: float) -> str:
    for name, (low, high) in SHARES.items():
        if low <= share <= high:
            return name
    raise ValueError(f"share {share}: none of {SHARES}")


def _line(
    point: Point,
    policy: str,
    over: dict[str, float],
    against: str,
    base: dict[str, float],
    pairs: list[float],
) -> dict[str, Any]:
    """One policy: its loss, and what it loses more than another on the same documents."""
    context, size, share = point
    values = np.array(list(over.values()))
    common = [name for name in over if name in base]
    more = np.array([over[name] - base[name] for name in common])
    paired = {}
    if policy != against and len(common) > 1:
        other = np.array([base[name] for name in common])
        paired = {
            f"over_{against}": float(more.mean()),
            f"over_{against}_half": half_interval(more),
        }
        # A ratio to what may be nothing says nothing.
        if other.mean() > half_interval(other):
            own = other + more
            ratio = own.mean() / other.mean()
            # Of a ratio of means (Cochran, Sampling Techniques, 1977, section 6.4).
            paired[f"of_{against}"] = float(ratio)
            paired[f"of_{against}_half"] = half_interval(own - ratio * other) / float(other.mean())
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
