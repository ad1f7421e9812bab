"""The cut of all lists into equal stretches, in Triton's interpreter."""

import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.kernels.triton.chunks import PROGRAMS_PER_SM, first_part, programs


def test_an_sm_share_has_one_program_a_multiprocessor():
    cpu = torch.device("cpu")
    assert programs(cpu, 66) == 66
    assert programs(cpu, None) == PROGRAMS_PER_SM


@triton.jit
def stretch_kernel(
    found_ptr,
    count_ptr,
    parts_ptr,
    entries,
    ENTRIES: tl.constexpr,
    PIECE: tl.constexpr,
    TILE: tl.constexpr,
):
    entry, skipped, length = first_part(count_ptr, parts_ptr, entries, ENTRIES, PIECE, TILE)
    found_at = found_ptr + 3 * tl.program_id(0)
    tl.store(found_at, entry)
    tl.store(found_at + 1, skipped)
    tl.store(found_at + 2, length)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.one_of(st.just(0), st.integers(0, 40)), min_size=1, max_size=60),
    st.sampled_from([1, 2, 7, 21]),
    st.sampled_from([(16, 16), (32, 16), (16, 64)]),
)
def test_stretches_are_equal_and_parts_follow_each_other(counts, grid, sizes):
    found = torch.full((grid, 3), -7, dtype=torch.int32)
    parts = torch.full((len(counts), 2), -7, dtype=torch.int32)
    piece, tile = sizes
    count = torch.tensor(counts, dtype=torch.int32)
    size = triton.next_power_of_2(len(counts))
    stretch_kernel[(grid,)](found, count, parts, len(counts), ENTRIES=size, PIECE=piece, TILE=tile)

    tiles = [(e, t) for e, n in enumerate(counts) for t in range(-(-n * piece // tile))]
    slots: dict[int, set[int]] = {}
    done = 0
    for program, (entry, skipped, length) in enumerate(found.tolist()):
        assert length in (len(tiles) // grid, -(-len(tiles) // grid))
        if length:
            assert (entry, skipped) == tiles[done]
        for e, _ in tiles[done : done + length]:
            slots.setdefault(e, set()).add(program + e)
        done += length
    assert done == len(tiles)
    assert sum(map(len, slots.values())) == len(set().union(*slots.values()))
    for e, (first, number) in enumerate(parts.tolist()):
        assert set(range(first, first + number)) == slots.get(e, set())
