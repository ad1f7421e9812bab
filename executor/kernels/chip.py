"""What the kernels' launch options need to know of the GPU that is there: read off the device."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

RESERVED_BYTES = 1024
"""Shared memory that the driver takes for itself from every program."""
GRID_AXIS = 65535
"""Programs along the second or the third axis of a launch, at most; the first one has 2^31 - 1."""
REGISTERS = 65536
"""Of a multiprocessor, since Kepler; a thread has 255 at most."""


@dataclass(frozen=True)
class Chip:
    """A GPU's multiprocessors and their shared memory, in bytes.

    `program_bytes` is what one program can have, `shared_bytes` what all programs of a
    multiprocessor have together; `tma`: whether it has tensor descriptors (Hopper and newer).
    """

    multiprocessors: int
    program_bytes: int
    shared_bytes: int
    tma: bool

    def programs(self, shared_bytes: int, warps: int, registers: int = 256) -> int:
        """Programs of `warps` and `shared_bytes` that a multiprocessor holds at once, at least 1.

        By shared memory and by the `registers` of a thread: all it may take, unless said.
        """
        by_registers = REGISTERS // (-(-registers // 8) * 8 * 32 * warps)
        return max(1, min(by_registers, self.shared_bytes // (shared_bytes + RESERVED_BYTES)))


H100 = Chip(132, 232448, 233472, tma=True)
"""An H200 is the same chip."""
A100 = Chip(108, 166912, 167936, tma=False)
CPU = Chip(1, H100.program_bytes, H100.shared_bytes, tma=True)
"""Triton's interpreter: one program after another, of a Hopper's shape."""


def chip_of(device: torch.device) -> Chip:
    """The chip of a CUDA device; a CPU counts as one multiprocessor."""
    if device.type != "cuda":
        return CPU
    return _read(torch.cuda.current_device() if device.index is None else device.index)


@cache
def _read(index: int) -> Chip:
    # Typed with a part of its attributes only.
    found: Any = torch.cuda.get_device_properties(index)
    return Chip(
        found.multi_processor_count,
        found.shared_memory_per_block_optin,
        found.shared_memory_per_multiprocessor,
        tma=found.major >= 9,
    )
