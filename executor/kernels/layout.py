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
from executor.kernels.patterns import POOLED, Pattern, lengths

ALL_BLOCKS = -1
"""`Layout.start` of a list that holds every block up to its own and needs no indices."""
LEAST_BLOCKS = 8
"""A list this long is not cut: reading the queries and merging would cost more than it saves."""
WHOLE = -1
"""Slot of a list that is not cut."""


@dataclass(frozen=True)
class HeadRows:
    """Query blocks [first, last) of one sequence's query head `head`, which reads KV head `group`.

    Blocks count from the start of the sequence: those of a chunk begin with the one that holds
    token `cached_tokens`, whose cached rows are left out.
    """

    head: int
    group: int
    budget_blocks: int
    first: int
    last: int
    sequence: int = 0
    pattern: Pattern = POOLED


@dataclass(frozen=True, eq=False)
class Pieces:
    """What programs compute where lists are cut, and what becomes one result afterwards.

    table int32 [pieces, 4]: list, first block in it, blocks, slot of the partial result or WHOLE;
    the longest piece first. slots int32 [cut lists, 2]: first slot and number of pieces of a cut
    list. heads, tokens int32 [cut lists, block_tokens]: where its rows belong in q; a row that is
    not stored has a negative head.
    """

    table: torch.Tensor
    slots: torch.Tensor
    heads: torch.Tensor
    tokens: torch.Tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """The lists of all computed (entry, query block) pairs, entry after entry, row after row.

    List l has `length[l]` key blocks in ascending order, the last one the query block's own. They
    are `indices[start[l] : start[l] + length[l]]` of the tensor that selection fills (int32
    [stored]), or all of 0..query_block where `start[l]` is ALL_BLOCKS.

    entries int32 [entries, 6]: head, group, sequence, the index in q of the sequence's token 0
    (negative where cached tokens are more than what stands before), cached and total tokens.
    entry, query_block, length, start int32 [lists]; order int32 [lists]: numbers of the lists,
    longest first. tiles: blocks in all lists. longest: those of the longest list, or of the longest
    piece where lists are cut (`pieces`) into `splits` pieces.
    """

    heads: tuple[HeadRows, ...]
    chunks: tuple[Chunk, ...]
    block_tokens: int
    entries: torch.Tensor
    entry: torch.Tensor
    query_block: torch.Tensor
    length: torch.Tensor
    start: torch.Tensor
    order: torch.Tensor
    tiles: int
    stored: int
    longest: int
    pieces: Pieces | None = None
    splits: int = 0

    @property
    def lists(self) -> int:
        """How many query blocks are computed."""
        return self.query_block.shape[0]


def lay_out(
    heads: Sequence[HeadRows],
    chunks: Sequence[Chunk],
    block_tokens: int,
    device: torch.device | str = "cpu",
    programs: int | None = None,
) -> Layout:
    """The layout of `heads` over `chunks`; queues its copies to the device and does not wait.

    `programs`: how many run at once; lists longer than one's fair part are cut.
    """
    heads, chunks = tuple(heads), tuple(chunks)
    starts = query_starts(chunks)
    table = [_entry(rows, chunks[rows.sequence], starts[rows.sequence]) for rows in heads]
    size = [rows.last - rows.first for rows in heads]
    entry = torch.arange(len(heads)).repeat_interleave(torch.tensor(size, dtype=torch.int64))
    none = [torch.empty(0, dtype=torch.int64)]
    row = torch.cat(none + [torch.arange(rows.first, rows.last) for rows in heads])
    length = torch.cat(
        none + [lengths(rows.pattern, rows.budget_blocks, rows.first, rows.last) for rows in heads]
    )
    kept = torch.where(length == row + 1, 0, length)
    start = torch.where(kept == 0, ALL_BLOCKS, kept.cumsum(0) - kept)
    entries = torch.tensor(table, dtype=torch.int32).view(-1, 6)
    tensors = {
        "entries": entries,
        "entry": entry.int(),
        "query_block": row.int(),
        "length": length.int(),
        "start": start.int(),
        "order": longest_first(length),
    }
    device, longest = torch.device(device), int(length.max()) if len(length) else 0
    pieces, splits = None, 0
    if programs is not None and len(length):
        cuts = cut(length, programs)
        longest, splits = int(cuts[:, 2].max()), int(cuts[:, 3].max()) + 1
        if splits:
            pieces = _pieces(cuts, entries[entry], row * block_tokens, block_tokens, device)
    return Layout(
        heads,
        chunks,
        block_tokens,
        **{name: sent(tensor, device) for name, tensor in tensors.items()},
        tiles=int(length.sum()),
        stored=int(kept.sum()),
        longest=longest,
        pieces=pieces,
        splits=splits,
    )


