"""Finished parts on disk, whatever has become of them."""

from pathlib import Path

import numpy as np

from profiles.measuring.parts import Parts


def test_no_damage_to_a_part_is_more_than_a_part_to_measure_again(tmp_path: Path) -> None:
    """Cut short anywhere, or any byte turned over: what is read is as saved."""
    parts = Parts(tmp_path)
    saved = {"recovery": np.random.default_rng(0).random((1, 2, 3)), "seconds": np.array(1.0)}
    parts.save("64-0", saved)
    file = tmp_path / "64-0.npz"
    whole = file.read_bytes()
    lost = 0
    for place in range(len(whole)):
        turned = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        for damaged in (whole[:place], turned):
            file.write_bytes(damaged)
            found = parts.load("64-0")
            lost += found is None
            for field, values in (found or {}).items():
                assert np.array_equal(values, saved[field])
    assert lost > len(whole)


def test_a_part_that_is_not_finite_is_measured_again(tmp_path: Path) -> None:
    """As an earlier version kept where a list's mass vanished."""
    Parts(tmp_path).save("64-0", {"output_error": np.array([0.0, np.nan])})
    assert Parts(tmp_path).load("64-0") is None
