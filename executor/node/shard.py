"""Shards: what one device computes in one layer of a plan."""

from dataclasses import dataclass

import numpy as np

from executor.attention.select import pattern
from executor.attention.shares import HeadShare
from executor.errors import ShardError
from executor.kernels.batch import Chunk
from executor.row_ranges import Range, row_ranges
from profiles.architecture import Architecture
from profiles.cost.work import Workload, budget_pieces
from profiles.selection import of_layer
from solver.plans import Plan


@dataclass(frozen=True)
class LayerShard:
    """One device's part of one layer, for the workload of the plan.

    `heads[i]` is the model's query head that the device's q holds at i, as head i of the `shares`,
    whose groups are the model's. `groups` are the KV groups whose keys and values the device needs,
    ascending, one for each KV head that any of `heads` reads.
    """

    layer: int
    device: int
    heads: tuple[int, ...]
    shares: tuple[HeadShare, ...]
    groups: tuple[int, ...]
    architecture: Architecture
    workload: Workload

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """The chunks of a step: whole prompts, or the newest token of every sequence."""
        new, decodes = self.workload.new_tokens, self.workload.phase == "decode"
        chunk = Chunk(self.workload.context_tokens - new, new, decodes)
        return (chunk,) * self.workload.batch_size


def layer_shard(plan: Plan, device: int, layer: int) -> LayerShard:
    """What plan device `device` computes in `layer`; `heads` is empty when it only waits.

    A head's entries are ordered and take consecutive row ranges. Raises ShardError for a layer or
    device the plan lacks, for shares that do not add to 1, and for a selection that the plan's
    blocks cannot carry out.
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
    selection = of_layer(plan.selection, architecture, layer)
    patterns = [
        pattern(selection, architecture, group, workload.piece_tokens)
        for group in range(architecture.kv_heads)
    ]
    mine = [
        (head, rows)
        for head, entries in enumerate(plan.layers[layer].heads)
        for entry, rows in zip(entries, row_ranges(entries, layer, head), strict=True)
        if entry.device == device
    ]
    cut = [sequence_rows(rows, plan.budgets[layer][head], workload) for head, rows in mine]
    shares = [
        HeadShare(
            index,
            architecture.kv_head(head),
            plan.budgets[layer][head],
            cut[index][sequence],
            sequence,
            patterns[architecture.kv_head(head)],
        )
        for sequence in range(workload.batch_size)
        for index, (head, _) in enumerate(mine)
        if sequence in cut[index]
    ]
    heads = tuple(head for head, _ in mine)
    groups = sorted({architecture.kv_head(head) for head in heads})
    return LayerShard(layer, device, heads, tuple(shares), tuple(groups), architecture, workload)


def sequence_rows(rows: Range, budget_tokens: int, workload: Workload) -> dict[int, Range]:
    """A head's range of a whole batch as `HeadShare.rows` of every sequence it has a part of.

    A prompt is cut alike in every sequence. A decoding head is cut between key pieces of its list,
    sequence after sequence (the solver's `solver.rows`): whole sequences on either side of a
    cut, and at most one sequence's list between two devices.
    """
    if workload.phase == "prefill":
        return dict.fromkeys(range(workload.batch_size), rows)
    pieces = int(budget_pieces(np.array(budget_tokens), workload))
    units = pieces * workload.batch_size
    first, last = (_nearest(edge * units) for edge in rows)
    found = {}
    for sequence in range(first // pieces, -(-last // pieces) if first < last else 0):
        begin = sequence * pieces
        low, high = max(first - begin, 0), min(last - begin, pieces)
        found[sequence] = (low / pieces, high / pieces)
    return found


def _nearest(x: float) -> int:
    """The whole number nearest to x, the larger of two."""
    below = int(x)
    return below + (x - below >= 0.5)
