import math
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.kernels.batch import Cache, Chunk
from executor.kernels.bounds import page_bounds
from executor.kernels.decode_layout import DecodeHeads, lay_out_decode
from executor.kernels.layout import ALL_PIECES
from executor.kernels.patterns import EVERY, Pooled, Rule, Sampled, VerticalSlash
from executor.kernels.select_decode import select_decode

from .cpu_cases import by_products
from .reference import (
    contexts,
    random_cache,
    random_q,
    sequence_kv,
    transposed_table,
    whole_prompts,
)

BOTH = pytest.mark.parametrize("use_triton", ["compiled", "products", "triton"], indirect=True)
SIZE, DIM, MOST = 8, 16, 10
PATTERNS = [Pooled(), VerticalSlash(), Sampled(), Rule.sink_local(2), Rule.strided(2, 3)]


@pytest.fixture
def use_triton(request):
    with by_products() if request.param == "products" else nullcontext():
        yield request.param == "triton"


def defined(q, cache, entry, context, budget, stored, size=SIZE):
    """An entry's whole list of pieces of `size` as defined, from its keys, in float64."""
    pieces = -(-context // size)
    if not pieces or not stored:
        return list(range(pieces))
    newest, length = pieces - 1, min(budget, pieces)
    match entry.pattern:
        case Rule(sinks) if sinks < EVERY:
            sink = list(range(min(sinks, length - 1)))
            return sorted({*sink, *range(newest - length + len(sink) + 1, newest + 1)})
        case Rule(_, local, stride, offset):
            near = [p for p in range(pieces) if p > newest - local][-budget:]
            far = [p for p in range(max(0, pieces - local)) if p % stride == offset]
            return far[: max(0, budget - len(near))] + near
    keys, _ = sequence_kv(cache, entry.sequence, entry.group, context)
    joint = torch.zeros(pieces, dtype=torch.float64)
    for head in entry.heads:
        products = keys * q[head, entry.token].double()
        scores = torch.stack([piece.amax(0).sum() for piece in products.split(size)])
        joint += (scores / math.sqrt(DIM)).nan_to_num(0.0).softmax(0)
    others = sorted(range(1, newest), key=lambda p: -float(joint[p]))
    return sorted([newest, *[0][: newest > 0], *others][:length])


def check(q, cache, layout, context, lists):
    for number, entry in enumerate(layout.lists):
        start, budget = int(layout.start[number]), int(layout.budget[number])
        here = int(context[entry.sequence])
        wanted = defined(q, cache, entry, here, budget, start != ALL_PIECES, layout.piece_tokens)
        first, end = (math.floor(part * len(wanted) + 0.5) for part in entry.part)
        assert int(lists.first[number]) == first
        assert int(lists.count[number]) == end - first
        if start != ALL_PIECES:
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
    return chunks, lists, draw(st.sampled_from([1, 2, 4])), draw(st.integers(0, 99))


def run(problem, use_triton):
    chunks, lists, per_page, seed = problem
    q = random_q(chunks, 8, DIM, seed=seed)
    page = SIZE * per_page
    cache = random_cache(chunks, 2, DIM, page, paged=True, seed=seed)
    bounds = page_bounds(cache, contexts(chunks), SIZE)
    layout = lay_out_decode(lists, MOST, SIZE)
    # Behind a sequence's last page the table has room, and nothing that is a page.
    count = torch.tensor([-(-c.total_tokens // page) for c in chunks])
    pages = torch.full((len(chunks), MOST), 2**30, dtype=torch.int32)
    real = torch.arange(cache.pages.shape[1]) < count[:, None]
    pages[:, : real.shape[1]][real] = cache.pages[real]
    cache = replace(cache, pages=pages)
    context = contexts(chunks)
    found = select_decode(q, bounds, cache, layout, context, use_triton=use_triton)
    check(q, cache, layout, context, found)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_lists_and_parts_are_what_is_defined(problem):
    run(problem, use_triton=False)
    with by_products():
        run(problem, use_triton=False)


@settings(max_examples=12, deadline=None)
@given(problems())
def test_lists_and_parts_are_what_is_defined_in_triton(problem):
    run(problem, use_triton=True)


@BOTH
@pytest.mark.parametrize("per_page", [1, 2])
def test_one_layout_serves_a_growing_sequence_and_one_that_left(use_triton, per_page):
    chunks = (Chunk(39, 1), Chunk(69, 1))
    q, cache = random_q(chunks, 2, DIM), random_cache(chunks, 1, DIM, SIZE * per_page, paged=True)
    kinds = [Pooled(), Rule.sink_local(), Rule.strided(1, 2)]
    lists = [DecodeHeads(s, s, 0, (0, 1), 3, (0.0, 0.5), p) for p in kinds for s in (0, 1)]
    lists += [DecodeHeads(s, s, 0, (1,), MOST) for s in (0, 1)]
    layout = lay_out_decode(lists, MOST, SIZE)
    for tokens in ([1, 8], [9, 17], [40, 70], [0, 33]):
        context = torch.tensor(tokens, dtype=torch.int32)
        bounds = page_bounds(cache, context, SIZE)
        found = select_decode(q, bounds, cache, layout, context, use_triton=use_triton)
        check(q, cache, layout, context, found)
        if tokens[0] == 0:
            assert found.count[::2].tolist() == [0] * 4


@BOTH
def test_the_pages_of_a_table_may_have_any_stride(use_triton):
    chunks = (Chunk(39, 1), Chunk(69, 1), Chunk(20, 1))
    q, cache = random_q(chunks, 2, DIM), random_cache(chunks, 1, DIM, SIZE, paged=True)
    bounds, context = page_bounds(cache, contexts(chunks)), contexts(chunks)
    layout = lay_out_decode([DecodeHeads(s, s, 0, (0, 1), 3) for s in range(3)], 9, SIZE)
    turned = transposed_table(cache)
    found = select_decode(q, bounds, turned, layout, context, use_triton=use_triton)
    check(q, cache, layout, context, found)


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


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@BOTH
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_piece_with_a_key_that_is_no_number_harms_no_other(use_triton, value):
    chunks = (Chunk(76, 1),)
    cache, context = random_cache(chunks, 1, DIM, SIZE, paged=True), contexts(chunks)
    for sign in (1.0, -1.0):
        q = random_q(chunks, 2, DIM)
        q[:, :, 2] = sign
        cache.keys[cache.pages[0, 4], 0, 5, 2] = value
        layout = lay_out_decode([DecodeHeads(0, 0, 0, (0, 1), 4)], MOST, SIZE)
        bounds = page_bounds(cache, context, use_triton=use_triton)
        lists = select_decode(q, bounds, cache, layout, context, use_triton=use_triton)
        found = lists.indices.tolist()
        if value * sign == math.inf:
            assert 4 in found
            continue
        # Its score counts as 0, which is less than what the others' bounds make.
        clean = replace(cache, keys=cache.keys.clone())
        clean.keys[cache.pages[0, 4]] = 0.0
        assert found == defined(q, clean, layout.lists[0], 77, 4, stored=True)


def needle(pages):
    """Keys [pages, 1, SIZE, DIM] along q = e_0: page 3 holds one key that q looks for among keys
    that point away from it, the others keys that are all a little like q."""
    keys = torch.zeros(pages, 1, SIZE, DIM)
    keys[..., 0] = torch.linspace(0.5, 1.0, pages)[:, None, None]
    keys[3, 0, :, 0], keys[3, 0, 5, 0] = -2.0, 8.0
    return keys


@BOTH
def test_a_needle_that_a_mean_loses_is_found(use_triton):
    chunks = whole_prompts(9 * SIZE)
    keys, pages = needle(9), torch.arange(9, dtype=torch.int32)[None]
    q = torch.zeros(1, 1, DIM)
    q[..., 0] = math.sqrt(DIM)
    by_mean = (keys.mean(2)[:, 0] @ q[0, 0])[1:-1]
    assert int(by_mean.argmin()) + 1 == 3
    weight = (keys[:, 0] @ q[0, 0] / math.sqrt(DIM)).flatten().softmax(0)
    assert weight[3 * SIZE + 5] > 0.9
    cache = Cache(keys, keys, pages=pages)
    layout = lay_out_decode([DecodeHeads(0, 0, 0, (0,), 3)], 9, SIZE)
    bounds = page_bounds(cache, contexts(chunks), use_triton=use_triton)
    assert bounds[3, 0, :, 0].tolist() == [-2.0, 8.0]
    found = select_decode(q, bounds, cache, layout, contexts(chunks), use_triton=use_triton)
    assert found.indices.tolist() == [0, 3, 8]
    # Looked for from the other side, the page's other keys are what its lower bound stands for.
    found = select_decode(-q, bounds, cache, layout, contexts(chunks), use_triton=use_triton)
    assert found.indices.tolist() == [0, 3, 8]
    keys[3, 0, :, 0] = 0.75
    bounds = page_bounds(cache, contexts(chunks), use_triton=use_triton)
    found = select_decode(q, bounds, cache, layout, contexts(chunks), use_triton=use_triton)
    assert found.indices.tolist() == [0, 7, 8]


@BOTH
def test_heads_that_look_for_different_needles_both_find_theirs(use_triton):
    """The louder one, by eight times, does not decide alone."""
    chunks = whole_prompts(9 * SIZE)
    keys = torch.randn(9, 1, SIZE, DIM, generator=torch.Generator().manual_seed(0)) / 8
    keys[3, 0, 5, 0], keys[6, 0, 2, 1] = 4.0, 4.0
    q = torch.zeros(2, 1, DIM)
    q[0, 0, 0], q[1, 0, 1] = 2 * math.sqrt(DIM), 16 * math.sqrt(DIM)
    cache = Cache(keys, keys, pages=torch.arange(9, dtype=torch.int32)[None])
    layout = lay_out_decode([DecodeHeads(0, 0, 0, (0, 1), 4)], 9, SIZE)
    bounds = page_bounds(cache, contexts(chunks), use_triton=use_triton)
    found = select_decode(q, bounds, cache, layout, contexts(chunks), use_triton=use_triton)
    assert found.indices.tolist() == [0, 3, 6, 8]
