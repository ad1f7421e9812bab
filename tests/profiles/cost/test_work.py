from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.architecture import Architecture
from profiles.cost.work import (
    FEATURES,
    INDEX,
    Phase,
    Workload,
    budget_pieces,
    group_work,
    head_work,
    kv_group_bytes,
)
from profiles.selection import POOLED, Sampled, SinkLocal, VerticalSlash
from profiles.sizes import causal_pieces, gathered_pieces

SHAPE = Architecture(layers=2, query_heads=8, kv_heads=2, head_dim=128, hidden_size=1024)


def feature(work: np.ndarray, name: str) -> np.ndarray:
    return work[..., INDEX[name]]


def tiles(work: np.ndarray) -> np.ndarray:
    return feature(work, "dense_tile_flops") + feature(work, "gathered_tile_flops")


STEPS = st.builds(
    Workload,
    context_tokens=st.integers(1, 700),
    phase=st.sampled_from(["prefill", "decode"]),
    block_tokens=st.sampled_from([64, 128]),
    piece_tokens=st.sampled_from([0, 16, 32, 64]),
)


@given(st.integers(0, 60), st.sampled_from([1, 2, 4, 8]), st.data())
def test_causal_pieces_counts_every_row(rows: int, own: int, data: st.DataObject) -> None:
    pieces = data.draw(st.integers(1, 2 * (rows + 1) * own))
    counted = sum(min(pieces, (row + 1) * own) for row in range(rows))
    assert causal_pieces(pieces, rows, own) == counted
    assert causal_pieces(np.array([pieces]), rows, own) == [counted]
    if own == 1 and pieces <= rows:  # a piece is a block: the triangle and what is below it
        triangle = pieces * (pieces + 1) // 2
        assert counted == triangle + (rows - pieces) * pieces


@given(st.integers(1, 60), st.sampled_from([1, 2, 4, 8]), st.data())
def test_gathered_pieces_are_those_of_lists_that_leave_some_out(
    blocks: int, own: int, data: st.DataObject
) -> None:
    every = data.draw(st.integers((blocks - 1) * own + 1, blocks * own))
    pieces = data.draw(st.integers(min(own, every), every))
    rows = data.draw(st.integers(0, blocks))
    ends = [min((row + 1) * own, every) for row in range(rows)]
    counted = sum(pieces - (end - row * own) for row, end in enumerate(ends) if pieces < end)
    assert gathered_pieces(pieces, rows, every, own) == counted
    assert gathered_pieces(np.array([pieces]), np.array([rows]), every, own) == [counted]


