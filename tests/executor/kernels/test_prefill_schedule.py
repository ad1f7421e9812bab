"""How prefill's lists are run: by a queue, in pieces, or not at all."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from executor.attention.lists import lay_out
from executor.kernels.batch import Chunk
from executor.kernels.layout import HeadBlocks
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
    random_cache,
    random_indices,
    random_q,
    relative_error,
    whole_prompts,
)


@loads
@pytest.mark.parametrize("kept", ["nothing", "a later block"])
def test_an_empty_list_and_masked_rows_give_zero_and_minus_infinity(tma, kept):
    chunks = whole_prompts(64)
    q, cache = random_q(chunks, 1, 16), random_cache(chunks, 1, 16, 16, paged=True)
    unused = next(page for page in range(6) if page not in cache.pages)
    # What lies before a sequence's first page is no business of an empty list.
    pages = torch.cat([torch.tensor([[unused]], dtype=torch.int32), cache.pages], 1)[:, 1:]
    layout = lay_out([HeadBlocks(0, 0, 1, 0, 4)], chunks, 16)
    indices = random_indices(layout)
    if kept == "nothing":
        layout = replace(layout, length=layout.length.index_fill(0, torch.tensor([2]), 0))
    else:
        indices[layout.start[2]] = 3
    out, lse = computed(q, replace(cache, pages=pages), layout, indices, tma=tma)
    hit = torch.arange(64) // 16 == 2
    assert (out[0, hit] == 0).all()
    assert (lse[0, hit] == -torch.inf).all()
    assert out[0, ~hit].isfinite().all()
    assert lse[0, ~hit].isfinite().all()


@caches
def test_a_share_of_the_multiprocessors_gives_the_same_bits(paged):
    chunks = (Chunk(0, 40), Chunk(33, 20))
    q, cache = random_q(chunks, 3, 16), random_cache(chunks, 1, 16, 16, paged=paged)
    layout = lay_out(skewed_heads(chunks, 16, 3, 1), chunks, 16)
    indices = random_indices(layout)
    whole = computed(q, cache, layout, indices)
    for sms in (1, 1000):
        for a, b in zip(computed(q, cache, layout, indices, sms=sms), whole, strict=True):
            assert torch.equal(a, b)


@each
@pytest.mark.parametrize("sms", [None, 2], ids=["grid", "queue"])
def test_cut_lists_merge_to_the_whole(tma, paged, sms):
    chunks = (Chunk(285, 3), Chunk(0, 20), Chunk(150, 6))
    q = random_q(chunks, 2, 16)
    cache = random_cache(chunks, 2, 16, 16, paged=paged)
    heads = [
        HeadBlocks(head, head, budget, *rows_of(chunk, 16), sequence=s)
        for (s, chunk), (head, budget) in product(enumerate(chunks), [(0, 99), (1, 9)])
    ]
    whole = lay_out(heads, chunks, 16)
    cut = lay_out(heads, chunks, 16, programs=32)
    assert cut.splits == 3 + 2 + 2 + 2
    assert cut.longest < whole.longest
    indices = random_indices(whole)
    parts = assert_right(q, cache, cut, indices, tma=tma, sms=sms)
    for part, full in zip(parts, computed(q, cache, whole, indices, tma=tma), strict=True):
        assert relative_error(part, full.double()) < 1e-6


def test_nothing_to_compute():
    chunks = whole_prompts(20)
    q, cache = random_q(chunks, 1, 16), random_cache(chunks, 1, 16, 16)
    layout = lay_out([HeadBlocks(0, 0, 1, 1, 1)], chunks, 16)
    out, lse = computed(q, cache, layout, random_indices(layout))
    assert out.isnan().all()
    assert lse.isnan().all()
