"""A batch over a paged cache, laid out at once: what the slots of a rank compute call by call."""

from dataclasses import replace

import pytest
import torch

from executor.attention.block_sparse import attend
from executor.inference.policy import LayerCall
from executor.inference.slot_policy import SlotPolicy
from executor.inference.slot_steps import LEAST_ROOM, SlotSteps, paged
from executor.kernels.batch import Cache
from executor.kernels.bounds import page_bounds, refresh_page_bounds
from executor.weights.execution_map import ExecutionMap, Original
from executor.weights.slots import slots_of
from tests.executor.weights.models import DIVIDED, planned

PAGE, HEAD_DIM = 32, 16
LENGTHS = [(130, 131), (0, 200), (77, 90), (300, 301), (5, 6), (64, 192), (128, 129), (9, 9)]
"""Tokens had and held: decodes, a prompt, chunks that begin inside blocks, one that rests."""
PLAN = planned(DIVIDED, slots=2)
MADE = ExecutionMap.of(PLAN, slots_of(PLAN), original=Original(tensors_sha256="", files={}))


def in_pages(keys: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences' [kv_heads, tokens, head_dim] in pages of anywhere, NaN behind their ends."""
    counts = [-(-x.shape[1] // PAGE) for x in keys]
    at = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(1))
    cache = torch.full((len(at), keys[0].shape[0], PAGE, HEAD_DIM), torch.nan)
    table = torch.zeros(len(keys), -(-LEAST_ROOM // PAGE), dtype=torch.int32)
    begin = 0
    for number, (x, count) in enumerate(zip(keys, counts, strict=True)):
        mine = at[begin : begin + count]
        begin += count
        table[number, :count] = mine.int()
        filled = torch.full((x.shape[0], count * PAGE, HEAD_DIM), torch.nan)
        filled[:, : x.shape[1]] = x
        cache[mine] = filled.view(x.shape[0], count, PAGE, HEAD_DIM).transpose(0, 1)
    return cache, table


@pytest.mark.parametrize("ranks", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_batch_is_its_sequences(ranks: tuple[int, ...], layer: int) -> None:
    policy = SlotPolicy(MADE, ranks, backend="torch")
    heads, groups = len(MADE.layout.heads(layer, ranks)), len(MADE.layout.groups(layer, ranks))
    generator = torch.Generator().manual_seed(0)
    had, has = zip(*LENGTHS, strict=True)
    tokens = [total - cached for cached, total in LENGTHS]
    q = torch.randn(heads, sum(tokens), HEAD_DIM, generator=generator)
    keys, values = (
        [torch.randn(groups, total, HEAD_DIM, generator=generator) for total in has]
        for _ in range(2)
    )
    (k, table), (v, _) = in_pages(keys), in_pages(values)
    steps = SlotSteps(MADE, ranks, LEAST_ROOM, torch.device("cpu"), range(2))
    batch = steps.of_batch(had, has)
    context = torch.tensor(has, dtype=torch.int32)
    out, tiles = torch.zeros_like(q), 0
    for phase in batch.phases:
        step, of = phase.steps[layer], paged(phase, table, context, PAGE)
        assert step is not None
        step = replace(step, context_tokens=of.context)
        found = attend(q[:, phase.tokens], Cache(k, v, pages=of.pages), step, "torch")
        out[:, phase.tokens] = found.out
    decoding = [total for total, new in zip(has, tokens, strict=True) if new == 1]
    expected, begin, decoded = torch.zeros_like(q), 0, 0
    for number, (total, new) in enumerate(zip(has, tokens, strict=True)):
        if new:
            call = LayerCall(
                layer,
                q[:, begin : begin + new],
                keys[number],
                values[number],
                HEAD_DIM**-0.5,
                sequence=decoded if new == 1 else 0,
                lengths=tuple(decoding) if new == 1 else (total,),
            )
            attended = policy.attend(call)
            expected[:, begin : begin + new] = attended.out
            tiles += attended.tiles
            decoded += new == 1
        begin += new
    torch.testing.assert_close(out, expected)
    # Of the other layer alone the same is counted as of both less of this one.
    other = SlotSteps(MADE, ranks, LEAST_ROOM, torch.device("cpu"), {1 - layer})
    counted = batch.tiles - other.of_batch(had, has).tiles
    assert counted == tiles
    assert batch.tiles < batch.dense_tiles


def test_all_ranks_rows_are_each_computed_once() -> None:
    had, has = zip(*LENGTHS, strict=True)
    total = torch.zeros(MADE.architecture.query_heads, sum(has) - sum(had), dtype=torch.int64)
    for rank in range(2):
        steps = SlotSteps(MADE, (rank,), LEAST_ROOM, torch.device("cpu"), range(1))
        slots = [slot for slot in MADE.layout.layers[0][rank] if slot is not None]
        for phase in steps.of_batch(had, has).phases:
            step = phase.steps[0]
            assert step is not None
            tokens = torch.arange(total.shape[1])[phase.tokens]
            for place, spans in enumerate(step.spans):
                head = slots[place // 2].heads[place % 2]
                for span in spans:
                    total[head, tokens[span]] += 1
    assert torch.equal(total, torch.ones_like(total))


def test_the_next_decodes_are_the_same_step() -> None:
    steps = SlotSteps(MADE, (0,), LEAST_ROOM, torch.device("cpu"), range(2))
    first, second = (steps.of_batch([99 + n, 600 + n], [100 + n, 601 + n]) for n in (0, 1))
    assert first.phases[0].steps is second.phases[0].steps
    longer = steps.of_batch([99, LEAST_ROOM], [100, LEAST_ROOM + 1])
    assert longer.phases[0].steps is not first.phases[0].steps


def test_bounds_of_the_pages_written_to_are_those_of_all() -> None:
    generator = torch.Generator().manual_seed(2)
    keys = [torch.randn(2, total, HEAD_DIM, generator=generator) for total in (70, 200)]
    cache, table = in_pages(keys)
    before = torch.tensor([40, 150], dtype=torch.int32)
    after = torch.tensor([70, 200], dtype=torch.int32)
    whole = Cache(cache, cache, pages=table)
    bounds = page_bounds(whole, before, 16)
    steps = SlotSteps(MADE, (0,), LEAST_ROOM, torch.device("cpu"), range(2))
    (phase,) = steps.of_batch(before.tolist(), after.tolist()).phases
    of = paged(phase, table, after, PAGE)
    assert of.touched.shape == (2, 3)
    refresh_page_bounds(Cache(cache, cache, pages=of.touched), bounds, of.filled)
    assert torch.equal(bounds, page_bounds(whole, after, 16))
