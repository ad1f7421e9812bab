"""Prefill's lists as far as they follow from budgets alone: made once, used by every layer.

Nothing here depends on a tensor's values, so that neither choosing the blocks nor computing them
waits for the device, and both can be captured in a CUDA graph.

Lists start longest first (Graham's LPT rule, 1969): a GPU hands the blocks of a plain
one-dimensional grid to whichever multiprocessor is free, so that the order of the grid is the whole
schedule: no queue, no persistent loop. Where a single list takes longer than a program's fair part
of everything, it is cut first (split KV: Flash-Decoding, 2023).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from executor.kernels.batch import Chunk, query_starts
from executor.kernels.patterns import POOLED, Grid, Pattern, Rule, by_budget, lengths

ALL_PIECES = -1
"""`Layout.start` of a list that holds every piece up to its own and needs no indices."""
LEAST_BLOCKS = 8
"""A list that reads so many times a query block's keys is not cut: reading the queries and merging
would cost more than it saves."""
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

    heads: Sequence[HeadBlocks]
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


def lay_out(
    heads: Sequence[HeadBlocks],
    chunks: Sequence[Chunk],
    block_tokens: int,
    device: torch.device | str = "cpu",
    programs: int | None = None,
    piece_tokens: int | None = None,
    pack: bool | None = None,
) -> Layout:
    """The layout of `heads` over `chunks`; queues its copies to the device and does not wait.

    `piece_tokens` divides block_tokens and is as large by default. `programs`: how many run at
    once; lists longer than one's fair part are cut. `pack`: pair heads that share a list, by
    default on a GPU while two query blocks are no more than PACKED_ROWS.
    """
    heads, chunks = tuple(heads), tuple(chunks)
    piece_tokens = piece_tokens or block_tokens
    starts = query_starts(chunks)
    table = [_entry(blocks, chunks[blocks.sequence], starts[blocks.sequence]) for blocks in heads]
    size = [blocks.last - blocks.first for blocks in heads]
    grids = [
        Grid.of(chunks[blocks.sequence].total_tokens, block_tokens, piece_tokens)
        for blocks in heads
    ]
    entry = torch.arange(len(heads)).repeat_interleave(torch.tensor(size, dtype=torch.int64))
    none = [torch.empty(0, dtype=torch.int64)]
    block = torch.cat(none + [torch.arange(blocks.first, blocks.last) for blocks in heads])
    each = list(zip(heads, grids, strict=True))
    length = torch.cat(
        none + [lengths(r.pattern, r.budget_pieces, r.first, r.last, grid) for r, grid in each]
    )
    causal = torch.cat(none + [grid.causal(r.first, r.last) for r, grid in each])
    kept = torch.where(length == causal, 0, length)
    start = torch.where(kept == 0, ALL_PIECES, kept.cumsum(0) - kept)
    entries = torch.tensor(table, dtype=torch.int32).view(-1, 6)
    device, longest = torch.device(device), int(length.max()) if len(length) else 0
    parts, splits = None, 0
    if programs is not None and len(length):
        cuts = cut(length, programs, LEAST_BLOCKS * block_tokens // piece_tokens)
        longest, splits = int(cuts[:, 2].max()), int(cuts[:, 3].max()) + 1
        if splits:
            parts = _parts(cuts, entries[entry], block * block_tokens, block_tokens, device)
    if pack is None:
        pack = device.type == "cuda" and 2 * block_tokens <= PACKED_ROWS
    pairs = torch.empty(0, 2, dtype=torch.int64)
    if pack and parts is None:
        pairs = _pairs(heads, entry, block, start, block_tokens // piece_tokens)
    alone = torch.ones(len(length), dtype=torch.bool).index_fill_(0, pairs.flatten(), False)
    alone = alone.nonzero().flatten()
    tensors = {
        "entries": entries,
        "entry": entry.int(),
        "query_block": block.int(),
        "length": length.int(),
        "start": start.int(),
        "order": alone[longest_first(length[alone]).long()].int(),
        "pairs": pairs[longest_first(length[pairs[:, 0]]).long()].int(),
    }
    return Layout(
        heads,
        chunks,
        block_tokens,
        piece_tokens,
        **{name: send(tensor, device) for name, tensor in tensors.items()},
        tiles=int(length.sum()),
        pieces_read=int(length.sum() - length[pairs[:, 0]].sum()),
        stored=int(kept.sum()),
        longest=longest,
        parts=parts,
        splits=splits,
    )


def _pairs(
    heads: tuple[HeadBlocks, ...],
    entry: torch.Tensor,
    block: torch.Tensor,
    start: torch.Tensor,
    per_block: int,
) -> torch.Tensor:
    """Pairs of lists that are the same by rule, of one group and query block, int64 [pairs, 2].

    Those of all pieces, and those of equal length of patterns that choose without scores. What a
    list holds follows from its entry and its query block, so that each entry's lists meet those of
    the entries before it that are still without a partner.
    """
    waiting: dict[object, torch.Tensor] = {}
    pairs = [torch.empty(0, 2, dtype=torch.int64)]
    most = int(block.max()) + 1 if len(block) else 0
    begins = torch.searchsorted(entry, torch.arange(len(heads) + 1)).tolist()
    for blocks, begin, end in zip(heads, begins, begins[1:], strict=False):
        number, every = torch.arange(begin, end), start[begin:end] == ALL_PIECES
        group = (blocks.sequence, blocks.group)
        kinds: list[tuple[object, torch.Tensor]] = [(group, number[every])]
        if isinstance(blocks.pattern, Rule):
            # How long a list without all pieces is, where its query block does not say it.
            kept = max(blocks.budget_pieces, per_block) if by_budget(blocks.pattern) else None
            kinds.append(((group, blocks.pattern, kept), number[~every]))
        for kind, lists in kinds:
            partner = waiting.setdefault(kind, torch.full((most,), -1))
            at = block[lists]
            first = partner[at]
            met = first >= 0
            pairs.append(torch.stack([first[met], lists[met]], 1))
            partner[at] = torch.where(met, -1, lists)
    return torch.cat(pairs)


def _parts(
    cuts: torch.Tensor,
    entries: torch.Tensor,
    token: torch.Tensor,
    block_tokens: int,
    device: torch.device,
) -> Parts:
    """From cuts [parts, 4] and, per list, its entry [lists, 6] and first token [lists]."""
    cut_off = cuts[cuts[:, 3] != WHOLE]
    number, _, _, slot = cut_off[cut_off[:, 1] == 0].T
    slots = torch.stack([slot, torch.cat([slot, slot.new_tensor([len(cut_off)])]).diff()], 1)
    head, _, _, origin, cached, total = entries[number].T[..., None]
    tokens = token[number][:, None] + torch.arange(block_tokens)
    stored = (tokens >= cached) & (tokens < total)
    return Parts(
        table=send(cuts[longest_first(cuts[:, 2])], device),
        slots=send(slots, device),
        heads=send(torch.where(stored, head, -1).int(), device),
        tokens=send((origin + tokens).int(), device),
    )


def _entry(blocks: HeadBlocks, chunk: Chunk, start: int) -> tuple[int, ...]:
    origin = start - chunk.cached_tokens
    return (
        blocks.head,
        blocks.group,
        blocks.sequence,
        origin,
        chunk.cached_tokens,
        chunk.total_tokens,
    )


def list_range(layout: Layout, first: int, last: int) -> tuple[int, int]:
    """The lists of entries [first, last): from which number to before which."""
    begin = sum(blocks.last - blocks.first for blocks in layout.heads[:first])
    return begin, begin + sum(blocks.last - blocks.first for blocks in layout.heads[first:last])


def longest_first(length: torch.Tensor) -> torch.Tensor:
    """Numbers of the lists by their `length` [lists], longest first, int32 [lists].

    Lists of equal length stay in head order, so that neighbours share their K/V in cache.
    """
    return length.argsort(descending=True, stable=True).int()


def cut(length: torch.Tensor, programs: int, least: int) -> torch.Tensor:
    """Parts of lists of `length` [lists], int32 [parts, 4]: list, first piece, pieces, slot.

    A list longer than its fair part of `programs`, and than `least`, becomes near-equal parts with
    consecutive slots, every other one WHOLE. List after list, a list's parts in their order.

    >>> cut(torch.tensor([3, 20]), programs=3, least=8).tolist()
    [[0, 0, 3, -1], [1, 0, 6, 0], [1, 6, 7, 1], [1, 13, 7, 2]]
    """
    most = max(-(-int(length.sum()) // programs), least)
    parts = (-(-length // most)).clamp(min=1)
    number = torch.arange(len(length)).repeat_interleave(parts)
    nth = torch.arange(len(number)) - (parts.cumsum(0) - parts)[number]
    first = nth * length[number] // parts[number]
    count = (nth + 1) * length[number] // parts[number] - first
    divided = parts[number] > 1
    slot = torch.where(divided, divided.cumsum(0) - 1, WHOLE)
    return torch.stack([number, first, count, slot], 1).int()


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` on `device`.

    From pinned memory the copy is queued behind the kernels before it instead of waiting.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
