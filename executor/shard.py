"""Shards: what one device computes in one layer of a plan."""

from dataclasses import dataclass
from itertools import accumulate

from executor.errors import ShardError
from executor.kernels.patterns import POOLED, Pattern
from executor.select import pattern
from profiles.architecture import Architecture
from profiles.cost.work import Workload
from solver.plans import Entry, Plan

SHARE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class HeadPart:
    """A query head and the part of its rows to compute, as fractions `[first, last)` of [0, 1].

    `pattern` says which blocks its budget may be spent on.
    """

    head: int
    budget_tokens: int
    rows: tuple[float, float] = (0.0, 1.0)
    pattern: Pattern = POOLED


@dataclass(frozen=True)
class LayerShard:
    """One device's part of one layer, for the workload of the plan.

    `groups` are the KV groups whose keys and values the device needs, ascending, one for each
    KV head that any of `heads` reads.
    """

    layer: int
    device: int
    heads: tuple[HeadPart, ...]
    groups: tuple[int, ...]
    architecture: Architecture
    workload: Workload


def layer_shard(plan: Plan, device: int, layer: int) -> LayerShard:
    """What plan device `device` computes in `layer`; `heads` is empty when it only waits.

    A head's entries are ordered and take consecutive row ranges (DESIGN section 4, share).
    Raises ShardError for a layer or device the plan lacks, for shares that do not add to 1, and for
    a selection that the plan's blocks cannot carry out.
    """
    layers = min(len(plan.layers), len(plan.budgets))
    if not 0 <= layer < layers:
        raise ShardError(f"layer {layer}: the plan has layers 0 to {layers - 1}")
    if not 0 <= device < len(plan.devices):
        raise ShardError(f"device {device}: the plan has devices 0 to {len(plan.devices) - 1}")
    found = (len(plan.layers[layer].heads), len(plan.budgets[layer]))
    if found != (plan.architecture.query_heads,) * 2:
        raise ShardError(
            f"layer {layer}: {found[0]} placed heads and {found[1]} budgets; the architecture "
            f"has {plan.architecture.query_heads} query heads"
        )
    architecture, workload = plan.architecture, plan.workload.workload
    patterns = [
        pattern(plan.selection, architecture, group, workload.piece_tokens)
        for group in range(architecture.kv_heads)
    ]
    heads = tuple(
        HeadPart(head, plan.budgets[layer][head], rows, patterns[architecture.kv_head(head)])
        for head, entries in enumerate(plan.layers[layer].heads)
        for entry, rows in zip(entries, row_ranges(entries, layer, head), strict=True)
        if entry.device == device
    )
    groups = sorted({architecture.kv_head(part.head) for part in heads})
    return LayerShard(layer, device, heads, tuple(groups), architecture, workload)


def row_ranges(entries: list[Entry], layer: int, head: int) -> list[tuple[float, float]]:
    """The rows of every entry of a head; together exactly [0, 1)."""
    ends = list(accumulate(entry.share for entry in entries))
    if not ends or abs(ends[-1] - 1) > SHARE_TOLERANCE:
        total = ends[-1] if ends else 0
        raise ShardError(f"layer {layer}, head {head}: shares add to {total}, they must add to 1")
    ends[-1] = 1.0
    return list(zip([0.0, *ends[:-1]], ends, strict=True))
