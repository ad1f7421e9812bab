import math

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.kernels.torch.select import best_blocks
from executor.kernels.triton.top_blocks import (
    MOST_BLOCKS,
    keep_best,
    launch_options,
    pooled_options,
)

NOT_WRITTEN = -7


@triton.jit
def one_list(scores_ptr, row, length, out_ptr, BLOCKS: tl.constexpr):
    scores = tl.load(scores_ptr + tl.arange(0, BLOCKS))
    keep_best(scores, row, length, out_ptr, BLOCKS)


def kept(scores, row, length):
    width = max(16, triton.next_power_of_2(len(scores)))
    # What stands behind the row must not matter.
    padded = torch.cat([scores, torch.full((width - len(scores),), math.inf)])
    out = torch.full((length + 3,), NOT_WRITTEN, dtype=torch.int32)
    one_list[(1,)](padded, row, length, out, BLOCKS=width)
    assert (out[length:] == NOT_WRITTEN).all()
    return out[:length].tolist()


def best(scores, row, length):
    """By a stable sort: own, first, then by score, the lower block of equals."""
    clean = [0.0 if math.isnan(x) else x for x in scores.tolist()]
    others = sorted(range(1, row), key=lambda b: -clean[b])
    return sorted([row, *[0][: row > 0], *others][:length])


numbers = st.one_of(
    st.floats(width=32),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 3.4e38, 1e-45, -1e-45]),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=40), st.data())
def test_exactly_the_best_are_kept_ascending_and_ties_go_to_the_lower_block(numbers, data):
    scores = torch.tensor(numbers, dtype=torch.float32)
    row = data.draw(st.integers(0, len(scores) - 1))
    length = data.draw(st.integers(1, row + 1))
    assert kept(scores, row, length) == best(scores, row, length)


@pytest.mark.parametrize(("blocks", "length"), [(1024, 100), (2048, 7), (4096, 4000), (4096, 1)])
def test_long_rows_keep_what_torch_keeps(blocks, length):
    generator = torch.Generator().manual_seed(blocks + length)
    scores = torch.randperm(blocks, generator=generator).float() - blocks / 2
    row = blocks - 3
    wanted = best_blocks(scores[None].clone(), torch.tensor([row]), length)[0]
    assert kept(scores, row, length) == wanted.tolist()


def test_all_equal_scores_keep_the_lowest_blocks():
    assert kept(torch.zeros(100), 90, 5) == [0, 1, 2, 3, 90]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_scores_that_differ_in_their_last_bit_are_told_apart(sign):
    lower = torch.full((9,), sign)
    for better in range(1, 7):
        scores = lower.clone()
        scores[better] = torch.nextafter(lower[0], torch.tensor(math.inf))
        assert kept(scores, 8, 3) == [0, better, 8]


def test_rows_as_wide_as_the_kernels_go_and_no_wider():
    assert launch_options(MOST_BLOCKS)["BLOCKS"] == pooled_options(MOST_BLOCKS)["BLOCKS"] == 16384
    for options in (launch_options, pooled_options):
        with pytest.raises(AssertionError, match="MOST_BLOCKS"):
            options(MOST_BLOCKS + 1)
