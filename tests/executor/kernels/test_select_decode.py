import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.kernels.batch import Chunk
from executor.kernels.bounds import page_bounds
from executor.kernels.decode_layout import DecodeHeads, lay_out_decode
from executor.kernels.layout import ALL_BLOCKS
from executor.kernels.patterns import Pooled, SinkLocal, Strided, VerticalSlash
from executor.kernels.select_decode import select_decode

from .reference import contexts, random_cache, random_q, transposed_table

BOTH = pytest.mark.parametrize("use_triton", [False, True], ids=["torch", "triton"])
SIZE, DIM, MOST = 8, 16, 10
PATTERNS = [Pooled(), VerticalSlash(), SinkLocal(2), Strided(2, 3)]


def defined(q, bounds, cache, entry, context, budget, stored):
    """An entry's whole list as defined, in float64."""
    blocks = -(-context // SIZE)
    if not blocks or not stored:
        return list(range(blocks))
    row, length = blocks - 1, min(budget, blocks)
    match entry.pattern:
        case SinkLocal(sinks):
            sink = list(range(min(sinks, length - 1)))
            return sorted({*sink, *range(row - length + len(sink) + 1, row + 1)})
        case Strided(local, stride, offset):
            near = [b for b in range(blocks) if b > row - local][-budget:]
            far = [b for b in range(max(0, blocks - local)) if b % stride == offset]
            return far[: max(0, budget - len(near))] + near
    pages = cache.pages[entry.sequence, :blocks].long()
    joint = torch.zeros(blocks, dtype=torch.float64)
    for head in entry.heads:
        products = bounds[pages, entry.group].double() * q[head, entry.token].double()
        scores = products.amax(1).sum(1) / math.sqrt(DIM)
        joint += scores.nan_to_num(0.0).softmax(0)
    others = sorted(range(1, row), key=lambda b: -float(joint[b]))
    return sorted([row, *[0][: row > 0], *others][:length])


def check(q, bounds, cache, layout, context, lists):
    for number, entry in enumerate(layout.lists):
        start, budget = int(layout.start[number]), int(layout.budget[number])
        here = int(context[entry.sequence])
        wanted = defined(q, bounds, cache, entry, here, budget, start != ALL_BLOCKS)
        first, end = (math.floor(part * len(wanted) + 0.5) for part in entry.part)
        assert int(lists.first[number]) == first
        assert int(lists.count[number]) == end - first
        if start != ALL_BLOCKS:
            assert lists.indices[start : start + len(wanted)].tolist() == wanted, entry


@st.composite
def problems(draw):
    tokens = draw(st.lists(st.integers(1, MOST * SIZE), min_size=1, max_size=3))
    chunks = tuple(Chunk(t - 1, 1) for t in tokens)
    lists = []
    for _ in range(draw(st.integers(1, 5))):
        s = draw(st.integers(0, len(chunks) - 1))
        heads = tuple(draw(st.lists(st.integers(0, 7), min_size=1, max_size=8, unique=True)))
        cuts = st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 2 / 3, 0.7, 1.0])
        part = tuple(sorted((draw(cuts), draw(cuts))))
        group, budget = draw(st.integers(0, 1)), draw(st.integers(1, MOST + 2))
        lists.append(DecodeHeads(s, s, group, heads, budget, part, draw(st.sampled_from(PATTERNS))))
    return chunks, lists, draw(st.integers(0, 99))


