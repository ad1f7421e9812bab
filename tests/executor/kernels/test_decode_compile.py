"""What the compiler makes of decode for an H100 or H200; that needs no GPU."""

import pytest

from executor.kernels.triton.chunks import PROGRAMS_PER_SM
from tests.executor.kernels.compiled import compiled_by

SM_REGISTERS = 65536
SM_SHARED_BYTES = 233472
RESERVED_BYTES = 1024
"""Shared memory that the driver takes for itself from every program."""


@pytest.mark.slow
def test_every_production_shape_fits_as_often_as_planned_without_spills():
    compiled = compiled_by("compile_decode.py")
    assert len(compiled) == 48 + 6
    for name, facts in compiled.items():
        assert facts["stack_bytes"] == facts["local_bytes"] == 0, name
        assert 0 < facts["shared_bytes"] <= 232448, name
        if name.startswith("decode"):
            assert facts["async_copies"] > 0, name
            # K and V of three steps are under way, so that bandwidth and not latency decides.
            assert facts["buffers"] >= 3, name
            threads = PROGRAMS_PER_SM * 4 * 32
            assert 0 < facts["registers"] * threads <= SM_REGISTERS, name
            shared = PROGRAMS_PER_SM * (facts["shared_bytes"] + RESERVED_BYTES)
            assert shared <= SM_SHARED_BYTES, name
