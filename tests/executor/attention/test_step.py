import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.attention import step as step_module
from executor.attention.select import pattern
from executor.attention.shares import HeadShare
from executor.attention.step import prepare
from executor.errors import AttentionError
from executor.kernels.batch import Chunk
from executor.kernels.patterns import POOLED, Rule, runs
from profiles import selection
from profiles.architecture import Architecture
from profiles.cost.work import INDEX, Workload, head_work

ONE_HEAD = Architecture(layers=1, query_heads=1, kv_heads=1, head_dim=16, hidden_size=16)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 700),
    st.sampled_from([(16, 16), (64, 64), (64, 16), (128, 16), (128, 64)]),
    st.lists(st.integers(1, 800), max_size=3),
    st.sampled_from(["prefill", "decode"]),
    st.sampled_from([selection.Pooled(), selection.VerticalSlash(), selection.Sampled(rows=7)]),
)
def test_counts_of_whole_heads_are_the_cost_models(tokens, sizes, budgets, phase, chosen):
    block, piece = sizes
    workload = Workload(context_tokens=tokens, block_tokens=block, piece_tokens=piece, phase=phase)
    chunk = Chunk(tokens - workload.new_tokens, workload.new_tokens, phase == "decode")
    kernels = pattern(chosen, ONE_HEAD, 0, piece)
    shares = [HeadShare(head, 0, b, pattern=kernels) for head, b in enumerate(budgets)]
    counts = prepare(shares, [chunk], block, packed=False, piece_tokens=piece).counts
    work = head_work(np.array(budgets), ONE_HEAD, workload, chosen).sum(axis=0)
    rows = block if phase == "prefill" else 1
    assert counts.query_blocks == work[INDEX["query_blocks"]]
    tile, dense = 4 * rows * piece * 16, counts.tiles - counts.gathered_tiles
    assert dense * tile == work[INDEX["dense_tile_flops"]]
    assert counts.gathered_tiles * tile == work[INDEX["gathered_tile_flops"]]
    assert counts.sampled_pieces * 2 * piece * 16 == work[INDEX["sampled_flops"]]
    assert counts.scored_pieces == work[INDEX["scored_blocks"]]


def test_whole_heads_of_a_group_are_packed_and_their_largest_budget_counts():
    shares = [
        HeadShare(0, 0, 16),
        HeadShare(1, 0, 40),
        HeadShare(2, 1, 16),
        HeadShare(3, 0, 64, (0.5, 1.0)),
        HeadShare(4, 0, 33, pattern=Rule.sink_local()),
    ]
    step = prepare(shares, [Chunk(200, 1, True)], 16)
    assert step.decode is not None
    entries = [(entry.heads, entry.budget_pieces, entry.part) for entry in step.decode.lists]
    assert entries == [
        ((4,), 3, (0.0, 1.0)),
        ((0, 1), 3, (0.0, 1.0)),
        ((2,), 1, (0.0, 1.0)),
        ((3,), 4, (0.5, 1.0)),
    ]
    assert step.counts.tiles == 2 * 3 + 1 + 2 + 3
    assert step.counts.decoded_pieces == 3 + 1 + 2 + 3
    assert step.counts.scored_pieces == 4 * 13
    apart = prepare(shares, [Chunk(200, 1, True)], 16, packed=False)
    assert apart.decode is not None
    assert [entry.heads for entry in apart.decode.lists] == [(4,), (0,), (1,), (2,), (3,)]


def test_a_mixed_step_lays_out_both_phases_at_their_tokens():
    chunks = [Chunk(40, 20), Chunk(70, 1, True), Chunk(0, 1)]
    step = prepare([HeadShare(0, 0, 32, sequence=s) for s in range(3)], chunks, 16)
    assert step.prefill is not None
    assert step.decode is not None
    assert step.prefill.query_block.tolist() == [2, 3, 0]
    assert [(entry.sequence, entry.token) for entry in step.decode.lists] == [(1, 20)]
    assert step.context_tokens.tolist() == [60, 71, 1]
    assert step.covers
    assert step.counts.query_blocks == 4


@pytest.mark.parametrize(
    ("rows", "covers"),
    [([(0.0, 1.0)], True), ([(0.0, 0.4), (0.4, 1.0)], True), ([(0, 0.4)], False)],
)
def test_whether_every_row_is_computed(rows, covers):
    shares = [HeadShare(0, 0, 32, part) for part in rows]
    assert prepare(shares, [Chunk(7, 100)], 16).covers == covers


