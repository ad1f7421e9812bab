import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.kernels.batch import Chunk
from executor.kernels.bounds import page_bounds, update_page_bounds

from .reference import contexts, random_cache, transposed_table, whole_prompts

BOTH = pytest.mark.parametrize("use_triton", [False, True], ids=["torch", "triton"])
CHUNKS = (Chunk(0, 37), Chunk(19, 14), Chunk(5, 1), Chunk(0, 32))
SIZE, DIM, GROUPS = 8, 4, 2


def defined(cache, pages, context, size=SIZE):
    """Every piece's bounds, token by token; 0 for pieces of nobody."""
    count, groups, page_tokens, dim = cache.keys.shape
    per_page = page_tokens // size
    found = torch.zeros(count * per_page, groups, 2, dim, dtype=torch.float64)
    for s, tokens in enumerate(context.tolist()):
        for piece in range(-(-tokens // size)):
            page, within = int(pages[s, piece // per_page]), piece % per_page
            row = found[page * per_page + within]
            row[:, 0], row[:, 1] = math.inf, -math.inf
            for token in range(min(size, tokens - piece * size)):
                key = cache.keys[page, :, within * size + token].double()
                row[:, 0] = torch.where(key < row[:, 0], key, row[:, 0])
                row[:, 1] = torch.where(key > row[:, 1], key, row[:, 1])
    return found


@BOTH
@pytest.mark.parametrize("behind", [math.nan, math.inf, -1e4])
@pytest.mark.parametrize(
    ("dtype", "per_page"), [(torch.float32, 1), (torch.float16, 2), (torch.bfloat16, 4)]
)
def test_bounds_are_those_of_the_tokens_a_piece_has(use_triton, dtype, per_page, behind):
    page_tokens = SIZE * per_page
    cache = random_cache(CHUNKS, GROUPS, DIM, page_tokens, paged=True, dtype=dtype)
    # Behind a context the table may hold anything, and whole pages of it.
    pages = torch.full((len(CHUNKS), 7), 2**30, dtype=torch.int32)
    context = contexts(CHUNKS)
    context[3] = 0
    for s, tokens in enumerate(context.tolist()):
        count = -(-tokens // page_tokens)
        pages[s, :count] = cache.pages[s, :count]
        last = max(0, count - 1)
        cache.keys[cache.pages[s, last], :, tokens - last * page_tokens :] = behind
    found = page_bounds(replace(cache, pages=pages), context, SIZE, use_triton=use_triton)
    wanted = defined(cache, pages, context)
    assert found.dtype == dtype
    assert torch.equal(found.double(), wanted)
    assert (wanted.flatten(1) == 0).all(1).sum() >= 4


@BOTH
def test_a_page_is_one_piece_by_default(use_triton):
    cache = random_cache(CHUNKS, GROUPS, DIM, 2 * SIZE, paged=True)
    found = page_bounds(cache, contexts(CHUNKS), use_triton=use_triton)
    wanted = defined(cache, cache.pages, contexts(CHUNKS), 2 * SIZE)
    assert torch.equal(found.double(), wanted)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 99))
def test_no_token_scores_above_its_page_and_one_alone_scores_as_much(tokens, seed):
    chunks = whole_prompts(tokens)
    cache = random_cache(chunks, GROUPS, DIM, SIZE, paged=True, seed=seed)
    bounds = page_bounds(cache, contexts(chunks)).double()
    q = torch.randn(DIM, generator=torch.Generator().manual_seed(seed)).double()
    of_pages = (bounds * q).amax(2).sum(2)[cache.pages[0].long()]
    for token in range(tokens):
        block, within = divmod(token, SIZE)
        score = cache.keys[cache.pages[0, block], :, within].double() @ q
        assert (score <= of_pages[block] + 1e-9).all()
        if tokens - block * SIZE == 1:
            assert torch.allclose(score, of_pages[block])


@BOTH
@pytest.mark.parametrize("per_page", [1, 2])
def test_a_new_token_changes_the_bounds_of_its_piece_alone(use_triton, per_page):
    cache = random_cache(whole_prompts(17, 24, 8, 3), GROUPS, DIM, SIZE * per_page, paged=True)
    bounds = torch.full((len(cache.keys) * per_page, GROUPS, 2, DIM), math.nan)
    context = torch.tensor([17, 24, 0, 3], dtype=torch.int32)
    update_page_bounds(cache, bounds, context, use_triton=use_triton)
    newest = [
        int(cache.pages[s, piece // per_page]) * per_page + piece % per_page
        for s, piece in ((0, 2), (1, 2), (3, 0))
    ]
    wanted = defined(cache, cache.pages, context)
    for row in range(len(bounds)):
        if row in newest:
            assert torch.equal(bounds[row].double(), wanted[row])
        else:
            assert bounds[row].isnan().all()


@BOTH
@pytest.mark.parametrize("per_page", [1, 4])
def test_a_growing_sequence_leaves_nothing_of_the_one_that_had_its_pages(use_triton, per_page):
    cache = random_cache(whole_prompts(20), 1, DIM, SIZE * per_page, paged=True)
    bounds = torch.empty(len(cache.keys) * per_page, 1, 2, DIM)
    bounds[:, :, 0], bounds[:, :, 1] = -math.inf, math.inf
    used = []
    for tokens in range(1, 21):
        context = torch.tensor([tokens], dtype=torch.int32)
        update_page_bounds(cache, bounds, context, use_triton=use_triton)
        pieces = torch.arange(-(-tokens // SIZE))
        used = cache.pages[0, pieces // per_page].long() * per_page + pieces % per_page
        wanted = defined(cache, cache.pages, context)
        assert torch.equal(bounds[used].double(), wanted[used])
    assert len(used) == 3


@BOTH
def test_a_key_that_is_not_a_number_spoils_its_own_dimension_of_its_own_page(use_triton):
    cache = random_cache(whole_prompts(21), 1, DIM, SIZE, paged=True)
    pages, context = cache.pages[0].long(), torch.tensor([21], dtype=torch.int32)
    wanted = page_bounds(cache, context, use_triton=False)
    for token, dim in ((0, 3), (13, 1), (20, 0)):
        page = pages[token // SIZE]
        cache.keys[page, 0, token % SIZE, dim] = math.nan
        wanted[page, 0, :, dim] = math.nan
    found = page_bounds(cache, context, use_triton=use_triton)
    assert found.isnan().sum() == 6
    assert torch.equal(found.nan_to_num(99.0), wanted.nan_to_num(99.0))


@BOTH
def test_pages_and_their_table_may_have_any_stride(use_triton):
    cache = random_cache(CHUNKS, GROUPS, DIM, SIZE, paged=True)
    context = contexts(CHUNKS)
    wanted = defined(cache, cache.pages, context)
    turned = transposed_table(cache)
    turned = replace(turned, keys=cache.keys.transpose(1, 2).contiguous().transpose(1, 2))
    assert turned.pages.stride(1) == len(CHUNKS)
    assert torch.equal(page_bounds(turned, context, use_triton=use_triton).double(), wanted)
    bounds = torch.zeros(len(cache.keys), 2, GROUPS, DIM).transpose(1, 2)
    update_page_bounds(turned, bounds, context, use_triton=use_triton)
    newest = bounds.flatten(1).any(1)
    assert newest.sum() == len(CHUNKS)
    assert torch.equal(bounds[newest].double(), wanted[newest])


@BOTH
def test_no_sequences_have_no_bounds(use_triton):
    cache = random_cache(whole_prompts(9), 1, DIM, SIZE, paged=True)
    nobody = replace(cache, pages=cache.pages[:0])
    bounds = page_bounds(nobody, torch.zeros(0, dtype=torch.int32), use_triton=use_triton)
    update_page_bounds(nobody, bounds, torch.zeros(0, dtype=torch.int32), use_triton=use_triton)
    gone = torch.zeros(1, dtype=torch.int32)
    update_page_bounds(cache, bounds, gone, use_triton=use_triton)
    assert not bounds.any()
