"""Which pieces of keys have a mean when pieces are chosen by means.

MoBA (arXiv 2502.13189, section 2.2) and SpargeAttn (arXiv 2502.18137, section 3.2) pool so.
"""

from dataclasses import dataclass

import torch

from executor.kernels.layout import Layout


@dataclass(frozen=True, eq=False)
class KeyPieces:
    """The pieces of keys of the sequences a layout computes, one sequence after another.

    start, tokens int32 [sequences]: a sequence's first piece here and its keys, 0 where the layout
    computes none of its rows; sequence int32 [count]: every piece's.
    """

    start: torch.Tensor
    tokens: torch.Tensor
    sequence: torch.Tensor


def key_pieces(layout: Layout) -> KeyPieces:
    """The pieces that `layout` may choose from, computed on its device."""
    table, size = layout.entries, layout.piece_tokens
    count = sum(layout.grid(s).pieces for s in {blocks.sequence for blocks in layout.heads})
    tokens = table.new_zeros(len(layout.chunks)).scatter_(0, table[:, 2].long(), table[:, 5])
    pieces = (tokens + size - 1) // size
    start = pieces.cumsum(0, dtype=torch.int32) - pieces
    return KeyPieces(start, tokens, torch.repeat_interleave(pieces, output_size=count))