def test_room_to_grow_keeps_budgets_that_cover_the_present_context_only():
    step = prepare([HeadShare(0, 0, 64)], [Chunk(40, 1, True)], 16, room_tokens=160)
    assert step.decode is not None
    assert (step.decode.most_pieces, step.decode.stored) == (10, 4)


@pytest.mark.parametrize("chunk", [Chunk(0, 1000), Chunk(448, 552)])
def test_heads_of_nearly_all_tiles_have_every_one(chunk):
    """Of the new rows, whoever computes them; cut as the budget says, as others cut them."""
    kinds, halves = [POOLED, Rule.sink_local()], [(0.0, 0.5), (0.5, 1.0)]
    for budget in range(16, 1001, 16):
        for kind in kinds:
            whole, *parts = (
                [HeadShare(0, 0, budget, rows, pattern=kind)] for rows in [(0.0, 1.0), *halves]
            )
            sizes = {"block_tokens": 64, "piece_tokens": 16}
            asked = prepare(whole, [chunk], **sizes)
            every = prepare([HeadShare(0, 0, 1000)], [chunk], **sizes).counts
            share = asked.counts.tiles / every.tiles
            dense = kind is POOLED and share >= 0.7
            found = prepare(whole, [chunk], **sizes, dense_from=0.7)
            assert found.counts == (every if dense else asked.counts)
            assert (found.prefill.stored == 0) == (dense or share == 1)
            both = [prepare(part, [chunk], **sizes, dense_from=0.7) for part in parts]
            assert sum(step.counts.tiles for step in both) == found.counts.tiles
            for part, step in zip(parts, both, strict=True):
                assert step.spans == prepare(part, [chunk], **sizes).spans


def test_nothing_to_do_is_prepared():
    step = prepare([], [Chunk(0, 10)], 16)
    assert (step.prefill, step.decode, step.counts.tiles) == (None, None, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_tokens": 0}, r"block_tokens: 0 must be a whole number, at least 1"),
        ({"block_tokens": 16.0}, r"block_tokens: 16.0"),
        ({"chunks": [Chunk(0, 0)]}, r"chunks\[0\].new_tokens: 0 must be .* at least 1"),
        ({"chunks": [Chunk(-1, 5)]}, r"chunks\[0\].cached_tokens: -1 must be .* at least 0"),
        ({"chunks": [Chunk(0, 2.0)]}, r"new_tokens: 2.0"),
        ({"chunks": [Chunk(9, 2, True)]}, r"chunks\[0\]: decodes, but brings 2 new tokens"),
        ({"room_tokens": 2**40}, r"may have 1073741824 tokens at most"),
        ({"programs": 0}, r"programs: 0 must be a whole number, at least 1"),
        ({"room_tokens": 9}, r"room_tokens: 9 must be .* at least the longest sequence's 10"),
    ],
)
def test_bad_sizes_are_named(change, message):
    arguments = {"shares": [HeadShare(0, 0, 16)], "chunks": [Chunk(0, 10)], "block_tokens": 16}
    with pytest.raises(AttentionError, match=message):
        prepare(**{**arguments, **change})


def test_tables_are_on_the_device_asked_for():
    step = prepare([HeadShare(0, 0, 16)], [Chunk(0, 10)], 16, torch.device("meta"))
    assert step.prefill is not None
    assert step.prefill.order.device.type == "meta"


def test_a_strided_list_is_as_long_as_its_pattern_whatever_the_budget():
    pattern = Rule.strided(local_blocks=2, stride=4)
    for budget_tokens in (16, 10_000):
        share = HeadShare(0, 0, budget_tokens, pattern=pattern)
        step = prepare([share], [Chunk(319, 1, True)], 16)
        assert step.counts.tiles == 2 + 5
        assert step.decode is not None
        assert step.decode.stored == 7


def test_lists_of_a_pattern_stand_side_by_side():
    shares = [
        HeadShare(head, head, 32, sequence=s, pattern=Rule.sink_local() if head % 2 else POOLED)
        for s in range(3)
        for head in range(4)
    ]
    step = prepare(shares, [Chunk(99, 1, True)] * 3, 16)
    assert step.decode is not None
    assert len(list(runs([entry.pattern for entry in step.decode.lists]))) == 2


def test_more_blocks_than_places_are_refused(monkeypatch):
    monkeypatch.setattr(step_module, "MOST_INDICES", 5)
    with pytest.raises(AttentionError, match=r"6 chosen pieces in all, .* 5 at most"):
        prepare([HeadShare(0, 0, 48)], [Chunk(0, 80)], 16)
