"""The step that is timed: everything the cost model charges a device for in one layer, done.

Under disaggregation (S-HPLB, arXiv 2603.10353) the K and V of every group present arrive over a
link; under tensor parallelism the device projects them, and its heads' q and outputs, itself
(DESIGN section 8). On one device the link is a copy within its own memory.

Both count what they do in units of `profiles.cost.work.FEATURES`. Bytes are counted in the
model's dtype, as the cost model predicts them, also where a CPU computes in fp32: the wider
element is part of that device's rate.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from executor.attention import HeadShare, attend, row_boundary
from executor.shard import HeadPart, LayerShard
from profiles.architecture import Architecture
from profiles.cost.work import Workload, budget_blocks

Shapes = dict[str, tuple[int, ...]]
Work = Counter[str]


class Step(Protocol):
    """Tensors of a whole model's layer, and the step of any device's shard of it."""

    @staticmethod
    def shapes(architecture: Architecture, workload: Workload) -> Shapes:
        """The shape of every tensor the step's constructor takes."""

    def run(self, shard: LayerShard, backend: str) -> Work:
        """Compute a shard; the work done, by feature."""


@dataclass(frozen=True, eq=False)
class Disaggregated:
    """q, sent_keys, sent_values: the other side's; keys, values: this device's own.

    q [sequences * query_heads, tokens, head_dim], the rest [sequences * kv_heads, ...].
    """

    q: torch.Tensor
    sent_keys: torch.Tensor
    sent_values: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor

    @staticmethod
    def shapes(architecture: Architecture, workload: Workload) -> Shapes:
        heads, groups = _attention_shapes(architecture, workload)
        return {"q": heads} | dict.fromkeys(("sent_keys", "sent_values", "keys", "values"), groups)

    def run(self, shard: LayerShard, backend: str) -> Work:
        work: Work = Counter()
        for sequence in range(shard.workload.batch_size):
            for group in shard.groups:
                source = sequence * shard.architecture.kv_heads + group
                local = local_group(shard, sequence, group)
                for sent, kept in ((self.sent_keys, self.keys), (self.sent_values, self.values)):
                    kept[local].copy_(sent[source])
                    work["link_bytes"] += sent[source].numel() * shard.architecture.item_bytes
        attend_shard(shard, self.q, self.keys, self.values, backend, work)
        return work


@dataclass(frozen=True, eq=False)
class TensorParallel:
    """hidden [sequences, tokens, hidden_size] and random weights; q, keys, values, partial: made.

    weights: q, k, v [heads or groups, hidden_size, head_dim], o [heads, head_dim, hidden_size];
    `partial` is this device's term of the output projection, before the all-reduce; every run adds
    to it, as an engine adds to its residual.
    """

    hidden: torch.Tensor
    weight_q: torch.Tensor
    weight_k: torch.Tensor
    weight_v: torch.Tensor
    weight_o: torch.Tensor
    q: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    partial: torch.Tensor

    def __post_init__(self) -> None:
        # Projections of unit variance, as after a norm: no softmax then saturates.
        self.hidden.mul_(self.hidden.shape[-1] ** -0.5)

    @staticmethod
    def shapes(architecture: Architecture, workload: Workload) -> Shapes:
        heads, groups = _attention_shapes(architecture, workload)
        width, dim = architecture.hidden_size, architecture.head_dim
        hidden = (workload.batch_size, workload.context_tokens, width)
        return {
            "hidden": hidden,
            "weight_q": (architecture.query_heads, width, dim),
            "weight_k": (architecture.kv_heads, width, dim),
            "weight_v": (architecture.kv_heads, width, dim),
            "weight_o": (architecture.query_heads, dim, width),
            "q": heads,
            "keys": groups,
            "values": groups,
            "partial": hidden,
        }

    def run(self, shard: LayerShard, backend: str) -> Work:
        work: Work = Counter()
        for sequence, hidden in enumerate(self.hidden):
            for part in shard.heads:
                rows = token_rows(part, shard.workload)
                q = self.q[sequence * shard.architecture.query_heads + part.head]
                _project(hidden[rows], self.weight_q[part.head], q[rows], work)
            for group in shard.groups:
                local = local_group(shard, sequence, group)
                _project(hidden, self.weight_k[group], self.keys[local], work)
                _project(hidden, self.weight_v[group], self.values[local], work)
        out = attend_shard(shard, self.q, self.keys, self.values, backend, work)
        entries = iter(out)
        for sequence in range(shard.workload.batch_size):
            for part in shard.heads:
                rows = token_rows(part, shard.workload)
                attended, weight = next(entries)[rows], self.weight_o[part.head]
                self.partial[sequence, rows].addmm_(attended, weight)
                work["projection_flops"] += 2 * attended.numel() * weight.shape[1]
        return work


def attend_shard(
    shard: LayerShard,
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    backend: str,
    work: Work,
) -> torch.Tensor:
    """Select and attend, sequences side by side as further heads; adds to `work`.

    q [sequences * query_heads, ...], keys and values as `local_group` places them; the output is
    [sequences * parts, tokens, head_dim].
    """
    architecture, workload = shard.architecture, shard.workload
    shares = [
        HeadShare(
            head=sequence * architecture.query_heads + part.head,
            group=local_group(shard, sequence, architecture.kv_head(part.head)),
            budget_tokens=part.budget_tokens,
            rows=part.rows,
        )
        for sequence in range(workload.batch_size)
        for part in shard.heads
    ]
    result = attend(q, keys, values, shares, workload.block_tokens, backend)
    rows = [token_rows(part, workload) for part in shard.heads]
    computed = sum(part.stop - part.start for part in rows)
    held = len(shard.groups) * workload.context_tokens
    work["launches"] += 1
    work["kv_lists"] += len(shard.groups) * workload.batch_size
    work["query_blocks"] += result.counts.query_blocks
    work["tile_flops"] += 4 * workload.block_tokens**2 * architecture.head_dim * result.counts.tiles
    work["scored_blocks"] += result.counts.scored_blocks
    work["kv_bytes"] += (
        2 * (computed + held) * architecture.head_dim * architecture.item_bytes
    ) * workload.batch_size
    return result.out


def local_group(shard: LayerShard, sequence: int, group: int) -> int:
    """Where a device keeps a sequence's KV group: only those present, one after another."""
    return sequence * len(shard.groups) + shard.groups.index(group)


def token_rows(part: HeadPart, workload: Workload) -> slice:
    """The tokens of a part's rows: whole query blocks, the last one perhaps partly filled."""
    budget = int(budget_blocks(np.array(part.budget_tokens), workload))
    first, last = (row_boundary(share, budget, workload.context_blocks) for share in part.rows)
    size = workload.block_tokens
    return slice(first * size, min(last * size, workload.context_tokens))


def _project(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, work: Work) -> None:
    torch.mm(x, weight, out=out)
    work["projection_flops"] += 2 * x.numel() * weight.shape[1]


def _attention_shapes(
    architecture: Architecture, workload: Workload
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rest: tuple[Any, ...] = (workload.context_tokens, architecture.head_dim)
    return (
        (workload.batch_size * architecture.query_heads, *rest),
        (workload.batch_size * architecture.kv_heads, *rest),
    )
