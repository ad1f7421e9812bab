"""Which rows of q a share is: query blocks of its prompt, tokens of the step.

A share is cut between query blocks, never in one: where the key pieces in the lists before the cut
are nearest to the cumulative share. Equal shares give equal cuts, so that ranges which meet in
their shares meet in rows.
"""

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial

from executor.attention.shares import HeadShare
from executor.kernels.batch import Chunk, query_starts
from executor.kernels.decode_layout import DecodeHeads
from executor.kernels.layout import HeadBlocks
from profiles.sizes import causal_pieces, whole_pieces


def block_boundary(
    cumulative_share: float,
    pieces: int,
    query_blocks: int,
    first: int = 0,
    block_pieces: int = 1,
) -> int:
    """The query block before which a head's first `cumulative_share` of pieces is, to the nearest.

    The head's query blocks are [first, query_blocks): a chunk's begin behind its prefix. `pieces`
    are its budget, `block_pieces` a query block's own.

    >>> block_boundary(0.5, pieces=100, query_blocks=100)  # causal work is a triangle
    71
    >>> block_boundary(0.5, pieces=1, query_blocks=100)
    50
    >>> block_boundary(0.5, pieces=100, query_blocks=100, first=98)
    99
    >>> block_boundary(0.5, pieces=100, query_blocks=100, block_pieces=4)
    56
    """
    before = partial(causal_pieces, pieces, block_pieces=block_pieces)
    wanted = before(first) + cumulative_share * (before(query_blocks) - before(first))
    above = bisect_left(range(query_blocks), wanted, lo=first, key=before)
    nearer_below = above > first and wanted - before(above - 1) < before(above) - wanted
    return above - 1 if nearer_below else above


def head_rows(share: HeadShare, chunk: Chunk, block_tokens: int, piece_tokens: int) -> HeadBlocks:
    """A share of a prompt or of a chunk of one, in query blocks and key pieces."""
    own, every = block_tokens // piece_tokens, -(-chunk.total_tokens // piece_tokens)
    budget = whole_pieces(int(share.budget_tokens), piece_tokens, least=own, most=every)
    begin, end = chunk.cached_tokens // block_tokens, -(-chunk.total_tokens // block_tokens)
    first, last = (block_boundary(edge, budget, end, begin, own) for edge in share.rows)
    return HeadBlocks(share.head, share.group, budget, first, last, share.sequence, share.pattern)


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
