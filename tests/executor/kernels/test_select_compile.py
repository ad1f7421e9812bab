"""What the compiler makes of selection's kernels for an H100 or H200; that needs no GPU."""

import pytest

from tests.executor.kernels.compiled import compiled_by


@pytest.mark.slow
def test_selection_compiles_without_spills_for_rows_of_up_to_16384_blocks():
    compiled = compiled_by("compile_select.py")
    for kind in (
        "pooled 16384 256",
        "lines 16384",
        "scores 16384",
        "decode 1024",
        "lse 256 128 64",
    ):
        assert kind in compiled
    for name, facts in compiled.items():
        assert facts["stack_bytes"] == facts["local_bytes"] == 0, name
        assert 0 < facts["registers"] <= 255, name
        assert facts["shared_bytes"] <= 232448, name
        assert facts["wgmma"] > 0 or not (name.startswith("lse") and name.endswith("64")), name
