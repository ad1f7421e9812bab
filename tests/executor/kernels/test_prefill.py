"""Prefill against the definition: outputs full of NaN first, rows that no list computes keep it."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from executor.attention.lists import lay_out
from executor.kernels.batch import Cache, Chunk, as_pages
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import POOLED, Rule
from executor.kernels.select import select
from executor.kernels.triton import prefill as module
from executor.kernels.triton.prefill import describable, launch_options
from tests.executor.kernels.prefill_cases import (
    assert_right,
    caches,
    computed,
    each,
    loads,
    rows_of,
    skewed_heads,
)
from tests.executor.kernels.reference import (
    prefill_reference,
    random_cache,
    random_indices,
    random_q,
    relative_error,
    transposed_table,
    whole_prompts,
)


@pytest.fixture
def in_parts(monkeypatch):
    """A key block is read in quarters, as where registers are short."""

    def options(*arguments):
        usual = launch_options(*arguments)
        return usual | {"KEYS": usual["BLOCK"] // 4}

    monkeypatch.setattr(module, "launch_options", options)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize(
    ("tokens", "block", "head_dim"), [(65, 16, 64), (129, 64, 32), (70, 32, 16), (1, 16, 16)]
)
def test_every_length_block_and_type(tma, paged, dtype, tokens, block, head_dim):
    chunks = whole_prompts(tokens)
    q = random_q(chunks, 2, head_dim, dtype=dtype)
    cache = random_cache(chunks, 1, head_dim, block, paged=paged, dtype=dtype)
    rows = rows_of(chunks[0], block)
    layout = lay_out([HeadBlocks(0, 0, 2, *rows), HeadBlocks(1, 0, 99, *rows)], chunks, block)
    assert_right(q, cache, layout, random_indices(layout), tma=tma)


@each
@pytest.mark.parametrize("sms", [None, 3], ids=["grid", "queue"])
def test_ragged_batch_of_whole_prompts_and_chunks_after_a_prefix(tma, paged, sms):
    chunks = (Chunk(0, 37), Chunk(48, 16), Chunk(21, 30), Chunk(35, 1))
    q = random_q(chunks, 3, 16)
    cache = random_cache(chunks, 2, 16, 16, paged=paged)
    layout = lay_out(skewed_heads(chunks, 16, 3, 2), chunks, 16)
    assert_right(q, cache, layout, random_indices(layout), tma=tma, sms=sms)


@loads
@caches
@pytest.mark.usefixtures("in_parts")
def test_key_blocks_in_parts_end_anywhere(tma, paged):
    chunks = (Chunk(70, 91), Chunk(0, 64), Chunk(0, 65), Chunk(60, 20))
    q = random_q(chunks, 2, 16)
    cache = random_cache(chunks, 1, 16, 64, paged=paged)
    layout = lay_out(skewed_heads(chunks, 64, 2, 1), chunks, 64)
    assert_right(q, cache, layout, random_indices(layout), tma=tma)


@pytest.mark.parametrize("page", [None, 16, 64], ids=["contiguous", "pages16", "pages64"])
@pytest.mark.parametrize(("block", "piece"), [(64, 16), (32, 16), (128, 64)])
def test_pieces_shorter_than_blocks(block, piece, page):
    """Ragged ends, chunks that begin inside a block, lists no multiple of a step."""
    if page is not None and page % piece:
        pytest.skip("a page holds whole pieces")
    chunks = (Chunk(0, 2 * block + 21), Chunk(block + 7, block + 2), Chunk(0, 1), Chunk(0, 64))
    q = random_q(chunks, 3, 16)
    cache = random_cache(chunks, 1, 16, page or 16, paged=page is not None)
    heads = [
        HeadBlocks(head, 0, budget, *rows_of(chunk, block), sequence=s)
        for s, chunk in enumerate(chunks)
        for head, budget in enumerate((1, block // piece + 1, 99))
    ]
    for programs in (None, 64):
        layout = lay_out(heads, chunks, block, programs=programs, piece_tokens=piece)
        assert_right(q, cache, layout, random_indices(layout))


@each
@pytest.mark.parametrize("sms", [None, 2], ids=["grid", "queue"])
def test_two_heads_that_share_a_list_in_one_program(tma, paged, sms):
    """Dense, equal rules and lists still shorter than their budgets; what is alone stays alone."""
    chunks = (Chunk(0, 70), Chunk(33, 30))
    q, cache = random_q(chunks, 7, 16), random_cache(chunks, 2, 16, 16, paged=paged)
    kinds = [
        (99, POOLED),
        (99, Rule.sink_local()),
        (2, POOLED),
        (2, Rule.sink_local()),
        (2, Rule.sink_local()),
    ]
    kinds += [(2, Rule.sink_local(2)), (2, Rule.sink_local())]
    heads = [
        HeadBlocks(head, int(head == 6), budget, *rows_of(chunk, 16), sequence, pattern)
        for sequence, chunk in enumerate(chunks)
        for head, (budget, pattern) in enumerate(kinds)
    ]
    layout = lay_out(heads, chunks, 16, pack=True)
    indices = torch.empty(layout.stored, dtype=torch.int32)
    chosen = lay_out(heads, chunks, 16)
    indices.copy_(select(q, cache, chosen))
    pairs = [(layout.entry[a], layout.entry[b]) for a, b in layout.pairs.tolist()]
    found = {(int(a) % 7, int(b) % 7) for a, b in pairs}
    assert {(0, 1), (3, 4)} <= found
    assert not any(6 in pair for pair in found)
    rows = torch.cat([layout.pairs.flatten(), layout.order]).sort().values
    assert rows.tolist() == list(range(layout.lists))
    assert layout.tasks == len(layout.pairs) + len(layout.order) < layout.lists
    twice = int(layout.length[layout.pairs[:, 0]].sum())
    assert twice > 0
    assert layout.pieces_read == layout.tiles - twice
    assert_right(q, cache, layout, indices, tma=tma, sms=sms)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_two_heads_that_do_not_fit_a_program_together_are_computed_apart(dtype, monkeypatch):
    """What fp32 keeps of head_dim 256 leaves no room for a second head's 64 rows."""
    chunks, packed, launched = (Chunk(0, 64),), [], module.prefill_kernel

    class Launcher:
        def __getitem__(self, grid):
            def launch(*arguments, **options):
                packed.append(options["PACK"])
                launched[grid](*arguments, **options)

            return launch

    monkeypatch.setattr(module, "prefill_kernel", Launcher())
    q = random_q(chunks, 2, 256, dtype=dtype)
    cache = random_cache(chunks, 1, 256, 64, paged=False, dtype=dtype)
    layout = lay_out([HeadBlocks(h, 0, 1, 0, 1) for h in range(2)], chunks, 64, pack=True)
    assert len(layout.pairs) == 1
    assert_right(q, cache, layout, torch.empty(0, dtype=torch.int32))
    assert packed == [1 if dtype == torch.float32 else 2]