def lists_of(step: Workload, budget: int) -> list[set[int]]:
    """The key pieces that each query block sees, cut to the budget; its own are always in."""
    budgeted = -(-budget // step.piece_tokens)
    lists = []
    for first in range(0, step.context_tokens, step.block_tokens):
        last = min(first + step.block_tokens, step.context_tokens)
        seen = {key // step.piece_tokens for key in range(last)}
        own = {key // step.piece_tokens for key in range(first, last)}
        # A block that the context cuts short keeps the budget of a whole one.
        length = max(budgeted, step.block_tokens // step.piece_tokens)
        others = sorted(seen - own)[: max(length - len(own), 0)]
        lists.append(own | set(others))
    return lists


@given(STEPS, st.integers(1, 800))
def test_work_counts_the_pairs_of_every_list(step: Workload, budget: int) -> None:
    """Token pairs by brute force, diagonals whole; and candidates before anything is chosen."""
    work = head_work(np.array(float(budget)), SHAPE, step, Sampled(rows=3))
    pairs_flops = 4 * SHAPE.head_dim
    if step.phase == "decode":
        read = sorted({key // step.piece_tokens for key in range(min(budget, step.context_tokens))})
        chooses = len(read) < step.context_pieces
        flops = pairs_flops * step.piece_tokens * len(read)
        assert feature(work, "gathered_tile_flops") == flops * chooses
        assert feature(work, "dense_tile_flops") == flops * (not chooses)
        assert feature(work, "scored_blocks") == chooses * step.context_pieces
        return
    lists, whole = lists_of(step, budget), lists_of(step, step.context_tokens)
    gathered = sum(
        len(listed & before)
        for listed, before, seen in zip(lists, [set(), *whole], whole, strict=False)
        if listed != seen
    )
    tile = pairs_flops * step.block_tokens * step.piece_tokens
    chooses = -(-budget // step.piece_tokens) < step.context_pieces and len(whole) > 1
    candidates = sum(map(len, whole)) if chooses else 0
    assert feature(work, "query_blocks") == len(lists)
    assert feature(work, "scored_blocks") == candidates
    choosing = 2 * 3 * SHAPE.head_dim * step.piece_tokens * candidates
    assert feature(work, "sampled_flops") == choosing
    assert feature(work, "gathered_tile_flops") == tile * gathered
    assert tiles(work) == tile * sum(map(len, lists))


@given(
    budget=st.floats(1, 3000),
    context=st.integers(1, 2000),
    phase=st.sampled_from(["prefill", "decode"]),
    batch_size=st.integers(1, 3),
)
def test_one_size_is_two_equal_ones(
    budget: float, context: int, phase: Phase, batch_size: int
) -> None:
    one = Workload(context, phase, batch_size, block_tokens=32)
    two = Workload(context, phase, batch_size, block_tokens=32, piece_tokens=32)
    assert one == two
    assert one.context_pieces == one.context_blocks
    # Decodes have no query blocks: pieces are all that counts.
    if phase == "decode":
        budgets, small = np.full((1, 8), budget), replace(one, block_tokens=128)
        for count in (head_work, group_work):
            np.testing.assert_array_equal(count(budgets, SHAPE, small), count(budgets, SHAPE, one))


@pytest.mark.parametrize(("block", "piece"), [(64, 128), (64, 48), (64, -16)])
def test_pieces_divide_blocks(block: int, piece: int) -> None:
    with pytest.raises(ValueError, match=f"piece_tokens: {piece} does not divide block_tokens"):
        Workload(1000, block_tokens=block, piece_tokens=piece)


def test_budgets_become_whole_blocks_within_the_context() -> None:
    workload = Workload(1000)
    assert budget_pieces(np.array([0.0, 1, 64, 65, 1e9]), workload).tolist() == [1, 1, 1, 2, 16]


def test_a_full_prefill_head_does_the_triangle_and_scores_nothing() -> None:
    work = head_work(np.full((2, 8), 1024.0), SHAPE, Workload(1024))
    assert work.shape == (2, 8, len(FEATURES))
    assert (feature(work, "dense_tile_flops") == 4 * 64 * 64 * 128 * 16 * 17 / 2).all()
    assert (feature(work, "gathered_tile_flops") == 0).all()
    assert (feature(work, "scored_blocks") == 0).all()
    assert (feature(work, "query_blocks") == 16).all()


def test_a_sparse_head_pays_for_scoring() -> None:
    prefill = head_work(np.array([128.0]), SHAPE, Workload(1024))
    decode = head_work(np.array([128.0]), SHAPE, Workload(1024, "decode"))
    assert feature(prefill, "scored_blocks") == 16 * 17 / 2
    assert feature(decode, "scored_blocks") == 16
    assert feature(decode, "gathered_tile_flops") == 4 * 64 * 128 * 2


def test_every_tile_is_either_dense_or_gathered() -> None:
    budgets = np.array([1024.0, 128.0])
    work = head_work(budgets, SHAPE, Workload(1024, batch_size=2), Sampled())
    tile = 2 * 4 * 64 * 64 * 128
    # The first two lists hold all there is, the others one block besides their own.
    assert feature(work, "gathered_tile_flops").tolist() == [0, 14 * tile]
    assert feature(work, "dense_tile_flops").tolist() == [16 * 17 / 2 * tile, (1 + 2 + 14) * tile]


@pytest.mark.parametrize("rows", [1, 5])
def test_sampled_rows_are_multiplied_with_every_key_before_a_prefill_chooses(rows: int) -> None:
    budgets, step = np.array([128.0, 1024.0]), Workload(1000, batch_size=3)
    pooled, sampled = (
        head_work(budgets, SHAPE, step, selection) for selection in (POOLED, Sampled(rows=rows))
    )
    more = sampled - pooled
    pairs = 3 * 16 * 17 / 2
    # A row and a key: a multiplication and an addition for each of 128 dimensions.
    assert feature(more, "sampled_flops").tolist() == [pairs * rows * 64 * 2 * 128, 0]
    more[..., INDEX["sampled_flops"]] = 0
    assert not more.any()


def test_other_ways_to_choose_and_decodes_multiply_nothing_more() -> None:
    budgets, decode = np.array([128.0]), Workload(1000, "decode")
    pooled = head_work(budgets, SHAPE, Workload(1000))
    assert (head_work(budgets, SHAPE, Workload(1000), VerticalSlash()) == pooled).all()
    by_rule = head_work(budgets, SHAPE, Workload(1000), SinkLocal(sink_tokens=64))
    assert feature(by_rule, "scored_blocks") == 0
    assert tiles(by_rule) == tiles(pooled)
    sampled = head_work(budgets, SHAPE, decode, Sampled())
    assert (sampled == head_work(budgets, SHAPE, decode)).all()


def test_decode_reads_the_longest_list_of_the_group_once() -> None:
    budgets = np.full((2, 8), 64.0)
    budgets[0, 3] = 512
    work = group_work(budgets, SHAPE, Workload(4096, "decode"))
    assert work.shape == (2, 2, len(FEATURES))
    tokens = feature(work, "kv_bytes") / (2 * 128 * 2)
    assert tokens.tolist() == [[512, 64], [64, 64]]


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_batch_is_as_many_sequences(phase: str) -> None:
    budgets = np.full((2, 8), 256.0)
    for count in (head_work, group_work):
        one = count(budgets, SHAPE, Workload(1024, phase))  # type: ignore[arg-type]
        three = count(budgets, SHAPE, Workload(1024, phase, 3))  # type: ignore[arg-type]
        np.testing.assert_array_equal(three, 3 * one)


def test_each_sequence_brings_a_list_for_every_group_present() -> None:
    budgets = np.full((2, 8), 256.0)
    work = group_work(budgets, SHAPE, Workload(1024, "decode", 5))
    assert (feature(work, "kv_lists") == 5).all()
    assert (feature(head_work(budgets, SHAPE, Workload(1024)), "kv_lists") == 0).all()


def test_who_projects_depends_on_the_deployment() -> None:
    budgets = np.full((2, 8), 256.0)
    apart, together = Workload(1024), Workload(1024, deployment="tensor_parallel")
    assert (feature(head_work(budgets, SHAPE, apart), "projection_flops") == 0).all()
    assert (feature(group_work(budgets, SHAPE, apart), "link_bytes") == 2 * 1024 * 128 * 2).all()
    assert (feature(group_work(budgets, SHAPE, together), "link_bytes") == 0).all()
    per_matrix = 2 * 1024 * 1024 * 128
    for count in (head_work, group_work):
        work = count(budgets, SHAPE, together)
        assert (feature(work, "projection_flops") == 2 * per_matrix).all()


@given(
    tokens=st.lists(st.floats(1, 1e7), min_size=8, max_size=8),
    context=st.integers(1, 10**6),
)
def test_a_larger_budget_never_makes_fewer_tiles(tokens: list[float], context: int) -> None:
    counted = tiles(head_work(np.sort(tokens), SHAPE, Workload(context)))
    assert (np.diff(counted) >= 0).all()


def test_a_group_holds_keys_and_values_of_all_that_its_layer_reaches() -> None:
    step, token = Workload(1000, batch_size=3), 3 * 2 * 128 * 2
    assert kv_group_bytes(SHAPE, step).tolist() == [1000 * token] * SHAPE.layers
    windows = (None, *[64] * (SHAPE.layers - 1))
    hybrid = SHAPE.model_copy(update={"windows": windows})
    assert kv_group_bytes(hybrid, step).tolist() == [(w or 1000) * token for w in windows]
