"""A step prepared: everything that follows from shares and lengths, made once and run many times.

The plan and the run are apart, as in FlashInfer (arXiv 2501.01005, section 3.3.1): a prepared step
holds its tables on the device, so that running it reads nothing back and can be captured in a CUDA
graph.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from executor.attention.counts import Counts, Schedule, count_work
from executor.attention.query_rows import head_rows, new_rows, token_spans
from executor.attention.shares import (
    HeadShare,
    check_block_sizes,
    check_patterns,
    check_shares,
    whole,
)
from executor.errors import AttentionError
from executor.kernels.batch import Chunk, query_starts
from executor.kernels.decode_layout import DecodeHeads, DecodeLayout, lay_out_decode
from executor.kernels.dense import Apart, set_apart
from executor.kernels.layout import Layout, lay_out, send
from executor.kernels.patterns import Grid, by_budget, lengths

MOST_TOKENS = 2**30
"""Tokens are counted in int32 on the device."""
MOST_INDICES = 2**31 - 1
"""Lists begin at int32 places of one tensor."""


@dataclass(frozen=True, eq=False)
class PreparedStep:
    """A step ready to run on one device: `attend` takes it as often as one likes.

    A query block is `block_tokens` rows that share a list, a piece the `piece_tokens` keys it
    names. `context_tokens` int32 [sequences], on the device, are the keys of every sequence, new
    tokens included: a decoding engine adds one in place before it replays. counts and schedule are
    those of the lengths given to `prepare`; `most_pieces` is a sequence's room.
    `computed_rows` are the rows of q computed of heads 0..heads - 1; `covers`: whether those are
    all. `copied` marks on a GPU where the stream that copied the
    tables is done with it. `apart`: the prefill with its whole dense heads for PyTorch's own
    attention, where asked for and there are any.
    """

    chunks: tuple[Chunk, ...]
    block_tokens: int
    piece_tokens: int
    heads: int
    groups: int
    computed_rows: int
    covers: bool
    most_pieces: int
    prefill: Layout | None
    decode: DecodeLayout | None
    context_tokens: torch.Tensor
    counts: Counts
    schedule: Schedule
    copied: torch.cuda.Event | None = None
    apart: Apart | None = None

    @cached_property
    def spans(self) -> tuple[tuple[slice, ...], ...]:
        """The ranges of q's tokens computed of every head 0..heads - 1."""
        rows = () if self.prefill is None else self.prefill.heads
        lists = () if self.decode is None else self.decode.lists
        return token_spans(rows, lists, self.chunks, self.block_tokens, self.heads)


