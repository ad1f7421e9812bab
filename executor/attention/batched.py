"""Steps of a whole batch for all layers at once: what `prepare` lays out, by columns of numbers.

An engine's every step is another batch. Its tables are a few operations on arrays, however many
sequences, heads and layers there are, and are copied to the device together; the entries' own
objects are made where a kernel asks for them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray

from executor.attention.counts import SCORED, Counts, Schedule
from executor.attention.shares import HeadShare, check_block_sizes, check_patterns
from executor.attention.step import PreparedStep, decode_entries, recorded
from executor.kernels.batch import Chunk, query_starts
from executor.kernels.decode_layout import PADDING, DecodeHeads, DecodeLayout
from executor.kernels.layout import ALL_PIECES, HeadBlocks, Layout, send
from executor.kernels.patterns import Pattern, Rule, Sampled, by_budget
from profiles.sizes import causal_pieces

Ints = NDArray[np.int64]
Here = tuple[bool, ...]
"""Which of a layer's shares decode a sequence on this device."""
KEPT_TEMPLATES = 16
"""Of every layer, one sequence's decoding lists: for each way to divide its heads, and room."""


class BatchedSteps:
    """Steps of any batch, of `layers` of shares of one sequence's heads.

    `block_tokens` and `piece_tokens` as `prepare` takes them. Raises AttentionError for sizes that
    do not go together.
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
        self.layers = tuple(tuple(sorted(shares, key=_kind)) for shares in layers)
        self.block_tokens, self.piece_tokens, self.device = block_tokens, piece_tokens, device
        self._columns = _Columns.of(self.layers)
        self._template = lru_cache(KEPT_TEMPLATES * len(layers))(self._one_decode)

    def prompts(self, chunks: Sequence[Chunk]) -> tuple[tuple[PreparedStep | None, ...], int]:
        """Steps [layers] of prompts or chunks of them, None for a layer without shares; and the
        tiles that the same query blocks of all layers have with every causal piece."""
        chunks = tuple(chunks)
        tokens = query_starts(chunks)[-1]
        context = self._sent(np.array([chunk.total_tokens for chunk in chunks]))
        most = -(-max(chunk.total_tokens for chunk in chunks) // self.piece_tokens)
        laid_out, dense_tiles = self._lay_out(chunks)
        event = recorded(self.device)

        def step(layout: Layout, counts: Counts, rows: int, size: tuple[int, int]) -> PreparedStep:
            return PreparedStep(
                chunks,
                self.block_tokens,
                self.piece_tokens,
                heads=size[0],
                groups=size[1],
                computed_rows=rows,
                covers=rows == size[0] * tokens,
                most_pieces=most,
                prefill=layout,
                decode=None,
                context_tokens=context,
                counts=counts,
                schedule=Schedule(
                    layout.tiles, layout.tasks, layout.longest, 0, layout.pieces_read
                ),
                copied=event,
            )

        sizes = self._columns.sizes
        steps = [
            step(*found, size) if size[0] else None
            for found, size in zip(laid_out, sizes, strict=True)
        ]
        return tuple(steps), dense_tiles

    def decodes(
        self, here: Sequence[Sequence[Here]], room_tokens: int
    ) -> tuple[PreparedStep | None, ...]:
        """Steps [layers] of sequences that bring a token each and have up to `room_tokens`.

        `here` [layers][sequences][shares]: what is computed here of each, whole. What is read of a
        sequence follows from the step's `context_tokens`, to be replaced by the batch's; its counts
        are those of full rooms.
        """
        most = -(-room_tokens // self.piece_tokens)
        return tuple(
            self._decode_step(layer, sequences, room_tokens, most)
            for layer, sequences in enumerate(here)
        )

    def _decode_step(
        self, layer: int, here: Sequence[Here], room_tokens: int, most: int
    ) -> PreparedStep | None:
        count = len(here)
        single = [self._template(layer, each, room_tokens) for each in here]
        lists = [
            DecodeHeads(number, number, e.group, e.heads, e.budget_pieces, e.part, e.pattern)
            for number, entries in enumerate(single)
            for e in entries
        ]
        if not lists:
            return None
        lists.sort(key=_kind)
        widest = max(len(e.heads) for e in lists)
        heads = np.array(
            [(*e.heads, *[PADDING] * (widest - len(e.heads))) for e in lists], np.int32
        )
        budget = np.minimum([e.budget_pieces for e in lists], most)
        kept = np.where(budget == most, 0, budget)
        width = (heads != PADDING).sum(1)
        layout = DecodeLayout(
            tuple(lists),
            most,
            self.piece_tokens,
            entries=self._sent(np.array([(e.sequence, e.token, e.group) for e in lists])),
            heads=self._sent(heads),
            start=self._sent(np.where(kept == 0, ALL_PIECES, kept.cumsum() - kept)),
            budget=self._sent(budget),
            part=send(
                torch.tensor([(0.0, 1.0)], dtype=torch.float64).repeat(len(lists), 1), self.device
            ),
            stored=int(kept.sum()),
        )
        tiles, rows = int((width * budget).sum()), int(width.sum())
        step_heads, groups = self._columns.sizes[layer]
        return PreparedStep(
            (Chunk(room_tokens - 1, 1, decodes=True),) * count,
            self.block_tokens,
            self.piece_tokens,
            heads=step_heads,
            groups=groups,
            computed_rows=rows,
            covers=rows == step_heads * count,
            most_pieces=most,
            prefill=None,
            decode=layout,
            context_tokens=self._sent(np.full(count, room_tokens)),
            counts=Counts(rows, tiles, 0, 0, 0, int(budget.sum())),
            schedule=Schedule(tiles, 0, 0, 0, int(budget.sum())),
            copied=recorded(self.device),
        )

    def _one_decode(self, layer: int, here: Here, room_tokens: int) -> tuple[DecodeHeads, ...]:
        """The decoding lists of a layer's shares of one sequence, those that are here."""
        chunks = (Chunk(room_tokens - 1, 1, decodes=True),)
        shares = [
            HeadShare(share.head, share.group, share.budget_tokens, pattern=share.pattern)
            for share, mine in zip(self.layers[layer], here, strict=True)
            if mine
        ]
        most = -(-room_tokens // self.piece_tokens)
        return tuple(decode_entries(shares, chunks, self.piece_tokens, most, packed=True))

    def _sent(self, x: NDArray[np.generic]) -> torch.Tensor:
        return send(torch.from_numpy(x.astype(np.int32)), self.device)

    def _lay_out(self, chunks: tuple[Chunk, ...]) -> tuple[list[tuple[Layout, Counts, int]], int]:
        """Of every layer the layout of prompts, its work, and how many rows of q it computes; of
        all layers the causal tiles."""
        columns, own = self._columns, self.block_tokens // self.piece_tokens
        cached, total = np.array([(c.cached_tokens, c.total_tokens) for c in chunks]).T
        origin = np.array(query_starts(chunks)[:-1]) - cached
        share, sequence = columns.entries(len(chunks))
        cached, total, origin = cached[sequence], total[sequence], origin[sequence]
        every = -(-total // self.piece_tokens)
        budget = -(-columns.budget[share] // self.piece_tokens)
        budget = np.minimum(np.maximum(budget, own), every)
        begin, end = cached // self.block_tokens, -(-total // self.block_tokens)
        first, last = (
            block_boundaries(columns.rows[share, edge], budget, end, begin, own) for edge in (0, 1)
        )
        lists = np.concatenate([[0], (last - first).cumsum()])
        entry = np.arange(len(share)).repeat(last - first)
        block = np.arange(lists[-1]) + (first - lists[:-1])[entry]
        causal = np.minimum((block + 1) * own, every[entry])
        length = columns.lengths(share, entry, causal, budget)
        kept = np.where(length == causal, 0, length)
        place = np.concatenate([[0], kept.cumsum()])
        # Of every layer its first entry, list and stored piece, and those after the last layer's.
        entries = np.searchsorted(columns.layer[share], np.arange(len(self.layers) + 1))
        begins = lists[entries]
        layer = columns.layer[share][entry]
        head, group = columns.head[share], columns.group[share]
        tables = {
            "entries": np.stack([head, group, sequence, origin, cached, total], 1),
            "entry": entry - entries[layer],
            "query_block": block,
            "length": length,
            "start": np.where(kept == 0, ALL_PIECES, place[:-1] - place[begins][layer]),
            "order": _longest_first(length, layer) - begins[layer],
        }
        sent = {name: self._sent(table) for name, table in tables.items()}
        pairs = self._sent(np.empty((0, 2)))
        rows = np.minimum(last * self.block_tokens, total)
        rows -= np.maximum(first * self.block_tokens, cached)
        seen = causal_pieces(every, last, own) - causal_pieces(every, first, own)
        seen *= columns.scored[share] & (budget < every)
        gathered = np.where(kept == 0, 0, length - causal + own * block)
        sums = [
            np.add.reduceat(np.append(x, 0), where[:-1]) * (where[1:] > where[:-1])
            for x, where in (
                (length, begins),
                (gathered, begins),
                (seen, entries),
                (seen * columns.sampled[share], entries),
                (np.maximum(rows, 0), entries),
            )
        ]
        found = []
        for number, (tiles, chosen, scored, sampled, computed) in enumerate(
            zip(*sums, strict=True)
        ):
            mine = slice(entries[number], entries[number + 1])
            listed = slice(begins[number], begins[number + 1])
            blocks = _Entries(
                columns.patterns,
                [x[mine] for x in (share, head, group, budget, first, last, sequence)],
            )
            layout = Layout(
                blocks,
                chunks,
                self.block_tokens,
                self.piece_tokens,
                entries=sent["entries"][mine],
                entry=sent["entry"][listed],
                query_block=sent["query_block"][listed],
                length=sent["length"][listed],
                start=sent["start"][listed],
                order=sent["order"][listed],
                pairs=pairs,
                tiles=int(tiles),
                pieces_read=int(tiles),
                stored=int(place[listed.stop] - place[listed.start]),
                longest=int(length[listed].max(initial=0)),
            )
            count = listed.stop - listed.start
            work = (int(count), int(tiles), int(chosen), int(scored), int(sampled), 0)
            found.append((layout, Counts(*work), int(computed)))
        return found, int(causal.sum())


class _Entries(Sequence[HeadBlocks]):
    """A layout's entries, whose objects are made when one is asked for."""

    def __init__(self, patterns: Sequence[Pattern], columns: Sequence[Ints]) -> None:
        self._patterns, self._columns = patterns, columns

    @cached_property
    def _made(self) -> tuple[HeadBlocks, ...]:
        return tuple(
            HeadBlocks(head, group, budget, first, last, sequence, self._patterns[share])
            for share, head, group, budget, first, last, sequence in zip(
                *(column.tolist() for column in self._columns), strict=True
            )
        )

    @overload
    def __getitem__(self, at: int) -> HeadBlocks: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[HeadBlocks, ...]: ...
    def __getitem__(self, at: int | slice) -> HeadBlocks | tuple[HeadBlocks, ...]:
        return self._made[at]

    def __iter__(self) -> Iterator[HeadBlocks]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._columns[0])


@dataclass(frozen=True, eq=False)
class _Columns:
    """Shares of all layers, [shares] each, layer after layer; `rows` [shares, 2].

    `kind` numbers runs of a layer's shares of one pattern. `rule` [shares, 3]: local pieces, stride
    and offset of a pattern that says itself how long a list is, stride 0 for the others. `scored`:
    whether it looks at every piece; `sampled` by how many rows. sizes [layers]: heads and KV groups
    that are counted, up to the last.
    """

    patterns: tuple[Pattern, ...]
    layer: Ints
    kind: Ints
    head: Ints
    group: Ints
    budget: Ints
    rows: NDArray[np.float64]
    rule: Ints
    scored: NDArray[np.bool_]
    sampled: Ints
    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, layers: Sequence[Sequence[HeadShare]]) -> "_Columns":
        every = [(number, share) for number, shares in enumerate(layers) for share in shares]
        patterns = tuple(share.pattern for _, share in every)
        kinds: dict[object, int] = {}
        kind = [kinds.setdefault((number, share.pattern), len(kinds)) for number, share in every]
        rules = [
            (p.local_pieces, p.stride, p.offset)
            if isinstance(p, Rule) and not by_budget(p)
            else (0,) * 3
            for p in patterns
        ]
        return cls(
            patterns,
            np.array([number for number, _ in every], np.int64),
            np.array(kind, np.int64),
            np.array([share.head for _, share in every], np.int64),
            np.array([share.group for _, share in every], np.int64),
            np.array([share.budget_tokens for _, share in every], np.int64),
            np.array([share.rows for _, share in every], np.float64).reshape(-1, 2),
            np.array(rules, np.int64).reshape(-1, 3),
            np.array([isinstance(p, SCORED) for p in patterns], np.bool_),
            np.array([p.rows if isinstance(p, Sampled) else 0 for p in patterns], np.int64),
            tuple(
                (
                    max((share.head + 1 for share in shares), default=0),
                    max((share.group + 1 for share in shares), default=0),
                )
                for shares in layers
            ),
        )

    def entries(self, sequences: int) -> tuple[Ints, Ints]:
        """The share and the sequence of every entry: by layers, in them by patterns, sequences."""
        share = np.arange(len(self.layer)).repeat(sequences)
        sequence = np.tile(np.arange(sequences), len(self.layer))
        if sequences == 1:
            return share, sequence
        order = np.lexsort((sequence, self.kind[share]))
        return share[order], sequence[order]

    def lengths(self, share: Ints, entry: Ints, causal: Ints, budget: Ints) -> Ints:
        """Pieces of lists [lists], of entries [lists] as `patterns.lengths` has them."""
        found = np.minimum(causal, budget[entry])
        if not self.rule.any():
            return found
        local, stride, offset = self.rule[share[entry]].T
        step = np.maximum(stride, 1)
        distant = (np.maximum(causal - local, 0) - offset + step - 1) // step
        ruled = np.minimum(causal, local) + np.maximum(distant, 0)
        return np.where(stride > 0, ruled, found)


def _longest_first(length: Ints, layer: Ints) -> Ints:
    """Numbers of lists, layer after layer, longest first, equal ones in their order."""
    most = int(length.max(initial=0))
    key = layer * (most + 1) + most - length
    # Of such small keys a stable order takes one pass.
    small = len(key) and int(key[-1]) // (most + 1) * (most + 1) + most < 2**16
    return np.argsort(key.astype(np.uint16) if small else key, kind="stable")


def block_boundaries(
    cumulative_share: NDArray[np.float64], pieces: Ints, query_blocks: Ints, first: Ints, own: int
) -> Ints:
    """`query_rows.block_boundary` of every entry, [entries] each.

    >>> share, ends = np.array([0.5, 0.5]), np.array([100, 100])
    >>> block_boundaries(share, np.array([100, 1]), ends, np.array([0, 0]), 1).tolist()
    [71, 50]
    """
    found = np.where(cumulative_share <= 0, first, query_blocks)
    (cut,) = ((cumulative_share > 0) & (cumulative_share < 1)).nonzero()
    if not len(cut):
        return found
    share, pieces = cumulative_share[cut], pieces[cut]
    low, high = first[cut], query_blocks[cut]
    least = low
    before = causal_pieces(pieces, low, own)
    wanted = before + share * (causal_pieces(pieces, high, own) - before)
    while (low < high).any():
        middle = (low + high) // 2
        less = (causal_pieces(pieces, middle, own) < wanted) & (low < high)
        low, high = np.where(less, middle + 1, low), np.where(less, high, np.minimum(middle, high))
    below = causal_pieces(pieces, np.maximum(low - 1, least), own)
    nearer = (low > least) & (wanted - below < causal_pieces(pieces, low, own) - wanted)
    found[cut] = np.where(nearer, low - 1, low)
    return found


def _kind(share: HeadShare | DecodeHeads) -> str:
    """Lists of one pattern stand side by side."""
    return repr(share.pattern)
