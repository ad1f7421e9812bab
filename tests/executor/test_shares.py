from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.errors import AttentionError
from executor.kernels.batch import Chunk
from executor.kernels.patterns import Rule, Sampled, VerticalSlash
from executor.shares import (
    HeadShare,
    budget_pieces,
    causal_pieces,
    check_shares,
    row_boundary,
)
from profiles.cost import work

PROMPT, DECODE = Chunk(0, 64), Chunk(63, 1, decodes=True)


OWN = st.sampled_from([1, 2, 4, 8])
"""Key pieces of a query block."""


@given(st.integers(1, 300), st.integers(0, 50), OWN)
def test_causal_pieces_is_the_sum_over_rows_and_the_cost_models(budget, rows, own):
    pieces = causal_pieces(budget, rows, own)
    assert pieces == sum(min(budget, (row + 1) * own) for row in range(rows))
    if budget <= rows * own:
        assert pieces == work.causal_pieces(budget, rows, own)


@given(st.floats(0, 1), st.integers(1, 600), st.integers(1, 200), OWN, st.data())
def test_boundary_is_the_nearest_in_pieces(share, budget, query_blocks, own, data):
    first = data.draw(st.integers(0, query_blocks))
    pieces = [causal_pieces(budget, row, own) for row in range(query_blocks + 1)]
    wanted = pieces[first] + share * (pieces[-1] - pieces[first])
    boundary = row_boundary(share, budget, query_blocks, first, own)
    assert first <= boundary <= query_blocks
    assert abs(pieces[boundary] - wanted) == min(abs(p - wanted) for p in pieces[first:])


@given(st.integers(1, 3000), st.integers(1, 2000), st.sampled_from([None, 16, 32, 64]))
def test_budgets_are_the_cost_models_in_pieces(budget, tokens, piece):
    found = budget_pieces(HeadShare(0, 0, budget), Chunk(0, tokens), 64, piece)
    workload = work.Workload(tokens, block_tokens=64, piece_tokens=piece or 64)
    assert found == work.budget_pieces(np.array(budget), workload)


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (HeadShare(-1, 0, 16), r"shares\[1\].head: -1 must be a whole number, at least 0"),
        (HeadShare(0, True, 16), r"shares\[1\].group: True must be a whole number"),
        (HeadShare(0, 0, 0), r"budget_tokens: 0 must be a whole number, at least 1"),
        (HeadShare(0, 0, 2.5), r"budget_tokens: 2.5"),
        (HeadShare(0, 0, 16, sequence=2), r"shares\[1\].sequence: 2 is not in 0..1"),
        (HeadShare(0, 0, 16, (0.5, 0.5)), r"rows: \(0.5, 0.5\) must be two cumulative shares"),
        (HeadShare(0, 0, 16, (0.5, 0.2)), r"rows"),
        (HeadShare(0, 0, 16, (-0.1, 0.2)), r"rows"),
        (HeadShare(0, 0, 16, (0.0, 1.1)), r"rows"),
        (HeadShare(0, 0, 16, (0.0, float("nan"))), r"rows"),
        (HeadShare(0, 0, 16, (0.0, 0.5, 1.0)), r"rows"),
        (HeadShare(0, 0, 16, ("0", "1")), r"rows"),
        (HeadShare(0, 0, 16, pattern=None), r"pattern: None is no pattern of kernels.patterns"),
        (
            HeadShare(0, 0, 16, pattern=Rule.strided(2, 0)),
            r"pattern.stride: 0 must be .* at least 1",
        ),
        (
            HeadShare(0, 0, 16, pattern=Rule.sink_local(-1)),
            r"pattern.sink_pieces: -1 .* at least 0",
        ),
        (HeadShare(0, 0, 16, pattern=VerticalSlash(0)), r"pattern.scored_rows: 0"),
        (HeadShare(0, 0, 16, pattern=Sampled(0)), r"pattern.rows: 0"),
        (HeadShare(1, 0, 16, (0.2, 0.6)), r"head 1 of sequence 0 is also shares\[0\]'s: .*overlap"),
        (HeadShare(1, 0, 16), r"overlap"),
    ],
)
def test_bad_shares_are_named(share, message):
    with pytest.raises(AttentionError, match=message):
        check_shares([HeadShare(1, 0, 16, (0.0, 0.5)), share], [PROMPT, DECODE])


@pytest.mark.parametrize("edge", [0.5 + 1e-10, 0.5 - 1e-10])
@pytest.mark.parametrize("turned", [False, True])
def test_ranges_meet_up_to_the_rounding_of_their_sums(edge, turned):
    shares = [HeadShare(0, 0, np.int64(16), (0.0, edge)), HeadShare(0, 0, 16, (0.5, 1.0))]
    check_shares(shares[::-1] if turned else shares, [PROMPT])


def test_ranges_of_a_prompt_may_meet_but_a_decoding_head_has_one_part():
    first, second = HeadShare(0, 0, 16, (0.0, 0.5)), HeadShare(0, 0, 16, (0.5, 1.0))
    check_shares([first, second], [PROMPT, DECODE])
    decodes = [replace(share, sequence=1) for share in (first, second)]
    with pytest.raises(AttentionError, match="a decoding head has one part on a device"):
        check_shares(decodes, [PROMPT, DECODE])