def _pieces(
    cuts: torch.Tensor,
    entries: torch.Tensor,
    token: torch.Tensor,
    block_tokens: int,
    device: torch.device,
) -> Pieces:
    """From cuts [pieces, 4] and, per list, its entry [lists, 6] and first token [lists]."""
    parts = cuts[cuts[:, 3] != WHOLE]
    number, _, _, slot = parts[parts[:, 1] == 0].T
    slots = torch.stack([slot, torch.cat([slot, slot.new_tensor([len(parts)])]).diff()], 1)
    head, _, _, origin, cached, total = entries[number].T[..., None]
    tokens = token[number][:, None] + torch.arange(block_tokens)
    stored = (tokens >= cached) & (tokens < total)
    return Pieces(
        table=sent(cuts[longest_first(cuts[:, 2])], device),
        slots=sent(slots, device),
        heads=sent(torch.where(stored, head, -1).int(), device),
        tokens=sent((origin + tokens).int(), device),
    )


def _entry(rows: HeadRows, chunk: Chunk, start: int) -> tuple[int, ...]:
    origin = start - chunk.cached_tokens
    return rows.head, rows.group, rows.sequence, origin, chunk.cached_tokens, chunk.total_tokens


def list_range(layout: Layout, first: int, last: int) -> tuple[int, int]:
    """The lists of entries [first, last): from which number to before which."""
    begin = sum(rows.last - rows.first for rows in layout.heads[:first])
    return begin, begin + sum(rows.last - rows.first for rows in layout.heads[first:last])


def longest_first(length: torch.Tensor) -> torch.Tensor:
    """Numbers of the lists by their `length` [lists], longest first, int32 [lists].

    Lists of equal length stay in head order, so that neighbours share their K/V in cache.
    """
    return length.argsort(descending=True, stable=True).int()


def cut(length: torch.Tensor, programs: int) -> torch.Tensor:
    """Pieces of lists of `length` [lists], int32 [pieces, 4]: list, first block, blocks, slot.

    A list longer than its fair part of `programs` becomes near-equal pieces with consecutive slots,
    every other one WHOLE. List after list, a list's pieces in their order.

    >>> cut(torch.tensor([3, 20]), programs=3).tolist()
    [[0, 0, 3, -1], [1, 0, 6, 0], [1, 6, 7, 1], [1, 13, 7, 2]]
    """
    most = max(-(-int(length.sum()) // programs), LEAST_BLOCKS)
    pieces = (-(-length // most)).clamp(min=1)
    number = torch.arange(len(length)).repeat_interleave(pieces)
    nth = torch.arange(len(number)) - (pieces.cumsum(0) - pieces)[number]
    first = nth * length[number] // pieces[number]
    count = (nth + 1) * length[number] // pieces[number] - first
    divided = pieces[number] > 1
    slot = torch.where(divided, divided.cumsum(0) - 1, WHOLE)
    return torch.stack([number, first, count, slot], 1).int()


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` on `device`.

    From pinned memory the copy is queued behind the kernels before it instead of waiting.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
