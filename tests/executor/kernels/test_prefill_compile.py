"""What the compiler makes of prefill for an H100 or H200, and for an A100; that needs no GPU."""

import pytest

from tests.executor.kernels.compiled import compiled_by


def few(name: str) -> bool:
    """Whether registers are held back for two programs of 128 rows."""
    return " d64 " in name and "tma" in name


@pytest.fixture(scope="module")
def compiled():
    return compiled_by("compile_prefill.py")


@pytest.mark.slow
def test_every_production_shape_uses_wgmma_without_spills_and_fits_shared_memory(compiled):
    hopper = {n: f for n, f in compiled.items() if "sm_90" in n and "fp32" not in n}
    assert len(hopper) == 36 + 3 * (8 + 2 + 2 + 4 + 1)
    for name, facts in hopper.items():
        assert facts["stack_bytes"] == facts["local_bytes"] == 0, name
        assert facts["wgmma"] > 0, name
        assert facts["tma_copies" if "tma" in name else "async_copies"] > 0, name
        assert 0 < facts["registers"] <= 255, name
        assert facts["fits"], name
        one_head = " 64x" in name and "two heads" not in name
        if "d256" not in name and (one_head or few(name)):
            assert facts["programs_per_sm"] >= 2, name
        # By descriptors K and V are three steps ahead; where pointers take registers, two.
        assert facts["buffers"] >= (3 if "tma" in name else 2), name


@pytest.mark.slow
def test_fp32_compiles_for_correctness_alone_and_fits_where_the_back_end_says_so(compiled):
    """By three products of tf32: it spills, and `Shape` says nothing of its speed."""
    fp32 = {n: f for n, f in compiled.items() if "fp32" in n}
    assert len(fp32) == 9 + 4
    for name, facts in fp32.items():
        assert facts["fits"] == facts["expected"], name
        assert facts["wgmma"] > 0 or "sm_80" in name, name
        assert facts["stack_bytes"] < 8192, name
    assert {facts["fits"] for facts in fp32.values()} == {True, False}


@pytest.mark.slow
def test_an_a100_has_room_for_it(compiled):
    ampere = {n: f for n, f in compiled.items() if "sm_80" in n and "fp32" not in n}
    assert len(ampere) == 9
    for name, facts in ampere.items():
        assert facts["fits"], name
        assert facts["async_copies"] > 0, name
        assert facts["local_bytes"] == 0, name
