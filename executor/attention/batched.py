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
from executor.row_ranges import Range
from profiles.sizes import causal_pieces

Ints = NDArray[np.int64]
Here = tuple[bool, ...]
"""Which of a layer's shares decode a sequence on this device."""
NOWHERE = np.iinfo(np.int32).min
"""A start that stays below all others, whatever place is added to it."""
KEPT_PLACES = 16
"""Orders of entries kept, each of so many sequences."""
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
        self._places = lru_cache(KEPT_PLACES)(self._columns.places)
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
        return send(torch.from_numpy(x.astype(np.int32, copy=False)), self.device)

    def _lay_out(self, chunks: tuple[Chunk, ...]) -> tuple[list[tuple[Layout, Counts, int]], int]:
        """Of every layer the layout of prompts, its work, and how many rows of q it computes; of
        all layers the causal tiles."""
        columns = self._columns
        cached, total = np.array([(c.cached_tokens, c.total_tokens) for c in chunks]).T
        origin = np.array(query_starts(chunks)[:-1]) - cached
        kinds = _KindLists.of(columns, cached, total, self.block_tokens, self.piece_tokens)
        places = self._places(len(chunks))
        sums = columns.of_layer @ kinds.sums
        longest = (kinds.longest * (columns.of_layer > 0)).max(1, initial=0)
        begins = np.concatenate([[0], sums[:, 0].cumsum()])
        # Every entry's lists are those of its kind and sequence.
        count, stored = kinds.count.take(places.pair), kinds.stored.take(places.pair)
        source = (kinds.begin.take(places.pair) - count.cumsum() + count).repeat(count)
        source += np.arange(len(source))
        block, length, start = kinds.lists.take(source, 1)
        before = np.concatenate([[0], stored.cumsum()])
        place = before[:-1] - before.take(places.begins[:-1]).repeat(np.diff(places.begins))
        start += place.astype(np.int32).repeat(count)
        entries = places.named.copy()
        for column, of_sequence in enumerate((origin, cached, total), 3):
            entries[:, column] = of_sequence.astype(np.int32).take(places.sequence)
        each = np.diff(begins)
        tables = {
            "entries": entries,
            "entry": places.number.repeat(count),
            "query_block": block,
            "length": length,
            "start": np.maximum(start, ALL_PIECES),
            "order": _longest_first(length, each) - begins[:-1].astype(np.int32).repeat(each),
        }
        sent = {name: self._sent(table) for name, table in tables.items()}
        pairs = self._sent(np.empty((0, 2)))
        found = []
        for number, (lists, tiles, chosen, scored, sampled, rows, kept, _) in enumerate(
            sums.tolist()
        ):
            mine = slice(places.begins[number], places.begins[number + 1])
            listed = slice(begins[number], begins[number + 1])
            layout = Layout(
                _Entries(columns, places, kinds, mine),
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
                tiles=tiles,
                pieces_read=tiles,
                stored=kept,
                longest=int(longest[number]),
            )
            found.append((layout, Counts(lists, tiles, chosen, scored, sampled, 0), rows))
        return found, int(sums[:, -1].sum())


