"""Which key blocks have a mean when blocks are chosen by means.

MoBA (arXiv 2502.13189, section 2.2) and SpargeAttn (arXiv 2502.18137, section 3.2) pool so.
"""

from dataclasses import dataclass

import torch

from executor.kernels.layout import Layout


@dataclass(frozen=True, eq=False)
class KeyBlocks:
    """The key blocks of the sequences a layout computes, one sequence after another.

    start, tokens int32 [sequences]: a sequence's first block here and its keys, 0 where the layout
    computes none of its rows; sequence int32 [count]: every block's.
    """

    start: torch.Tensor
    tokens: torch.Tensor
    sequence: torch.Tensor


def key_blocks(layout: Layout) -> KeyBlocks:
    """The key blocks that `layout` may choose from, computed on its device."""
    table = layout.entries
    computed = {rows.sequence for rows in layout.heads}
    count = sum(-(-layout.chunks[s].total_tokens // layout.block_tokens) for s in computed)
    tokens = table.new_zeros(len(layout.chunks)).scatter_(0, table[:, 2].long(), table[:, 5])
    blocks = (tokens + layout.block_tokens - 1) // layout.block_tokens
    start = blocks.cumsum(0, dtype=torch.int32) - blocks
    return KeyBlocks(start, tokens, torch.repeat_interleave(blocks, output_size=count))
