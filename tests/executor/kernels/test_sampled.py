import math

import pytest
import torch

from executor.attention.lists import lay_out
from executor.kernels.batch import Cache, Chunk
from executor.kernels.implementation import implementation
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import Pooled, Sampled
from executor.kernels.sampled import (
    lists_at_once,
    most_pieces,
    query_rows,
    sampled_scores,
    stored_lists,
    windows,
)
from executor.kernels.scores import QueryRows
from executor.kernels.select import select
from executor.kernels.torch import scores as torch_scores
from executor.kernels.torch import select as torch_select
from executor.kernels.triton import scores
from executor.kernels.triton import select as triton_select

from .reference import list_of, random_cache, random_q, relative_error, whole_prompts
from .sample_reference import sample_reference, sampled_places

pytestmark = pytest.mark.filterwarnings("ignore:divide by zero")
BOTH = pytest.mark.parametrize("use_triton", [False, True], ids=["torch", "triton"])
SIZE, DIM = 8, 16
# The prefix ends inside a block, and so do three of the prompts.
CHUNKS = (Chunk(0, 45), Chunk(43, 17), Chunk(0, 1), Chunk(20, 3))


def every_head(rows, budget=2, heads=3, block=SIZE):
    """Whole heads of every sequence, three to a group of two."""
    return [
        HeadBlocks(h, h // 2, budget, c.cached_tokens // block, -(-c.total_tokens // block), s, p)
        for s, c in enumerate(CHUNKS)
        for h, p in enumerate([Sampled(rows)] * heads)
    ]


def all_numbers(layout, entry):
    """The lists of `entry`, [1, lists]."""
    return (layout.entry == entry).nonzero().T


@BOTH
@pytest.mark.parametrize(("rows", "per_page"), [(1, 0), (2, 1), (2, 2), (16, 0)])
@pytest.mark.parametrize("per_block", [1, 4])
def test_scores_are_the_masses_of_the_sampled_rows(use_triton, rows, per_page, per_block):
    q = random_q(CHUNKS, 3, DIM, scale=2)
    cache = random_cache(CHUNKS, 2, DIM, SIZE * per_page, paged=per_page > 0, scale=2)
    block, pattern = SIZE * per_block, Sampled(rows)
    layout = lay_out(every_head(rows, block=block), CHUNKS, block, piece_tokens=SIZE)
    for entry in (0, 5, 7, 11):
        numbers = all_numbers(layout, entry)
        [found] = sampled_scores(
            implementation(use_triton).piece_lse, q, cache, layout, numbers, 9, pattern
        )
        for number, masses in zip(numbers[0].tolist(), found, strict=True):
            row = int(layout.query_block[number])
            wanted = sample_reference(q, cache, layout, entry, row)
            assert relative_error(masses[: len(wanted)], wanted) < 1e-5
            assert not masses[len(wanted) :].any()


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 16])
@pytest.mark.parametrize("chunk", [Chunk(0, 16), Chunk(0, 13), Chunk(13, 1), Chunk(11, 12)])
def test_rows_are_strided_up_to_the_last_and_none_comes_twice(rows, chunk):
    head = HeadBlocks(0, 0, 1, chunk.cached_tokens // SIZE, -(-chunk.total_tokens // SIZE))
    layout = lay_out([head], [chunk], SIZE)
    found = query_rows(layout, torch.arange(layout.lists)[None], rows)
    for row, position in zip(
        layout.query_block.tolist(), found.position.view(-1, rows), strict=True
    ):
        begin = max(chunk.cached_tokens, row * SIZE)
        end = min(chunk.total_tokens, (row + 1) * SIZE)
        wanted = [begin + place for place in sampled_places(end - begin, rows)]
        assert position[position >= 0].tolist() == wanted
        assert wanted[-1] == end - 1


@BOTH
def test_what_only_the_last_row_looks_for_is_taken_and_means_miss_it(use_triton):
    """Blocks of 16: fifteen rows want block 1, the last one a single key of block 4."""
    size, blocks = 16, 10
    q, keys = torch.zeros(2, 1, size * blocks, DIM)
    q[0, :, 0], keys[0, size : 2 * size, 0] = 4.0, 4.0
    last = size * blocks - 1
    q[0, last, 0], q[0, last, 1] = 0.0, 8.0
    keys[0, 4 * size + 3, 1] = 8.0
    cache = Cache(keys, keys, starts=torch.zeros(1, dtype=torch.int32))
    patterns = [Pooled(), Sampled(1), Sampled(2)]
    found = []
    for budget in (3, 4):
        heads = [HeadBlocks(0, 0, budget, blocks - 1, blocks, 0, pattern) for pattern in patterns]
        layout = lay_out(heads, whole_prompts(size * blocks), size)
        indices = select(q, cache, layout, use_triton=use_triton)
        found.append([list_of(layout, indices, number) for number in range(3)])
    (pooled, one, _), (_, _, two) = found
    assert pooled == [0, 1, 9]
    assert one == [0, 4, 9]
    assert two == [0, 1, 4, 9]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@BOTH
@pytest.mark.parametrize("value", [math.inf, math.nan, 1e38])
def test_a_row_that_overflows_counts_for_nothing(use_triton, value):
    chunks = whole_prompts(48)
    q, cache = random_q(chunks, 1, DIM), random_cache(chunks, 1, DIM, SIZE)
    layout = lay_out([HeadBlocks(0, 0, 2, 0, 6, 0, Sampled(2))], chunks, SIZE)
    numbers = torch.arange(6)[None]
    wanted = sampled_scores(
        implementation(use_triton).piece_lse, q, cache, layout, numbers, 6, Sampled(2)
    )
    q[0, 43] = value
    q[0, [23, 19]] = value
    found = sampled_scores(
        implementation(use_triton).piece_lse, q, cache, layout, numbers, 6, Sampled(2)
    )
    assert found.sum(2)[0].tolist() == pytest.approx([2, 2, 0, 2, 2, 1], abs=1e-5)
    torch.testing.assert_close(found[0, [0, 1, 3, 4]], wanted[0, [0, 1, 3, 4]])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@BOTH
@pytest.mark.parametrize("value", [math.inf, math.nan, 1e38])
def test_the_other_rows_of_a_block_choose_where_one_overflows(use_triton, value):
    chunks = whole_prompts(12 * SIZE)
    q, cache = random_q(chunks, 1, DIM, scale=2), random_cache(chunks, 1, DIM, SIZE)
    one, two = (
        lay_out([HeadBlocks(0, 0, 4, 0, 12, 0, Sampled(rows))], chunks, SIZE) for rows in (1, 2)
    )
    wanted = select(q, cache, one, use_triton=use_triton)
    assert not torch.equal(select(q, cache, two, use_triton=use_triton), wanted)
    q[0, SIZE // 2 - 1 :: SIZE] = value
    assert torch.equal(select(q, cache, two, use_triton=use_triton), wanted)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@BOTH
@pytest.mark.parametrize("value", [1e25, 40.0])
def test_a_row_that_overflows_at_one_key_does_not_choose_its_piece(use_triton, value):
    """But one that looks for a single key and finds it, which no float overflows at, does."""
    chunks = whole_prompts(12 * SIZE)
    q, cache = random_q(chunks, 1, DIM), random_cache(chunks, 1, DIM, SIZE)
    q[..., 0] = cache.keys[..., 0] = 0.0
    q[0, SIZE // 2 - 1 :: SIZE, 0] = cache.keys[0, 2 * SIZE + 1, 0] = value
    one, two = (
        lay_out([HeadBlocks(0, 0, 3, 5, 12, 0, Sampled(rows))], chunks, SIZE) for rows in (1, 2)
    )
    wanted = select(q, cache, one, use_triton=use_triton)
    found = select(q, cache, two, use_triton=use_triton)
    if value > 1e20:
        assert torch.equal(found, wanted)
    else:
        assert (found.view(-1, 3)[:, 1] == 2).all()
    assert not (wanted.view(-1, 3)[:, 1] == 2).all()


@BOTH
@pytest.mark.parametrize("scale", [0.0, 20.0, 250.0])
def test_scores_of_any_size_give_the_masses_of_the_definition(use_triton, scale):
    """Equal ones, ones whose exponentials no float holds, and pieces that weigh nothing."""
    chunks = whole_prompts(160)
    q, cache = random_q(chunks, 1, DIM, scale=scale), random_cache(chunks, 1, DIM, SIZE)
    layout = lay_out([HeadBlocks(0, 0, 3, 0, 20, 0, Sampled(2))], chunks, SIZE)
    numbers = all_numbers(layout, 0)
    [found] = sampled_scores(
        implementation(use_triton).piece_lse, q, cache, layout, numbers, 20, Sampled(2)
    )
    chosen = select(q, cache, layout, use_triton=use_triton)
    for row, masses in enumerate(found):
        wanted = sample_reference(q, cache, layout, 0, row)
        assert relative_error(masses[: row + 1], wanted) < (1e-4 if scale else 1e-5)
        others = wanted[1:row]
        if scale and row > 2 and others.sort().values[-2:].diff() > 1e-3:
            assert list_of(layout, chosen, row) == [0, 1 + int(others.argmax()), row]


@pytest.mark.parametrize("per_block", [1, 4])
@pytest.mark.parametrize("rows", [1, 3])
def test_rows_in_tiles_and_keys_in_stretches_select_the_same(rows, per_block, monkeypatch):
    q = random_q(CHUNKS, 3, DIM, scale=2)
    cache = random_cache(CHUNKS, 2, DIM, 2 * SIZE, paged=True)
    block = SIZE * per_block
    heads = every_head(rows, per_block + 1, block=block)
    layout = lay_out(heads, CHUNKS, block, piece_tokens=SIZE)
    wanted = select(q, cache, layout, use_triton=False)
    options = scores.launch_options
    small = {"ROWS": 4, "KEYS": 16, "TILES": 2}
    monkeypatch.setattr(scores, "launch_options", lambda *rows: options(*rows) | small)
    monkeypatch.setattr(torch, "empty", full_of_heavy_sums(torch.empty))
    assert torch.equal(select(q, cache, layout, use_triton=True), wanted)


def full_of_heavy_sums(empty):
    """Memory in which what no program has written outweighs everything."""

    def filled(*shape, **options):
        found = empty(*shape, **options)
        return found.fill_(scores.OVERFLOW.value - 1) if found.dtype == torch.int32 else found

    return filled


@BOTH
@pytest.mark.parametrize("at_once", [1, 3, 7, 20])
@pytest.mark.parametrize("block", [SIZE, 2 * SIZE])
def test_few_lists_at_a_time_select_the_same(use_triton, at_once, block, monkeypatch):
    q, cache = random_q(CHUNKS, 3, DIM), random_cache(CHUNKS, 2, DIM, SIZE)
    layout = lay_out(every_head(2, 4, block=block), CHUNKS, block, piece_tokens=SIZE)
    assert layout.stored
    wanted = select(q, cache, layout, use_triton=use_triton)
    every = triton_select.windows
    monkeypatch.setattr(triton_select, "windows", lambda *entries: every(*entries[:3], at_once))
    monkeypatch.setattr(torch_select, "lists_at_once", lambda *_: 2 * at_once)
    monkeypatch.setattr(torch_scores, "RUN_ROWS", 3)
    assert torch.equal(select(q, cache, layout, use_triton=use_triton), wanted)


@pytest.mark.parametrize("per_block", [1, 2])
@pytest.mark.parametrize("at_once", [1, 7, 40, 1000])
def test_windows_keep_to_their_lists_and_hold_every_stored_list_once(at_once, per_block):
    tokens = 30 * SIZE
    blocks = 30 // per_block
    heads = [
        HeadBlocks(0, 0, 6, 5, blocks),
        HeadBlocks(1, 0, 40, 0, blocks),
        HeadBlocks(2, 0, 9, 2, 2),
    ]
    heads += [HeadBlocks(h, 0, 8, 0, blocks) for h in range(3, 6)]
    layout = lay_out(heads, whole_prompts(tokens), SIZE * per_block, piece_tokens=SIZE)
    numbers = stored_lists(layout, 0, 6)
    last, seen = layout.own_pieces(slice(None))[1], []
    parts = list(windows(layout, 0, 6, at_once))
    assert (len(parts) > 1) == (at_once < 6 * blocks)
    for entries, lists, pieces in parts:
        part = numbers[entries, lists]
        assert 0 < part.numel() <= at_once
        real = part[part >= 0]
        assert (last[real] < pieces).all()
        for entry in part:
            assert len(set(layout.entry[entry[entry >= 0]].tolist())) <= 1
        seen += real.tolist()
    assert sorted(seen) == (layout.start >= 0).nonzero().flatten().tolist()
    assert most_pieces(layout, 0, 6) == max(pieces for _, _, pieces in parts) == 30


def test_a_long_contexts_scores_fit_the_bound():
    assert 2048 <= lists_at_once(Sampled(2), 2048) <= 8192
    assert lists_at_once(Sampled(16), 2**20) == 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@BOTH
@pytest.mark.parametrize("bits", [0.0, -258.5, -259.5, -260.5, -515.5])
def test_what_a_row_that_overflows_gives_elsewhere_counts_for_nothing(use_triton, bits):
    """However much less that is: its weights in Triton may be NaN, which no factor of 0 takes."""
    chunks = whole_prompts(8 * 16)
    q, keys = torch.zeros(1, 128, 16), torch.zeros(1, 128, 16)
    q[0, 119, 0] = keys[0, 5 * 16 : 6 * 16, 0] = 3e20
    q[0, 127, 1] = keys[0, 3 * 16 : 4 * 16, 1] = 10.0
    keys[0, : 4 * 16, 0] = bits * math.log(2) * 16**0.5 / 3e20
    cache = Cache(keys, keys, starts=torch.zeros(1, dtype=torch.int32))
    layout = lay_out([HeadBlocks(0, 0, 3, 7, 8, 0, Sampled(2))], chunks, 16)
    assert select(q, cache, layout, use_triton=use_triton).tolist() == [0, 3, 7]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_sums_that_nobody_has_written_do_not_choose(monkeypatch):
    """A tile of rows without a position, of a last block of one token, writes none."""
    chunks = whole_prompts(193)
    q, cache = random_q(chunks, 1, 16, scale=3), random_cache(chunks, 1, 16, 16)
    layout = lay_out([HeadBlocks(0, 0, 12, 0, 13, 0, Sampled(5))], chunks, 16)
    wanted = select(q, cache, layout, use_triton=False)
    empty = torch.empty

    def unwritten(*shape, **options):
        made = empty(*shape, **options)
        if made.dtype == torch.int32 and made.ndim == 3:
            made[..., ::2], made[..., 1::2] = 200 << 19, -4024 << 19
        return made

    monkeypatch.setattr("executor.kernels.triton.scores.torch.empty", unwritten)
    assert torch.equal(select(q, cache, layout, use_triton=True), wanted)


@BOTH
def test_a_row_that_is_none_sees_no_key(use_triton):
    chunks = whole_prompts(2 * SIZE)
    q, cache = random_q(chunks, 1, DIM), random_cache(chunks, 1, DIM, SIZE)
    position = torch.tensor([[-1, SIZE]], dtype=torch.int32)
    none = torch.zeros(1, dtype=torch.int32)
    rows = QueryRows(none, none, torch.zeros_like(position), position.clamp(min=0), position)
    lse = implementation(use_triton).piece_lse(q, cache, rows, SIZE, 2)
    assert lse[0, 0].isneginf().all()
    assert lse[0, 1].isfinite().all()
