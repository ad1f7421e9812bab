"""Seconds of every device, in every layer, under every workload, from the costs in the plan.

A device with a share of a head does share * head_s + (1 - share) * part_s; every KV group present
is charged once, and a device with anything to do is launched once; where devices have slots, each
pays its launch, which has what all of them take. Every workload realises the
shares in its own rows, whole query blocks, where a part may round to nothing and is then not there.

A query block has m key pieces of its own. The first r query blocks of a causal head with a budget
of b pieces list sum over i < r of min(b, (i + 1) * m) pieces. A decode step has one for every
(sequence, key piece) pair instead.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from solver.verifier.form import Json

RELATIVE = 1e-9
"""Two sums of the same floats in another order may differ by this much."""

Loads = list[list[float]]
"""[layers][devices] seconds."""


@dataclass(frozen=True)
class Rows:
    """A head's `count` rows of work, the i-th with min(`budget`, (i + 1) * `own`) pieces."""

    budget: int
    count: int
    own: int = 1

    def pieces(self, rows: int) -> int:
        """Pieces in the lists of the first `rows` rows."""
        short = min(self.budget // self.own, rows)
        return self.own * (short * (short + 1) // 2) + (rows - short) * self.budget

    def share(self, rows: int) -> float:
        """The part of all pieces that the first `rows` rows have."""
        return self.pieces(rows) / self.pieces(self.count)

    def nearest(self, share: float) -> int:
        """The row before which the first `share` of pieces lies, to the nearest; up on a tie."""
        wanted = share * self.pieces(self.count)
        above, last = 0, self.count
        while above < last:
            middle = (above + last) // 2
            if self.pieces(middle) < wanted:
                above = middle + 1
            else:
                last = middle
        if above == 0:
            return 0
        down, up = wanted - self.pieces(above - 1), self.pieces(above) - wanted
        return above - 1 if down < up else above

    def edges(self, shares: Iterable[float]) -> list[int]:
        """The boundaries of consecutive ranges with these shares, from 0 to all rows."""
        sums = list(accumulate(shares))
        return [0, *(self.nearest(share) for share in sums[:-1]), self.count]

    def realised(self, shares: Iterable[float]) -> list[float]:
        """The shares that the ranges have once their boundaries are whole rows."""
        return [self.share(end) - self.share(start) for start, end in pairwise(self.edges(shares))]


def rows_of(budget_tokens: int, step: Json) -> Rows:
    """The rows of a head with this budget in a workload."""
    block, piece = step["block_tokens"], step["piece_tokens"]
    pieces = whole_pieces(budget_tokens, step)
    if step["phase"] == "decode":
        return Rows(1, step["batch_size"] * pieces)
    return Rows(pieces, -(-step["context_tokens"] // block), block // piece)


def whole_pieces(budget_tokens: float, step: Json) -> int:
    """Key pieces of a budget: within the context, and in prefill a query block's own at least."""
    block, piece = step["block_tokens"], step["piece_tokens"]
    least = block // piece if step["phase"] == "prefill" else 1
    every = -(-step["context_tokens"] // piece)
    return int(min(max(math.ceil(budget_tokens / piece), least), every))


@dataclass(frozen=True)
class Served:
    """A workload that the placement serves, as the plan or one of its `other_workloads` has it."""

    where: str
    claim: Json
    loads: Loads

    @property
    def weight(self) -> float:
        return float(self.claim["weight"])

    @cached_property
    def makespans(self) -> list[float]:
        """Largest load of every layer."""
        return [max(layer) for layer in self.loads]


def close(a: float, b: float) -> bool:
    """Whether two sums of seconds are the same but for the order they were added in."""
    return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=1e-15)


def claims(plan: Json) -> list[tuple[str, Json]]:
    """Every workload's place in the plan and its fields; the first workload's are the plan's."""
    others = plan["other_workloads"]
    return [("", plan), *((f"other_workloads.{i}: ", other) for i, other in enumerate(others))]


def serve(plan: Json) -> list[Served]:
    """Every workload with its loads, the first one first."""
    return [Served(where, claim, _loads(plan, claim)) for where, claim in claims(plan)]


def blend(served: Sequence[Served]) -> Loads:
    """The weighted sum of the workloads' loads."""
    layers = zip(*(workload.loads for workload in served), strict=True)
    return [
        [_blended(served, of_device) for of_device in zip(*by_workload, strict=True)]
        for by_workload in layers
    ]


def blended_makespans(served: Sequence[Served]) -> list[float]:
    """The weighted sum of the workloads' makespans, `[layers]`."""
    by_layer = zip(*(workload.makespans for workload in served), strict=True)
    return [_blended(served, makespans) for makespans in by_layer]


def _blended(served: Sequence[Served], seconds: tuple[float, ...]) -> float:
    return math.fsum(w.weight * value for w, value in zip(served, seconds, strict=True))


def _loads(plan: Json, claim: Json) -> Loads:
    types = [plan["device_types"].index(name) for name in plan["devices"]]
    return [_layer(plan, claim, index, types) for index in range(len(plan["layers"]))]


def _layer(plan: Json, claim: Json, index: int, types: list[int]) -> list[float]:
    shape, costs = plan["architecture"], claim["costs"]
    group_size = shape["query_heads"] // shape["kv_heads"]
    work: list[list[float]] = [[] for _ in types]
    groups: list[set[int]] = [set() for _ in types]
    for head, entries in enumerate(plan["layers"][index]["heads"]):
        whole_s = costs["head_s"][index][head]
        part_s = costs["part_s"][index][head] if costs["part_s"] else [0.0] * len(whole_s)
        for device, share in _shares(entries, claim, index, head):
            kind = types[device]
            work[device].append(share * whole_s[kind] + (1 - share) * part_s[kind])
            groups[device].add(head // group_size)
    return [
        math.fsum([*parts, *(costs["group_s"][index][g][kind] for g in here)])
        + costs["launch_s"][kind]
        if parts or plan["slots"] is not None
        else 0.0
        for parts, here, kind in zip(work, groups, types, strict=True)
    ]


def _shares(entries: list[Json], claim: Json, index: int, head: int) -> list[tuple[int, float]]:
    """(device, share) as this workload realises them, without parts that have no row in it."""
    if len(entries) == 1:
        return [(entries[0]["device"], 1.0)]
    rows = rows_of(claim["budgets"][index][head], claim["workload"])
    realised = rows.realised(entry["share"] for entry in entries)
    return [
        (entry["device"], share)
        for entry, share in zip(entries, realised, strict=True)
        if share > 0
    ]
