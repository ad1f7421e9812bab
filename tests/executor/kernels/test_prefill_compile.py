"""What the compiler makes of prefill for an H100 or H200; that needs no GPU."""

import pytest

from tests.executor.kernels.compiled import compiled_by


@pytest.mark.slow
def test_every_production_shape_uses_wgmma_without_spills_and_fits_shared_memory():
    compiled = compiled_by("compile_prefill.py")
    assert len(compiled) == 48 + 12 + 12
    for name, facts in compiled.items():
        assert facts["stack_bytes"] == facts["local_bytes"] == 0, name
        assert facts["wgmma"] > 0, name
        assert facts["tma_copies" if "tma" in name else "async_copies"] > 0, name
        assert 0 < facts["registers"] <= 255, name
        assert 0 < facts["shared_bytes"] <= 232448, name
        if " 64 64 " in name or " 128 64 " in name:
            assert facts["programs_per_sm"] >= 2, name
        # K and V are loaded two steps ahead wherever registers allow.
        assert facts["buffers"] >= (2 if " 256 " in name else 3), name
