"""Rows that a rank watched: whose they are, where they lie, and few reports of many requests."""

import numpy as np
import pytest
import torch

from executor.inference.slot_steps import SlotSteps
from executor.inference.watched_rows import HeldRows, watched_rows
from executor.weights.execution_map import ExecutionMap, Original
from executor.weights.slots import slots_of
from tests.executor.weights.models import DIVIDED, planned

PLAN = planned(DIVIDED, slots=2)
MADE = ExecutionMap.of(PLAN, slots_of(PLAN), original=Original(tensors_sha256="", files={}))
LAYER = 1


def watched(rank: int, had: list[int], has: list[int]) -> list[HeldRows]:
    """Of a batch's decodes and prompts, each entry with a recovery of its own."""
    steps = SlotSteps(MADE, (rank,), 4096, torch.device("cpu"), range(2))
    heads, found = MADE.layout.heads(LAYER, (rank,)), []
    for phase in steps.of_batch(had, has).phases:
        step = phase.steps[LAYER]
        assert step is not None
        shape: tuple[int, ...] = ()
        if step.prefill is not None:
            shape = (len(step.prefill.heads),)
        elif step.decode is not None:
            shape = tuple(step.decode.heads.shape)
        recovery = np.linspace(0.5, 1.0, int(np.prod(shape))).reshape(shape)
        found.append(watched_rows(step, phase.context, heads, recovery))
    return found


def test_ranks_that_divide_a_head_have_its_rows_between_them() -> None:
    """Chunks of two prompts, one of which begins inside a query block."""
    chunks = [(0, 640), (200, 900)]
    of_ranks = [watched(rank, *zip(*chunks, strict=True))[0] for rank in (0, 1)]  # type: ignore[arg-type]
    whole: dict[int, list[range]] = {}
    for rows in of_ranks:
        for head, first, last in zip(rows.head, rows.first, rows.last, strict=True):
            whole.setdefault(int(head), []).append(range(first, last))
    assert sorted(whole) == list(range(6))
    for head, parts in whole.items():
        positions = sorted(position for part in parts for position in part)
        assert positions == sorted([*range(640), *range(200, 900)]), head
    assert len({tuple(rows.rows) for rows in of_ranks}) == 2


def test_every_decode_is_one_ranks() -> None:
    has = [70, 300, 301, 1500]
    heads: list[tuple[int, int]] = []
    for rank in (0, 1):
        (rows,) = watched(rank, [n - 1 for n in has], has)
        assert (rows.last - rows.first == 1).all()
        assert (rows.rows == 1).all()
        heads += zip(rows.head.tolist(), rows.last.tolist(), strict=True)
    assert sorted(heads) == [(head, last) for head in range(6) for last in has]


def test_what_is_alike_is_one_report_with_the_means() -> None:
    last = np.array([900, 940, 910, 4000, 900])
    rows = HeldRows(
        np.array([0, 0, 0, 0, 1]),
        last - 1,
        last,
        np.ones(5, np.int64),
        np.array([0.5, 0.7, 0.6, 0.1, 0.2]),
    ).alike
    told = zip(rows.head, rows.first, rows.last, rows.rows, rows.recovery, strict=True)
    assert [tuple(map(float, each)) for each in told] == [
        (0, 916, 917, 3, pytest.approx(0.6)),
        (0, 3999, 4000, 1, pytest.approx(0.1)),
        (1, 899, 900, 1, pytest.approx(0.2)),
    ]
    assert rows.rows.sum() == 5


def test_many_requests_of_all_lengths_are_few_reports() -> None:
    draw = np.random.default_rng(0)
    first = draw.integers(0, 8000, 4000)
    length = draw.integers(1, 600, 4000)
    many = HeldRows(
        draw.integers(0, 4, 4000), first, first + length, length, draw.uniform(0, 1, 4000)
    )
    few = many.alike
    assert len(few.rows) < 1000
    assert few.rows.sum() == length.sum()
    assert few.rows @ few.recovery == pytest.approx(length @ many.recovery)
    assert (few.first < few.last).all()
    # The means lie in one another's quarter of an octave.
    assert set(few.head) == set(range(4))


def test_of_nothing_watched_nothing_is_told() -> None:
    none = np.empty(0, np.int64)
    assert len(HeldRows(none, none, none, none, np.empty(0)).alike.rows) == 0
