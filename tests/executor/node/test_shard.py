from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.attention.shares import HeadShare
from executor.attention.step import prepare
from executor.errors import ShardError
from executor.kernels.patterns import POOLED, Rule
from executor.node.shard import LayerShard, layer_shard
from profiles.cost.work import Workload
from solver.plans import Plan
from solver.rows import RowGrid, boundaries
from solver.shares import Shares
from tests.executor.plans import QUARTERS, Placement, tiny_plan, whole


@st.composite
def placements(draw: st.DrawFn) -> tuple[Placement, int, int]:
    """A placement, its devices and its KV heads."""
    devices = draw(st.integers(1, 5))
    kv_heads = draw(st.integers(1, 3))
    placement: Placement = []
    for _ in range(kv_heads * draw(st.integers(1, 3))):
        weights = draw(st.lists(st.integers(1, 97), min_size=1, max_size=3))
        entries = [(draw(st.integers(0, devices - 1)), w / sum(weights)) for w in weights]
        placement.append(entries)
    return placement, devices, kv_heads


@given(placements())
def test_devices_partition_every_head(case: tuple[Placement, int, int]) -> None:
    placement, devices, kv_heads = case
    plan = tiny_plan(placement, devices=devices, kv_heads=kv_heads)
    shards = [layer_shard(plan, device, 1) for device in range(devices)]
    for head in range(len(placement)):
        ranges = sorted(
            share.rows
            for shard in shards
            for share in shard.shares
            if shard.heads[share.head] == head
        )
        assert ranges[0][0] == 0.0
        assert ranges[-1][1] == 1.0
        assert [end for _, end in ranges[:-1]] == [start for start, _ in ranges[1:]]
    for shard in shards:
        group_size = len(placement) // kv_heads
        assert list(shard.groups) == sorted({head // group_size for head in shard.heads})
        assert list(shard.heads) == sorted(shard.heads)
        assert [share.group for share in shard.shares] == [h // group_size for h in shard.heads]


def test_a_divided_head_gives_consecutive_rows() -> None:
    plan = tiny_plan(QUARTERS)
    first, second = (layer_shard(plan, device, 0) for device in range(2))
    assert first.heads == (0, 2)
    assert first.shares == (
        HeadShare(0, 0, 64, pattern=POOLED),
        HeadShare(1, 1, 192, (0.0, 0.25), pattern=POOLED),
    )
    assert first.groups == (0, 1)
    assert second.heads == (1, 2, 3)
    assert HeadShare(1, 1, 192, (0.25, 1.0), pattern=POOLED) in second.shares


def test_an_idle_device_has_nothing() -> None:
    shard = layer_shard(tiny_plan(whole(0, 0, 0, 0)), 1, 0)
    assert (shard.heads, shard.shares) == ((), ())
    assert shard.groups == ()


@pytest.mark.parametrize("layer", [-1, 2])
def test_unknown_layer(layer: int) -> None:
    with pytest.raises(ShardError, match=rf"layer {layer}: the plan has layers 0 to 1"):
        layer_shard(tiny_plan(), 0, layer)


@pytest.mark.parametrize("device", [-1, 2])
def test_unknown_device(device: int) -> None:
    with pytest.raises(ShardError, match=rf"device {device}: the plan has devices 0 to 1"):
        layer_shard(tiny_plan(), device, 0)


@pytest.mark.parametrize(
    ("entries", "total"), [([(0, 0.5), (1, 0.4)], "0.9"), ([(0, 1.0), (1, 1.0)], "2.0"), ([], "0")]
)
def test_shares_that_are_no_whole(entries: list[tuple[int, float]], total: str) -> None:
    plan = tiny_plan([entries, [(0, 1.0)]])
    with pytest.raises(ShardError, match=rf"layer 0, head 0: shares add to {total}"):
        layer_shard(plan, 0, 0)


def test_heads_that_do_not_fit_the_architecture() -> None:
    plan: Plan = tiny_plan(whole(0, 1), budgets=[64, 64, 64])
    with pytest.raises(ShardError, match=r"2 placed heads and 3 budgets.* has 2 query heads"):
        layer_shard(plan, 0, 0)


def head_2(**options: Any) -> tuple[list[tuple[LayerShard, int]], Workload]:
    """The shards of both devices that divide head 2, and where their q holds it."""
    plan = tiny_plan(QUARTERS, **options)
    shards = [layer_shard(plan, device, 0) for device in range(2)]
    return [(shard, shard.heads.index(2)) for shard in shards], plan.workload.workload


def spans(shard: LayerShard, index: int) -> tuple[slice, ...]:
    step = shard.workload
    prepared = prepare(
        shard.shares, shard.chunks, step.block_tokens, piece_tokens=step.piece_tokens
    )
    return prepared.spans[index]


def test_rows_of_divided_prompts_meet_in_every_sequence() -> None:
    parts, _ = head_2(context_tokens=1000, batch_size=2)
    first, second = (spans(*part) for part in parts)
    for sequence, (a, b) in enumerate(zip(first, second, strict=True)):
        assert (a.start, b.stop) == (1000 * sequence, 1000 * (sequence + 1))
        assert a.stop == b.start
        assert (a.stop - a.start) % 64 == 0


@pytest.mark.parametrize("piece_tokens", [16, 32, 64])
@pytest.mark.parametrize("context_tokens", [65, 300, 1000])
def test_prompts_are_divided_where_the_solver_divides_them(
    context_tokens: int, piece_tokens: int
) -> None:
    parts, workload = head_2(context_tokens=context_tokens, piece_tokens=piece_tokens)
    grid = RowGrid.of(np.array([[192]]), workload)
    ends = boundaries(Shares.of(np.array([[0.25, 0.75]])), grid, 0)
    [first], [second] = (spans(*part) for part in parts)
    assert (first.start, first.stop) == (0, ends[0, 0] * 64)
    assert (second.start, second.stop) == (first.stop, context_tokens)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("context_tokens", [65, 300, 1000])
@pytest.mark.parametrize("piece_tokens", [16, 64])
def test_decodes_are_divided_where_the_solver_divides_them(
    batch_size: int, context_tokens: int, piece_tokens: int
) -> None:
    parts, workload = head_2(
        context_tokens=context_tokens,
        batch_size=batch_size,
        phase="decode",
        piece_tokens=piece_tokens,
    )
    pieces = min(192 // piece_tokens, workload.context_pieces)
    rows = [{s.sequence: s.rows for s in shard.shares if s.head == i} for shard, i in parts]
    computed = [round(sum(b - a for a, b in each.values()) * pieces) for each in rows]
    grid = RowGrid(np.array([[pieces]]), workload.context_blocks, batch_size, "decode")
    wanted = boundaries(Shares.of(np.array([[0.25, 0.75]])), grid, 0)
    assert computed == np.diff(wanted[0], prepend=0).tolist()
    for s in range(batch_size):
        edges = [edge for each in rows if s in each for edge in each[s]]
        assert (edges[0], edges[-1]) == (0, 1)
        assert all(a == b for a, b in pairwise(edges[1:-1]))
    for each, part in zip(rows, parts, strict=True):
        held = {s for span in spans(*part) for s in range(span.start, span.stop)}
        assert held == set(each)


def test_chunks_of_both_phases() -> None:
    (shard, _), _ = head_2(context_tokens=100, batch_size=2)[0]
    assert [(c.cached_tokens, c.new_tokens) for c in shard.chunks] == [(0, 100)] * 2
    (shard, _), _ = head_2(context_tokens=100, phase="decode")[0]
    assert [(c.cached_tokens, c.new_tokens, c.decodes) for c in shard.chunks] == [(99, 1, True)]


def test_heads_of_a_layer_with_a_window_read_the_nearest_keys() -> None:
    plan = tiny_plan()
    hybrid = plan.architecture.model_copy(update={"windows": (None, 64)})
    plan = plan.model_copy(update={"architecture": hybrid})
    full, sliding = (layer_shard(plan, 0, layer).shares for layer in range(2))
    assert {share.pattern for share in full} == {POOLED}
    assert {share.pattern for share in sliding} == {Rule.sink_local(0)}
