import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.attention.query_rows import block_boundaries, decodes
from executor.attention.shares import HeadShare
from executor.attention.step import prepare
from executor.kernels.batch import Chunk
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import Rule
from executor.row_ranges import row_ranges
from profiles.sizes import causal_pieces
from solver.plans import Entry

OWN = st.sampled_from([1, 2, 4, 8])
"""Key pieces of a query block."""


@given(st.floats(0, 1), st.integers(1, 600), st.integers(1, 200), OWN, st.data())
def test_boundary_is_the_nearest_in_pieces(share, budget, query_blocks, own, data):
    first = data.draw(st.integers(0, query_blocks))
    pieces = [int(causal_pieces(budget, block, own)) for block in range(query_blocks + 1)]
    wanted = pieces[first] + share * (pieces[-1] - pieces[first])
    columns = [np.array([x, x]) for x in (budget, query_blocks, first)]
    boundary, _ = block_boundaries(np.array([share, 0.5]), *columns, own)
    assert first <= boundary <= query_blocks
    assert abs(pieces[boundary] - wanted) == min(abs(p - wanted) for p in pieces[first:])


@given(st.integers(1, 50), st.integers(1, 900), OWN)
def test_whole_heads_have_every_block_of_their_chunk(query_blocks, budget, own):
    first = query_blocks // 3
    edges = (0.0, 1.0, 1.0 + 1e-9)
    columns = [np.full(3, x) for x in (budget, query_blocks, first)]
    found = block_boundaries(np.array(edges), *columns, own)
    assert found.tolist() == [first, query_blocks, query_blocks]


@pytest.mark.parametrize(("budget", "pieces"), [(1, 4), (64, 4), (65, 5), (200, 13), (10**15, 13)])
def test_a_share_becomes_blocks_and_pieces(budget, pieces):
    """Of 200 tokens, 13 pieces of 16; a query block's own 4 at least."""
    share = HeadShare(3, 1, budget, (0.0, 1.0), 2, Rule.sink_local())
    found = prepare([share], [Chunk(0, 9), Chunk(0, 9), Chunk(70, 130)], 64, piece_tokens=16)
    assert found.prefill is not None
    assert found.prefill.heads == (HeadBlocks(3, 1, pieces, 1, 4, 2, Rule.sink_local()),)


def test_spans_are_the_tokens_of_q_that_are_computed():
    """A chunk behind 40 cached tokens, two decodes side by side, and one behind a prompt."""
    chunks = [Chunk(40, 30), Chunk(9, 1, True), Chunk(19, 1, True), Chunk(0, 20), Chunk(9, 1, True)]
    shares = [
        HeadShare(0, 0, 64, (0.0, 0.5)),
        HeadShare(1, 0, 64, (0.5, 1.0)),
        *[HeadShare(0, 0, 64, sequence=s) for s in (1, 2, 4)],
        HeadShare(1, 0, 64, sequence=3),
    ]
    step = prepare(shares, chunks, 16)
    assert step.prefill is not None
    cut = step.prefill.heads[0].last * 16 - 40
    first, second = step.spans
    assert 0 < cut < 30
    assert first == (slice(0, cut), slice(30, 32), slice(52, 53))
    assert second == (slice(cut, 30), slice(32, 52))
    assert step.computed_rows == 30 + 3 + 20
    assert not step.covers


@given(
    st.lists(st.floats(0.001, 1), min_size=1, max_size=6),
    st.lists(st.integers(1, 5000), min_size=1, max_size=20),
)
def test_every_sequence_is_decoded_by_one_holder_of_a_divided_head(parts, work):
    entries = [
        Entry(device=device, share=min(1.0, part / sum(parts))) for device, part in enumerate(parts)
    ]
    ranges = row_ranges(entries, 0, 0)
    for sequence in range(len(work)):
        assert sum(decodes(rows, work, sequence) for rows in ranges) == 1
    # Each holder's sequences are its share of the work, but for one at each of its ends.
    for rows in ranges:
        done = sum(work[sequence] for sequence in range(len(work)) if decodes(rows, work, sequence))
        assert abs(done - (rows[1] - rows[0]) * sum(work)) <= max(work) + 1e-6 * sum(work)