def test_cut_lists_of_pieces_off_a_queue():
    chunks = (Chunk(500, 30), Chunk(0, 40))
    q, cache = random_q(chunks, 2, 16), random_cache(chunks, 1, 16, 16, paged=True)
    heads = [
        HeadBlocks(h, 0, 20 + h, *rows_of(c, 32), s) for h in (0, 1) for s, c in enumerate(chunks)
    ]
    layout = lay_out(heads, chunks, 32, programs=9, piece_tokens=16)
    assert layout.splits
    assert_right(q, cache, layout, random_indices(layout), sms=2)


def test_a_part_that_ends_within_a_step_masks_what_the_step_has_beyond_it():
    """Parts of 11 or 12 pieces in steps of 32 keys, of which the first parts hold no own piece."""
    chunks = (Chunk(544 - 32, 32),)
    q, cache = random_q(chunks, 1, 16), random_cache(chunks, 1, 16, 16)
    heads = [HeadBlocks(0, 0, 99, 16, 17)]
    layout = lay_out(heads, chunks, 32, programs=3, piece_tokens=16)
    assert layout.parts.table[:, 2].tolist() == [12, 11, 11]
    for tma in (None, True):
        assert_right(q, cache, layout, random_indices(layout), tma=tma)


@pytest.mark.parametrize(("query_heads", "groups"), [(8, 1), (5, 2), (3, 3), (7, 4)])
def test_any_number_of_query_heads_per_kv_head_each_with_its_budget(query_heads, groups):
    chunks = whole_prompts(52)
    q = random_q(chunks, query_heads, 16, seed=query_heads)
    cache = random_cache(chunks, groups, 16, 16, paged=True)
    heads = skewed_heads(chunks, 16, query_heads, groups)[::-1]
    layout = lay_out(heads, chunks, 16)
    assert_right(q, cache, layout, random_indices(layout))


