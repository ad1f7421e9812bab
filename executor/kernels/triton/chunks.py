"""Equal chunks: the tiles of all lists, laid end to end and cut into one stretch per program.

Stream-K for decode (LeanAttention, arXiv 2405.10480, section 4; FlashMLA's tile metadata), with
each (sequence, KV group) entry's own number of tiles. Every program gets the same number of tiles,
give or take one, and what a program does of one entry is a part. Along the tiles either the
program or the entry moves on between two parts, so that `program + entry` numbers the parts
uniquely and consecutively within an entry: no program needs to know what the others do.
"""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

from executor.kernels.chip import chip_of

PROGRAMS_PER_SM = 2
"""Programs that fit a multiprocessor together: all run at once, and one fills the other's waits."""


def programs(device: torch.device, sms: int | None) -> int:
    """Programs that keep a device's multiprocessors busy (a CPU counts as one), or `sms` of them.

    A GPU is expected to spread programs over idle multiprocessors before it doubles them up (not
    measured here), so that a step which is to leave some to another has one program each.
    """
    if sms is not None:
        return sms
    return chip_of(device).multiprocessors * PROGRAMS_PER_SM


@triton.jit
def first_part(
    count_ptr, parts_ptr, entries, ENTRIES: tl.constexpr, PIECE: tl.constexpr, TILE: tl.constexpr
):
    """This program's first entry, how many of its tiles others do, and the tiles of its stretch.

    An entry has `count` pieces of PIECE keys, hence so many tiles of TILE keys as that takes.
    Program 0 also writes parts int32 [entries, 2]: every entry's first part and their number.
    """
    program = tl.program_id(0)
    number = tl.arange(0, ENTRIES)
    count = tl.load(count_ptr + number, mask=number < entries, other=0)
    tiles = (count * PIECE + TILE - 1) // TILE
    ends = tl.cumsum(tiles, 0)
    total = tl.sum(tiles, 0)
    share = total // tl.num_programs(0)
    longer = total % tl.num_programs(0)
    if program == 0:
        first = _program_of(ends - tiles, share, longer)
        last = _program_of(ends - 1, share, longer)
        parts = tl.where(tiles > 0, last - first + 1, 0)
        tl.store(parts_ptr + 2 * number, first + number, mask=number < entries)
        tl.store(parts_ptr + 2 * number + 1, parts, mask=number < entries)
    begin = program * share + tl.minimum(program, longer)
    entry = tl.sum((ends <= begin).to(tl.int32), 0)
    skipped = begin - tl.sum(tl.where(ends <= begin, tiles, 0), 0)
    return entry, skipped, share + (program < longer).to(tl.int32)


@triton.jit
def _program_of(tile, share, longer):
    """Which program does `tile`: the first `longer` programs do share + 1 tiles each."""
    short = tile - longer * (share + 1)
    return tl.where(
        short < 0, tile // (share + 1), longer + tl.maximum(short, 0) // tl.maximum(share, 1)
    )
