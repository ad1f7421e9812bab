"""Prefill's layout: every list once, longest first, and the parts that long ones are cut into."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.attention.lists import LEAST_BLOCKS, cut, lay_out, longest_first
from executor.kernels.batch import Chunk, query_starts
from executor.kernels.layout import ALL_PIECES, WHOLE, HeadBlocks
from executor.kernels.patterns import POOLED, SAMPLED, Rule, by_budget, lengths

BLOCK = 16
POOLED_ALONE = st.just(POOLED)
PATTERNS = st.sampled_from(
    [POOLED, SAMPLED, Rule.sink_local(2), Rule.strided(1, 2), Rule.strided(3, 4, 2)]
)


@st.composite
def layouts(draw, patterns=POOLED_ALONE):
    """Heads with budgets and row ranges of their own over chunks of any length."""
    chunks = [
        Chunk(draw(st.integers(0, 400)), draw(st.integers(1, 300)))
        for _ in range(draw(st.integers(1, 3)))
    ]
    heads = []
    for _ in range(draw(st.integers(1, 6))):
        sequence = draw(st.integers(0, len(chunks) - 1))
        chunk = chunks[sequence]
        begin, end = chunk.cached_tokens // BLOCK, -(-chunk.total_tokens // BLOCK)
        first = draw(st.integers(begin, end))
        last = draw(st.integers(first, end))
        budget, pattern = draw(st.integers(1, 50)), draw(patterns)
        heads.append(HeadBlocks(0, 0, budget, first, last, sequence, pattern))
    square = not all(by_budget(x.pattern) for x in heads)
    piece = BLOCK if square else draw(st.sampled_from([4, 8, 16]))
    programs = draw(st.none() | st.integers(1, 64))
    return lay_out(heads, chunks, BLOCK, programs=programs, piece_tokens=piece)


@settings(deadline=None, max_examples=100)
@given(layouts(PATTERNS))
def test_every_list_is_what_its_head_and_query_block_say(layout):
    """Counted one by one, by the kernels' own rule of how long a list is."""
    starts, found, stored = query_starts(layout.chunks), [], 0
    for number, (x, entry) in enumerate(zip(layout.heads, layout.entries.tolist(), strict=True)):
        chunk, grid = layout.chunks[x.sequence], layout.grid(x.sequence)
        tokens = starts[x.sequence] - chunk.cached_tokens, chunk.cached_tokens, chunk.total_tokens
        assert entry == [x.head, x.group, x.sequence, *tokens]
        for block in range(x.first, x.last):
            length = int(lengths(x.pattern, x.budget_pieces, block, block + 1, grid))
            every = length == int(grid.causal(block, block + 1))
            found.append((number, block, length, ALL_PIECES if every else stored))
            stored += 0 if every else length
    columns = layout.entry, layout.query_block, layout.length, layout.start
    assert found == list(zip(*(column.tolist() for column in columns), strict=True))
    assert (layout.stored, layout.tiles) == (stored, sum(length for *_, length, _ in found))
    assert layout.order.tolist() == sorted(range(len(found)), key=lambda n: -found[n][2])


