import pytest

from executor.choosing import pattern
from executor.errors import ShardError
from executor.kernels import patterns
from executor.node.shard import layer_shard
from profiles import selection
from profiles.architecture import Architecture
from tests.executor.plans import tiny_plan

MODEL = Architecture(layers=1, query_heads=8, kv_heads=4, head_dim=16, hidden_size=32)


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        (selection.Pooled(), patterns.Pooled()),
        (selection.VerticalSlash(), patterns.VerticalSlash()),
        (selection.Sampled(rows=5), patterns.Sampled(5)),
        (selection.SinkLocal(sink_tokens=65), patterns.SinkLocal(2)),
        (selection.SinkLocal(sink_tokens=0), patterns.SinkLocal(0)),
    ],
)
def test_every_selection_has_its_pattern(chosen, wanted):
    assert pattern(chosen, MODEL, 0, 64) == wanted


def test_strides_shift_from_group_to_group_and_dense_groups_have_none():
    chosen = selection.Strided(block_tokens=64, local_blocks=4, vert_stride=3, dense_kv_heads=1)
    found = [pattern(chosen, MODEL, group, 64) for group in range(4)]
    offsets = [chosen.offset(group, MODEL) for group in range(3)]
    assert found == [*(patterns.Strided(4, 3, offset) for offset in offsets), patterns.POOLED]
    assert len(set(offsets)) == 3


def test_strides_of_another_block_size_are_refused():
    chosen = selection.Strided(block_tokens=64, local_blocks=4, vert_stride=3)
    with pytest.raises(ShardError, match=r"64-token blocks cannot run in pieces of 128"):
        pattern(chosen, MODEL, 0, 128)


def test_a_plans_selection_reaches_its_shards():
    plan = tiny_plan().model_copy(update={"selection": selection.SinkLocal(sink_tokens=64)})
    shares = layer_shard(plan, 1, 0).shares
    assert {share.pattern for share in shares} == {patterns.SinkLocal(1)}
