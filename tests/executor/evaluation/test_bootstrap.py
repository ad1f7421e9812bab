"""Intervals on data whose truth is known."""

import numpy as np
import pytest

from executor.evaluation.bootstrap import resample

TASKS = (0.5, 0.8, 0.3)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    random, covered, trials = np.random.default_rng(0), 0, 300
    for trial in range(trials):
        scores = [random.binomial(1, p, 40).astype(float) for p in TASKS]
        found = resample({"m": scores}, trial, resamples=500)["m"].interval
        covered += found.low <= np.mean(TASKS) <= found.high
    assert 0.90 <= covered / trials <= 0.985


def test_differences_are_paired() -> None:
    random = np.random.default_rng(1)
    base = [random.uniform(0, 1, 30) for _ in TASKS]
    better = [task + 0.1 for task in base]
    alone = [random.permutation(task) + 0.1 for task in base]
    found = resample({"base": base, "better": better, "alone": alone}, 0)
    paired, unpaired = found["better"].less(found["base"]), found["alone"].less(found["base"])
    assert (paired.value, paired.low, paired.high) == pytest.approx((0.1, 0.1, 0.1))
    assert unpaired.value == pytest.approx(0.1)
    assert unpaired.high - unpaired.low > 0.1
    assert found["base"].less(found["base"]).high == 0.0


def test_the_average_counts_tasks_alike_and_a_seed_repeats() -> None:
    scores = {"m": [np.ones(2), np.zeros(100)]}
    assert resample(scores, 0)["m"].value == 0.5
    first, again, other = (resample({"m": [np.arange(9.0)]}, s)["m"].interval for s in (1, 1, 2))
    assert first == again != other


def test_one_sample_a_task_has_no_interval() -> None:
    found = resample({"m": [np.ones(1), np.zeros(1)], "n": [np.ones(1), np.ones(1)]}, 0)
    for interval in (found["m"].interval, found["m"].less(found["n"])):
        assert (interval.low, interval.high, interval.wider) == (None, None, None)
    assert found["m"].less(found["n"]).value == -0.5
    assert resample({"m": [np.ones(1), np.array([0.0, 1.0])]}, 0)["m"].interval.wider == 0.25
