"""Prefill's lists as far as they follow from budgets alone: made once (`executor.attention.lists`),
used by every layer.

Nothing here depends on a tensor's values, so that neither choosing the blocks nor computing them
waits for the device, and both can be captured in a CUDA graph.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from executor.kernels.batch import Chunk
from executor.kernels.patterns import POOLED, Grid, Pattern, by_budget

ALL_PIECES = -1
"""`Layout.start` of a list that holds every piece up to its own and needs no indices."""
PACKED_ROWS = 128
"""Query rows of two heads in one program: two warpgroups' worth for each tile of K and V."""
WHOLE = -1
"""Slot of a list that is not cut."""


@dataclass(frozen=True)
class HeadBlocks:
    """Query blocks [first, last) of one sequence's query head `head`, which reads KV head `group`.

    Blocks count from the start of the sequence: those of a chunk begin with the one that holds
    token `cached_tokens`, whose cached rows are left out.
    """

    head: int
    group: int
    budget_pieces: int
    first: int
    last: int
    sequence: int = 0
    pattern: Pattern = POOLED


@dataclass(frozen=True, eq=False)
class Parts:
    """What programs compute where lists are cut, and what becomes one result afterwards.

    table int32 [parts, 4]: list, first piece in it, pieces, slot of the partial result or WHOLE;
    the longest part first. slots int32 [cut lists, 2]: first slot and number of parts of a cut
    list. heads, tokens int32 [cut lists, block_tokens]: where its rows belong in q; a row that is
    not stored has a negative head.
    """

    table: torch.Tensor
    slots: torch.Tensor
    heads: torch.Tensor
    tokens: torch.Tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """The lists of all computed (entry, query block) pairs, entry after entry, block after block.

    A query block is `block_tokens` rows that share a list, a piece the `piece_tokens` keys that a
    list names. List l has `length[l]` pieces in ascending order, the last ones the query block's
    own. They are `indices[start[l] : start[l] + length[l]]` of the tensor that selection fills
    (int32 [stored]), or all up to the last own one where `start[l]` is ALL_PIECES.

    entries int32 [entries, 6]: head, group, sequence, the index in q of the sequence's token 0
    (negative where cached tokens are more than what stands before), cached and total tokens.
    entry, query_block, length, start int32 [lists]; order int32 [lists]: numbers of the lists,
    longest first. pairs int32 [pairs, 2], longest first: lists of two heads of a group that are the
    same, computed together and not in `order`; none where lists are cut. tiles: pieces in all
    lists, each block_tokens x piece_tokens pairs; pieces_read: those that programs read, a pair's
    once where one has room for both. longest: those of the longest list, or of the longest part
    where lists are cut (`parts`) into `splits` parts.
    """

    entry_heads: Callable[[], tuple[HeadBlocks, ...]]
    chunks: tuple[Chunk, ...]
    block_tokens: int
    piece_tokens: int
    entries: torch.Tensor
    entry: torch.Tensor
    query_block: torch.Tensor
    length: torch.Tensor
    start: torch.Tensor
    order: torch.Tensor
    pairs: torch.Tensor
    tiles: int
    pieces_read: int
    stored: int
    longest: int
    parts: Parts | None = None
    splits: int = 0

    @cached_property
    def heads(self) -> tuple[HeadBlocks, ...]:
        """The entries as objects, made when somebody asks for them."""
        return self.entry_heads()

    @property
    def lists(self) -> int:
        """How many query blocks are computed."""
        return self.query_block.shape[0]

    @property
    def tasks(self) -> int:
        """What programs compute one after another: lists, parts of cut ones, or pairs."""
        if self.parts is not None:
            return self.parts.table.shape[0]
        return self.order.shape[0] + self.pairs.shape[0]

    @property
    def per_block(self) -> int:
        """Pieces of a query block's own tokens."""
        return self.block_tokens // self.piece_tokens

    def grid(self, sequence: int) -> Grid:
        """How the keys of a sequence fall into pieces."""
        tokens = self.chunks[sequence].total_tokens
        return Grid.of(tokens, self.block_tokens, self.piece_tokens)

    def stores(self, blocks: HeadBlocks) -> bool:
        """Whether any list of `blocks` needs indices: does not hold every piece there is for it."""
        grid = self.grid(blocks.sequence)
        causal = min(blocks.last * grid.per_block, grid.pieces)
        kept = max(blocks.budget_pieces, grid.per_block) if by_budget(blocks.pattern) else 0
        return blocks.first < blocks.last and kept < causal

    def own_pieces(self, lists: slice | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first and the last own piece of each query block of `lists`, int32 [lists] each."""
        total = self.entries[self.entry[lists].long(), 5]
        first = self.query_block[lists] * self.per_block
        pieces = (total + self.piece_tokens - 1) // self.piece_tokens
        return first, torch.minimum(first + self.per_block, pieces) - 1


def list_range(layout: Layout, first: int, last: int) -> tuple[int, int]:
    """The lists of entries [first, last): from which number to before which."""
    begin = sum(blocks.last - blocks.first for blocks in layout.heads[:first])
    return begin, begin + sum(blocks.last - blocks.first for blocks in layout.heads[first:last])


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` on `device`.

    From pinned memory the copy is queued behind the kernels before it instead of waiting.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