def prepare(
    shares: Sequence[HeadShare],
    chunks: Sequence[Chunk],
    block_tokens: int,
    device: torch.device | str = "cpu",
    *,
    room_tokens: int | None = None,
    packed: bool = True,
    programs: int | None = None,
    piece_tokens: int | None = None,
    sdpa: bool = False,
) -> PreparedStep:
    """Lay out one device's `shares` of a step that brings `chunks`, decodes and prompts mixed.

    `chunks` [sequences] are what every sequence brings; each of the `shares`, in any order, a part
    of one head of one of them. `block_tokens` query rows share a list of keys, in pieces of
    `piece_tokens` (as long as a block by default), which divides it. Tables go to `device`.

    A decoding list serves all query heads of a KV group that are whole here (`packed`), as long as
    the largest of their budgets; a part of a head has a list of its own, equal on every device
    that holds another part. Sequences may grow up to `room_tokens` (default: not at all).
    `programs` is how many lists a GPU computes at once: longer ones than that allows are cut.
    `sdpa` lets PyTorch's own attention compute whole dense heads of prompts on a GPU, unless
    HPLB_SDPA=0 says no: an expectation until it is measured, and dear where lengths keep changing
    (`kernels.dense`).
    Raises AttentionError for shares, chunks and sizes that do not fit each other, and while a CUDA
    graph is being captured: prepare before, once, and capture `attend`.
    """
    chunks, device = tuple(chunks), torch.device(device)
    piece_tokens = block_tokens if piece_tokens is None else piece_tokens
    _check_sizes(chunks, block_tokens, piece_tokens, room_tokens, programs)
    check_shares(shares, chunks)
    check_patterns(shares, block_tokens, piece_tokens)
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise AttentionError(
            "prepare: copies tables from pinned memory, which a CUDA graph cannot hold: prepare "
            "before the capture begins"
        )
    longest = max([0, *(chunk.total_tokens for chunk in chunks), room_tokens or 0])
    most_pieces = -(-longest // piece_tokens)
    rows = [
        head_rows(s, chunks[s.sequence], block_tokens, piece_tokens)
        for s in shares
        if not chunks[s.sequence].decodes
    ]
    decodes = [s for s in shares if chunks[s.sequence].decodes]
    lists = decode_entries(decodes, chunks, piece_tokens, most_pieces, packed)
    prefill = decode = apart = None
    if rows:
        prefill = lay_out(rows, chunks, block_tokens, device, programs, piece_tokens)
        if sdpa and os.environ.get("HPLB_SDPA") != "0":
            apart = set_apart(prefill, programs)
    if lists:
        decode = lay_out_decode(lists, most_pieces, piece_tokens, device)
    for layout in (prefill, decode):
        if layout is not None and layout.stored > MOST_INDICES:
            raise AttentionError(
                f"shares: {layout.stored} chosen pieces in all, but a step holds {MOST_INDICES} at "
                "most: use larger pieces or fewer heads a step"
            )
    heads = max((share.head + 1 for share in shares), default=0)
    computed_rows = sum(len(entry.heads) for entry in lists)
    computed_rows += sum(len(new_rows(part, chunks, block_tokens)) for part in rows)
    counts = count_work(rows, lists, prefill, chunks, block_tokens, piece_tokens)
    context_tokens = torch.tensor([chunk.total_tokens for chunk in chunks], dtype=torch.int32)
    context_tokens = send(context_tokens, device)
    return PreparedStep(
        chunks,
        block_tokens,
        piece_tokens,
        heads=heads,
        groups=max((share.group + 1 for share in shares), default=0),
        computed_rows=computed_rows,
        covers=computed_rows == heads * query_starts(chunks)[-1],
        most_pieces=most_pieces,
        prefill=prefill,
        decode=decode,
        context_tokens=context_tokens,
        counts=counts,
        schedule=Schedule(
            tiles=counts.tiles,
            starts=prefill.tasks if prefill else 0,
            longest_chain=prefill.longest if prefill else 0,
            splits=prefill.splits if prefill else 0,
            kv_pieces=(prefill.pieces_read if prefill else 0) + counts.decoded_pieces,
        ),
        copied=recorded(device),
        apart=apart,
    )


def tables(prepared: object) -> Iterator[torch.Tensor]:
    """Every tensor of a step, or of a part of one."""
    for name in getattr(prepared, "__dataclass_fields__", ()):
        value = getattr(prepared, name)
        if isinstance(value, torch.Tensor):
            yield value
        else:
            yield from tables(value)


def recorded(device: torch.device) -> torch.cuda.Event | None:
    """On a GPU what another stream waits for before it reads what this one has copied."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def decode_entries(
    shares: Sequence[HeadShare],
    chunks: tuple[Chunk, ...],
    piece_tokens: int,
    most_pieces: int,
    packed: bool,
) -> list[DecodeHeads]:
    """The decoding lists of `shares`, those of one pattern side by side: each run of them is
    selected at once."""
    starts = query_starts(chunks)
    together: dict[object, list[HeadShare]] = defaultdict(list)
    for number, share in enumerate(shares):
        alone = not packed or share.rows[0] > 0 or share.rows[1] < 1
        key = (share.sequence, share.group, share.pattern, number if alone else None)
        together[key].append(share)
    return [
        DecodeHeads(
            first.sequence,
            starts[first.sequence],
            first.group,
            tuple(share.head for share in members),
            max(_list_budget(share, piece_tokens, most_pieces) for share in members),
            (first.rows[0], min(first.rows[1], 1.0)),
            first.pattern,
        )
        for members in sorted(together.values(), key=lambda members: repr(members[0].pattern))
        for first in members[:1]
    ]


def _list_budget(share: HeadShare, piece_tokens: int, most_pieces: int) -> int:
    if by_budget(share.pattern):
        return -(-share.budget_tokens // piece_tokens)
    grid = Grid(1, most_pieces)
    return int(lengths(share.pattern, 0, most_pieces - 1, most_pieces, grid))


def _check_sizes(
    chunks: tuple[Chunk, ...],
    block_tokens: int,
    piece_tokens: int,
    room_tokens: int | None,
    programs: int | None,
) -> None:
    check_block_sizes(block_tokens, piece_tokens)
    for number, chunk in enumerate(chunks):
        for name, least in (("cached_tokens", 0), ("new_tokens", 1)):
            value = getattr(chunk, name)
            if not whole(value) or value < least:
                raise AttentionError(
                    f"chunks[{number}].{name}: {value!r} must be a whole number, at least {least}"
                )
        if chunk.decodes and chunk.new_tokens != 1:
            raise AttentionError(
                f"chunks[{number}]: decodes, but brings {chunk.new_tokens} new tokens instead of 1"
            )
    longest = max((chunk.total_tokens for chunk in chunks), default=0)
    if room_tokens is not None and (not whole(room_tokens) or room_tokens < longest):
        raise AttentionError(
            f"room_tokens: {room_tokens!r} must be a whole number, at least the longest sequence's "
            f"{longest}"
        )
    if max(longest, room_tokens or 0) > MOST_TOKENS:
        raise AttentionError(f"chunks: sequences may have {MOST_TOKENS} tokens at most")
    if programs is not None and (not whole(programs) or programs < 1):
        raise AttentionError(f"programs: {programs!r} must be a whole number, at least 1")
