"""Steps laid out for a whole batch at once are those that `prepare` lays out one by one."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from executor.attention.shares import HeadShare
from executor.attention.step import BatchedSteps, PreparedStep, prepare
from executor.kernels.batch import Chunk
from executor.kernels.patterns import POOLED, SAMPLED, Pattern, Rule

BLOCK = 64
CPU = torch.device("cpu")
PATTERNS: tuple[Pattern, ...] = (POOLED, SAMPLED, Rule.sink_local(2))
"""Of the heads of a KV group."""


def shares(rows: list[tuple[float, float]], budgets: list[int]) -> list[HeadShare]:
    """Two heads a group, each group with a pattern of its own."""
    return [
        HeadShare(head, head // 2, budget, part, pattern=PATTERNS[head // 2])
        for head, (part, budget) in enumerate(zip(rows, budgets, strict=True))
    ]


ROWS = st.sampled_from([(0.0, 1.0), (0.0, 0.3), (0.3, 1.0), (0.25, 0.6)])
LAYER = st.lists(st.tuples(ROWS, st.integers(1, 700)), max_size=6).map(
    lambda parts: shares([rows for rows, _ in parts], [budget for _, budget in parts])
)
CHUNKS = st.lists(
    st.builds(Chunk, st.integers(0, 400), st.integers(2, 300)), min_size=1, max_size=4
)


def same(found: PreparedStep | None, expected: PreparedStep) -> None:
    """All that a kernel reads, and all that is counted."""
    if found is None:
        assert not expected.computed_rows
        return
    for one, other in ((found, expected), (found.prefill, expected.prefill)):
        if one is None or other is None:
            assert one is other
            continue
        for field in fields(one):
            mine, theirs = getattr(one, field.name), getattr(other, field.name)
            if isinstance(mine, torch.Tensor):
                assert mine.dtype == theirs.dtype, field.name
                assert torch.equal(mine, theirs), field.name
            elif field.name == "entry_heads":
                assert mine() == theirs()
            elif field.name not in ("prefill", "decode"):
                assert mine == theirs, field.name
    assert found.spans == expected.spans


@pytest.mark.parametrize("piece", [64, 16])
@given(layers=st.lists(LAYER, min_size=1, max_size=3), chunks=CHUNKS)
def test_prompts_of_all_layers_are_the_steps_of_each(
    piece: int, layers: list[list[HeadShare]], chunks: list[Chunk]
) -> None:
    steps, dense = BatchedSteps(layers, BLOCK, piece, CPU).prompts(chunks)
    causal = 0
    for layer, found in zip(layers, steps, strict=True):
        # By pattern, then sequence.
        ordered = [
            HeadShare(s.head, s.group, s.budget_tokens, s.rows, number, s.pattern)
            for pattern in sorted(PATTERNS, key=repr)
            for number in range(len(chunks))
            for s in layer
            if s.pattern == pattern
        ]
        same(found, prepare(ordered, chunks, BLOCK, piece_tokens=piece))
        if found is not None and found.prefill is not None:
            causal += sum(
                int(found.prefill.grid(part.sequence).causal(part.first, part.last).sum())
                for part in found.prefill.heads
            )
    assert dense == causal


def test_strided_lists_are_as_long_as_their_rule_says() -> None:
    layer = [HeadShare(h, h, 64, pattern=Rule.strided(2, 3, h)) for h in range(3)]
    chunks = [Chunk(0, 640), Chunk(130, 300)]
    found = BatchedSteps([layer], BLOCK, BLOCK, CPU).prompts(chunks)[0][0]
    ordered = [
        HeadShare(s.head, s.group, 64, s.rows, n, s.pattern)
        for s in sorted(layer, key=lambda share: repr(share.pattern))
        for n in range(2)
    ]
    same(found, prepare(ordered, chunks, BLOCK))


@given(
    layer=LAYER.filter(bool),
    sequences=st.lists(st.integers(0, 63), min_size=1, max_size=4),
    room=st.integers(65, 900),
)
def test_decodes_are_prepared_once_for_their_room(
    layer: list[HeadShare], sequences: list[int], room: int
) -> None:
    maker = BatchedSteps([layer], BLOCK, 16, CPU)
    here = [tuple(bool(bits >> index & 1) for index in range(len(layer))) for bits in sequences]
    found = maker.decodes([here], room)[0]
    chunks = [Chunk(room - 1, 1, decodes=True)] * len(here)
    ordered = [
        HeadShare(s.head, s.group, s.budget_tokens, sequence=number, pattern=s.pattern)
        for number, mine in enumerate(here)
        for s, is_mine in zip(maker.layers[0], mine, strict=True)
        if is_mine
    ]
    expected = prepare(ordered, chunks, BLOCK, piece_tokens=16).decode
    if found is None:
        assert expected is None
        return
    assert found.decode is not None
    assert expected is not None
    assert found.decode.lists == expected.lists
    for name in ("entries", "heads", "start", "budget", "part"):
        assert torch.equal(getattr(found.decode, name), getattr(expected, name)), name
    assert found.decode.stored == expected.stored
