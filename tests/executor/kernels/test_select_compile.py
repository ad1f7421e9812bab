"""What the compiler makes of selection's kernels for an H100 or H200, and for an A100; no GPU."""

import pytest

from executor.kernels.chip import H100, RESERVED_BYTES
from tests.executor.kernels.compiled import compiled_by


@pytest.fixture(scope="module")
def compiled():
    return compiled_by("compile_select.py")


@pytest.mark.slow
def test_selection_compiles_without_spills_for_rows_of_up_to_16384_pieces(compiled):
    hopper = {n: f for n, f in compiled.items() if not n.endswith(("fp32", "sm_80"))}
    for kind in ("pooled", "lines", "sampled"):
        assert f"{kind} 16384 x 16" in {name[: len(kind) + 11] for name in hopper}
    assert len([name for name in hopper if name.startswith("sums")]) == 45
    for name, facts in hopper.items():
        assert facts["stack_bytes"] == facts["local_bytes"] == 0, name
        assert 0 < facts["registers"] <= 255, name
        assert facts["fits"], name


@pytest.mark.slow
def test_scores_are_multiplied_while_keys_are_on_their_way(compiled):
    """On tensor cores, by two programs a multiprocessor where keys are of 256 bytes and pieces of
    64 at most, whose registers leave room for both."""
    for name, facts in compiled.items():
        kind, *sizes = name.split()
        if kind != "sums" or sizes[-1] != "sm_90":
            continue
        dim, _, piece, rows = map(int, sizes[:4])
        assert facts["async_copies"] > 0, name
        assert facts["wgmma"] > 0 or rows == 16, name
        if rows == 128 and dim <= 128 and piece <= 64:
            assert facts["registers"] <= 128, name
            assert H100.shared_bytes // (facts["shared_bytes"] + RESERVED_BYTES) >= 2, name


@pytest.mark.slow
def test_lists_leave_room_for_another_program(compiled):
    for name, facts in compiled.items():
        if name.startswith(("pooled", "lines", "sampled", "decode")):
            assert facts["registers"] <= 128, name


@pytest.mark.slow
def test_an_a100_has_room_for_the_scores_and_so_has_fp32(compiled):
    others = {n: f for n, f in compiled.items() if n.endswith(("fp32", "sm_80"))}
    assert len(others) == 30
    for name, facts in others.items():
        assert facts["fits"], name
