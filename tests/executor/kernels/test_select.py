import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.attention.lists import lay_out
from executor.kernels import vertical_slash
from executor.kernels.batch import Chunk
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import (
    EVERY,
    Pooled,
    Rule,
    Sampled,
    VerticalSlash,
    by_budget,
    lengths,
)
from executor.kernels.select import select
from executor.kernels.triton import top_pieces

from .line_reference import line_reference
from .reference import (
    list_of,
    random_cache,
    random_q,
    sequence_kv,
    transposed_table,
    whole_prompts,
)
from .sample_reference import sample_reference

pytestmark = pytest.mark.filterwarnings("ignore:divide by zero")
BOTH = pytest.mark.parametrize("use_triton", [False, True], ids=["torch", "triton"])
NO_WARNING = pytest.mark.filterwarnings("ignore::RuntimeWarning")
SIZE, DIM = 8, 16
PATTERNS = [Pooled(), VerticalSlash(6, 5), Sampled(3), Rule.sink_local(2), Rule.strided(2, 3, 1)]
# Block, piece, page (0 without) and budget. A stride's blocks have one piece alone.
GRIDS = [(8, 8, 32, 3), (32, 16, 16, 5), (32, 16, 0, 6), (64, 16, 32, 5), (128, 16, 0, 6)]


def patterns_of(block, piece):
    return [p for p in PATTERNS if block == piece or by_budget(p)]


def all_lists(layout, indices):
    """{(entry, row): pieces}."""
    return {
        (int(layout.entry[n]), int(layout.query_block[n])): list_of(layout, indices, n)
        for n in range(layout.lists)
    }


def best_of(scores, first, last, kept):
    """A query block's pieces by definition: own, first, then the best."""
    others = sorted(range(1, first), key=lambda p: -float(scores[p]))
    return sorted([*range(first, last + 1), *[0][: first > 0], *others][:kept])


