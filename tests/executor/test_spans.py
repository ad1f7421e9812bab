from itertools import pairwise

import numpy as np
import pytest

from executor.shard import layer_shard
from executor.spans import sequence_chunks, sequence_rows, token_spans
from solver.rows import RowGrid, boundaries
from tests.executor.plans import QUARTERS, tiny_plan


def parts_of_head_2(**options):
    plan = tiny_plan(QUARTERS, **options)
    workload = plan.workload.workload
    return [
        part for d in range(2) for part in layer_shard(plan, d, 0).heads if part.head == 2
    ], workload


def test_rows_of_divided_prompts_meet_in_every_sequence():
    parts, workload = parts_of_head_2(context_tokens=1000, batch_size=2)
    first, second = (token_spans(part, workload) for part in parts)
    for sequence, (a, b) in enumerate(zip(first, second, strict=True)):
        assert (a.start, b.stop) == (1000 * sequence, 1000 * (sequence + 1))
        assert a.stop == b.start
        assert (a.stop - a.start) % 64 == 0


@pytest.mark.parametrize("piece_tokens", [16, 32, 64])
@pytest.mark.parametrize("context_tokens", [65, 300, 1000])
def test_prompts_are_divided_where_the_solver_divides_them(context_tokens, piece_tokens):
    parts, workload = parts_of_head_2(context_tokens=context_tokens, piece_tokens=piece_tokens)
    ends = boundaries(np.array([[0.25, 0.75]]), RowGrid.of(np.array([[192]]), workload), 0)
    [first], [second] = (token_spans(part, workload) for part in parts)
    assert (first.start, first.stop) == (0, ends[0, 0] * 64)
    assert (second.start, second.stop) == (first.stop, context_tokens)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("context_tokens", [65, 300, 1000])
@pytest.mark.parametrize("piece_tokens", [16, 64])
def test_decodes_are_divided_where_the_solver_divides_them(
    batch_size, context_tokens, piece_tokens
):
    parts, workload = parts_of_head_2(
        context_tokens=context_tokens,
        batch_size=batch_size,
        phase="decode",
        piece_tokens=piece_tokens,
    )
    pieces = min(192 // piece_tokens, workload.context_pieces)
    rows = [[sequence_rows(part, workload, s) for s in range(batch_size)] for part in parts]
    computed = [round(sum(b - a for r in each for a, b in r) * pieces) for each in rows]
    grid = RowGrid(np.array([[pieces]]), workload.context_blocks, batch_size, "decode")
    wanted = boundaries(np.array([[0.25, 0.75]]), grid, 0)
    assert computed == np.diff(wanted[0], prepend=0).tolist()
    for s in range(batch_size):
        edges = [edge for each in rows for r in each[s] for edge in r]
        assert (edges[0], edges[-1]) == (0, 1)
        assert all(a == b for a, b in pairwise(edges[1:-1]))
    spans = [token_spans(part, workload) for part in parts]
    for each, span in zip(rows, spans, strict=True):
        held = {s for s in range(batch_size) if each[s]}
        assert {s for piece in span for s in range(piece.start, piece.stop)} == held


def test_chunks_of_both_phases():
    _, workload = parts_of_head_2(context_tokens=100, batch_size=2)
    assert [(c.cached_tokens, c.new_tokens) for c in sequence_chunks(workload)] == [(0, 100)] * 2
    _, workload = parts_of_head_2(context_tokens=100, phase="decode")
    assert [(c.cached_tokens, c.new_tokens) for c in sequence_chunks(workload)] == [(99, 1)]
