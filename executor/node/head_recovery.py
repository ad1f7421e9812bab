"""What a prefill's blocks held of every head's attention, estimated after the timed run."""

from collections import defaultdict

import torch

from api.client.bodies import HeadReport
from executor.attention.query_rows import new_rows
from executor.attention.step import PreparedStep
from executor.kernels.batch import Cache
from executor.kernels.recovery import recovery
from executor.node.shard import LayerShard

WATCHED_ROWS = 32
"""Of every head and prompt, evenly spread: their dense attention is what watching costs."""


def head_reports(
    shard: LayerShard, prepared: PreparedStep, q: torch.Tensor, cache: Cache, lse: torch.Tensor
) -> list[HeadReport]:
    """One report for every head that a shard of a prefill computed rows of, over all its prompts.

    q [parts, new tokens, head_dim] and `lse` [parts, new tokens] are those of the run; recovery is
    a mean over rows.
    """
    layout = prepared.prefill
    if layout is None:
        return []
    captured = recovery(q, cache, layout, lse, WATCHED_ROWS).tolist()
    tiles = torch.bincount(layout.entry.long(), layout.length, minlength=len(captured)).tolist()
    rows: dict[int, int] = defaultdict(int)
    blocks: dict[int, int] = defaultdict(int)
    mass: dict[int, float] = defaultdict(float)
    for entry, part in enumerate(layout.heads):
        head = shard.heads[part.head]
        computed = len(new_rows(part, layout.chunks, layout.block_tokens))
        rows[head] += computed
        blocks[head] += int(tiles[entry])
        mass[head] += computed * captured[entry]
    return [
        HeadReport(
            head=head,
            rows=rows[head],
            tiles=blocks[head],
            recovery=min(max(mass[head] / rows[head], 0.0), 1.0),
        )
        for head in sorted(rows)
        if rows[head]
    ]