def run(problem, use_triton):
    chunks, lists, seed = problem
    q = random_q(chunks, 8, DIM, seed=seed)
    cache = random_cache(chunks, 2, DIM, SIZE, paged=True, seed=seed)
    bounds = page_bounds(cache, contexts(chunks))
    layout = lay_out_decode(lists, MOST, SIZE)
    # Behind a sequence's last block the table has room, and nothing that is a page.
    blocks = torch.tensor([-(-c.total_tokens // SIZE) for c in chunks])
    pages = torch.full((len(chunks), MOST), 2**30, dtype=torch.int32)
    real = torch.arange(cache.pages.shape[1]) < blocks[:, None]
    pages[:, : real.shape[1]][real] = cache.pages[real]
    cache = replace(cache, pages=pages)
    context = contexts(chunks)
    found = select_decode(q, bounds, cache, layout, context, use_triton=use_triton)
    check(q, bounds, cache, layout, context, found)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_lists_and_parts_are_what_is_defined(problem):
    run(problem, use_triton=False)


@settings(max_examples=12, deadline=None)
@given(problems())
def test_lists_and_parts_are_what_is_defined_in_triton(problem):
    run(problem, use_triton=True)


@BOTH
def test_one_layout_serves_a_growing_sequence_and_one_that_left(use_triton):
    chunks = (Chunk(39, 1), Chunk(69, 1))
    q, cache = random_q(chunks, 2, DIM), random_cache(chunks, 1, DIM, SIZE, paged=True)
    bounds = page_bounds(cache, contexts(chunks))
    kinds = [Pooled(), SinkLocal(), Strided(1, 2)]
    lists = [DecodeHeads(s, s, 0, (0, 1), 3, (0.0, 0.5), p) for p in kinds for s in (0, 1)]
    lists += [DecodeHeads(s, s, 0, (1,), MOST) for s in (0, 1)]
    layout = lay_out_decode(lists, MOST, SIZE)
    for tokens in ([1, 8], [9, 17], [40, 70], [0, 33]):
        context = torch.tensor(tokens, dtype=torch.int32)
        found = select_decode(q, bounds, cache, layout, context, use_triton=use_triton)
        check(q, bounds, cache, layout, context, found)
        if tokens[0] == 0:
            assert found.count[::2].tolist() == [0] * 4


@BOTH
def test_the_blocks_of_a_page_table_may_have_any_stride(use_triton):
    chunks = (Chunk(39, 1), Chunk(69, 1), Chunk(20, 1))
    q, cache = random_q(chunks, 2, DIM), random_cache(chunks, 1, DIM, SIZE, paged=True)
    bounds, context = page_bounds(cache, contexts(chunks)), contexts(chunks)
    layout = lay_out_decode([DecodeHeads(s, s, 0, (0, 1), 3) for s in range(3)], 9, SIZE)
    turned = transposed_table(cache)
    found = select_decode(q, bounds, turned, layout, context, use_triton=use_triton)
    check(q, bounds, cache, layout, context, found)


@BOTH
def test_parts_that_meet_divide_a_list_without_gap_or_overlap(use_triton):
    chunks = (Chunk(76, 1),)
    q, cache = random_q(chunks, 2, DIM), random_cache(chunks, 1, DIM, SIZE, paged=True)
    cuts = [0.0, 0.05, 0.35, 0.5, 0.5, 0.9, 1.0]
    for budget in (3, 7, MOST):
        parts = [DecodeHeads(0, 0, 0, (0, 1), budget, p) for p in pairwise(cuts)]
        layout = lay_out_decode(parts, MOST, SIZE)
        found = select_decode(
            q,
            page_bounds(cache, contexts(chunks)),
            cache,
            layout,
            torch.tensor([77], dtype=torch.int32),
            use_triton=use_triton,
        )
        begin, end = found.first.tolist(), (found.first + found.count).tolist()
        assert begin == [0, *end[:-1]]
        assert end[-1] == min(budget, 10)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@BOTH
@pytest.mark.parametrize("value", [1e38, math.inf, math.nan])
def test_scores_that_overflow_cannot_push_out_the_first_and_the_newest(use_triton, value):
    chunks = (Chunk(76, 1),)
    q, cache = random_q(chunks, 2, DIM), random_cache(chunks, 1, DIM, SIZE, paged=True)
    bounds = page_bounds(cache, contexts(chunks))
    q[1, 0], bounds[cache.pages[0, 4]] = value, value
    layout = lay_out_decode([DecodeHeads(0, 0, 0, (0, 1), 4)], MOST, SIZE)
    context = torch.tensor([77], dtype=torch.int32)
    found = select_decode(q, bounds, cache, layout, context, use_triton=use_triton).indices.tolist()
    assert found == sorted(set(found))
    assert (found[0], found[-1], len(found)) == (0, 9, 4)
