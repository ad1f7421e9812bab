"""A step prepared: everything that follows from shares and lengths, made once and run many times.

The plan and the run are apart, as in FlashInfer (arXiv 2501.01005, section 3.3.1): a prepared step
holds its tables on the device, so that running it reads nothing back and can be captured in a CUDA
graph.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Self

import numpy as np
import torch

from executor.attention.counts import (
    Counts,
    PromptWork,
    Schedule,
    count_decodes,
    count_prompts,
)
from executor.attention.lists import Ints, lay_out_layers, set_apart, token_columns
from executor.attention.query_rows import ShareColumns, token_spans
from executor.attention.shares import (
    MOST_TOKENS,
    HeadShare,
    check_block_sizes,
    check_patterns,
    check_shares,
    whole,
)
from executor.errors import AttentionError
from executor.kernels.batch import Chunk, query_starts
from executor.kernels.decode_layout import DecodeHeads, DecodeLayout, lay_out_decode
from executor.kernels.dense import Apart
from executor.kernels.layout import Layout, send
from executor.kernels.patterns import Grid, by_budget, lengths

MOST_INDICES = 2**31 - 1
"""Lists begin at int32 places of one tensor."""
KEPT_BATCHES = 16
"""Orders of entries kept, each of so many sequences."""
KEPT_SEQUENCES = 16
"""Of every layer, one sequence's decoding lists: for each way to divide its heads, and room."""
NO_WORK = Counts(0, 0, 0, 0, 0, 0)
Here = tuple[bool, ...]
"""Which of a layer's shares decode a sequence on this device."""


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

    def at_context(self, context_tokens: torch.Tensor) -> Self:
        """The step with other lengths of its decoding sequences, int32 [sequences]."""
        found = object.__new__(type(self))
        # As dataclasses.replace, at a tenth of its time: a decode has a step a layer and token.
        vars(found).update(vars(self), context_tokens=context_tokens)
        return found


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
    dense_from: float = 1.0,
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
    (`kernels.dense`). A head whose lists would hold `dense_from` of a prompt's tiles
    (`backends.DENSE_FROM`) has every piece and chooses none.
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
    tokens = token_columns(chunks)
    most_pieces = -(-max([room_tokens or 0, *tokens[2].tolist()]) // piece_tokens)
    decodes = [share for share in shares if chunks[share.sequence].decodes]
    prompts = [share for share in shares if not chunks[share.sequence].decodes]
    prefill = work = apart = None
    if prompts:
        columns = ShareColumns.of([prompts])
        of_kinds = tokens[:, columns.sequence]
        lists = columns.lists(of_kinds, block_tokens, piece_tokens, dense_from)
        listed = columns.entries(), lists
        (work,) = count_prompts(*listed)
        (prefill,) = lay_out_layers(*listed, chunks, device, programs)
        if sdpa and os.environ.get("HPLB_SDPA") != "0":
            apart = set_apart(prefill, programs)
    decoded = decode_entries(decodes, chunks, piece_tokens, most_pieces, packed)
    decode = lay_out_decode(decoded, most_pieces, piece_tokens, device) if decoded else None
    batch = _Batch(chunks, tokens, block_tokens, piece_tokens, most_pieces, device)
    return batch.step(_counted(shares), prefill, work, decode, apart)


class BatchedSteps:
    """Steps of any batch, of all `layers` of shares of one sequence's heads.

    An engine's every step is another batch: what `prepare` says of a layer, laid out of all at
    once, without a share for every sequence. Raises AttentionError for sizes that do not go
    together.
    """

    def __init__(
        self,
        layers: Sequence[Sequence[HeadShare]],
        block_tokens: int,
        piece_tokens: int,
        device: torch.device,
    ) -> None:
        check_block_sizes(block_tokens, piece_tokens)
        for shares in layers:
            check_patterns(shares, block_tokens, piece_tokens)
        self.layers = tuple(tuple(sorted(shares, key=_pattern)) for shares in layers)
        self.block_tokens, self.piece_tokens, self.device = block_tokens, piece_tokens, device
        self._columns = ShareColumns.of(self.layers)
        self._sizes = [_counted(shares) for shares in self.layers]
        self._entries = lru_cache(KEPT_BATCHES)(self._columns.entries)
        self._of_sequence = lru_cache(KEPT_SEQUENCES * len(layers))(self._decode_entries)

    def prompts(self, chunks: Sequence[Chunk]) -> tuple[tuple[PreparedStep | None, ...], int]:
        """Steps [layers] of prompts or chunks of them, None for a layer without shares; and the
        tiles that the same query blocks of all layers have with every causal piece."""
        chunks = tuple(chunks)
        tokens, entries = token_columns(chunks), self._entries(len(chunks))
        of_kinds = np.tile(tokens, len(self._columns.patterns))
        lists = self._columns.lists(of_kinds, self.block_tokens, self.piece_tokens)
        work = count_prompts(entries, lists)
        layouts = lay_out_layers(entries, lists, chunks, self.device, pack=False)
        batch = self._batch(chunks, tokens)
        steps = [
            batch.step(sizes, layout, prompts) if sizes[0] else None
            for sizes, layout, prompts in zip(self._sizes, layouts, work, strict=True)
        ]
        return tuple(steps), sum(of.causal_tiles for of in work)

    def decodes(
        self, here: Sequence[Sequence[Here]], room_tokens: int
    ) -> tuple[PreparedStep | None, ...]:
        """Steps [layers] of sequences that bring a token each and have up to `room_tokens`.

        `here` [layers][sequences][shares]: what is computed here of each, whole. What is read of a
        sequence follows from the step's `context_tokens`, to be replaced by the batch's; its counts
        are those of full rooms.
        """
        most_pieces = -(-room_tokens // self.piece_tokens)
        layouts = []
        for layer, sequences in enumerate(here):
            lists = [
                DecodeHeads(number, number, e.group, e.heads, e.budget_pieces, e.part, e.pattern)
                for number, shares in enumerate(sequences)
                for e in self._of_sequence(layer, shares, room_tokens)
            ]
            lists.sort(key=_pattern)
            layout = lay_out_decode(lists, most_pieces, self.piece_tokens, self.device)
            layouts.append(layout if lists else None)
        chunks = (_decoding(room_tokens),) * len(here[0])
        batch = self._batch(chunks, token_columns(chunks))
        return tuple(
            None if layout is None else batch.step(sizes, decode=layout)
            for sizes, layout in zip(self._sizes, layouts, strict=True)
        )

    def _decode_entries(self, layer: int, here: Here, room_tokens: int) -> list[DecodeHeads]:
        """The decoding lists of a layer's shares of one sequence, those that are here."""
        shares = [
            HeadShare(share.head, share.group, share.budget_tokens, pattern=share.pattern)
            for share, mine in zip(self.layers[layer], here, strict=True)
            if mine
        ]
        most_pieces = -(-room_tokens // self.piece_tokens)
        chunks = (_decoding(room_tokens),)
        return decode_entries(shares, chunks, self.piece_tokens, most_pieces, packed=True)

    def _batch(self, chunks: tuple[Chunk, ...], tokens: Ints) -> "_Batch":
        most_pieces = -(-int(tokens[2].max()) // self.piece_tokens)
        sizes = self.block_tokens, self.piece_tokens, most_pieces
        return _Batch(chunks, tokens, *sizes, self.device)


class _Batch:
    """What the steps of a batch's layers have in common, once their tables are on their way."""

    def __init__(
        self,
        chunks: tuple[Chunk, ...],
        tokens: Ints,
        block_tokens: int,
        piece_tokens: int,
        most_pieces: int,
        device: torch.device,
    ) -> None:
        self.chunks, self.most_pieces = chunks, most_pieces
        self.block_tokens, self.piece_tokens = block_tokens, piece_tokens
        self.tokens, self.context = sum(chunk.new_tokens for chunk in chunks), tokens[2]
        self.context_tokens = send(torch.from_numpy(self.context.astype(np.int32)), device)
        self.copied = _recorded(device)

    def step(
        self,
        sizes: tuple[int, int],
        prefill: Layout | None = None,
        prompts: PromptWork | None = None,
        decode: DecodeLayout | None = None,
        apart: Apart | None = None,
    ) -> PreparedStep:
        """A layer's step; `sizes` are its heads and KV groups."""
        for layout in (prefill, decode):
            if layout is not None and layout.stored > MOST_INDICES:
                raise AttentionError(
                    f"shares: {layout.stored} chosen pieces in all, but a step holds "
                    f"{MOST_INDICES} at most: use larger pieces or fewer heads a step"
                )
        counts, computed_rows = NO_WORK, 0
        if prompts is not None:
            counts, computed_rows = prompts.counts, prompts.rows
        if decode is not None:
            counts += count_decodes(decode.lists, self.context, self.piece_tokens)
            computed_rows += sum(len(entry.heads) for entry in decode.lists)
        heads, groups = sizes
        return PreparedStep(
            self.chunks,
            self.block_tokens,
            self.piece_tokens,
            heads=heads,
            groups=groups,
            computed_rows=computed_rows,
            covers=computed_rows == heads * self.tokens,
            most_pieces=self.most_pieces,
            prefill=prefill,
            decode=decode,
            context_tokens=self.context_tokens,
            counts=counts,
            schedule=Schedule(
                tiles=counts.tiles,
                starts=prefill.tasks if prefill else 0,
                longest_chain=prefill.longest if prefill else 0,
                splits=prefill.splits if prefill else 0,
                kv_pieces=(prefill.pieces_read if prefill else 0) + counts.decoded_pieces,
            ),
            copied=self.copied,
            apart=apart,
        )


def _counted(shares: Sequence[HeadShare]) -> tuple[int, int]:
    """Heads and KV groups, up to the last."""
    heads, groups = (share.head for share in shares), (share.group for share in shares)
    return max(heads, default=-1) + 1, max(groups, default=-1) + 1


def _decoding(room_tokens: int) -> Chunk:
    return Chunk(room_tokens - 1, 1, decodes=True)


def _pattern(share: HeadShare | DecodeHeads) -> str:
    """Lists of one pattern stand side by side."""
    return repr(share.pattern)


def tables(prepared: object) -> Iterator[torch.Tensor]:
    """Every tensor of a step, or of a part of one."""
    for name in getattr(prepared, "__dataclass_fields__", ()):
        value = getattr(prepared, name)
        if isinstance(value, torch.Tensor):
            yield value
        else:
            yield from tables(value)


def _recorded(device: torch.device) -> torch.cuda.Event | None:
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
        for members in sorted(together.values(), key=lambda members: _pattern(members[0]))
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
