import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.kernels.order import longest_first
from executor.kernels.select import HeadRows, block_means, causal_tiles, select_blocks
from profiles.cost import work

from .reference import list_of, random_qkv


@st.composite
def head_rows(draw, query_blocks, heads, groups):
    first = draw(st.integers(0, query_blocks))
    return HeadRows(
        head=draw(st.integers(0, heads - 1)),
        group=draw(st.integers(0, groups - 1)),
        budget_blocks=draw(st.integers(1, query_blocks + 2)),
        first=first,
        last=draw(st.integers(first, query_blocks)),
    )


@st.composite
def problems(draw):
    tokens, block = draw(st.integers(1, 100)), draw(st.sampled_from([1, 7, 16]))
    rows = head_rows(-(-tokens // block), 3, 2)
    qkv = random_qkv(3, 2, tokens, 8, seed=draw(st.integers(0, 99)))
    return *qkv[:2], draw(st.lists(rows, max_size=4)), block


@settings(max_examples=40, deadline=None)
@given(problems())
def test_lists_are_exactly_as_long_as_budgets_say_sorted_causal_and_hold_sink_and_own(problem):
    q, k, heads, block = problem
    lists = select_blocks(q, k, heads, block)
    assert lists.query_blocks == -(-q.shape[1] // block)
    assert lists.indptr.dtype == lists.indices.dtype == torch.int32
    assert lists.indptr[-1] == len(lists.indices)
    for entry, rows in enumerate(heads):
        for row in range(lists.query_blocks):
            chosen = list_of(lists, entry, row)
            if not rows.first <= row < rows.last:
                assert chosen == []
                continue
            assert len(chosen) == min(rows.budget_blocks, row + 1)
            assert chosen == sorted(set(chosen))
            assert chosen[-1] == row
            assert rows.budget_blocks == 1 or chosen[0] == 0


@pytest.mark.parametrize("tokens", [96, 93])
def test_the_best_scoring_blocks_are_taken(tokens):
    q, k, _ = random_qkv(2, 1, tokens, 16, seed=5)
    lists = select_blocks(q, k, [HeadRows(h, 0, 4, 0, 12) for h in (0, 1)], 8)
    means_k = [part.double().mean(0) for part in k[0].split(8)]
    for head in (0, 1):
        means_q = [part.double().mean(0) for part in q[head].split(8)]
        for row in range(4, 12):
            between = range(1, row)
            best = sorted(between, key=lambda b: -float(means_q[row] @ means_k[b]))[:2]
            assert list_of(lists, head, row) == sorted([0, *best, row])


def test_a_short_last_block_is_averaged_over_the_tokens_it_has():
    x = torch.tensor([[1.0], [3.0], [8.0]])
    assert block_means(x, 2).tolist() == [[2.0], [8.0]]
    assert block_means(x, 4).tolist() == [[4.0]]


def test_a_range_selects_what_the_whole_head_selects():
    q, k, _ = random_qkv(1, 1, 200, 16)
    whole = select_blocks(q, k, [HeadRows(0, 0, 3, 0, 13)], 16)
    parts = select_blocks(q, k, [HeadRows(0, 0, 3, 0, 5), HeadRows(0, 0, 3, 5, 13)], 16)
    for row in range(13):
        assert list_of(parts, int(row >= 5), row) == list_of(whole, 0, row)


@pytest.mark.parametrize("value", [1e30, float("inf"), float("nan")])
def test_scores_that_overflow_cannot_push_out_own_and_sink_or_reach_the_future(value):
    q, k, _ = random_qkv(1, 1, 64, 8)
    q[0, 20], k[0, 5], k[0, 33] = value, -value, value
    lists = select_blocks(q, k, [HeadRows(0, 0, 3, 0, 8)], 8)
    for row in range(8):
        chosen = list_of(lists, 0, row)
        assert len(chosen) == min(3, row + 1)
        assert chosen[0] == 0
        assert chosen[-1] == row


def test_strided_tensors_select_as_contiguous_ones():
    q, k, _ = random_qkv(3, 2, 70, 16)
    heads = [HeadRows(2, 1, 2, 0, 5), HeadRows(0, 0, 3, 1, 4)]
    token_major = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (q, k)]
    wanted = select_blocks(q, k, heads, 16)
    assert torch.equal(select_blocks(*token_major, heads, 16).indices, wanted.indices)


@given(st.integers(1, 60), st.integers(0, 50))
def test_causal_tiles_is_the_sum_over_rows_and_the_cost_models(budget, rows):
    tiles = causal_tiles(budget, rows)
    assert tiles == sum(min(budget, row + 1) for row in range(rows))
    if budget <= rows:
        assert tiles == work.causal_tiles(budget, rows)


@settings(max_examples=25, deadline=None)
@given(problems())
def test_longest_first_orders_every_computed_list_once(problem):
    q, k, heads, block = problem
    lists = select_blocks(q, k, heads, block)
    order = longest_first(lists)
    lengths = lists.indptr.diff()
    assert order.dtype == torch.int32
    assert sorted(order.tolist()) == lengths.nonzero().flatten().tolist()
    assert (lengths[order].diff() <= 0).all()
