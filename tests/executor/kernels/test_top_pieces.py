import math

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.attention.lists import lay_out
from executor.kernels.layout import HeadBlocks
from executor.kernels.torch.select import best_pieces, line_scores
from executor.kernels.triton.top_pieces import (
    MOST_PIECES,
    keep_best,
    launch_options,
    line_lists,
    pooled_options,
)

from .reference import list_of, whole_prompts

NOT_WRITTEN = -7


@triton.jit
def one_list(scores_ptr, first, last, length, out_ptr, PIECES: tl.constexpr):
    scores = tl.load(scores_ptr + tl.arange(0, PIECES))
    keep_best(scores, first, last, length, out_ptr, PIECES)


def kept(scores, first, last, length):
    width = max(16, triton.next_power_of_2(len(scores)))
    # What stands behind the last own piece must not matter.
    padded = torch.cat([scores, torch.full((width - len(scores),), math.inf)])
    out = torch.full((length + 3,), NOT_WRITTEN, dtype=torch.int32)
    one_list[(1,)](padded, first, last, length, out, PIECES=width)
    assert (out[length:] == NOT_WRITTEN).all()
    return out[:length].tolist()


def best(scores, first, last, length):
    """By a stable sort: own, first, then by score, the lower piece of equals."""
    clean = [0.0 if math.isnan(x) else x for x in scores.tolist()]
    others = sorted(range(1, first), key=lambda p: -clean[p])
    return sorted([*range(first, last + 1), *[0][: first > 0], *others][:length])


numbers = st.one_of(
    st.floats(width=32),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 3.4e38, 1e-45, -1e-45]),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=40), st.data())
def test_exactly_the_best_are_kept_ascending_and_ties_go_to_the_lower_piece(numbers, data):
    scores = torch.tensor(numbers, dtype=torch.float32)
    last = data.draw(st.integers(0, len(scores) - 1))
    first = data.draw(st.integers(max(0, last - 4), last))
    length = data.draw(st.integers(last - first + 1, last + 1))
    assert kept(scores, first, last, length) == best(scores, first, last, length)


@pytest.mark.parametrize(
    ("pieces", "own", "length"),
    [(1024, 1, 100), (1024, 8, 8), (2048, 4, 7), (4096, 1, 4000), (4096, 1, 1)],
)
def test_long_rows_keep_what_torch_keeps(pieces, own, length):
    generator = torch.Generator().manual_seed(pieces + length)
    scores = torch.randperm(pieces, generator=generator).float() - pieces / 2
    first, last = pieces - 2 - own, pieces - 3
    ends = torch.tensor([[first], [last]])
    wanted = best_pieces(scores[None].clone(), *ends, length)[0]
    assert kept(scores, first, last, length) == wanted.tolist()


def test_all_equal_scores_keep_the_lowest_pieces():
    assert kept(torch.zeros(100), 90, 90, 5) == [0, 1, 2, 3, 90]
    assert kept(torch.zeros(100), 88, 90, 5) == [0, 1, 88, 89, 90]
    assert kept(torch.zeros(100), 90, 90, 85) == [*range(84), 90]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_scores_that_differ_in_their_last_bit_are_told_apart(sign):
    lower = torch.full((9,), sign)
    for better in range(1, 7):
        scores = lower.clone()
        scores[better] = torch.nextafter(lower[0], torch.tensor(math.inf))
        assert kept(scores, 8, 8, 3) == [0, better, 8]


def test_rows_as_wide_as_the_kernels_go_and_no_wider():
    assert launch_options(MOST_PIECES)["PIECES"] == pooled_options(MOST_PIECES)["PIECES"] == 16384
    for options in (launch_options, pooled_options):
        with pytest.raises(AssertionError, match="MOST_PIECES"):
            options(MOST_PIECES + 1)


@pytest.mark.parametrize("use_triton", [False, True], ids=["torch", "triton"])
@pytest.mark.parametrize("per_block", [1, 4])
@pytest.mark.parametrize("tokens", [(88, 61), (16 * 8, 1)])
def test_lines_score_by_the_mean_over_the_own_pieces_that_a_block_has(
    use_triton, per_block, tokens
):
    """Diagonals count for as much in a sequence's short last block as in others."""
    size, chunks, heads = 8, whole_prompts(*tokens), []
    for s, count in enumerate(tokens):
        blocks = -(-count // (size * per_block))
        heads += [HeadBlocks(0, 0, per_block + 2, 0, blocks, s), HeadBlocks(1, 0, 6, 0, blocks, s)]
    layout = lay_out(heads, chunks, size * per_block, piece_tokens=size)
    generator = torch.Generator().manual_seed(0)
    width = -(-max(tokens) // size)
    columns, diagonals = torch.rand(2, 4, width, generator=generator)
    columns /= 3
    indices = torch.zeros(layout.stored, dtype=torch.int32)
    if use_triton:
        line_lists(columns, diagonals, 0, layout, 0, layout.lists, indices)
    every = zip(*(x.tolist() for x in layout.own_pieces(slice(None))), strict=True)
    for number, (first, last) in enumerate(every):
        if layout.start[number] < 0:
            continue
        entry, length = int(layout.entry[number]), int(layout.length[number])
        scores = torch.zeros(last + 1)
        for piece in range(first):
            distances = [own - piece for own in range(first, last + 1)]
            scores[piece] = columns[entry, piece] + diagonals[entry, distances].mean()
        found = list_of(layout, indices, number)
        if not use_triton:
            ends = torch.tensor([[first], [last]])
            lines = line_scores(columns[entry], diagonals[entry], *ends)
            found = best_pieces(lines, *ends, length)[0].tolist()
        assert found == best(scores, first, last, length)