def defined(q, cache, layout, entry, row):
    """The list of a query block as its pattern defines it, in float64."""
    head, group, sequence, origin, cached, total = layout.entries[entry].tolist()
    rows, block, size = layout.heads[entry], layout.block_tokens, layout.piece_tokens
    keys, _ = sequence_kv(cache, sequence, group, total)
    begin, end = max(cached, row * block), min(total, (row + 1) * block)
    first, last = row * block // size, (end - 1) // size
    kept = min(max(rows.budget_pieces, block // size), last + 1)
    match rows.pattern:
        case Rule(sinks) if sinks < EVERY:
            sink = list(range(min(sinks, max(0, kept - block // size))))
            return sorted({*sink, *range(last + 1 - kept + len(sink), last + 1)})
        case Rule(_, local, stride, offset):
            return [b for b in range(row + 1) if b > row - local or b % stride == offset]
        case Pooled():
            query = q[head, origin + begin : origin + end].double().mean(0)
            scores = [query @ part.mean(0) for part in keys.split(size)]
        case Sampled():
            scores = sample_reference(q, cache, layout, entry, row)
        case VerticalSlash():
            column, diagonal = line_reference(q, cache, layout, entry, -(-total // size))
            own = range(first, last + 1)
            scores = [
                column[p] + sum(diagonal[o - p] for o in own) / len(own) for p in range(first)
            ]
    return best_of(scores, first, last, kept)


def entries(chunks, patterns, budget, heads=3, groups=2, block=SIZE):
    """Every pattern in every sequence, whole and in two ranges."""
    found = []
    for number, pattern in enumerate(patterns):
        for s, chunk in enumerate(chunks):
            first, last = chunk.cached_tokens // block, -(-chunk.total_tokens // block)
            middle = (first + last) // 2
            for begin, end in ((first, middle), (middle, last)):
                place = (number + s) % heads, (number * s) % groups
                found.append(HeadBlocks(*place, budget, begin, end, s, pattern))
    return found


@BOTH
@pytest.mark.parametrize(("paged", "budget"), [(False, 1), (True, 2), (False, 4)])
def test_lists_are_what_their_patterns_define(use_triton, paged, budget):
    chunks = (Chunk(0, 45), Chunk(43, 17), Chunk(0, 1))
    q = random_q(chunks, 3, DIM, scale=2)
    cache = random_cache(chunks, 2, DIM, SIZE, paged=paged)
    layout = lay_out(entries(chunks, PATTERNS, budget), chunks, SIZE)
    check(q, cache, layout, select(q, cache, layout, use_triton=use_triton))


@BOTH
@pytest.mark.parametrize(("block", "piece", "page", "budget"), GRIDS)
def test_lists_of_pieces_are_what_their_patterns_define(use_triton, block, piece, page, budget):
    """Ragged ends within a piece and a block, and chunks that begin within both; a budget beside a
    query block's own pieces."""
    chunks = (Chunk(0, 11 * piece + 5), Chunk(5 * piece + 3, 4 * piece), Chunk(0, 1))
    chunks = (*chunks, Chunk(3 * block + 1, 2), Chunk(2 * block, 2 * block))
    q = random_q(chunks, 3, DIM, scale=2)
    cache = random_cache(chunks, 2, DIM, page, paged=page > 0)
    budget += block // piece
    heads = entries(chunks, patterns_of(block, piece), budget, block=block)
    layout = lay_out(heads, chunks, block, piece_tokens=piece)
    check(q, cache, layout, select(q, cache, layout, use_triton=use_triton))


def check(q, cache, layout, indices):
    """That every list is as defined."""
    assert indices.dtype == torch.int32
    assert len(indices) == layout.stored
    for (entry, row), found in all_lists(layout, indices).items():
        assert found == defined(q, cache, layout, entry, row), layout.heads[entry]


@st.composite
def problems(draw):
    """Chunks, entries, block, piece, page (0 without) and a seed."""
    piece = draw(st.sampled_from([1, 4, 16]))
    block = piece * draw(st.sampled_from([1, 1, 2, 4]))
    sizes = st.tuples(st.integers(0, 60), st.integers(1, 60))
    chunks = tuple(Chunk(*pair) for pair in draw(st.lists(sizes, min_size=1, max_size=3)))
    pattern = st.sampled_from(patterns_of(block, piece))
    if block == piece:
        strided = st.builds(Rule.strided, st.integers(1, 4), st.integers(1, 4), st.just(0))
        pattern = st.one_of(pattern, strided)
    heads = []
    for _ in range(draw(st.integers(0, 4))):
        s = draw(st.integers(0, len(chunks) - 1))
        blocks = chunks[s].cached_tokens // block, -(-chunks[s].total_tokens // block)
        first = draw(st.integers(*blocks))
        last = draw(st.integers(first, blocks[1]))
        group, budget = draw(st.integers(0, 1)), draw(st.integers(1, 9))
        head = draw(st.integers(0, 2))
        heads.append(HeadBlocks(head, group, budget, first, last, s, draw(pattern)))
    page = piece * draw(st.sampled_from([0, 1, 2, 4]))
    return chunks, heads, block, piece, page, draw(st.integers(0, 99))


def solved(problem, head_dim, **options):
    """The layout of a problem and the lists selected for it."""
    chunks, heads, block, piece, page, seed = problem
    q = random_q(chunks, 3, head_dim, seed=seed)
    cache = random_cache(chunks, 2, head_dim, page, paged=page > 0, seed=seed)
    layout = lay_out(heads, chunks, block, piece_tokens=piece)
    return layout, select(q, cache, layout, **options)


@pytest.mark.parametrize("pattern", [Pooled(), VerticalSlash(6, 5), Sampled(3)], ids=repr)
def test_prompts_that_choose_nothing_may_be_as_long_as_they_like(pattern, monkeypatch):
    """Between others, more pieces than a row of scores has room for."""
    monkeypatch.setattr(top_pieces, "MOST_PIECES", 16)
    chunks = whole_prompts(12 * SIZE, 20 * SIZE, 16 * SIZE)
    q, cache = random_q(chunks, 1, DIM), random_cache(chunks, 1, DIM, SIZE)
    sizes = ((4, 12), (20, 20), (3, 16))
    heads = [
        HeadBlocks(0, 0, budget, 0, blocks, s, pattern) for s, (budget, blocks) in enumerate(sizes)
    ]
    layout = lay_out(heads, chunks, SIZE)
    indices = select(q, cache, layout, use_triton=True)
    for (entry, block), found in all_lists(layout, indices).items():
        assert found == defined(q, cache, layout, entry, block)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_lists_are_exactly_as_long_as_budgets_say_sorted_causal_and_hold_sink_and_own(problem):
    layout, indices = solved(problem, 8)
    first, last = layout.own_pieces(slice(None))
    for number, ((entry, row), chosen) in enumerate(all_lists(layout, indices).items()):
        rows = layout.heads[entry]
        grid = layout.grid(rows.sequence)
        assert len(chosen) == int(lengths(rows.pattern, rows.budget_pieces, row, row + 1, grid))
        assert chosen == sorted(set(chosen))
        own = list(range(int(first[number]), int(last[number]) + 1))
        assert chosen[-len(own) :] == own
        if by_budget(rows.pattern):
            assert len(chosen) == len(own) or chosen[0] == 0 or len(chosen) <= grid.per_block


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(problems())
def test_triton_selects_what_torch_selects(problem):
    _, wanted = solved(problem, 16)
    assert torch.equal(solved(problem, 16, use_triton=True)[1], wanted)


@BOTH
def test_a_range_selects_what_the_whole_head_selects(use_triton):
    chunks = whole_prompts(60)
    q, cache = random_q(chunks, 1, DIM), random_cache(chunks, 1, DIM, SIZE)
    for pattern in PATTERNS:
        parts = [HeadBlocks(0, 0, 3, 0, 5, 0, pattern), HeadBlocks(0, 0, 3, 5, 8, 0, pattern)]
        layouts = [lay_out(h, chunks, SIZE) for h in (parts, [replace(parts[1], first=0)])]
        split, whole = [all_lists(x, select(q, cache, x, use_triton=use_triton)) for x in layouts]
        assert list(split.values()) == list(whole.values())


@NO_WARNING
@BOTH
@pytest.mark.parametrize("pattern", [Pooled(), VerticalSlash(40, 1), Sampled(8)])
@pytest.mark.parametrize("value", [1e30, math.inf, math.nan])
@pytest.mark.parametrize("per_block", [1, 2])
def test_scores_that_overflow_cannot_push_out_own_and_sink_or_reach_the_future(
    use_triton, pattern, value, per_block
):
    chunks = whole_prompts(64)
    q, cache = random_q(chunks, 1, DIM), random_cache(chunks, 1, DIM, SIZE)
    q[0, 20], cache.keys[0, 5], cache.keys[0, 33] = value, -value, value
    rows = HeadBlocks(0, 0, 3, 0, 8 // per_block, 0, pattern)
    layout = lay_out([rows], chunks, SIZE * per_block, piece_tokens=SIZE)
    for (_, row), chosen in all_lists(
        layout, select(q, cache, layout, use_triton=use_triton)
    ).items():
        own = list(range(row * per_block, (row + 1) * per_block))
        assert len(set(chosen)) == min(3, own[-1] + 1)
        assert chosen == sorted(chosen)
        assert chosen[0] == 0
        assert chosen[-per_block:] == own


@BOTH
@pytest.mark.parametrize("broken", [0, 1])
def test_lists_that_share_a_program_do_not_share_what_overflows(use_triton, broken):
    chunks = whole_prompts(56, 56)
    q, cache = random_q(chunks, 1, DIM), random_cache(chunks, 1, DIM, SIZE)
    layout = lay_out([HeadBlocks(0, 0, 3, 4, 7, s) for s in (0, 1)], chunks, SIZE)
    wanted = select(q, cache, layout, use_triton=use_triton).view(2, -1)
    cache.keys[0, 56 * broken : 56 * (broken + 1)] = math.nan
    found = select(q, cache, layout, use_triton=use_triton).view(2, -1)
    assert found[1 - broken].tolist() == wanted[1 - broken].tolist()


@BOTH
def test_strided_tensors_select_as_contiguous_ones(use_triton):
    chunks = (Chunk(0, 25), Chunk(9, 15))
    q, cache = random_q(chunks, 3, DIM), random_cache(chunks, 2, DIM, SIZE)
    layout = lay_out(entries(chunks, PATTERNS, 2), chunks, SIZE)
    wanted = select(q, cache, layout, use_triton=use_triton)
    turn = lambda x: x.transpose(0, 1).contiguous().transpose(0, 1)  # noqa: E731
    turned = replace(cache, keys=turn(cache.keys))
    assert torch.equal(select(turn(q), turned, layout, use_triton=use_triton), wanted)


@BOTH
def test_the_blocks_of_a_page_table_may_have_any_stride(use_triton):
    chunks = (Chunk(0, 45), Chunk(43, 17), Chunk(0, 30))
    q, cache = random_q(chunks, 3, DIM), random_cache(chunks, 2, DIM, SIZE, paged=True)
    layout = lay_out(entries(chunks, PATTERNS, 3), chunks, SIZE)
    wanted = select(q, cache, layout)
    turned = transposed_table(cache)
    assert torch.equal(select(q, turned, layout, use_triton=use_triton), wanted)


def test_parts_of_heads_are_scored_against_no_keys_but_their_own_rows(monkeypatch):
    """A KV group's heads are scored together, whatever rows of each a device has."""
    scored, mm = [], torch.mm

    def watched(rows, columns, **options):
        scored.append((len(rows), columns.shape[1]))
        return mm(rows, columns, **options)

    monkeypatch.setattr(torch, "mm", watched)
    monkeypatch.setattr("executor.kernels.torch.scores.RUN_ROWS", 6)
    chunks = whole_prompts(16 * SIZE)
    q, cache = random_q(chunks, 2, DIM), random_cache(chunks, 1, DIM, SIZE)
    parts = [(0, 16), (8, 16)]
    heads = [HeadBlocks(h, 0, 2, *rows, 0, Sampled(3)) for h, rows in enumerate(parts)]
    select(q, cache, lay_out(heads, chunks, SIZE))
    # The first two query blocks hold all their pieces.
    wanted = [(6 if block >= 8 else 3, (block + 1) * SIZE) for block in range(2, 16)]
    assert sorted(scored) == sorted(wanted)


@BOTH
def test_few_entries_at_a_time_select_the_same(use_triton, monkeypatch):
    chunks = whole_prompts(60)
    q, cache = random_q(chunks, 3, DIM), random_cache(chunks, 1, DIM, SIZE)
    heads = [HeadBlocks(h, 0, 2 + h, 5, 8, 0, VerticalSlash(7, 1)) for h in range(3)]
    layout = lay_out(heads, chunks, SIZE)
    wanted = select(q, cache, layout, use_triton=use_triton)
    monkeypatch.setattr(vertical_slash, "SCORE_BYTES", 2 * 7 * 8 * vertical_slash.BYTES_PER_SCORE)
    assert vertical_slash.entries_at_once(7, 8) == 2
    assert torch.equal(select(q, cache, layout, use_triton=use_triton), wanted)


@BOTH
@pytest.mark.parametrize("pattern", PATTERNS)
def test_entries_without_rows_have_no_lists(use_triton, pattern):
    chunks = whole_prompts(60)
    q, cache = random_q(chunks, 1, DIM), random_cache(chunks, 1, DIM, SIZE)
    heads = [
        HeadBlocks(0, 0, 2, 8, 8, 0, pattern),
        HeadBlocks(0, 0, 2, 0, 8, 0, Rule.sink_local(1)),
    ]
    layout = lay_out(heads, chunks, SIZE)
    wanted = select(q, cache, lay_out(heads[1:], chunks, SIZE), use_triton=use_triton)
    assert torch.equal(select(q, cache, layout, use_triton=use_triton), wanted)


@BOTH
def test_nothing_is_stored_where_every_list_holds_every_block(use_triton):
    chunks = whole_prompts(30)
    layout = lay_out([HeadBlocks(0, 0, 4, 0, 4), HeadBlocks(0, 0, 1, 2, 2)], chunks, SIZE)
    q, cache = random_q(chunks, 1, DIM), random_cache(chunks, 1, DIM, SIZE)
    assert select(q, cache, layout, use_triton=use_triton).shape == (0,)


@pytest.mark.parametrize("offset", [3, 4])
def test_an_offset_that_is_no_remainder_by_the_stride_is_refused(offset):
    """Of the pieces b with b % stride == offset there would be none."""
    with pytest.raises(ValueError, match=rf"offset: {offset} must be less than the stride, 3"):
        Rule.strided(2, stride=3, offset=offset)
