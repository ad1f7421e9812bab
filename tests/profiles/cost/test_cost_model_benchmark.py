"""The claims of benchmarks/cost_model.py, on the real tables where they are at hand, and of its CPU
sibling."""

import json

import numpy as np
import pytest

from benchmarks import cost_model_cpu
from benchmarks.cost_model import DATA, FILES, REPOSITORY, judge, read, row_work, splits
from profiles.catalogue import device_profile
from profiles.cost.work import INDEX, Phase

RESULTS = REPOSITORY / "benchmarks/results/cost_model_h200.json"


def test_a_row_is_one_device_doing_all_of_it() -> None:
    work = row_work("prefill", batch=2, heads=4, kv_heads=2, context=256)
    assert work[INDEX["launches"]] == 1
    assert work[INDEX["dense_tile_flops"]] == 2 * 4 * (4 * 64 * 64 * 128) * (4 * 5 / 2)
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


def test_errors_on_our_cpu_follow_from_the_published_rows() -> None:
    report = json.loads((RESULTS.parent / "cost_model_cpu.json").read_text())
    found = cost_model_cpu.judged(report["rows"])
    for result, published in zip(found, report["held_out"], strict=True):
        assert result["model"] == published["model"]
        assert result["judged_rows"] == published["judged_rows"] == len(report["rows"])
        mean = published["mean_error_percent"]
        assert result["mean_error_percent"] == pytest.approx(mean, rel=0.02)
    means = {result["model"]: result["mean_error_percent"] for result in found}
    assert means["declared"] < means["before"] < means["tiles alone"]


def test_what_counted_before_is_the_same_work_in_other_words() -> None:
    for row in cost_model_cpu.timed(tokens=256, rounds=1):
        before, now = cost_model_cpu.as_before(row), cost_model_cpu.as_counted(row)
        kinds = [INDEX[f"{kind}_flops"] for kind in ("dense_tile", "gathered_tile", "sampled")]
        assert before[kinds].sum() == now[kinds].sum()
        assert before[kinds].min() >= 0
        # A sparse head's first lists and its own blocks are dense.
        assert row["sparse_head_flops"] >= row["work"]["gathered_tile_flops"]
