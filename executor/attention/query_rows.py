"""Which rows of q a share is: query blocks of its prompt, tokens of the step.

A share is cut between query blocks, never in one: where the key pieces in the lists before the cut
are nearest to the cumulative share. Equal shares give equal cuts, so that ranges which meet in
their shares meet in rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from executor.attention.counts import SCORED
from executor.attention.lists import Entries, Ints, Lists, rules_of
from executor.attention.shares import MOST_TOKENS, HeadShare
from executor.kernels.batch import Chunk, query_starts
from executor.kernels.decode_layout import DecodeHeads
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import Pattern
from profiles.sizes import causal_pieces


def block_boundaries(
    cumulative_share: NDArray[np.float64],
    pieces: Ints,
    query_blocks: Ints,
    first: Ints,
    block_pieces: int = 1,
) -> Ints:
    """The query blocks before which heads' first `cumulative_share` of pieces is, to the nearest.

    A head's query blocks are [first, query_blocks): a chunk's begin behind its prefix. `pieces` are
    its budget, `block_pieces` a query block's own. Shares [..., heads], the others [heads].

    >>> share, pieces = np.array([0.5, 0.5, 0.5]), np.array([100, 1, 100])
    >>> ends, first = np.array([100, 100, 100]), np.array([0, 0, 98])
    >>> block_boundaries(share, pieces, ends, first).tolist()  # causal work is a triangle
    [71, 50, 99]
    >>> block_boundaries(share, pieces, ends, first, block_pieces=4).tolist()
    [56, 50, 99]
    """
    found = np.where(cumulative_share <= 0, first, query_blocks)
    cut = ((cumulative_share > 0) & (cumulative_share < 1)).nonzero()
    *_, head = cut
    if not len(head):
        return found
    share, pieces = cumulative_share[cut], pieces[head]
    low, high = first[head], query_blocks[head]
    least = low
    before = causal_pieces(pieces, low, block_pieces)
    wanted = before + share * (causal_pieces(pieces, high, block_pieces) - before)
    while (low < high).any():
        middle = (low + high) // 2
        less = (causal_pieces(pieces, middle, block_pieces) < wanted) & (low < high)
        low, high = np.where(less, middle + 1, low), np.where(less, high, np.minimum(middle, high))
    below = causal_pieces(pieces, np.maximum(low - 1, least), block_pieces)
    nearer = (low > least) & (wanted - below < causal_pieces(pieces, low, block_pieces) - wanted)
    found[cut] = np.where(nearer, low - 1, low)
    return found


@dataclass(frozen=True, eq=False)
class ShareColumns:
    """Shares of layers, layer after layer, and their kinds: lists of a kind's shares are the same.

    named [shares, 3]: head, group and sequence; `kind` [shares] their kinds. Of kinds [kinds]:
    `patterns` and their `rules`, `sequence`, `budget` in tokens, rows [2, kinds]. begins [layers +
    1]: where layers begin; of_layer [layers, kinds] counts a layer's shares of every kind.
    """

    named: Ints
    kind: Ints
    patterns: tuple[Pattern, ...]
    rules: Ints | None
    sequence: Ints
    budget: Ints
    rows: NDArray[np.float64]
    begins: Ints
    of_layer: Ints

    @classmethod
    def of(cls, layers: Sequence[Sequence[HeadShare]]) -> "ShareColumns":
        every = [share for shares in layers for share in shares]
        kinds: dict[tuple[Pattern, int, int, tuple[float, float]], int] = {}
        kind = np.array(
            [
                kinds.setdefault((x.pattern, x.sequence, x.budget_tokens, x.rows), len(kinds))
                for x in every
            ],
            np.int64,
        )
        patterns, sequence, budget, rows = zip(*kinds, strict=True) if kinds else ((),) * 4
        of_layers = [len(shares) for shares in layers]
        layer = np.arange(len(layers)).repeat(of_layers)
        count = np.bincount(layer * len(kinds) + kind, minlength=len(layers) * len(kinds))
        return cls(
            np.array([(x.head, x.group, x.sequence) for x in every], np.int64).reshape(-1, 3),
            kind,
            patterns,
            rules_of(patterns),
            np.array(sequence, np.int64),
            np.array([min(tokens, MOST_TOKENS) for tokens in budget], np.int64),
            np.array(rows, np.float64).reshape(-1, 2).T,
            np.cumsum([0, *of_layers]),
            count.reshape(len(layers), len(kinds)),
        )

    def entries(self, sequences: int = 1) -> Entries:
        """Every share in its own sequence, or of one sequence's shares each in so many: by layers,
        in them by patterns as they stand side by side, then sequences."""
        if sequences == 1:
            return Entries.of(self.named, self.kind, self.begins, self.of_layer)
        ids: dict[Pattern, int] = {}
        pattern = np.array([ids.setdefault(x, len(ids)) for x in self.patterns], np.int64)
        layer = np.arange(len(self.of_layer)).repeat(np.diff(self.begins))
        run = layer * len(ids) + pattern[self.kind]
        first = np.flatnonzero(np.diff(run, prepend=-1))
        count = np.diff(first, append=len(run))
        count, first = (x.repeat(count * sequences) for x in (count, first))
        # From where a pattern's entries begin: its sequences one after another, of each all shares.
        nth = np.arange(len(first)) - first * sequences
        sequence, share = nth // count, first + nth % count
        begins, named = self.begins * sequences, self.named[share]
        named[:, 2] += sequence
        of_range = self.kind[share] * sequences + sequence
        return Entries.of(named, of_range, begins, self.of_layer)

    def lists(
        self, tokens: Ints, block_tokens: int, piece_tokens: int, dense_from: float = 1.0
    ) -> Lists:
        """The kinds' lists in sequences, each kind's in as many: of their `token_columns`, [3,
        kinds x sequences].

        A head that scores, and whose lists of the sequence's new rows, whoever computes them, hold
        `dense_from` of their causal pieces, has every piece. Its rows are cut as its budget says.
        """
        _, cached, total = tokens
        own, every = block_tokens // piece_tokens, -(-total // piece_tokens)
        kind = np.arange(len(self.patterns)).repeat(len(total) // max(1, len(self.patterns)))
        budget = np.maximum(-(-self.budget // piece_tokens), own)[kind]
        budget = np.minimum(budget, every)
        begin, end = cached // block_tokens, -(-total // block_tokens)
        first, last = block_boundaries(self.rows[:, kind], budget, end, begin, own)
        listed, causal = (
            causal_pieces(pieces, end, own) - causal_pieces(pieces, begin, own)
            for pieces in (budget, every)
        )
        scores = np.array([isinstance(x, SCORED) for x in self.patterns], np.bool_)[kind]
        budget = np.where(scores & (listed >= dense_from * causal), every, budget)
        columns = np.stack([budget, first, last, *tokens])
        return Lists(self.patterns, self.rules, columns, block_tokens, piece_tokens)


def token_spans(
    rows: Sequence[HeadBlocks],
    lists: Sequence[DecodeHeads],
    chunks: tuple[Chunk, ...],
    block_tokens: int,
    heads: int,
) -> tuple[tuple[slice, ...], ...]:
    """For each of `heads` the ranges of q's tokens that a step computes anything of, ascending.

    Those of decodes whose tokens are neighbours are one.
    """
    starts = query_starts(chunks)
    spans: list[list[slice]] = [[] for _ in range(heads)]
    for part in rows:
        mine = new_rows(part, chunks, block_tokens)
        if mine:
            origin = starts[part.sequence] - chunks[part.sequence].cached_tokens
            spans[part.head].append(slice(origin + mine.start, origin + mine.stop))
    for entry in lists:
        for head in entry.heads:
            of_head = spans[head]
            neighbours = bool(of_head) and of_head[-1].stop == entry.token
            first = of_head.pop().start if neighbours else entry.token
            of_head.append(slice(first, entry.token + 1))
    return tuple(tuple(sorted(of_head, key=lambda span: span.start)) for of_head in spans)


def new_rows(part: HeadBlocks, chunks: tuple[Chunk, ...], block_tokens: int) -> range:
    """The positions of a part's rows in its sequence, those that are new."""
    chunk = chunks[part.sequence]
    begin = max(part.first * block_tokens, chunk.cached_tokens)
    return range(begin, min(part.last * block_tokens, chunk.total_tokens))


def decodes(rows: tuple[float, float], work: Sequence[int], sequence: int) -> bool:
    """Whether the holder of a divided head's `rows` decodes `sequence` of a batch, whole.

    `work` [sequences] are the pieces that the head reads of each: sequences stand one after
    another in their order, and each is decoded where its middle lies. So all holders of the head
    divide every batch alike, and nobody waits to be told.

    >>> [decodes((0.0, 0.4), [5, 1, 2, 2], each) for each in range(4)]
    [True, False, False, False]
    >>> [decodes((0.4, 1.0), [5, 1, 2, 2], each) for each in range(4)]
    [False, True, True, True]
    """
    middle = (sum(work[:sequence]) + work[sequence] / 2) / sum(work)
    return rows[0] <= middle < rows[1]
