"""On which multiprocessors a GPU puts the programs of a launch, seen from within decode itself.

`executor/kernels/triton/chunks.py` gives a step that is to leave some multiprocessors to another so
many programs, and expects the GPU to spread them over idle ones before it doubles any up. What each
program finds in the register %smid is where it ran. It runs decode as it is, hence with decode's
registers and shared memory, and for long enough that all programs are there at once.
"""

# Triton compiles the kernel below from its source; neither it nor all of torch has types.
# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import smid

from benchmarks.gpu.decode import Step, steps
from benchmarks.gpu.rows import Row
from benchmarks.gpu.scene import LLAMA_8B, TINY, multiprocessors
from benchmarks.gpu.section import Section
from executor.kernels.triton import decode as module
from executor.kernels.triton.decode import decode_kernel

BATCH, CONTEXT, PIECE = 16, 8_192, 64
LAUNCHES = 5


def spread(section: Section) -> Row:
    """By number of programs: how many multiprocessors they ran on, the fewest of LAUNCHES, and how
    many one of them ran at most. `spread`: none was doubled up while another was idle."""
    every = multiprocessors(section.device)
    if section.tiny:
        step, programs = steps(TINY, 2, 64, 16, 4, device=section.device, sets=1)[0], [3]
    else:
        pieces = CONTEXT // PIECE
        step = steps(LLAMA_8B, BATCH, CONTEXT, PIECE, pieces, device=section.device, sets=1)[0]
        programs = [every // 4, every // 2, 3 * every // 4, every - 1, every, 2 * every]
    seen = [[_places(step, count, section.device) for _ in range(LAUNCHES)] for count in programs]
    distinct = [min(len(places.unique()) for places in each) for each in seen]
    return {
        "multiprocessors": every,
        "programs": programs,
        "distinct": distinct,
        "most_on_one": [max(int(places.bincount().max()) for places in each) for each in seen],
        "spread": distinct == [min(count, every) for count in programs],
    }


def _places(step: Step, programs: int, device: torch.device) -> torch.Tensor:
    """Where each of so many `programs` of a decode ran, int32 [programs], on the CPU.

    The interpreter has no multiprocessors: there it is the program's own number.
    """
    places = torch.full((programs,), -1, dtype=torch.int32, device=device)
    with _told(places, read=device.type == "cuda"):
        step.attend(programs)
    return places.cpu()


@contextmanager
def _told(places: torch.Tensor, read: bool) -> Iterator[None]:
    """Decode launches `placed_kernel` in place of its own kernel."""

    class Launcher:
        def __getitem__(self, grid: tuple[int]) -> Any:
            return partial(placed_kernel[grid], places, READ=read)

    module.decode_kernel = Launcher()
    try:
        yield
    finally:
        module.decode_kernel = decode_kernel


@triton.jit(
    do_not_specialize=["entries", "widest", "table_sequence", "table_page"],
    do_not_specialize_on_alignment=["context_ptr", "table_ptr"],
)
def placed_kernel(
    places_ptr,
    q,
    keys,
    values,
    table_ptr,
    table_sequence,
    table_page,
    partial,
    lists,
    parts_ptr,
    context_ptr,
    entries,
    widest,
    scale_log2,
    READ: tl.constexpr,
    ENTRIES: tl.constexpr,
    ROWS: tl.constexpr,
    PIECE: tl.constexpr,
    PAGE: tl.constexpr,
    TILE: tl.constexpr,
    DIM: tl.constexpr,
    ALIKE: tl.constexpr,
):
    """`decode_kernel`, and in places int32 [programs] where each program ran."""
    program = tl.program_id(0)
    if READ:
        tl.store(places_ptr + program, smid())
    else:
        tl.store(places_ptr + program, program)
    decode_kernel(
        q,
        keys,
        values,
        table_ptr,
        table_sequence,
        table_page,
        partial,
        lists,
        parts_ptr,
        context_ptr,
        entries,
        widest,
        scale_log2,
        ENTRIES,
        ROWS,
        PIECE,
        PAGE,
        TILE,
        DIM,
        ALIKE,
    )