def test_row_ranges_are_computed_and_nothing_else():
    chunks = whole_prompts(90, 33)
    q, cache = random_q(chunks, 3, 16), random_cache(chunks, 2, 16, 16)
    heads = [
        HeadBlocks(0, 0, 2, 0, 2),
        HeadBlocks(1, 1, 6, 3, 6),
        HeadBlocks(2, 0, 3, 4, 4),
        HeadBlocks(2, 1, 9, 1, 2, sequence=1, pattern=Rule.strided(1, 2)),
    ]
    layout = lay_out(heads, chunks, 16)
    assert_right(q, cache, layout, random_indices(layout))


def test_row_ranges_recombine_to_the_whole_head():
    chunks = whole_prompts(120)
    q, cache = random_q(chunks, 1, 16), random_cache(chunks, 1, 16, 16)
    heads = [HeadBlocks(0, 0, 99, first, last) for first, last in pairwise((0, 3, 4, 8))]
    none = torch.empty(0, dtype=torch.int32)
    whole = computed(q, cache, lay_out([HeadBlocks(0, 0, 99, 0, 8)], chunks, 16), none)
    parts = computed(q, cache, lay_out(heads, chunks, 16), none)
    for part, full in zip(parts, whole, strict=True):
        assert torch.equal(part, full)


@loads
@pytest.mark.parametrize("scale", [30.0, 1e-4])
def test_huge_and_tiny_logits(tma, scale):
    chunks = whole_prompts(60)
    q = random_q(chunks, 2, 32, scale=scale)
    cache = random_cache(chunks, 1, 32, 16, scale=scale)
    layout = lay_out([HeadBlocks(0, 0, 4, 0, 4), HeadBlocks(1, 0, 2, 0, 4)], chunks, 16)
    indices = random_indices(layout)
    out, lse = computed(q, cache, layout, indices, tma=tma)
    wanted, wanted_lse = prefill_reference(q, cache, layout, indices)
    # A logit in the thousands carries an absolute error that its exponential turns relative.
    logits = (q.double() @ cache.keys[0].double().T).abs().max() / 32**0.5
    assert relative_error(out, wanted) < 1e-5 + 1e-6 * logits
    assert relative_error(lse, wanted_lse) < 1e-5


@loads
def test_garbage_between_contiguous_sequences_does_not_leak(tma):
    chunks = (Chunk(10, 23), Chunk(0, 17), Chunk(0, 40))
    q, packed = random_q(chunks, 2, 16), random_cache(chunks, 1, 16, 16)
    apart = [torch.full((1, 150, 16), torch.nan) for _ in range(2)]
    starts = torch.tensor([3, 60, 99], dtype=torch.int32)
    for chunk, old, new in zip(chunks, packed.starts.tolist(), starts.tolist(), strict=True):
        for x, y in zip(apart, (packed.keys, packed.values), strict=True):
            x[:, new : new + chunk.total_tokens] = y[:, old : old + chunk.total_tokens]
    layout = lay_out(skewed_heads(chunks, 16, 2, 1), chunks, 16)
    indices = random_indices(layout)
    assert_right(q, Cache(*apart, starts=starts), layout, indices, tma=tma)