class _Entries(Sequence[HeadBlocks]):
    """A layout's entries, whose objects are made when one is asked for."""

    def __init__(
        self, columns: "_Columns", places: "_Places", kinds: "_KindLists", mine: slice
    ) -> None:
        self._columns, self._places, self._kinds, self._mine = columns, places, kinds, mine

    @cached_property
    def _made(self) -> tuple[HeadBlocks, ...]:
        pair, share = self._places.pair[self._mine], self._places.share[self._mine]
        ranges = (of[pair] for of in (self._kinds.budget, self._kinds.first, self._kinds.last))
        head, group, sequence = self._places.named[self._mine, :3].T
        columns = (share, head, group, *ranges, sequence)
        return tuple(
            HeadBlocks(head, group, budget, first, last, sequence, self._columns.patterns[share])
            for share, head, group, budget, first, last, sequence in zip(
                *(column.tolist() for column in columns), strict=True
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
        return len(self._places.pair[self._mine])


@dataclass(frozen=True, eq=False)
class _Places:
    """Entries of all layers [entries] for a number of sequences: by layers, in them by patterns,
    then sequences.

    `pair` numbers an entry's kind of share and its sequence, the sequences of a kind together;
    `named` int32 [entries, 6] are its head, group and sequence, and room for what else a layout
    says of it; `number` int32 is its place in its layer, `begins` [layers + 1] where the layers'
    entries begin.
    """

    share: Ints
    sequence: Ints
    pair: Ints
    named: NDArray[np.int32]
    number: NDArray[np.int32]
    begins: list[int]


@dataclass(frozen=True, eq=False)
class _Columns:
    """Shares of all layers, layer after layer, and the kinds of them: shares of one kind have
    lists as long in every sequence.

    [shares] each: `patterns`, `head`, `group`, the first share and how many there are of the
    `run` of its layer's shares of one pattern, and its `kind`. [kinds] each: `budget` in tokens,
    `rows` [kinds, 2], `rule` [kinds, 3]: local pieces, stride and offset of a pattern that says
    itself how long a list is, stride 0 for the others; `scored`: whether it looks at every piece,
    `sampled` by how many rows. `of_layer` [layers, kinds] counts a layer's shares of each kind.
    sizes [layers]: heads and KV groups that are counted, up to the last.
    """

    patterns: tuple[Pattern, ...]
    head: Ints
    group: Ints
    run: NDArray[np.int64]
    kind: Ints
    budget: Ints
    rows: NDArray[np.float64]
    rule: Ints
    scored: NDArray[np.bool_]
    sampled: Ints
    of_layer: Ints
    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, layers: Sequence[Sequence[HeadShare]]) -> "_Columns":
        every = [(number, share) for number, shares in enumerate(layers) for share in shares]
        runs: dict[object, list[int]] = {}
        kinds: dict[tuple[int, Range, Pattern], int] = {}
        kind = []
        of_layer = np.zeros((len(layers), len(every)), np.int64)
        for at, (number, share) in enumerate(every):
            runs.setdefault((number, share.pattern), []).append(at)
            key = share.budget_tokens, share.rows, share.pattern
            kind.append(kinds.setdefault(key, len(kinds)))
            of_layer[number, kind[-1]] += 1
        patterns = [pattern for *_, pattern in kinds]
        rules = [
            (p.local_pieces, p.stride, p.offset)
            if isinstance(p, Rule) and not by_budget(p)
            else (0,) * 3
            for p in patterns
        ]
        return cls(
            tuple(share.pattern for _, share in every),
            np.array([share.head for _, share in every], np.int64),
            np.array([share.group for _, share in every], np.int64),
            np.array([(run[0], len(run)) for run in runs.values() for _ in run], np.int64).reshape(
                -1, 2
            ),
            np.array(kind, np.int64),
            np.array([budget for budget, *_ in kinds], np.int64),
            np.array([rows for _, rows, _ in kinds], np.float64).reshape(-1, 2),
            np.array(rules, np.int64).reshape(-1, 3),
            np.array([isinstance(p, SCORED) for p in patterns], np.bool_),
            np.array([p.rows if isinstance(p, Sampled) else 0 for p in patterns], np.int64),
            of_layer[:, : len(kinds)],
            tuple(
                (
                    max((share.head + 1 for share in shares), default=0),
                    max((share.group + 1 for share in shares), default=0),
                )
                for shares in layers
            ),
        )

    def places(self, sequences: int) -> _Places:
        """Of a number of sequences."""
        first, width = self.run.repeat(sequences, 0).T
        # From where a run's entries begin: its sequences one after another, of each all its shares.
        nth = np.arange(len(first)) - first * sequences
        sequence = nth // width
        share = first + nth % width
        begins = np.concatenate([[0], self.of_layer.sum(1).cumsum()]) * sequences
        number = np.arange(len(first)) - begins[:-1].repeat(np.diff(begins))
        return _Places(
            share,
            sequence,
            self.kind[share] * sequences + sequence,
            np.stack(
                [self.head[share], self.group[share], sequence, *[np.zeros_like(share)] * 3], 1
            ).astype(np.int32),
            number.astype(np.int32),
            begins.tolist(),
        )

    def lengths(self, kind: Ints, causal: Ints, budget: Ints) -> Ints:
        """Pieces of lists [lists] of shares of these kinds, as `patterns.lengths` has them."""
        found = np.minimum(causal, budget)
        if not self.rule.any():
            return found
        local, stride, offset = self.rule[kind].T
        step = np.maximum(stride, 1)
        distant = (np.maximum(causal - local, 0) - offset + step - 1) // step
        ruled = np.minimum(causal, local) + np.maximum(distant, 0)
        return np.where(stride > 0, ruled, found)


@dataclass(frozen=True, eq=False)
class _KindLists:
    """The lists of every kind of share in every sequence, pair after pair of them.

    [pairs] each: `budget` in pieces, query blocks [`first`, `last`), from where on and how many its
    lists are in `lists`, and how many pieces they have `stored`. lists int32 [3, lists]: query
    block, length, and start from the pair's first stored piece, NOWHERE for a list of all pieces.
    [kinds] each, over all sequences: `longest`, and sums [kinds, 8] of lists, tiles, gathered
    tiles, scored and sampled pieces, rows of q, stored pieces and causal tiles.
    """

    budget: Ints
    first: Ints
    last: Ints
    begin: Ints
    count: Ints
    stored: Ints
    lists: NDArray[np.int32]
    longest: Ints
    sums: Ints

    @classmethod
    def of(
        cls, columns: _Columns, cached: Ints, total: Ints, block_tokens: int, piece_tokens: int
    ) -> "_KindLists":
        """Of sequences that have `total` tokens, all but `cached` of them new, [sequences] each."""
        own, size = block_tokens // piece_tokens, (len(columns.budget), len(cached))
        kind = np.arange(size[0]).repeat(size[1])
        cached, total = (np.tile(x, size[0]) for x in (cached, total))
        every = -(-total // piece_tokens)
        budget = np.minimum(np.maximum(-(-columns.budget // piece_tokens), own)[kind], every)
        begin, end = cached // block_tokens, -(-total // block_tokens)
        first, last = (
            block_boundaries(columns.rows[kind, edge], budget, end, begin, own) for edge in (0, 1)
        )
        count = last - first
        begins = np.concatenate([[0], count.cumsum()])
        pair = np.arange(len(kind)).repeat(count)
        block = np.arange(begins[-1]) + (first - begins[:-1])[pair]
        causal = np.minimum((block + 1) * own, every[pair])
        length = columns.lengths(kind[pair], causal, budget[pair])
        kept = np.where(length == causal, 0, length)
        place = np.concatenate([[0], kept.cumsum()])
        start = np.where(kept == 0, NOWHERE, place[:-1] - place[begins[:-1]][pair])
        gathered = np.where(kept == 0, 0, length - causal + own * block)
        rows = np.minimum(last * block_tokens, total) - np.maximum(first * block_tokens, cached)
        seen = causal_pieces(every, last, own) - causal_pieces(every, first, own)
        seen *= columns.scored[kind] & (budget < every)
        # Of a pair the last list is its longest.
        longest = np.where(count > 0, np.append(length, 0)[begins[1:] - 1], 0)
        listed = np.cumsum([np.append(0, x) for x in (length, gathered, kept, causal)], 1)
        tiles, chosen, stored, dense = np.diff(listed[:, begins])
        by_pair = (
            count,
            tiles,
            chosen,
            seen,
            seen * columns.sampled[kind],
            np.maximum(rows, 0),
            stored,
            dense,
        )
        return cls(
            budget,
            first,
            last,
            begins[:-1],
            count,
            stored,
            np.stack([block, length, start]).astype(np.int32),
            longest.reshape(size).max(1, initial=0),
            np.stack([x.reshape(size).sum(1) for x in by_pair], 1),
        )


def _longest_first(length: NDArray[np.int32], each: Ints) -> NDArray[np.int32]:
    """Numbers of lists, `each` [layers] of a layer, longest first, equal ones in their order."""
    most = int(length.max(initial=0))
    # Of such small keys a stable order takes one pass.
    kind = np.uint16 if (most + 1) * len(each) <= 2**16 else np.int64
    layer = (np.arange(1, len(each) + 1) * (most + 1) - 1).astype(kind).repeat(each)
    return np.argsort(layer - length.astype(kind), kind="stable").astype(np.int32)


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
