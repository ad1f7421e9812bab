"""Drift as a judgement on numbers: no service, no clock but the one handed in."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.loop.drift import (
    DriftPolicy,
    DriftVerdict,
    ObservedRecovery,
    PromisedRecovery,
    RecoveryReport,
    gather,
    judge,
)

POLICY = DriftPolicy(min_rounds=2, floor=0.05, z=3.0, share=0.25)
PROMISED = np.full((2, 4), 0.9)


def observed(recovery: np.ndarray, rounds: int = 4) -> ObservedRecovery:
    return ObservedRecovery(recovery, np.full(recovery.shape, rounds))


def fallen(*heads: tuple[int, int], by: float = 0.2) -> np.ndarray:
    recovery = PROMISED.copy()
    for head in heads:
        recovery[head] -= by
    return recovery


def verdict(
    recovery: np.ndarray,
    before: DriftVerdict | None = None,
    spread: float | None = None,
    rounds: int = 4,
) -> DriftVerdict:
    promise = PromisedRecovery(PROMISED, None if spread is None else np.full((2, 4), spread))
    return judge(promise, observed(recovery, rounds), before, POLICY, now=7.0)


def test_a_promise_that_is_kept() -> None:
    found = verdict(PROMISED)
    assert (found.rounds, found.heads) == (4, 8)
    assert (found.observed_mean, found.expected_mean) == pytest.approx((0.9, 0.9))
    assert (found.raised, found.since, found.heads_drifted, found.worst) == (False, None, 0, ())


def test_a_share_of_heads_raises_it_and_the_worst_are_named() -> None:
    found = verdict(fallen((0, 1), (1, 3)) - np.eye(2, 4) * 0.1)
    assert found.raised
    assert (found.since, found.heads_drifted) == (7.0, 4)
    first = found.worst[0]
    assert (first.layer, first.head) == (0, 1)
    assert (first.expected, first.observed) == pytest.approx((0.9, 0.7))
    assert found.observed_min == pytest.approx(0.7)


def test_one_head_of_eight_is_too_few() -> None:
    found = verdict(fallen((0, 1)))
    assert (found.raised, found.heads_drifted) == (False, 1)
    assert [(head.layer, head.head) for head in found.worst] == [(0, 1)]


def test_a_fall_below_the_floor_is_none() -> None:
    assert verdict(fallen((0, 0), (1, 1), by=0.049)).heads_drifted == 0


def test_a_fall_within_the_spread_over_prompts_is_none() -> None:
    low = fallen((0, 0), (1, 1), by=0.2)
    assert verdict(low, spread=0.2).heads_drifted == 0  # 0.2 < 3 * 0.2 / sqrt(4)
    assert verdict(low, spread=0.1).heads_drifted == 2  # 0.2 > 3 * 0.1 / sqrt(4)
    assert verdict(low, spread=0.2, rounds=16).heads_drifted == 2


def test_more_than_promised_is_no_drift() -> None:
    assert not verdict(np.ones((2, 4))).heads_drifted


def test_hysteresis_clears_below_half() -> None:
    raised = verdict(fallen((0, 0), (0, 1)))
    assert raised.raised
    half = verdict(fallen((0, 0), (0, 1), by=0.03), before=raised)
    assert (half.raised, half.since) == (True, raised.since)
    one = verdict(fallen((0, 0)), before=raised)
    assert one.raised
    clear = verdict(fallen((0, 0), (0, 1), by=0.024), before=raised)
    assert (clear.raised, clear.since) == (False, None)
    assert not verdict(fallen((0, 0), (0, 1), by=0.03), before=clear).raised


def test_too_few_rounds_decide_nothing() -> None:
    raised = verdict(fallen((0, 0), (0, 1)))
    assert not verdict(fallen((0, 0), (0, 1)), rounds=1).raised
    kept = verdict(PROMISED, before=raised, rounds=1)
    assert (kept.raised, kept.since, kept.heads) == (True, raised.since, 0)


def test_heads_nobody_watched_are_left_out() -> None:
    recovery = fallen((0, 0))
    recovery[1] = np.nan
    seen = ObservedRecovery(recovery, np.where(np.isnan(recovery), 0, 4))
    found = judge(PromisedRecovery(PROMISED), seen, None, POLICY, 1.0)
    assert (found.heads, found.heads_drifted, found.raised) == (4, 1, True)
    assert found.observed_mean == pytest.approx((0.7 + 3 * 0.9) / 4)
    assert found.expected_mean == pytest.approx(0.9)


def held(*heads: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((2, 3), dtype=bool)
    for head in heads:
        mask[head] = True
    return mask


def test_parts_of_a_head_count_by_their_rows_and_once_a_round() -> None:
    reports = [
        RecoveryReport(1, "a", 0, 0, rows=300, recovery=1.0),
        RecoveryReport(2, "b", 0, 0, rows=100, recovery=0.6),
        RecoveryReport(3, "a", 0, 0, rows=300, recovery=0.8),
        RecoveryReport(4, "b", 0, 0, rows=50, recovery=0.6),
        RecoveryReport(4, "b", 0, 0, rows=50, recovery=0.4),
        RecoveryReport(4, "b", 1, 2, rows=10, recovery=0.5),
    ]
    found = gather(reports, {"a": held((0, 0)), "b": held((0, 0), (1, 2))}, 2, 3)
    assert found.rounds.tolist() == [[2, 0, 0], [0, 0, 1]]
    assert found.recovery[0, 0] == pytest.approx((300 + 60 + 240 + 30 + 20) / 800)
    assert found.recovery[1, 2] == 0.5
    assert np.isnan(found.recovery[1, 1])


def test_a_part_of_a_head_is_no_sample_of_it() -> None:
    """Node b has the late rows, which recover less: neither alone nor more often do they count."""
    late = [RecoveryReport(n, "b", 0, 0, rows=100, recovery=0.5) for n in range(9)]
    both = {"a": held((0, 0)), "b": held((0, 0))}
    alone = gather(late, both, 2, 3)
    assert alone.rounds[0, 0] == 0
    assert np.isnan(alone.recovery[0, 0])
    found = gather([*late, RecoveryReport(9, "a", 0, 0, rows=100, recovery=0.9)], both, 2, 3)
    assert found.rounds[0, 0] == 1
    assert found.recovery[0, 0] == pytest.approx(0.7)
    assert gather(late, {}, 2, 3).rounds.sum() == 0


def test_a_promise_over_few_prompts_is_itself_uncertain() -> None:
    low, spread = fallen((0, 0), (1, 1), by=0.2), np.full((2, 4), 0.1)
    seen = observed(low, rounds=4)  # 0.2 > 3 * 0.1 / sqrt(4)
    assert judge(PromisedRecovery(PROMISED, spread), seen, None, POLICY, 1.0).heads_drifted == 2
    # 0.2 < 3 * 0.1 * sqrt(1/4 + 1/4) = 0.212, and > 3 * 0.1 * sqrt(1/4 + 1/100)
    assert judge(PromisedRecovery(PROMISED, spread, 4), seen, None, POLICY, 1.0).heads_drifted == 0
    assert (
        judge(PromisedRecovery(PROMISED, spread, 100), seen, None, POLICY, 1.0).heads_drifted == 2
    )


@given(st.lists(st.floats(0, 1), min_size=8, max_size=8), st.booleans())
def test_a_verdict_survives_a_restart(values: list[float], was_raised: bool) -> None:
    before = DriftVerdict(raised=was_raised, since=3.0 if was_raised else None)
    found = verdict(np.array(values).reshape(2, 4), before=before)
    assert DriftVerdict.from_json(found.to_json()) == found
    assert found.raised == (found.since is not None)
    missing = PROMISED - np.array(values).reshape(2, 4)
    scale = 0.5 if was_raised else 1.0
    assert found.heads_drifted == sum(m > scale * POLICY.floor for m in missing.ravel())
    assert found.raised == (found.heads_drifted >= 8 * scale * POLICY.share)


def test_a_share_of_nothing_still_needs_a_head() -> None:
    any_head = replace(POLICY, share=0.0)
    kept = judge(PromisedRecovery(PROMISED), observed(PROMISED), None, any_head, 1.0)
    assert not kept.raised
    assert judge(PromisedRecovery(PROMISED), observed(fallen((0, 0))), None, any_head, 1.0).raised