@loads
def test_contiguous_cache_seen_as_pages_gives_the_same_bits(tma):
    chunks = (Chunk(0, 30), Chunk(20, 20))
    q = random_q(chunks, 2, 16)
    cache = Cache(*torch.randn(2, 1, 80, 16), starts=torch.tensor([0, 32], dtype=torch.int32))
    layout = lay_out(skewed_heads(chunks, 16, 2, 1), chunks, 16)
    indices = random_indices(layout)
    direct = computed(q, cache, layout, indices, tma=tma)
    paged = computed(q, as_pages(cache, chunks, 16), layout, indices, tma=tma)
    for a, b in zip(direct, paged, strict=True):
        assert torch.equal(a, b)


@caches
@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["token-major", "dim-major"])
def test_any_strides(paged, order):
    """Token-major tensors by descriptors, dim-major ones by pointers, without being told."""

    def restrided(x):
        left, right = (-2, -3) if order == (0, 1) else (-2, -1)
        return x.transpose(left, right).contiguous().transpose(left, right)

    chunks = whole_prompts(50, 21)
    q, cache = random_q(chunks, 3, 16), random_cache(chunks, 2, 16, 16, paged=paged)
    q, keys, values = (restrided(x) for x in (q, cache.keys, cache.values))
    assert describable(keys) == (order == (0, 1))
    layout = lay_out(skewed_heads(chunks, 16, 3, 2), chunks, 16)
    strided = replace(transposed_table(cache) if paged else cache, keys=keys, values=values)
    assert_right(q, strided, layout, random_indices(layout))


def test_only_aligned_rows_are_described():
    x = torch.zeros(2, 8, 16)
    assert describable(x)
    assert not describable(x.transpose(1, 2))
    assert not describable(x[..., 1:])
    assert not describable(torch.zeros(2, 8, 64)[..., ::4])
    assert not describable(torch.zeros(2, 8, 18)[..., :16])
    assert not describable(x[:1].expand(2, 8, 16))
    assert not describable(x[:, :0])


def test_pages_beyond_the_reach_of_int32():
    """Their memory is never touched but for two pages of the pool."""
    block, head_dim, page = 16, 16, 16 * 16
    far = 2**31 // page + 3
    pool = torch.empty((far + 1) * page, dtype=torch.float16).view(far + 1, 1, block, head_dim)
    chunks = (Chunk(0, 30),)
    small = random_cache(chunks, 1, head_dim, block, paged=True, dtype=torch.float16)
    places = [1, far]
    for block_number, place in enumerate(places):
        pool[place] = small.keys[small.pages[0, block_number]]
    pages = torch.tensor([places], dtype=torch.int32)
    q = random_q(chunks, 1, head_dim, dtype=torch.float16)
    layout = lay_out([HeadBlocks(0, 0, 2, 0, 2)], chunks, block)
    none = torch.empty(0, dtype=torch.int32)
    for tma in (False, True):
        assert_right(q, Cache(pool, pool, pages=pages), layout, none, tma=tma)


@pytest.mark.slow
@each
@pytest.mark.parametrize(("block", "head_dim"), [(128, 64), (128, 128), (64, 256), (128, 256)])
def test_production_blocks_and_head_dims(tma, paged, block, head_dim):
    chunks = (Chunk(0, 2 * block + 5), Chunk(block + 3, 40))
    q = random_q(chunks, 2, head_dim, dtype=torch.float16)
    cache = random_cache(chunks, 1, head_dim, block, paged=paged, dtype=torch.float16)
    layout = lay_out(skewed_heads(chunks, block, 2, 1), chunks, block)
    assert_right(q, cache, layout, random_indices(layout), tma=tma)
