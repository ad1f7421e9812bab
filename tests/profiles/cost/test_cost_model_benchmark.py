"""The claim of benchmarks/cost_model.py, on the real tables where they are at hand."""

import json

import numpy as np
import pytest

from benchmarks.cost_model import DATA, FILES, REPOSITORY, judge, read, row_work, splits
from profiles.catalogue import device_profile
from profiles.cost.work import INDEX, Phase

RESULTS = REPOSITORY / "benchmarks/results/cost_model_h200.json"


def test_a_row_is_one_device_doing_all_of_it() -> None:
    work = row_work("prefill", batch=2, heads=4, kv_heads=2, context=256)
    assert work[INDEX["launches"]] == 1
    assert work[INDEX["tile_flops"]] == 2 * 4 * (4 * 64 * 64 * 128) * (4 * 5 / 2)
    assert work[INDEX["kv_bytes"]] == 2 * 256 * 128 * 2 * (2 * 4 + 2 * 2)
    assert work[INDEX["kv_lists"]] == 2 * 2
    assert work[INDEX["projection_flops"]] == work[INDEX["link_bytes"]] == 0


def test_nothing_is_judged_that_was_fitted() -> None:
    contexts = np.repeat([16, 64, 256, 1024, 4096], 20)
    interior, extrapolated = splits(contexts)
    for _, train, judged in (interior, extrapolated):
        assert sorted([*train, *judged]) == list(range(100))
    assert set(contexts[extrapolated[2]]) == {4096}
    assert len(interior[1]) == 50


@pytest.mark.parametrize(("phase", "worst"), [("prefill", 0.11), ("decode", 0.1)])
def test_held_out_errors_are_as_published(phase: Phase, worst: float) -> None:
    if not (DATA / FILES[phase]).exists():
        pytest.skip(f"{DATA / FILES[phase]} is not on this machine")
    device = device_profile("h200")
    judged = judge(device, read(DATA, phase, device))
    ours = [result for result in judged if result["model"] == "refit"]
    assert all(result["mean_error_percent"] < 100 * worst for result in ours)
    published = json.loads(RESULTS.read_text())["held_out"]
    for result in judged:
        twin = next(
            p for p in published if all(p[k] == result[k] for k in ("phase", "split", "model"))
        )
        assert result["mean_error_percent"] == pytest.approx(twin["mean_error_percent"], rel=0.05)
