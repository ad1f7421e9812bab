"""A step may bring more entries than an axis of a launch has programs."""

from math import prod

import pytest
import torch

from executor.attention.lists import lay_out
from executor.kernels import sampled
from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeHeads, lay_out_decode
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import Pooled, Sampled
from executor.kernels.scores import QueryRows
from executor.kernels.select import select
from executor.kernels.triton import scores, select_decode

from .reference import random_cache, random_q, whole_prompts

pytestmark = pytest.mark.filterwarnings("ignore:divide by zero")
SIZE, DIM, MANY = 16, 16, 70_000
AXES = (2**31 - 1, 65535, 65535)


class Launches:
    """Stands for a kernel: notes its grids, which a GPU must take."""

    def __init__(self):
        self.programs = 0

    def __getitem__(self, grid):
        assert all(count <= most for count, most in zip(grid, AXES, strict=False)), grid
        self.programs += prod(grid)
        return lambda *_, **__: None


def test_scores_of_many_entries_are_launched_within_the_axes(monkeypatch):
    launches = {name: Launches() for name in ("piece_sums_kernel", "piece_lse_kernel")}
    for name, stand_in in launches.items():
        monkeypatch.setattr(scores, name, stand_in)
    rows = torch.zeros(MANY, 1, dtype=torch.int32)
    keys = torch.zeros(1, SIZE, DIM)
    cache = Cache(keys, keys, starts=torch.zeros(1, dtype=torch.int32))
    entries = QueryRows(rows[:, 0], rows[:, 0], rows, rows, rows)
    assert scores.piece_lse(torch.zeros(1, 1, DIM), cache, entries, SIZE, 1).shape[0] == MANY
    assert {x.programs for x in launches.values()} == {MANY}


def test_decodes_of_many_entries_are_launched_within_the_axes(monkeypatch):
    launches = {name: Launches() for name in ("piece_scores_kernel", "best_kernel")}
    for name, stand_in in launches.items():
        monkeypatch.setattr(select_decode, name, stand_in)
    layout = lay_out_decode([DecodeHeads(0, 0, 0, (0,), 1, pattern=Pooled())] * MANY, 2, SIZE)
    keys = torch.zeros(2, 1, SIZE, DIM)
    cache = Cache(keys, keys, pages=torch.zeros(1, 2, dtype=torch.int32))
    one = torch.ones(1, dtype=torch.int32)
    select_decode.decode_lists(
        torch.zeros(1, 1, DIM), torch.zeros(2, 1, 2, DIM), cache, layout, one
    )
    assert {x.programs for x in launches.values()} == {MANY}


def test_entries_in_turns_choose_what_they_choose_at_once(monkeypatch):
    chunks = whole_prompts(*[6 * SIZE] * 4)
    q, cache = random_q(chunks, 2, DIM), random_cache(chunks, 1, DIM, SIZE, paged=True)
    heads = [HeadBlocks(h, 0, 3, 0, 6, s, Sampled(4)) for s in range(4) for h in range(2)]
    layout = lay_out(heads, chunks, SIZE)
    wanted = select(q, cache, layout, use_triton=True)
    for of_scores, of_lists in ((3, 65535), (65535, 3)):
        monkeypatch.setattr(scores, "GRID_AXIS", of_scores)
        monkeypatch.setattr(sampled, "GRID_AXIS", of_lists)
        assert torch.equal(select(q, cache, layout, use_triton=True), wanted)
        parts = list(sampled.windows(layout, 0, len(heads), 10**9))
        assert max(part[0].stop - part[0].start for part in parts) <= of_lists
