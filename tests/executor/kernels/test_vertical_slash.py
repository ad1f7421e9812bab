import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from executor.attention.lists import lay_out
from executor.kernels.batch import Cache, Chunk
from executor.kernels.implementation import implementation
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import VerticalSlash
from executor.kernels.scores import QueryRows
from executor.kernels.triton import lines, scores
from executor.kernels.vertical_slash import line_masses

from .line_reference import line_reference
from .reference import random_cache, random_q, relative_error, sequence_kv

pytestmark = pytest.mark.filterwarnings("ignore:divide by zero")
BOTH = pytest.mark.parametrize("use_triton", [False, True], ids=["torch", "triton"])
MASSES = {
    "torch": partial(line_masses, implementation(False).piece_lse),
    "measured on a GPU": partial(line_masses, implementation(True).piece_lse),
    "triton": lines.line_masses,
}
EVERY = pytest.mark.parametrize("masses", MASSES.values(), ids=MASSES)
SIZE, DIM = 16, 16
CHUNKS = (Chunk(0, 70), Chunk(33, 30), Chunk(20, 3), Chunk(0, 1))
HEADS = [
    HeadBlocks(0, 0, 2, 0, 5, 0, VerticalSlash()),
    HeadBlocks(2, 1, 2, 2, 4, 1, VerticalSlash()),
    HeadBlocks(1, 0, 2, 1, 2, 2, VerticalSlash()),
    HeadBlocks(0, 1, 2, 0, 1, 3, VerticalSlash()),
]