@settings(deadline=None, max_examples=50)
@given(layouts())
def test_parts_cover_every_list_once_and_none_exceeds_its_fair_part(layout):
    work = layout.length.tolist()
    if layout.parts is None:
        assert layout.splits == 0
        assert layout.longest == max(work, default=0)
        return
    table = layout.parts.table.tolist()
    assert [part[2] for part in table] == sorted((part[2] for part in table), reverse=True)
    assert table[0][2] == layout.longest
    per_list = {number: [] for number in range(layout.lists)}
    for number, first, count, slot in sorted(table):
        per_list[number].append((first, count, slot))
    slots = []
    for number, parts in per_list.items():
        ends = [first + count for first, count, _ in parts]
        assert [first for first, _, _ in parts] == [0, *ends[:-1]]
        assert ends[-1] == work[number]
        counts = [count for _, count, _ in parts]
        assert max(counts) - min(counts) <= 1
        if len(parts) == 1:
            assert parts[0][2] == WHOLE
        else:
            slots += [[parts[0][2], len(parts)]]
            assert [s for _, _, s in parts] == list(range(slots[-1][0], sum(slots[-1])))
    assert layout.parts.slots.tolist() == slots
    assert sum(number for _, number in slots) == layout.splits


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 200), min_size=1, max_size=40),
    st.integers(1, 50),
    st.sampled_from([8, 32]),
)
def test_no_part_is_longer_than_a_fair_one_or_the_least(length, programs, least):
    parts = cut(np.array(length), programs, least)
    assert int(parts[:, 2].max()) <= max(-(-sum(length) // programs), least)
    assert int(parts[:, 2].sum()) == sum(length)
    assert np.unique(parts[:, 0]).tolist() == list(range(len(length)))


def test_merged_rows_belong_to_their_tokens_and_cached_rows_to_none():
    chunks = (Chunk(0, 7), Chunk(200, 50))
    heads = [HeadBlocks(3, 0, 16, 12, 16, sequence=1)]
    layout = lay_out(heads, chunks, BLOCK, programs=64)
    rows = 4
    assert layout.parts.heads.shape == layout.parts.tokens.shape == (rows, BLOCK)
    for at in range(rows):
        for within in range(BLOCK):
            token = (12 + at) * BLOCK + within
            stored = 200 <= token < 250
            assert int(layout.parts.heads[at, within]) == (3 if stored else -1)
            if stored:
                assert int(layout.parts.tokens[at, within]) == 7 + token - 200


def test_short_lists_are_not_cut():
    layout = lay_out([HeadBlocks(0, 0, LEAST_BLOCKS, 0, 30)], [Chunk(0, 480)], BLOCK, programs=999)
    assert layout.parts is None
    assert (layout.splits, layout.longest) == (0, LEAST_BLOCKS)


def test_lists_without_indices_and_where_the_others_begin():
    heads = [
        HeadBlocks(1, 0, 2, 0, 4),
        HeadBlocks(0, 1, 9, 1, 3),
        HeadBlocks(2, 0, 1, 0, 4, pattern=Rule.strided(1, 2)),
    ]
    layout = lay_out(heads, [Chunk(0, 60)], BLOCK)
    assert layout.length.tolist() == [1, 2, 2, 2, 2, 3, 1, 2, 2, 3]
    all_ = ALL_PIECES
    assert layout.start.tolist() == [all_, all_, 0, 2, all_, all_, all_, all_, 4, 6]
    assert (layout.stored, layout.tiles, layout.longest) == (9, 20, 3)
    assert layout.order.tolist() == [5, 9, 1, 2, 3, 4, 7, 8, 0, 6]


def test_lists_of_pieces_hold_their_own_block_and_round_up_to_it():
    heads = [HeadBlocks(0, 0, 6, 0, 4), HeadBlocks(1, 0, 1, 0, 4), HeadBlocks(2, 0, 99, 1, 4)]
    layout = lay_out(heads, [Chunk(0, 54)], BLOCK, piece_tokens=4)
    assert layout.length.tolist() == [4, 6, 6, 6, 4, 4, 4, 4, 8, 12, 14]
    all_ = ALL_PIECES
    assert layout.start.tolist() == [all_, 0, 6, 12, all_, 18, 22, 26, all_, all_, all_]
    first, last = layout.own_pieces(slice(None))
    assert first.tolist() == [0, 4, 8, 12, 0, 4, 8, 12, 4, 8, 12]
    assert last.tolist() == [3, 7, 11, 13, 3, 7, 11, 13, 7, 11, 13]
    assert [layout.stores(rows) for rows in heads] == [True, True, False]


def test_equal_lengths_keep_the_heads_order():
    assert longest_first(np.array([2, 5, 2, 5, 9])).tolist() == [4, 1, 3, 0, 2]


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_every_two_lists_that_are_the_same_by_rule_make_a_pair(data):
    """As they come: the first with the second, the third with the fourth."""
    pattern = st.sampled_from([POOLED, Rule.sink_local(), Rule.sink_local(2)])
    square = data.draw(st.booleans())
    if square:
        pattern = st.one_of(pattern, st.just(Rule.strided(1, 2)))
    heads = []
    for head in range(data.draw(st.integers(1, 8))):
        first = data.draw(st.integers(0, 6))
        last = data.draw(st.integers(first, 6))
        sizes = data.draw(st.integers(0, 1)), data.draw(st.integers(1, 9)), first, last
        heads.append(HeadBlocks(head, *sizes, data.draw(st.integers(0, 1)), data.draw(pattern)))
    chunks = (Chunk(0, 96), Chunk(0, 90))
    layout = lay_out(heads, chunks, BLOCK, piece_tokens=BLOCK if square else 4, pack=True)
    alike = {}
    for number in range(layout.lists):
        x, length = layout.heads[int(layout.entry[number])], int(layout.length[number])
        by = "all" if int(layout.start[number]) == ALL_PIECES else x.pattern
        if by == "all" or isinstance(by, Rule):
            key = (x.sequence, x.group, by, int(layout.query_block[number]), length)
            alike.setdefault(key, []).append(number)
    wanted = {tuple(same[n : n + 2]) for same in alike.values() for n in range(0, len(same) - 1, 2)}
    assert set(map(tuple, layout.pairs.tolist())) == wanted
    lengths = layout.length[layout.pairs[:, 0]].tolist()
    assert lengths == sorted(lengths, reverse=True)


def test_nothing_to_lay_out():
    layout = lay_out([], [Chunk(0, 5)], BLOCK, programs=4)
    assert (layout.lists, layout.tiles, layout.longest, layout.splits) == (0, 0, 0, 0)
    assert layout.parts is None
