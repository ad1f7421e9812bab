import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.errors import ShardError
from executor.shard import HeadPart, layer_shard
from solver.plans import Plan
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
        ranges = sorted(p.rows for shard in shards for p in shard.heads if p.head == head)
        assert ranges[0][0] == 0.0
        assert ranges[-1][1] == 1.0
        assert [end for _, end in ranges[:-1]] == [start for start, _ in ranges[1:]]
    for shard in shards:
        group_size = len(placement) // kv_heads
        assert list(shard.groups) == sorted({part.head // group_size for part in shard.heads})
        assert [part.head for part in shard.heads] == sorted(part.head for part in shard.heads)


def test_a_divided_head_gives_consecutive_rows() -> None:
    plan = tiny_plan(QUARTERS)
    assert layer_shard(plan, 0, 0).heads == (HeadPart(0, 64), HeadPart(2, 192, (0.0, 0.25)))
    assert layer_shard(plan, 0, 0).groups == (0, 1)
    assert HeadPart(2, 192, (0.25, 1.0)) in layer_shard(plan, 1, 0).heads


def test_an_idle_device_has_nothing() -> None:
    shard = layer_shard(tiny_plan(whole(0, 0, 0, 0)), 1, 0)
    assert shard.heads == ()
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