@EVERY
@pytest.mark.parametrize("per_block", [1, 2])
@pytest.mark.parametrize(
    ("per_page", "scored", "step"), [(0, 64, 1), (1, 5, 9), (4, 5, 9), (0, 1, 8), (0, 3, 20)]
)
def test_masses_of_columns_and_diagonals_are_those_of_the_definition(
    masses, per_page, scored, step, per_block
):
    pattern = VerticalSlash(scored, step)
    q = random_q(CHUNKS, 3, DIM, scale=2)
    cache = random_cache(CHUNKS, 2, DIM, SIZE * per_page, paged=per_page > 0, scale=2)
    heads = [
        replace(h, pattern=pattern, first=h.first // per_block, last=-(-h.last // per_block))
        for h in HEADS
    ]
    layout = lay_out(heads, CHUNKS, SIZE * per_block, piece_tokens=SIZE)
    found = masses(q, cache, layout, 0, 4, pattern)
    for entry in range(4):
        for line, wanted in zip(found, line_reference(q, cache, layout, entry, 5), strict=True):
            assert relative_error(line[entry], wanted) < 1e-5
    later = masses(q, cache, layout, 1, 3, pattern)[0]
    assert relative_error(later, found[0][1:3, : later.shape[1]].double()) < 1e-5


@EVERY
def test_a_planted_column_and_a_planted_diagonal_are_told_apart(masses):
    chunks, blocks = (Chunk(0, 16 * SIZE),), 16
    q, keys = torch.zeros(2, 1, 16 * SIZE, DIM)
    token = torch.arange(16 * SIZE)
    q[0, token, token // SIZE % 8] = q[0, :, 8] = 20.0
    keys[0, token, (token // SIZE + 3) % 8] = keys[0, 5 * SIZE : 6 * SIZE, 8] = 1.0
    cache = Cache(keys, keys, starts=torch.zeros(1, dtype=torch.int32))
    pattern = VerticalSlash(32, 2)
    layout = lay_out([HeadBlocks(0, 0, 3, 0, blocks, 0, pattern)], chunks, SIZE)
    column, diagonal = masses(q, cache, layout, 0, 1, pattern)
    assert int(column[0].argmax()) == 5
    # Keys stand for the query blocks 3 and 11 after their own.
    assert set(diagonal[0].topk(2).indices.tolist()) == {3, 11}
    assert float(column[0, 5]) > 5 * float(column[0, [b for b in range(16) if b != 5]].max())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@EVERY
@pytest.mark.parametrize("value", [math.inf, math.nan, 1e38])
def test_a_row_that_overflows_counts_for_nothing(masses, value):
    q, cache = random_q(CHUNKS, 3, DIM), random_cache(CHUNKS, 2, DIM, SIZE)
    pattern = VerticalSlash(2, 1)
    layout = lay_out(HEADS, CHUNKS, SIZE)
    q[0, 69] = value
    column, diagonal = masses(q, cache, layout, 0, 1, pattern)
    assert float(column.sum() + diagonal.sum()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("step", [2, 512])
def test_lines_in_stretches_and_memory_of_others_change_nothing(step, monkeypatch):
    q, cache = random_q(CHUNKS, 3, DIM, scale=2), random_cache(CHUNKS, 2, DIM, SIZE, paged=True)
    layout, given = lay_out(HEADS, CHUNKS, SIZE), (0, 4, VerticalSlash(20, 2))
    wanted = lines.line_masses(q, cache, layout, *given)
    empty = torch.empty

    def written_before(*shape, **options):
        found = empty(*shape, **options)
        return found.fill_(math.nan if found.is_floating_point() else scores.OVERFLOW.value - 1)

    monkeypatch.setattr(torch, "empty", written_before)
    monkeypatch.setattr(lines, "STEP", step)
    for found, each in zip(lines.line_masses(q, cache, layout, *given), wanted, strict=True):
        torch.testing.assert_close(found, each, rtol=0, atol=0)


@pytest.fixture(params=["one tile", "stretches"])
def tiles(request, monkeypatch):
    """Keys in one tile, or in stretches of two tiles of 32 each with 16 rows at a time."""
    if request.param == "stretches":
        small = {"ROWS": 16, "KEYS": 32, "TILES": 2}
        options = scores.launch_options
        monkeypatch.setattr(scores, "launch_options", lambda *rows: options(*rows) | small)


@BOTH
@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float16, 2e-3)])
@pytest.mark.parametrize(("size", "page"), [(16, 16), (16, 64), (8, 16), (32, 0)])
def test_piece_lse_of_rows_of_several_heads_and_positions(use_triton, dtype, most, size, page):
    chunks, tokens = (Chunk(0, 150), Chunk(33, 90)), 240
    cache = random_cache(chunks, 2, DIM, page, paged=page > 0, scale=3, dtype=dtype)
    if page:
        # Behind a sequence's last page the table has room, and nothing that is a page.
        pages = torch.full((2, 20), 2**30, dtype=torch.int32)
        for sequence, chunk in enumerate(chunks):
            count = -(-chunk.total_tokens // page)
            pages[sequence, :count] = cache.pages[sequence, :count]
        cache = replace(cache, pages=pages)
    q = random_q(chunks, 3, DIM, scale=3, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    draw = lambda most: torch.randint(most, (2, 20), generator=generator).int()  # noqa: E731
    position = torch.stack([draw(150)[0], draw(123)[1]]).sort(1).values
    position[0, -2:], position[1, 0] = torch.tensor([149, 0]), -1
    head, token = draw(3), draw(tokens)
    rows = QueryRows(torch.tensor([1, 0]).int(), torch.tensor([0, 1]).int(), head, token, position)
    count = -(-150 // size) + 1
    found = implementation(use_triton).piece_lse(q, cache, rows, size, count)
    wanted = torch.full((2, 20, count), -math.inf, dtype=torch.float64)
    for entry, total in ((0, 150), (1, 123)):
        keys, _ = sequence_kv(cache, entry, 1 - entry, total)
        for row in range(20):
            seen = keys[: int(position[entry, row]) + 1]
            of_keys = seen @ q[head[entry, row], token[entry, row]].double() / math.sqrt(DIM)
            for piece, part in enumerate(of_keys.split(size) if len(seen) else []):
                wanted[entry, row, piece] = part.logsumexp(0)
    real = wanted.isfinite()
    assert torch.equal(found.isfinite(), real)
    assert relative_error(found[real], wanted[real]) < most
