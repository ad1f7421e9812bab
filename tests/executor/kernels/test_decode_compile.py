"""What the compiler makes of decode for an H100 or H200, and for an A100; that needs no GPU."""

import pytest

from executor.kernels.triton.chunks import PROGRAMS_PER_SM
from tests.executor.kernels.compiled import compiled_by


@pytest.fixture(scope="module")
def compiled():
    return compiled_by("compile_decode.py")


@pytest.mark.slow
def test_every_production_shape_fits_as_often_as_planned_without_spills(compiled):
    production = {n: f for n, f in compiled.items() if "fp32" not in n}
    assert len(production) == 24 + 6
    for name, facts in production.items():
        assert facts["stack_bytes"] == facts["local_bytes"] == 0, name
        assert facts["fits"], name
        if name.startswith("decode"):
            assert facts["async_copies"] > 0, name
            # K and V of three steps are under way, so that bandwidth and not latency decides.
            assert facts["buffers"] >= 3, name
            assert facts["programs_per_sm"] >= PROGRAMS_PER_SM, name
            assert facts["expected"], name


@pytest.mark.slow
def test_fp32_fits_where_the_back_end_says_so(compiled):
    """By three products of tf32: for correctness alone."""
    fp32 = {n: f for n, f in compiled.items() if "fp32" in n}
    assert len(fp32) == 8
    for name, facts in fp32.items():
        assert facts["fits"] == facts["expected"], name
    assert {facts["fits"] for facts in fp32.values()} == {True, False}
