"""A plan's heads have their selection's pattern, and measuring the lists that attention runs on."""

import pytest
import torch

from executor.attention.block_sparse import attend
from executor.attention.select import pattern, select_for_budgets
from executor.attention.shares import HeadShare
from executor.attention.step import prepare
from executor.errors import AttentionError, ShardError
from executor.kernels import patterns
from executor.kernels.batch import Cache, Chunk
from executor.node.shard import layer_shard
from profiles import selection
from profiles.architecture import Architecture
from tests.executor.plans import tiny_plan

HEADS, GROUPS, DIM, SIZE = 6, 2, 16, 16
SHAPE = Architecture(layers=1, query_heads=HEADS, kv_heads=GROUPS, head_dim=DIM, hidden_size=96)
SELECTIONS = [
    selection.Pooled(),
    selection.VerticalSlash(),
    selection.Sampled(),
    selection.Sampled(rows=5),
    selection.SinkLocal(sink_tokens=0),
    selection.SinkLocal(sink_tokens=40),
]


def tensors(tokens: int, seed: int = 0, dtype: torch.dtype = torch.float32):
    made = torch.Generator().manual_seed(seed)
    q = torch.randn(HEADS, tokens, DIM, generator=made) * 3
    return q.to(dtype), torch.randn(GROUPS, tokens, DIM, generator=made).to(dtype)


def attended(q, k, budget, chosen, block=SIZE):
    """The step's own indices as {(head, query block): pieces}."""
    shares = [
        HeadShare(head, head // 3, budget * SIZE, pattern=pattern(chosen, SHAPE, head // 3, SIZE))
        for head in range(HEADS)
    ]
    step = prepare(shares, (Chunk(0, q.shape[1]),), block, piece_tokens=SIZE)
    result = attend(q, Cache(k, k, starts=torch.zeros(1, dtype=torch.int32)), step, "torch")
    layout = step.prefill
    assert layout is not None
    found = {}
    for number in range(layout.lists):
        entry, row = int(layout.entry[number]), int(layout.query_block[number])
        start, length = int(layout.start[number]), int(layout.length[number])
        pieces = range(length) if start < 0 else result.indices[start : start + length].tolist()
        found[layout.heads[entry].head, row] = sorted(pieces)
    return found


@pytest.mark.parametrize("chosen", SELECTIONS, ids=repr)
@pytest.mark.parametrize("tokens", [16 * 9, 16 * 8 + 5, 7])
@pytest.mark.parametrize("block", [SIZE, 4 * SIZE])
def test_lists_are_those_of_attention(chosen: selection.Selection, tokens: int, block: int) -> None:
    q, k = tensors(tokens)
    blocks, pieces = -(-tokens // block), -(-tokens // SIZE)
    rows = torch.arange(blocks)[::2]
    lists = select_for_budgets(q, k, rows, block, SIZE, chosen)
    for budget in range(1, pieces + 3):
        wanted, found = attended(q, k, budget, chosen, block), lists(budget)
        assert found.shape == (HEADS, len(rows), pieces)
        for head in range(HEADS):
            for place, row in enumerate(rows.tolist()):
                assert found[head, place].nonzero().flatten().tolist() == wanted[head, row]


def test_few_lists_at_a_time_choose_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k = tensors(16 * 8)
    rows, chosen = torch.arange(8), selection.Sampled()
    wanted = select_for_budgets(q, k, rows, SIZE, SIZE, chosen)(3)
    monkeypatch.setattr("executor.attention.select.lists_at_once", lambda *_, **__: 3)
    assert torch.equal(select_for_budgets(q, k, rows, SIZE, SIZE, chosen)(3), wanted)


def test_lists_grow_with_the_budget_and_do_not_depend_on_the_order_asked() -> None:
    q, k = tensors(16 * 8)
    lists = select_for_budgets(q, k, torch.tensor([7, 3]), SIZE, SIZE, selection.Pooled())
    small, large, again = lists(3), lists(6), lists(3)
    assert torch.equal(small, again)
    assert (large | ~small).all()
    assert (large & ~small).any()


def test_half_precision_is_scored_as_the_executor_does() -> None:
    q, k = tensors(16 * 6, dtype=torch.bfloat16)
    found = select_for_budgets(q, k, torch.tensor([5]), SIZE, SIZE, selection.Pooled())(3)
    wanted = attended(q, k, 3, selection.Pooled())
    assert [h.nonzero()[:, 1].tolist() for h in found] == [wanted[h, 5] for h in range(HEADS)]


def test_a_strided_selection_has_no_budget() -> None:
    q, k = tensors(32)
    strided = selection.Strided(block_tokens=SIZE, local_blocks=1, vert_stride=2)
    with pytest.raises(AttentionError, match="strided chooses by no budget"):
        select_for_budgets(q, k, torch.tensor([1]), SIZE, SIZE, strided)


MODEL = Architecture(layers=1, query_heads=8, kv_heads=4, head_dim=16, hidden_size=32)


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        (selection.Pooled(), patterns.Pooled()),
        (selection.VerticalSlash(), patterns.VerticalSlash()),
        (selection.Sampled(rows=5), patterns.Sampled(5)),
        (selection.SinkLocal(sink_tokens=65), patterns.Rule.sink_local(2)),
        (selection.SinkLocal(sink_tokens=0), patterns.Rule.sink_local(0)),
    ],
)
def test_every_selection_has_its_pattern(chosen, wanted):
    assert pattern(chosen, MODEL, 0, 64) == wanted


def test_strides_shift_from_group_to_group_and_dense_groups_have_none():
    chosen = selection.Strided(block_tokens=64, local_blocks=4, vert_stride=3, dense_kv_heads=1)
    found = [pattern(chosen, MODEL, group, 64) for group in range(4)]
    offsets = [chosen.offset(group, MODEL) for group in range(3)]
    assert found == [*(patterns.Rule.strided(4, 3, offset) for offset in offsets), patterns.POOLED]
    assert len(set(offsets)) == 3


def test_strides_of_another_block_size_are_refused():
    chosen = selection.Strided(block_tokens=64, local_blocks=4, vert_stride=3)
    with pytest.raises(ShardError, match=r"64-token blocks cannot run in pieces of 128"):
        pattern(chosen, MODEL, 0, 128)


def test_a_plans_selection_reaches_its_shards():
    plan = tiny_plan().model_copy(update={"selection": selection.SinkLocal(sink_tokens=64)})
    shares = layer_shard(plan, 1, 0).shares
    assert {share.pattern for share in shares} == {patterns.Rule.sink_local(1)}
