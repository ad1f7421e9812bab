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
SIZE, DIM, GROUPS = 8, 16, 2


def defined(cache, pages, context):
    """Every page's bounds, token by token; 0 for pages of nobody."""
    groups, size, dim = cache.keys.shape[1:]
    found = torch.zeros(len(cache.keys), groups, 2, dim, dtype=torch.float64)
    for s, tokens in enumerate(context.tolist()):
        for block in range(-(-tokens // size)):
            page = int(pages[s, block])
            found[page, :, 0], found[page, :, 1] = math.inf, -math.inf
            for token in range(min(size, tokens - block * size)):
                key = cache.keys[page, :, token].double()
                found[page, :, 0] = torch.where(key < found[page, :, 0], key, found[page, :, 0])
                found[page, :, 1] = torch.where(key > found[page, :, 1], key, found[page, :, 1])
    return found


@BOTH
@pytest.mark.parametrize("behind", [math.nan, math.inf, -1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_page_bounds_are_those_of_the_tokens_a_page_has(use_triton, dtype, behind):
    cache = random_cache(CHUNKS, GROUPS, DIM, SIZE, paged=True, dtype=dtype)
    # Behind a context the table may hold anything, and whole pages of it.
    pages = torch.full((len(CHUNKS), 7), 2**30, dtype=torch.int32)
    context = contexts(CHUNKS)
    context[3] = 0
    for s, tokens in enumerate(context.tolist()):
        blocks = -(-tokens // SIZE)
        pages[s, :blocks] = cache.pages[s, :blocks]
        last = max(0, blocks - 1)
        cache.keys[cache.pages[s, last], :, tokens - last * SIZE :] = behind
    found = page_bounds(replace(cache, pages=pages), context, use_triton=use_triton)
    wanted = defined(cache, pages, context)
    assert found.dtype == dtype
    assert torch.equal(found.double(), wanted)
    assert (wanted.flatten(1) == 0).all(1).sum() >= 4


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
def test_a_new_token_changes_the_bounds_of_its_page_alone(use_triton):
    cache = random_cache(whole_prompts(17, 24, 8, 3), GROUPS, DIM, SIZE, paged=True)
    bounds = torch.full((len(cache.keys), GROUPS, 2, DIM), math.nan)
    context = torch.tensor([17, 24, 0, 3], dtype=torch.int32)
    update_page_bounds(cache, bounds, context, use_triton=use_triton)
    newest = [int(cache.pages[0, 2]), int(cache.pages[1, 2]), int(cache.pages[3, 0])]
    wanted = defined(cache, cache.pages, context)
    for page in range(len(bounds)):
        if page in newest:
            assert torch.equal(bounds[page].double(), wanted[page])
        else:
            assert bounds[page].isnan().all()


@BOTH
def test_a_growing_sequence_leaves_nothing_of_the_one_that_had_its_pages(use_triton):
    cache = random_cache(whole_prompts(20), 1, DIM, SIZE, paged=True)
    bounds = torch.empty(len(cache.keys), 1, 2, DIM)
    bounds[:, :, 0], bounds[:, :, 1] = -math.inf, math.inf
    used = []
    for tokens in range(1, 21):
        context = torch.tensor([tokens], dtype=torch.int32)
        update_page_bounds(cache, bounds, context, use_triton=use_triton)
        used = cache.pages[0, : -(-tokens // SIZE)].long()
        wanted = defined(cache, cache.pages, context)
        assert torch.equal(bounds[used].double(), wanted[used])
    assert len(used) == 3


@BOTH
def test_a_key_that_is_not_a_number_spoils_its_own_dimension_of_its_own_page(use_triton):
    cache = random_cache(whole_prompts(21), 1, DIM, SIZE, paged=True)
    pages, context = cache.pages[0].long(), torch.tensor([21], dtype=torch.int32)
    wanted = page_bounds(cache, context, use_triton=False)
    for token, dim in ((0, 3), (13, 5), (20, 0)):
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
